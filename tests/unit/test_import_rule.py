"""The import rule, edge → pure and never back, and what ruff cannot say of modules that are excused from it."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "chalicelib"
EXCUSED = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]["per-file-ignores"]
EDGE = {Path(name).stem for name, rules in EXCUSED.items() if name.startswith("chalicelib/") and "TID251" in rules}
MODULES = sorted(path.stem for path in LIBRARY.glob("*.py") if path.stem != "__init__")
PURE = [name for name in MODULES if name not in EDGE]
OUTSIDE = {"boto3", "botocore", "docker", "requests", "urllib3", "socket", "http", "asyncio", "subprocess", "chalice"}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def names(path: Path) -> set[str]:
    return {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_imports_nothing_of_the_outside_or_the_edge(module: str) -> None:
    found = set(imports(LIBRARY / f"{module}.py"))
    assert not {name for name in found if name.partition(".")[0] in OUTSIDE}
    assert not found & {f"chalicelib.{edge}" for edge in EDGE - {"config"}}


def test_the_modules_that_decide_are_pure() -> None:
    decide = {"machine", "events", "bundle", "archive", "client_certificate", "address", "envelope", "certificates"}
    assert decide | {"notebook", "forms", "errors", "engine_words"} == set(PURE)


@pytest.mark.parametrize("module", MODULES)
def test_only_config_reads_the_environment(module: str) -> None:
    reads = names(LIBRARY / f"{module}.py") & {"os.environ", "os.getenv"}
    assert not reads or module == "config"


def test_no_test_patches() -> None:
    this = Path(__file__)
    found = [str(path) for path in (ROOT / "tests").rglob("*.py") if path != this and "mock.patch" in path.read_text()]
    assert found == []
