"""Sentences that were reworded for plain English, before and now: the old ones are gone, the new ones are there."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE: list[tuple[str, str]] = [tuple(row) for row in json.loads((Path(__file__).parent / "reworded.json").read_text())]


@cache
def shipped() -> str:
    """What visitors and operators can be shown, with string literals joined that the line length has split."""
    files = [path for name in ("chalicelib", "infra", "local", "proxy") for path in (ROOT / name).rglob("*")]
    texts = [path.read_text() for path in files if path.suffix in (".cfg", ".html", ".js", ".py")]
    return re.sub(r'"\s*\n\s*f?"', "", "\n".join(texts))


@pytest.mark.parametrize(("before", "now"), TABLE)
def test_a_reworded_sentence_is_replaced_everywhere(before: str, now: str) -> None:
    assert before not in shipped()
    assert now in shipped()
