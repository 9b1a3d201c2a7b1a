"""Text of strangers made fit to be shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.text import BLANK, is_visible, lines, one_line


@given(st.text(max_size=300), st.integers(1, 40))
def test_whatever_was_sent_becomes_one_printable_line_within_its_limit(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit
    assert is_visible(line)
    assert line.isprintable()


@pytest.mark.parametrize("hidden", ["\u202e", "\u200b", "\ufe0f", "\U000e0100", "\u180b", *sorted(BLANK)])
def test_what_shows_nothing_goes_and_is_not_visible(hidden: str) -> None:
    assert one_line(f"a{hidden}b", 10) == "ab"
    assert not is_visible(f"a{hidden}b")


def test_what_is_cut_ends_with_an_ellipsis_even_when_only_hidden_characters_are_lost() -> None:
    assert one_line("abcdef", 5) == "abcd…"
    assert one_line("a" + "\u200b" * 100, 5) == "a…"


def test_the_last_lines_that_show_something_are_kept_in_order() -> None:
    assert lines("first\n\nsecond\n \u200b\nthird\n", most=2, limit=10) == ["second", "third"]


def test_a_log_of_any_length_costs_the_same() -> None:
    """Only four times as many lines as may be kept are looked at."""
    assert lines("early\n" + "\n" * 100, most=3, limit=10) == []
