"""The import contracts of pyproject.toml, and ruff's banned names: the tree keeps them, and each of them can fail."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
RULES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
NAMES = {contract["id"]: contract["name"] for contract in RULES["contracts"]}

BAD = [
    ("layers", "chalicelib/session/values.py", "import chalicelib.bundle.pem"),  # side by side
    ("layers", "chalicelib/web/hub.py", "from chalicelib.launcher import errors"),
    ("layers", "chalicelib/errors.py", "from chalicelib import text"),  # upwards
    ("layers", "chalicelib/unknown.py", ""),  # a module that no layer names
    ("proxy", "proxy/pages.py", "import chalicelib.engine.errors"),
    ("proxy", "proxy/pages.py", "import local.settings"),
    ("proxy-libraries", "proxy/pages.py", "import chalicelib.notebook.certificates"),  # needs cryptography
    ("pure", "chalicelib/text.py", "import time"),
    ("pure", "chalicelib/bundle/files.py", "def late():\n    import os.path"),
    ("helper", "chalicelib/helper.py", "import chalicelib.text"),
    ("docker", "chalicelib/web/hub.py", "import requests"),
    ("aws", "chalicelib/launcher/tick.py", "import boto3"),
    ("web", "chalicelib/launcher/tick.py", "from jinja2 import Template"),
    ("shipped", "chalicelib/wiring.py", "import infra.stack"),
    ("no-patching", "tests/builders.py", "from unittest.mock import patch"),
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of every package that the contracts are about."""
    for package in RULES["root_packages"]:
        for file in (ROOT / package).rglob("*.py"):
            target = tmp_path / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


def broken(tree: Path) -> set[str]:
    """The ids of the contracts that lint-imports finds broken."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"COLUMNS": "500"}
    command = [str(PROGRAMS / "lint-imports"), "--no-cache"]
    found = subprocess.run(command, cwd=tree, env=environ, capture_output=True, text=True, timeout=120)
    verdicts = dict(re.findall(r"^(.+?) (KEPT|BROKEN)\b", found.stdout, re.MULTILINE))
    assert verdicts.keys() == set(NAMES.values()), found.stdout + found.stderr
    assert (found.returncode == 0) == ("BROKEN" not in verdicts.values())
    return {id for id, name in NAMES.items() if verdicts[name] == "BROKEN"}


def test_the_tree_keeps_every_contract(tree: Path) -> None:
    assert broken(tree) == set()


@pytest.mark.parametrize(("contract", "file", "line"), BAD)
def test_a_forbidden_import_breaks_its_contract_and_no_other(contract: str, file: str, line: str, tree: Path) -> None:
    path = tree / file
    path.write_text(f"{path.read_text() if path.exists() else ''}\n{line}\n")
    assert broken(tree) == {contract}


def test_every_contract_was_seen_to_fail() -> None:
    assert {contract for contract, _file, _line in BAD} == NAMES.keys()


WINGS = sorted(path.parent.name for path in (ROOT / "chalicelib").glob("*/__init__.py"))


@pytest.mark.parametrize("file", ["app.py", "chalicelib/config.py", *(f"chalicelib/{wing}/x.py" for wing in WINGS)])
def test_neither_the_environment_nor_the_clock_is_read_anywhere_in_chalicelib(file: str) -> None:
    """But in the two lines of config.py and wiring.py that say so."""
    uses = "import os, time, datetime\nos.environ\nos.getenv('x')\ntime.time()\ndatetime.datetime.now()\n"
    assert banned(file, uses) == ["os.environ", "os.getenv", "time.time", "datetime.datetime.now"]


def banned(file: str, text: str) -> list[str]:
    """What ruff finds banned in `text`, as if it stood in `file`."""
    command = [str(PROGRAMS / "ruff"), "check", "--no-cache", "--output-format=concise", "--stdin-filename", file, "-"]
    found = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, timeout=60)
    return re.findall(r"TID251 `([\w.]+)` is banned", found.stdout)


def test_no_file_is_excepted_from_what_is_banned() -> None:
    allowed = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in [ROOT / "app.py", *(ROOT / "chalicelib").rglob("*.py")]
        for line in path.read_text().splitlines()
        if "noqa: TID251" in line
    ]
    assert [found.partition(":")[0] for found in sorted(allowed)] == ["chalicelib/config.py", "chalicelib/wiring.py"]
