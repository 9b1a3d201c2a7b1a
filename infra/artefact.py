"""The zip that Lambda is given: what Chalice puts together, with bytecode, and the same bytes for the same contents.

1. Lambda's file system cannot be written, so without bytecode in the zip every start compiles what it imports. It is
   compiled by a Python of the functions' version, if this machine has one; another version's is of no use.
2. The bytecode is not compared with its source at a start: both are in one zip and are made together.
3. Files are sorted, and neither their times nor their modes are this machine's. So the zip's SHA-256 names what is in
   it; with bytecode also the exact Python (3.13.1, 3.13.2) that compiled it.

Chalice's deployer and packager take a zip that is there already under the name of its contents.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from chalice.deploy.packager import DependencyBuilder, LambdaDeploymentPackager
from chalice.utils import UI, OSUtils

# Modules that no function imports, or that are there for other platforms beside a compiled one of the same name. To
# compile them would make the zip a tenth of a megabyte larger.
NOT_COMPILED: Final = re.compile(
    r"chalicelib/helper\.py|charset_normalizer/(md|cd)\.py|idna/uts46data\.py|jinja2/(ext|sandbox)\.py"
    r"|urllib3/(contrib|http2)/.*|docker/transport/(ssh|npipe).*"
)
WHERE: Final = "/var/task"  # what tracebacks say of a file, wherever it was compiled
TIME: Final = (1980, 1, 1, 0, 0, 0)  # the first that a zip can say
MODE: Final = 0o100644 << 16


@dataclass(frozen=True, slots=True)
class Artefact:
    """The functions' zip: for which version of Python, its SHA-256 in hex, its bytes, and whether it has bytecode."""

    path: Path
    python: str
    sha256: str
    size: int
    is_compiled: bool

    def __str__(self) -> str:
        """What an operator is told of it."""
        said = f"The functions' zip: {self.size:,} bytes, SHA-256 {self.sha256}"
        if self.is_compiled:
            return said
        return (
            f"{said}. It has no bytecode, so that each start of a function takes longer: there is no Python "
            f"{self.python} on this machine to compile it. `.venv/bin/uv python install {self.python}` installs one"
        )


def build_zip(project: Path, python: str) -> Artefact:
    """Make the zip of a staged project, for the version `python` ("3.13"), where Chalice looks for it.

    Raises CalledProcessError if something of it cannot be compiled.
    """
    architecture = json.loads((project / ".chalice" / "config.json").read_text())["lambda_architecture"]
    osutils = OSUtils()
    builder = DependencyBuilder(osutils, architecture=architecture)
    packager = LambdaDeploymentPackager(osutils, builder, UI(out=io.StringIO()), architecture)
    path = Path(packager.create_deployment_package(str(project), f"python{python}"))
    compiler = find_python(python)
    with tempfile.TemporaryDirectory(prefix="homeport-zip-") as folder:
        contents = Path(folder)
        with ZipFile(path) as chalices:
            chalices.extractall(contents)
        if compiler is not None:
            _compile(contents, compiler)
        _write(path, contents)
    contained = path.read_bytes()
    return Artefact(path, python, hashlib.sha256(contained).hexdigest(), len(contained), compiler is not None)


def find_python(version: str) -> Path | None:
    """An interpreter of this version of Python ("3.13") on this machine: this one, on the PATH, of pyenv, or of uv."""
    return next((found for found in _interpreters(version) if _runs(found, version)), None)


def _interpreters(version: str) -> Iterator[Path]:
    yield Path(sys.executable)
    if on_path := shutil.which(f"python{version}"):
        yield Path(on_path)
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"), reverse=True)
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", "~/.local/share/uv/python")).expanduser()
    yield from sorted(uv.glob(f"cpython-{version}.*/bin/python{version}"), reverse=True)


def _runs(python: Path, version: str) -> bool:
    """Whether it is one: pyenv puts programs of this name on the PATH that start nothing."""
    program = "import sys; print('{}.{}'.format(*sys.version_info), sys.implementation.name)"
    said = subprocess.run([python, "-I", "-c", program], capture_output=True, text=True, check=False)
    return said.stdout.split() == [version, "cpython"]


def _compile(contents: Path, python: Path) -> None:
    """Put bytecode beside all sources but those of NOT_COMPILED; the same bytes each time."""
    sources = [path.relative_to(contents).as_posix() for path in sorted(contents.rglob("*.py"))]
    chosen = [str(contents / source) for source in sources if not NOT_COMPILED.fullmatch(source)]
    command = [str(python), "-I", "-m", "compileall", "-q", "--invalidation-mode=unchecked-hash"]
    command += ["-s", str(contents), "-p", WHERE, "-i", "-"]
    subprocess.run(command, input="\n".join(chosen), text=True, check=True)


def _write(path: Path, contents: Path) -> None:
    files = {file.relative_to(contents).as_posix(): file for file in contents.rglob("*") if file.is_file()}
    with ZipFile(path, "w", ZIP_DEFLATED) as written:
        for name, file in sorted(files.items()):
            entry = ZipInfo(name, TIME)
            entry.compress_type, entry.external_attr, entry.create_system = ZIP_DEFLATED, MODE, 3
            written.writestr(entry, file.read_bytes(), compresslevel=9)
