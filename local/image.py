"""The default notebook image: pulled when the engine can pull it, else built on this machine without any registry.

1. `HOMEPORT_IMAGE` names another image; then nothing is pulled or built here: the launcher pulls what is not there.
2. Built as recipe.py says: JupyterLab in a virtual environment on a minimal Debian.
3. The image works like the stock ones: user jovyan (1000), work in /home/jovyan/work, tini as first process.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import docker
from docker.errors import APIError, DockerException

from chalicelib.config import IMAGE
from local import recipe
from local.recipe import Recipe, Report

LOCK: Final = Path(__file__).with_name("requirements-image.txt")
HOME: Final = "/home/jovyan"
ENVIRONMENT: Final = "/opt/jupyter"
NOTEBOOK: Final = Recipe(
    name="notebook image",
    kind="notebook",
    setting=IMAGE.name,
    lock=LOCK,
    contents="JupyterLab",
    packages=("python3", "python3-venv", "ca-certificates", "tini"),
    customize=(
        f"{recipe.INSIDE}"
        f"inside useradd --create-home --home-dir {HOME} --uid 1000 --user-group --shell /bin/bash jovyan\n"
        f"{recipe.environment_of(LOCK.name, ENVIRONMENT)}"
        f"inside mkdir -p {HOME}/work\n"
        f"inside chown -R jovyan:jovyan {HOME} {ENVIRONMENT}\n"
        f"{recipe.END}"
    ),
    configuration=(
        "USER jovyan",
        f"WORKDIR {HOME}/work",
        f"ENV PATH={ENVIRONMENT}/bin:/usr/local/bin:/usr/bin:/bin HOME={HOME} LANG=C.UTF-8 SHELL=/bin/bash",
        "EXPOSE 8888",
        'ENTRYPOINT ["tini", "-g", "--"]',
        'CMD ["jupyter", "lab", "--no-browser", "--ip=0.0.0.0"]',
    ),
)
RECIPE: Final = NOTEBOOK.digest
LOCAL_IMAGE: Final = NOTEBOOK.image
SILENCE: Final = 20  # seconds an engine may be silent while it asks a registry or pulls


def provide(engine_url: str, folder: Path, environ: Mapping[str, str], report: Report) -> str:
    """Name the image notebooks start from, once the engine has it; raises StackError when there is none."""
    wanted = environ.get(IMAGE.name, "").strip()
    if wanted:
        return wanted
    with recipe.client_of(engine_url, NOTEBOOK) as client:
        for image in (LOCAL_IMAGE, IMAGE.default):
            if recipe.present(client, image):
                return image
        if not built(folder) and _pulled(engine_url, IMAGE.default, report):
            return IMAGE.default
    return provide_local(engine_url, folder, report)


def provide_local(engine_url: str, folder: Path, report: Report) -> str:
    """Name the locally built image, once the engine has it: imported when it was built before, else built now."""
    return recipe.provide(NOTEBOOK, engine_url, folder, report)


def built(folder: Path) -> bool:
    """Tell whether the image was built in `folder` before."""
    return recipe.built(NOTEBOOK, folder)


def build(folder: Path, report: Report) -> Path:
    """Build the image's root as a tar in `folder`, or give the one that is there; raises StackError."""
    return recipe.build(NOTEBOOK, folder, report)


def _pulled(engine_url: str, image: str, report: Report) -> bool:
    """Try to pull; False, told in a line, when the engine cannot."""
    report(f"notebook image: asking the engine for {image}")
    repository, _, tag = image.rpartition(":")
    # No retries, one deadline per answer: an engine without a network says so late, or never.
    client = docker.APIClient(base_url=engine_url, timeout=SILENCE)
    try:
        last = -1
        for item in client.pull(repository, tag=tag, stream=True, decode=True):
            if "error" in item:
                raise APIError(str(item["error"]))
            last = _report_layers(item, last, report)
    except (DockerException, OSError) as error:
        report(f"notebook image: it cannot be pulled ({recipe.first_line(error)}); building one here")
        return False
    finally:
        client.close()
    return True


def _report_layers(item: Mapping[str, Any], last: int, report: Report) -> int:
    """Tell of every fifth layer-progress percentage; give the last one told."""
    detail = item.get("progressDetail") or {}
    if item.get("status") != "Downloading" or not detail.get("total"):
        return last
    percent = 100 * int(detail["current"]) // int(detail["total"]) // 20 * 20
    if percent != last:
        report(f"notebook image: layer {item.get('id', '')} {percent} %")
    return percent
