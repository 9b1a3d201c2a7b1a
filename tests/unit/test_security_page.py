"""SECURITY.md and docs/threat-model.md name tests that exist, and claim nothing without one."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("SECURITY.md", "docs/threat-model.md")
REFERENCE = re.compile(r"`([\w/.-]+\.py)::((?:\w+::)?\w+)`")


@cache
def _tests_of(path: str) -> frozenset[str]:
    """The tests in a file as pytest names them: functions, and classes' methods with those of imported bases."""
    tree = ast.parse((ROOT / path).read_text())
    froms = [
        node for node in tree.body if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests.")
    ]
    files = {alias.name: f"{node.module}".replace(".", "/") + ".py" for node in froms for alias in node.names}
    found = _functions(tree.body)
    for known in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        bases = [base.id for base in known.bases if isinstance(base, ast.Name) and base.id in files]
        inherited = {name for base in bases for name in _tests_of(files[base]) if name.startswith(f"{base}::")}
        found |= {f"{known.name}::{name.rpartition('::')[2]}" for name in inherited | _functions(known.body)}
    return frozenset(found)


def _functions(body: list[ast.stmt]) -> set[str]:
    return {node.name for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def _references(page: str) -> list[tuple[str, str]]:
    return REFERENCE.findall((ROOT / page).read_text())


def _claims(page: str) -> list[str]:
    """The rows of the page's tables that end in a column of tests."""
    claims, wanted = [], False
    for line in (ROOT / page).read_text().splitlines():
        if not line.startswith("|"):
            wanted = False
        elif line.endswith("| shown by |"):
            wanted = True
        elif wanted and not line.startswith("| ---"):
            claims.append(line)
    return claims


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_is_named_exists(page: str) -> None:
    missing = [f"{path}::{name}" for path, name in _references(page) if name not in _tests_of(path)]
    assert missing == []
    assert len(_references(page)) > 40


def test_every_promise_names_its_test() -> None:
    claims = _claims("SECURITY.md")
    assert len(claims) > 20
    assert [claim for claim in claims if not REFERENCE.search(claim.rsplit("|", 2)[1])] == []


def test_every_threat_names_its_test_or_says_that_there_is_none() -> None:
    claims = _claims("docs/threat-model.md")
    assert len(claims) > 40
    said = re.compile(rf"{REFERENCE.pattern}|\baccepted\b|\bnot shown\b")
    assert [claim for claim in claims if not said.search(claim.rsplit("|", 2)[1])] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text())
    assert links
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []
