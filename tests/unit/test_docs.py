"""The derived pages of docs/ are current."""

from __future__ import annotations

import pytest

from local.docs import DOCS, pages


@pytest.mark.parametrize("name", sorted(pages()))
def test_generated_pages_are_current(name: str) -> None:
    assert (DOCS / name).read_text() == pages()[name], "run: make docs"
