"""The builder image: repo2docker, Git and a docker command, for the helpers (chalicelib/helper.py).

1. Built as recipe.py says. In production HOMEPORT_BUILDER_IMAGE is a published image of repo2docker's, by its digest.
2. Of Debian's package docker.io the command alone is kept: the engine is the visitor's. Debian 12 has it in version
   20.10, which brings its own client of BuildKit and speaks API 1.41 at most, so that this image builds on the engines
   of one machine and not on every visitor's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from chalicelib.config import BUILDER
from local import image, recipe
from local.recipe import Recipe, Report

LOCK: Final = Path(__file__).with_name("requirements-builder.txt")
ENVIRONMENT: Final = "/opt/repo2docker"
_DAEMONS: Final = (
    "/usr/bin/containerd*",
    "/usr/bin/ctr",
    "/usr/bin/dnet",
    "/usr/bin/docker-init",
    "/usr/sbin/docker-proxy",
    "/usr/sbin/dockerd",
    "/usr/sbin/ovrouter",
    "/usr/sbin/runc",
    "/usr/bin/runc",
)
IMAGE: Final = Recipe(
    name="builder image",
    kind="builder",
    setting=BUILDER.name,
    lock=LOCK,
    contents="repo2docker",
    packages=("python3", "python3-venv", "ca-certificates", "docker.io", "git", "git-lfs", "tini"),
    customize=f"{recipe.INSIDE}{recipe.environment_of(LOCK.name, ENVIRONMENT)}{recipe.END}",
    configuration=(
        "WORKDIR /tmp",
        f"ENV PATH={ENVIRONMENT}/bin:/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8",
        'ENTRYPOINT ["tini", "-g", "--"]',
        'CMD ["python3"]',
    ),
    excluded=(*recipe.EXCLUDED, *_DAEMONS),
)
REPO: Final = "REPO"  # what `make demo` is to launch
LOCAL_BUILDER: Final = IMAGE.image


def provide_local(engine_url: str, folder: Path, report: Report) -> str:
    """Name the locally built image, once the engine has it: imported when it was built before, else built now."""
    return recipe.provide(IMAGE, engine_url, folder, report)


def provide(engine_url: str, folder: Path, environ: Mapping[str, str], notebook: str, report: Report) -> str:
    """Name the image of the helpers; `notebook` is what notebooks start from.

    The engine pulls the published one when a repository is launched first. Where it cannot pull, which shows in the
    notebook image, one is built here for who launches a repository (REPO), and used from then on.
    """
    wanted = environ.get(BUILDER.name, "").strip()
    can_pull = notebook != image.LOCAL_IMAGE
    if wanted or can_pull or not (environ.get(REPO, "").strip() or built(folder)):
        return wanted or BUILDER.default
    return provide_local(engine_url, folder, report)


def built(folder: Path) -> bool:
    """Tell whether the image was built in `folder` before."""
    return recipe.built(IMAGE, folder)
