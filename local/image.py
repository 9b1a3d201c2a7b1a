"""The default notebook image: pulled when the engine can pull it, else built on this machine without any registry.

1. `HOMEPORT_IMAGE` names another image; then nothing is pulled or built here: the launcher pulls what is not there.
2. Built: a minimal Debian (mmdebstrap) from the machine's own apt sources, JupyterLab in a virtual environment, from
   wheels that the machine's own pip fetched and compared with requirements-image.txt. pip inside the new root works
   offline, so no setting of the machine has to be carried in, and none stays in the image.
3. The image works like the stock ones: user jovyan (1000), work in /home/jovyan/work, tini as first process, bytecode
   compiled once at build.
4. The tar is kept beside the recipe's digest; a new engine gets it by `docker import` in seconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import docker
from docker.errors import APIError, DockerException, ImageNotFound

from chalicelib.config import IMAGE
from local import private, processes
from local.processes import StackError

Report = Callable[[str], None]

LOCK: Final = Path(__file__).with_name("requirements-image.txt")
PACKAGES: Final = ("python3", "python3-venv", "ca-certificates", "tini")
HOME: Final = "/home/jovyan"
ENVIRONMENT: Final = "/opt/jupyter"
# What happens inside the new root, as mmdebstrap's customize hook: $1 is the root, @WHEELS@ the wheels and LOCK.
CUSTOMIZE: Final = f"""
set -e
root="$1"
inside() {{ chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LANG=C.UTF-8 "$@"; }}
inside useradd --create-home --home-dir {HOME} --uid 1000 --user-group --shell /bin/bash jovyan
cp -r @WHEELS@ "$root/tmp/wheels"
inside python3 -m venv {ENVIRONMENT}
inside {ENVIRONMENT}/bin/pip --isolated --quiet --disable-pip-version-check --no-cache-dir install \\
    --no-compile --root-user-action=ignore --no-index --find-links=/tmp/wheels \\
    --require-hashes -r /tmp/wheels/{LOCK.name}
# The tar sets files' times back, which would make bytecode that is checked by time useless: 3 s at every start.
inside python3 -m compileall -q -j0 --invalidation-mode unchecked-hash {ENVIRONMENT}/lib || true
inside mkdir -p {HOME}/work
inside chown -R jovyan:jovyan {HOME} {ENVIRONMENT}
rm -rf "$root/tmp/wheels" "$root/etc/apt/apt.conf.d/99mmdebstrap"
"""
CONFIGURATION: Final = (
    "USER jovyan",
    f"WORKDIR {HOME}/work",
    f"ENV PATH={ENVIRONMENT}/bin:/usr/local/bin:/usr/bin:/bin HOME={HOME} LANG=C.UTF-8 SHELL=/bin/bash",
    "EXPOSE 8888",
    'ENTRYPOINT ["tini", "-g", "--"]',
    'CMD ["jupyter", "lab", "--no-browser", "--ip=0.0.0.0"]',
)
_EXCLUDED: Final = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")
_INGREDIENTS: Final = [LOCK.read_text(), PACKAGES, CUSTOMIZE, CONFIGURATION, _EXCLUDED]
RECIPE: Final = hashlib.sha256(json.dumps(_INGREDIENTS).encode()).hexdigest()
LOCAL_IMAGE: Final = f"homeport-notebook:{RECIPE[:12]}"
SILENCE: Final = 20  # seconds an engine may be silent while it asks a registry or pulls
ENGINE_DEADLINE: Final = 600  # seconds; an import is silent while it writes


def provide(engine_url: str, folder: Path, environ: Mapping[str, str], report: Report) -> str:
    """Name the image notebooks start from, once the engine has it; raises StackError when there is none."""
    wanted = environ.get(IMAGE.name, "").strip()
    if wanted:
        return wanted
    with _client(engine_url) as client:
        for image in (LOCAL_IMAGE, IMAGE.default):
            if _present(client, image):
                return image
        if not built(folder) and _pulled(engine_url, IMAGE.default, report):
            return IMAGE.default
    return provide_local(engine_url, folder, report)


def provide_local(engine_url: str, folder: Path, report: Report) -> str:
    """Name the locally built image, once the engine has it: imported when it was built before, else built now."""
    with _client(engine_url) as client:
        if not _present(client, LOCAL_IMAGE):
            tar = build(folder, report)
            report("notebook image: importing it into the engine")
            _import(client, tar)
    return LOCAL_IMAGE


@contextmanager
def _client(engine_url: str) -> Iterator[docker.APIClient]:
    try:
        client = docker.APIClient(base_url=engine_url, timeout=ENGINE_DEADLINE)
        try:
            yield client
        finally:
            client.close()
    except (DockerException, OSError) as error:
        raise StackError(f"the Docker engine did not take the notebook image: {_first_line(error)}") from error


def _present(client: docker.APIClient, image: str) -> bool:
    try:
        client.inspect_image(image)  # type: ignore[no-untyped-call]
    except ImageNotFound:
        return False
    return True


# ── pull ─────────────────────────────────────────────────────────────────────────────────────────────────────────


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
        report(f"notebook image: it cannot be pulled ({_first_line(error)}); building one here")
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


def _first_line(error: Exception) -> str:
    told = str(getattr(error, "explanation", None) or error).strip() or type(error).__name__
    return told.splitlines()[0][:200]


# ── build ────────────────────────────────────────────────────────────────────────────────────────────────────────


def built(folder: Path) -> bool:
    """Tell whether the image was built in `folder` before."""
    return _tar(folder).exists()


def _tar(folder: Path) -> Path:
    return folder / f"notebook-{RECIPE[:12]}.tar"


def build(folder: Path, report: Report) -> Path:
    """Build the image's root as a tar in `folder`, or give the one that is there; raises StackError.

    Two builds of one folder wait for each other; the second finds the first one's tar.
    """
    private.make_folder(folder)
    with private.open_file(folder / "build.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tar = _tar(folder)
        if not tar.exists():
            _require_tools()
            wheels = _download_wheels(folder, report)
            partial = tar.with_suffix(".part.tar")
            _watch(_mmdebstrap_command(partial, wheels), "notebook image: {}", _interesting_step, report)
            shutil.rmtree(wheels)
            for old in folder.glob("notebook-*.tar"):
                if old != partial:
                    old.unlink()
            partial.rename(tar)
        tar.chmod(0o600)
    return tar


def _require_tools() -> None:
    if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
        raise StackError(
            "the notebook image cannot be built: run this as root after `apt-get install mmdebstrap`, "
            "or name an image the engine has or can pull in HOMEPORT_IMAGE"
        )


def _download_wheels(folder: Path, report: Report) -> Path:
    """Fetch LOCK's wheels for the new root's Python, by the machine's own pip and settings; put LOCK beside them."""
    wheels = folder / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--progress-bar=off", "--disable-pip-version-check"]
    command += ["--require-hashes", "--only-binary=:all:", f"--python-version={_distribution_python()}"]
    command += [f"--dest={wheels}", f"--requirement={LOCK}"]
    report("notebook image: fetching JupyterLab and what it needs")
    _watch(command, "", lambda _line: None, report)
    shutil.copy(LOCK, wheels)
    return wheels


def _distribution_python() -> str:
    """Ask apt which Python the distribution has, as major.minor: the one that will run inside the image."""
    policy = subprocess.run(["apt-cache", "policy", "python3"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"Candidate: (\d+\.\d+)", policy)
    if version is None:
        raise StackError("apt knows no package python3; run `apt-get update` first")
    return version[1]


def _mmdebstrap_command(tar: Path, wheels: Path) -> list[str]:
    command = ["mmdebstrap", "--variant=minbase", "--mode=root", f"--include={','.join(PACKAGES)}"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED]
    command += [f"--aptopt={setting}" for setting in _apt_settings()]
    command += ["--customize-hook=" + CUSTOMIZE.replace("@WHEELS@", shlex.quote(str(wheels)))]
    return [*command, _codename(), str(tar), *_apt_sources()]


def _codename() -> str:
    release = Path("/etc/os-release").read_text()
    name = re.search(r"^VERSION_CODENAME=(\S+)$", release, re.MULTILINE)
    if name is None:
        raise StackError("the notebook image can only be built on Debian; name an image in HOMEPORT_IMAGE")
    return name[1]


def _apt_sources() -> list[str]:
    """Give the machine's own sources of the distribution (no third party's); none: the tool's default."""
    form = "$(ORIGIN)|deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    command = ["apt-get", "indextargets", "--format", form, "Created-By: Packages"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return [line.partition("|")[2] for line in lines if line.startswith(("Debian|", "Ubuntu|"))]


def _apt_settings() -> list[str]:
    """Give the machine's own ways to reach and trust its mirrors (proxy, CA, dates)."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    wanted = re.compile(r'Acquire::(http|https|Check|Retries|ForceIPv)[^ ]* "[^"]+";')
    return [line for line in dump.splitlines() if wanted.fullmatch(line)]


def _interesting_step(line: str) -> str | None:
    """Pick mmdebstrap's own steps out of what it prints."""
    step = re.match(r"I: (running apt-get update|downloading packages|extracting|installing|creating tarball)", line)
    return line.removeprefix("I: ").rstrip(". ") if step else None


def _watch(command: list[str], form: str, pick: Callable[[str], str | None], report: Report) -> None:
    """Run a build step, telling of the lines `pick` picks; raises StackError with its last lines."""
    lines: list[str] = []
    environ = processes.without_docker(os.environ) | {"LANG": "C.UTF-8"}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines = [*lines[-30:], line.rstrip()]
            picked = pick(line.rstrip())
            if picked is not None:
                report(form.format(picked))
    if process.returncode != 0:
        raise StackError(f"{command[0]} ended with status {process.returncode}:\n" + "\n".join(lines))


def _import(client: docker.APIClient, tar: Path) -> None:
    repository, _, tag = LOCAL_IMAGE.rpartition(":")
    answer = client.import_image_from_file(str(tar), repository=repository, tag=tag, changes=list(CONFIGURATION))
    imported = re.search("sha256:[0-9a-f]{64}", answer)
    if imported and not _present(client, LOCAL_IMAGE):  # Podman tags what it imports as the latest
        client.tag(imported[0], repository, tag)
    if not _present(client, LOCAL_IMAGE):
        raise StackError(f"the Docker engine did not import the notebook image: {str(answer)[-300:]}")
