"""The derived pages of docs/ are current, and every error has a code of its own."""

from __future__ import annotations

import pytest

from chalicelib.errors import HomeportError
from local.docs import DOCS, _tree, pages


@pytest.mark.parametrize("name", sorted(pages()))
def test_generated_pages_are_current(name: str) -> None:
    assert (DOCS / name).read_text() == pages()[name], "run: make docs"


def test_every_error_has_its_own_code_and_a_meaning() -> None:
    codes = [error.code for error in _tree(HomeportError)]
    assert sorted(codes) == sorted(set(codes))
    assert all(error.__doc__ for error in _tree(HomeportError))
