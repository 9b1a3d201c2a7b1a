"""A package that is not the locked file is installed nowhere: neither here nor in the notebook image.

What is deployed to Lambda has its tests in test_infra_deploy.py and test_package.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.locks import ROOT, locked
from tests.wheels import write_wheel

MISMATCH = "DO NOT MATCH THE HASHES"


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """The only place where pip looks for packages."""
    (tmp_path / "wheels").mkdir()
    return tmp_path / "wheels"


def run(*command: str, wheels: Path, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=300)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What `make` needs to install requirements-local.txt into a virtual environment of its own."""
    (tmp_path / "checkout").mkdir()
    shutil.copy(ROOT / "Makefile", tmp_path / "checkout")
    return tmp_path / "checkout"


def test_make_installs_the_locked_file_and_no_other(checkout: Path, wheels: Path) -> None:
    def install(lock: str) -> tuple[int, str, bool]:
        (checkout / "requirements-local.txt").write_text(lock)
        made = run("make", f"PYTHON={sys.executable}", ".venv/.installed/local", wheels=wheels, folder=checkout)
        return made.returncode, made.stderr, bool(list(checkout.glob(".venv/lib/*/site-packages/cargo.py")))

    digest = write_wheel(wheels, "cargo", "1.0")
    status, says, installed = install(f"cargo==1.0 --hash=sha256:{'0' * 64}")
    assert (status, installed) == (2, False)
    assert MISMATCH in says
    status, says, installed = install("cargo==1.0")
    assert (status, installed) == (2, False)
    assert "Hashes are required" in says
    status, says, installed = install(f"cargo==1.0 --hash=sha256:{digest}")
    assert (status, installed) == (0, True), says


def test_the_notebook_image_is_built_of_the_locked_files_alone(tmp_path: Path, wheels: Path) -> None:
    if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
        pytest.skip("needs root and `apt-get install mmdebstrap` to build the notebook image")
    for package in locked("image"):
        write_wheel(wheels, package.name, package.version)
    program = "import sys, pathlib, local.image as i; i.build(pathlib.Path(sys.argv[1]), print)"
    built = run(sys.executable, "-c", program, str(tmp_path / "images"), wheels=wheels)
    assert "StackError" in built.stderr
    assert MISMATCH in built.stderr
    assert list((tmp_path / "images").glob("*.tar")) == []
