"""What the documentation takes from the code is current, and the graph of imports is true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from chalicelib.session.events import Effect
from chalicelib.web.routes import ADDRESSES
from docs.generate import ALONE, FAMILIES, GROUPS, ROOT, all_errors, imported, pages, wing_imports

GENERATED = pages()


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_generated_pages_are_current(name: str) -> None:
    assert (ROOT / name).read_text() == GENERATED[name], "run: make docs"


def test_the_state_machines_page_has_every_effect() -> None:
    page = GENERATED["docs/state-machine.md"]
    assert [effect.__name__ for effect in get_args(Effect) if f"`{effect.__name__}`" not in page] == []


def _in_the_page(path: str) -> str:
    return "/v2/{provider}/…" if path.startswith("/v2/") else path.replace("{sid}", "{id}")


def test_every_address_of_the_hub_is_described() -> None:
    page = (ROOT / "docs" / "http.md").read_text()
    shown = {f"{method} {_in_the_page(path)}" for method, path, _types, _view in ADDRESSES}
    missing = [address for address in sorted(shown) if not re.search(rf"`{re.escape(address)}[`?]", page)]
    assert missing == []


def test_every_family_of_errors_is_described() -> None:
    assert {error.__module__.removeprefix("chalicelib.") for error in all_errors()} == FAMILIES.keys()


def test_the_graph_shows_every_wing_there_is() -> None:
    drawn = {wing for wings in GROUPS.values() for wing in wings} | set(ALONE)
    assert {wing for pair in wing_imports() for wing in pair} == drawn
    folders = {path.parent.name for path in (ROOT / "chalicelib").glob("*/__init__.py")}
    assert folders <= drawn


def test_the_graph_has_an_import_wherever_in_a_file_it_stands(tmp_path: Path) -> None:
    for folder in ("chalicelib/session", "proxy"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "app.py").write_text("import chalicelib.wiring")
    (tmp_path / "proxy" / "run.py").write_text("import os")
    (tmp_path / "chalicelib" / "session" / "late.py").write_text(
        "from chalicelib.session import values\ndef late():\n    from chalicelib import text"
    )
    assert wing_imports(tmp_path) == {("app", "wiring"), ("session", "base")}


def test_app_py_imports_the_wiring_the_configuration_the_lanes_and_the_routes_alone() -> None:
    """An import contract cannot say it: import-linter reads packages, and app.py is none."""
    ours = {module.rpartition(".")[0] for module in imported(ROOT / "app.py") if module.startswith("chalicelib")}
    assert ours == {"chalicelib.config", "chalicelib.session.lanes", "chalicelib.web.routes", "chalicelib.wiring"}
