"""Text that a stranger wrote, made fit to be shown."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.text import BLANK, is_visible, lines, one_line

UNSEEN = {
    "bidi embedding": "\u202a\u202b\u202c\u202d\u202e",
    "bidi isolate": "\u2066\u2067\u2068\u2069",
    "bidi mark": "\u200e\u200f\u061c",
    "zero width": "\u200b\u200c\u200d\u2060\ufeff",
    "invisible operator": "\u2061\u2062\u2063\u2064",
    "soft hyphen": "\u00ad",
    "tag": "\U000e0001\U000e0041\U000e007f",
    "variation selector": "\ufe00\ufe0f",
    "variation selector of plane 14": "\U000e0100\U000e01ef",
    "Mongolian variation selector": "\u180b\u180c\u180d\u180e\u180f",
    "blank letter": "".join(sorted(BLANK)),
}
SPACES = {
    "control": "\0\x01\x07\x08\x1b\x1f\x7f\x80\x9b\x9f",
    "line break": "\n\r\v\f\x1c\x1d\x1e\u0085\u2028\u2029",
    "tab": "\t",
    "space of another width": "\u00a0\u1680\u2000\u2003\u2009\u200a\u202f\u205f\u3000",
    "surrogate": "\ud800\udbff\udc00\udfff",
    "private use": "\ue000\uf8ff\U0010fffd",
    "unassigned": "\u0378\U000e0080",
    "noncharacter": "\ufffe\uffff\U0010ffff",
}

HARD = st.sampled_from("".join((*UNSEEN.values(), *SPACES.values(), " ", "…", "e\u0301", "👩🏽‍🚀", "笔记")))
TEXTS = st.text(st.characters() | HARD, max_size=60)
LIMITS = st.integers(1, 20)


@pytest.mark.parametrize("kind", UNSEEN)
def test_what_cannot_be_seen_goes_without_a_trace(kind: str) -> None:
    for character in UNSEEN[kind]:
        assert one_line(f"pass{character}word", 20) == "password", hex(ord(character))
        assert not is_visible(f"pass{character}word")


@pytest.mark.parametrize("kind", SPACES)
def test_what_breaks_or_bends_a_line_becomes_one_space(kind: str) -> None:
    for character in SPACES[kind]:
        assert one_line(f"two{character}{character}words", 20) == "two words", hex(ord(character))
        assert not is_visible(f"two{character}words")
    assert one_line(f" {SPACES[kind]} two \t words{SPACES[kind]}", 20) == "two words"


def test_a_terminals_escape_sequence_is_disarmed() -> None:
    assert one_line("a\x1b[31mred\x1b[0m", 20) == "a [31mred [0m"


def test_a_name_that_pretends_to_be_another_is_shown_in_the_order_it_is_stored_in() -> None:
    assert one_line("notebook\u202etxt.exe", 40) == "notebooktxt.exe"


@pytest.mark.parametrize(
    "text", ["Übung", "e\u0301tude", "笔记本", "עברית", "דוח 2026", "मूल", "👩 🚢", "1 + 1 = 2", "“a”", ""]
)
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert one_line(text, 40) == text
    assert is_visible(text)


@pytest.mark.parametrize(
    ("length", "shown"), [(9, "x" * 9), (10, "x" * 10), (11, "x" * 9 + "…"), (10**6, "x" * 9 + "…")]
)
def test_what_is_too_long_is_cut_and_says_so(length: int, shown: str) -> None:
    assert one_line("x" * length, 10) == shown


def test_what_goes_does_not_count_against_the_limit() -> None:
    assert one_line("\u200b".join("0123456789"), 10) == "0123456789"
    assert one_line("0123456789" + "\n" * 20, 10) == "0123456789"


def test_of_a_huge_text_only_the_beginning_is_looked_at() -> None:
    """Else a stranger's megabytes of invisible characters would be work."""
    assert one_line("\u200b" * 39 + "x" + "y" * 10**6, 10) == "x…"
    assert one_line("\u200b" * 10**6 + "x", 10) == "…"


@given(TEXTS, LIMITS)
def test_a_line_is_visible_or_empty_and_within_its_limit(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit
    assert is_visible(line)
    assert line.isprintable()
    assert line == line.strip()
    assert "  " not in line
    line.encode()


@given(TEXTS, LIMITS)
def test_a_line_that_was_made_fit_stays_as_it_is(text: str, limit: int) -> None:
    assert one_line(one_line(text, limit), limit) == one_line(text, limit)


@given(TEXTS)
def test_text_is_visible_when_each_of_its_characters_stays_as_it_is_between_two_letters(text: str) -> None:
    assert is_visible(text) == all(one_line(f"a{character}b", 3) == f"a{character}b" for character in text)


@given(st.characters(categories=["Cf", "Cc", "Zl", "Zp", "Cs", "Co", "Cn"]))
def test_no_format_control_or_separator_character_is_visible(character: str) -> None:
    assert not is_visible(character)
    assert unicodedata.category(character) not in {unicodedata.category(shown) for shown in one_line(character, 5)}


# ── several lines ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_last_lines_that_show_something_are_given() -> None:
    assert lines("one\r\ntwo\n\n \u200b\nthree\x1b\n\n", most=2, limit=10) == ["two", "three"]
    assert lines("one\n", most=2, limit=10) == ["one"]
    assert lines("", most=2, limit=10) == []
    assert lines("\n\u3164\n\t\n", most=2, limit=10) == []


def test_each_line_is_cut_for_itself() -> None:
    assert lines("x" * 11 + "\nshort", most=5, limit=10) == ["x" * 9 + "…", "short"]


def test_of_a_huge_number_of_lines_only_the_last_are_looked_at() -> None:
    assert lines("here\n" + "\n" * 8, most=2, limit=10) == []
    assert lines("here\n" + "\n" * 7, most=2, limit=10) == ["here"]


@given(st.lists(TEXTS, max_size=12).map("\n".join), st.integers(1, 5), LIMITS)
def test_lines_are_few_visible_and_within_their_limit(text: str, most: int, limit: int) -> None:
    found = lines(text, most=most, limit=limit)
    assert len(found) <= most
    assert all(line and len(line) <= limit and is_visible(line) for line in found)
    assert lines("\n".join(found), most=most, limit=limit) == found
