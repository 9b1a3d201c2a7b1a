"""Images that are built on this machine without any registry, each by its recipe.

1. A minimal Debian (mmdebstrap) from the machine's own apt sources, with Python packages in a virtual environment, from
   wheels that the machine's own pip fetched and compared with the recipe's lock. pip inside the new root works offline,
   so no setting of the machine has to be carried in, and none stays in the image.
2. Bytecode is compiled once, at the build.
3. The tar is kept beside the recipe's digest, which is the image's tag, too; a new engine gets it by `docker import` in
   seconds.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import docker
from docker.errors import DockerException, ImageNotFound

from local import private, processes
from local.processes import StackError

Report = Callable[[str], None]

INSIDE: Final = """
set -e
root="$1"
inside() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LANG=C.UTF-8 "$@"; }
"""
EXCLUDED: Final = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")
ENGINE_DEADLINE: Final = 600  # seconds; an import is silent while it writes


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an image is built: what it is called, and what all is in it.

    `name` is for people, `kind` for files and tags, `setting` the variable that names another image. `customize` is a
    shell's script, mmdebstrap's customize hook: $1 is the root, @WHEELS@ the folder of the wheels and the lock.
    """

    name: str
    kind: str
    setting: str
    lock: Path
    contents: str  # what the wheels are, for people
    packages: tuple[str, ...]
    customize: str
    configuration: tuple[str, ...]
    excluded: tuple[str, ...] = EXCLUDED

    @property
    def digest(self) -> str:
        """Tell recipes apart."""
        ingredients = [self.lock.read_text(), self.packages, self.customize, self.configuration, self.excluded]
        return hashlib.sha256(json.dumps(ingredients).encode()).hexdigest()

    @property
    def image(self) -> str:
        """What the image is called in an engine."""
        return f"homeport-{self.kind}:{self.digest[:12]}"

    def tar(self, folder: Path) -> Path:
        """Where the image is kept."""
        return folder / f"{self.kind}-{self.digest[:12]}.tar"


def environment_of(lock: str, environment: str) -> str:
    """Write the part of `customize` that installs the wheels into a virtual environment in the new root."""
    return f"""\
cp -r @WHEELS@ "$root/tmp/wheels"
inside python3 -m venv {environment}
inside {environment}/bin/pip --isolated --quiet --disable-pip-version-check --no-cache-dir install \\
    --no-compile --root-user-action=ignore --no-index --find-links=/tmp/wheels \\
    --require-hashes -r /tmp/wheels/{lock}
# The tar sets files' times back, which would make bytecode that is checked by time useless: 3 s at every start.
inside python3 -m compileall -q -j0 --invalidation-mode unchecked-hash {environment}/lib || true
"""


END: Final = 'rm -rf "$root/tmp/wheels" "$root/etc/apt/apt.conf.d/99mmdebstrap"\n'


def provide(recipe: Recipe, engine_url: str, folder: Path, report: Report) -> str:
    """Name the image, once the engine has it: imported when it was built before, else built now."""
    with client_of(engine_url, recipe) as client:
        if not present(client, recipe.image):
            tar = build(recipe, folder, report)
            report(f"{recipe.name}: importing it into the engine")
            _import(client, recipe, tar)
    return recipe.image


@contextmanager
def client_of(engine_url: str, recipe: Recipe) -> Iterator[docker.APIClient]:
    """Talk to the engine; raises StackError when it does not answer or take the image."""
    try:
        client = docker.APIClient(base_url=engine_url, timeout=ENGINE_DEADLINE)
        try:
            yield client
        finally:
            client.close()
    except (DockerException, OSError) as error:
        raise StackError(f"the Docker engine did not take the {recipe.name}: {first_line(error)}") from error


def present(client: docker.APIClient, image: str) -> bool:
    """Tell whether the engine has an image."""
    try:
        client.inspect_image(image)  # type: ignore[no-untyped-call]
    except ImageNotFound:
        return False
    return True


def first_line(error: Exception) -> str:
    """Give the first line of what an engine says."""
    told = str(getattr(error, "explanation", None) or error).strip() or type(error).__name__
    return told.splitlines()[0][:200]


def built(recipe: Recipe, folder: Path) -> bool:
    """Tell whether the image was built in `folder` before."""
    return recipe.tar(folder).exists()


def build(recipe: Recipe, folder: Path, report: Report) -> Path:
    """Build the image's root as a tar in `folder`, or give the one that is there; raises StackError.

    Two builds of one folder wait for each other; the second finds the first one's tar.
    """
    private.make_folder(folder)
    with private.open_file(folder / "build.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tar = recipe.tar(folder)
        if not tar.exists():
            _require_tools(recipe)
            wheels = _download_wheels(recipe, folder, report)
            partial = tar.with_suffix(".part.tar")
            _watch(_mmdebstrap_command(recipe, partial, wheels), recipe.name + ": {}", _interesting_step, report)
            shutil.rmtree(wheels)
            for old in folder.glob(f"{recipe.kind}-*.tar"):
                if old != partial:
                    old.unlink()
            partial.rename(tar)
        tar.chmod(0o600)
    return tar


def _require_tools(recipe: Recipe) -> None:
    if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
        raise StackError(
            f"the {recipe.name} cannot be built: run this as root after `apt-get install mmdebstrap`, "
            f"or name an image the engine has or can pull in {recipe.setting}"
        )


def _download_wheels(recipe: Recipe, folder: Path, report: Report) -> Path:
    """Fetch the lock's wheels for the new root's Python, by the machine's own pip and settings; put it beside them."""
    wheels = folder / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--progress-bar=off", "--disable-pip-version-check"]
    command += ["--require-hashes", "--only-binary=:all:", f"--python-version={_distribution_python()}"]
    command += [f"--dest={wheels}", f"--requirement={recipe.lock}"]
    report(f"{recipe.name}: fetching {recipe.contents} and what it needs")
    _watch(command, "", lambda _line: None, report)
    shutil.copy(recipe.lock, wheels)
    return wheels


def _distribution_python() -> str:
    """Ask apt which Python the distribution has, as major.minor: the one that will run inside the image."""
    policy = subprocess.run(["apt-cache", "policy", "python3"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"Candidate: (\d+\.\d+)", policy)
    if version is None:
        raise StackError("apt knows no package python3; run `apt-get update` first")
    return version[1]


def _mmdebstrap_command(recipe: Recipe, tar: Path, wheels: Path) -> list[str]:
    command = ["mmdebstrap", "--variant=minbase", "--mode=root", f"--include={','.join(recipe.packages)}"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.excluded]
    command += [f"--aptopt={setting}" for setting in _apt_settings()]
    command += ["--customize-hook=" + recipe.customize.replace("@WHEELS@", shlex.quote(str(wheels)))]
    return [*command, _codename(recipe), str(tar), *apt_sources()]


def _codename(recipe: Recipe) -> str:
    release = Path("/etc/os-release").read_text()
    name = re.search(r"^VERSION_CODENAME=(\S+)$", release, re.MULTILINE)
    if name is None:
        raise StackError(f"the {recipe.name} can only be built on Debian; name an image in {recipe.setting}")
    return name[1]


def apt_sources() -> list[str]:
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


def _import(client: docker.APIClient, recipe: Recipe, tar: Path) -> None:
    repository, _, tag = recipe.image.rpartition(":")
    answer = client.import_image_from_file(str(tar), repository=repository, tag=tag, changes=list(recipe.configuration))
    imported = re.search("sha256:[0-9a-f]{64}", answer)
    if imported and not present(client, recipe.image):  # Podman tags what it imports as the latest
        client.tag(imported[0], repository, tag)
    if not present(client, recipe.image):
        raise StackError(f"the Docker engine did not import the {recipe.name}: {str(answer)[-300:]}")
