"""The locks are of one piece with pyproject.toml and with each other, and whatever installs packages goes by them."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

from tests.locks import LOCKS, ROOT, canonical, groups, locked, requirements


def test_every_group_has_its_lock_and_make_writes_each() -> None:
    written = dict(
        re.findall(r"^\t\$\(LOCK\) --group (\S+) .*-o (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    )
    assert written == LOCKS
    assert groups().keys() == LOCKS.keys()


@pytest.mark.parametrize("group", LOCKS)
def test_every_line_of_a_lock_is_one_version_with_its_hashes_and_nothing_else(group: str) -> None:
    names = [package.name for package in locked(group)]  # raises for any other line
    assert names
    assert len(names) == len(set(names))


@pytest.mark.parametrize("group", LOCKS)
def test_a_lock_tells_of_no_package_index(group: str) -> None:
    text = re.sub(r"--hash=sha256:\w+", "", (ROOT / LOCKS[group]).read_text())
    assert not re.search(r"://|index|find-links|\.(com|org|net|io|dev)\b", text)


@pytest.mark.parametrize("group", LOCKS)
def test_every_requirement_is_locked_at_the_version_that_it_names(group: str) -> None:
    versions = {package.name: package.version for package in locked(group)}
    asked = {canonical(one.name): str(one.specifier) for one in requirements(group)}
    assert asked
    assert asked == {name: f"=={versions[name]}" for name in asked}


def test_all_locks_agree_on_every_version() -> None:
    """But for checkov's, which is installed beside nothing else."""
    versions = defaultdict(set)
    for group in LOCKS.keys() - {"checkov"}:
        for package in locked(group):
            versions[package.name].add(package.version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize(("part", "whole"), [("lambda", "local"), ("proxy", "local"), ("local", "dev")])
def test_what_is_shipped_is_what_is_tested(part: str, whole: str) -> None:
    assert {package.name for package in locked(part)} <= {package.name for package in locked(whole)}


INSTALLERS = {  # how often each has pip install or download something
    "Makefile": 1,
    "proxy/Dockerfile": 1,
    "bench/peers.py": 3,
    "infra/packages.py": 1,
    "local/recipe.py": 2,
}


def test_pip_is_given_a_lock_wherever_it_is_called() -> None:
    folders = (".ci", "bench", "chalicelib", "docs", "infra", "local", "proxy")
    files = [*ROOT.iterdir(), *(file for folder in folders for file in (ROOT / folder).rglob("*"))]
    text = {file for file in files if file.is_file() and file.suffix not in {".md", ".png", ".pyc"}}
    calls = {file.relative_to(ROOT).as_posix(): found for file in text if (found := _pip_calls(file))}
    assert {name: len(found) for name, found in calls.items()} == INSTALLERS
    for name, found in calls.items():
        for call in found:
            assert "--require-hashes" in call, name
            assert "--only-binary=:all:" in call or "--no-index" in call, name


def _pip_calls(file: Path) -> list[str]:
    """The lines of each call of `pip install` or `pip download`, in a shell's words or in a list of Python's."""
    lines = file.read_text().splitlines()
    called = re.compile(r"""\bpip\b(?:["',]|\s|--)+.*\b(?:install|download)\b["',\s]""")
    return ["\n".join(lines[number : number + 3]) for number, line in enumerate(lines) if called.search(line + " ")]
