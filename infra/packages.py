"""The packages that Lambda ships: the wheels for its platform, each with a hash that requirements-lambda.txt locks.

Chalice checks hashes only of the files it downloads first, which are for the machine it runs on. The wheels that
Lambda needs instead it fetches by `name==version`, without a hash. So it is left nothing to fetch: `requirements.txt`,
where Chalice looks, names nothing, and it ships what is in the project's `vendor/`, which is filled here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from chalicelib.errors import BadConfiguration
from infra.findings import AGAIN

MACHINES: Final = {"arm64": "aarch64", "x86_64": "x86_64"}  # Lambda's name for an architecture → the wheels'
LOCK: Final = "requirements-lambda.txt"
PYTHON: Final = "3.13"  # what `make deploy` and `make package` build for
# Of what the packages bring, no function imports these: cryptography needs of cffi one compiled module alone.
UNUSED: Final = ("bin", "certifi/tests", "cffi", "charset_normalizer/cli", "pycparser", "urllib3/contrib/emscripten")
UNUSED_FILES: Final = ("*.pyi", "py.typed")
AMAZON_LINUX_2: Final = frozenset({"3.11"})  # the others run on Amazon Linux 2023
GLIBC: Final = {True: 26, False: 34}  # the minor version on Amazon Linux 2, and on 2023; manylinux2014's is 17


def fetch_packages(source: Path, target: Path, python: str = PYTHON) -> None:
    """Fill `vendor/` of the project at `target` with what requirements-lambda.txt in `source` locks.

    They are for the version `python` of Python ("3.13") on Lambda, whichever runs this, and for the architecture in
    `.chalice/config.json`. What was in `vendor/` is replaced. Raises BadConfiguration with pip's reasons.
    """
    architecture = json.loads((source / ".chalice" / "config.json").read_text())["lambda_architecture"]
    newest = GLIBC[python in AMAZON_LINUX_2]
    tags = ["manylinux2014", *(f"manylinux_2_{minor}" for minor in range(newest, 16, -1))]
    shutil.rmtree(target / "vendor", ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    command += ["--require-hashes", "--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    command += [f"--platform={tag}_{MACHINES[architecture]}" for tag in tags]
    command += [f"--target={target / 'vendor'}", f"--requirement={source / LOCK}"]
    pip = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if pip.returncode != 0:
        raise BadConfiguration(_refusal(pip.stderr.strip()))
    drop_unused(target / "vendor")


def drop_unused(vendor: Path) -> None:
    """Remove what no function imports; what the packages say of themselves stays, for who looks for old versions."""
    for name in UNUSED:
        shutil.rmtree(vendor / name, ignore_errors=True)
    for pattern in UNUSED_FILES:
        for path in vendor.rglob(pattern):
            path.unlink()


def _refusal(reasons: str) -> str:
    if "DO NOT MATCH THE HASHES" in reasons:
        return (
            f"A package is not the file that {LOCK} locks. Nothing was changed in AWS. pip said:\n{reasons}\n"
            "Empty pip's cache (`pip cache purge`) and run the same command again. If the package is refused again, do "
            "not deploy, and do not renew the lock before you know why its file was replaced"
        )
    return f"pip could not fetch what {LOCK} locks. Nothing was changed in AWS. pip said:\n{reasons}\n{AGAIN}"
