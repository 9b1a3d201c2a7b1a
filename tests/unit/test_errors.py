"""The errors of all families: one code and one title each, and no public code changes unsaid."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from chalicelib.errors import HomeportError
from docs.generate import all_errors

ROOT = Path(__file__).resolve().parents[2]


ERRORS = all_errors()


def test_every_error_has_its_own_code_title_and_meaning() -> None:
    for attribute in ("code", "title", "__doc__"):
        (_, most), *_ = Counter(getattr(error, attribute) for error in ERRORS).most_common(1)
        assert most == 1, attribute
    assert all(error.__doc__ and error.__doc__.endswith(".") for error in ERRORS)


def test_codes_are_words_with_hyphens() -> None:
    assert [error for error in ERRORS if not re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", error.code)] == []


def test_titles_are_words_for_people() -> None:
    """A capital letter begins the title or is part of a word that has it always: CA, TLS, Docker."""
    proper = {"CA", "Docker", "Engine", "GPU", "HTTP", "Jupyter", "Kubernetes", "Linux", "PEM", "SSH", "TLS", "Unix"}
    for error in ERRORS:
        first, *rest = error.title.split(" ")
        assert first in proper or re.fullmatch(r"[A-Z][a-z0-9]*('s)?", first), error.title
        assert all(word in proper or re.fullmatch(r"[a-z0-9]+('s)?", word) for word in rest), error.title
        assert len(error.title) <= 48, error.title


def test_the_code_follows_from_the_classes_name_and_so_does_a_title_that_is_not_given() -> None:
    for error in set(ERRORS) - {HomeportError}:
        words = error.code.split("-")
        assert "".join(words) == error.__name__.lower()

    class KeyForADockerEngine(HomeportError):
        """Only here."""

    assert (KeyForADockerEngine.code, KeyForADockerEngine.title) == (
        "key-for-a-docker-engine",
        "Key for a Docker Engine",
    )


def test_a_status_says_whose_problem_it_is() -> None:
    assert {error.status for error in ERRORS} <= {400, 401, 403, 404, 405, 409, 413, 415, 429, 500, 502, 503}
    assert all(error.status >= 500 or error.status in (409, 429) for error in ERRORS if error.retryable)


def test_an_error_carries_its_message() -> None:
    for error in ERRORS:
        assert error("what to do").message == str(error("what to do")) == "what to do"


def renamed_codes() -> list[tuple[str, str]]:
    """The changelog's table of codes that were renamed: before, now."""
    changelog = (ROOT / "CHANGELOG.md").read_text()
    return re.findall(r"^ *\| `([a-z-]+)` \| `([a-z-]+)` \|$", changelog, flags=re.MULTILINE)


@pytest.mark.parametrize(("before", "now"), renamed_codes())
def test_a_code_that_was_renamed_is_gone_and_the_new_one_is_there(before: str, now: str) -> None:
    codes = {error.code for error in ERRORS}
    assert before not in codes
    assert now in codes


def test_the_changelog_names_all_codes_that_were_renamed() -> None:
    assert len(renamed_codes()) == len(dict(renamed_codes())) == 13


def test_no_code_that_was_renamed_is_left_in_code_or_pages() -> None:
    """As a whole word in quotes of any kind; `endpoint-port` is also what a form field may be called."""
    old = "|".join(before for before, _ in renamed_codes())
    named = re.compile(rf"""["'`](?:{old})["'`]""")
    files = [*ROOT.glob("chalicelib/**/*.*"), *ROOT.glob("local/*.py"), *ROOT.glob("docs/**/*.md"), ROOT / "README.md"]
    texts = {
        path.relative_to(ROOT): path.read_text() for path in files if path.suffix in (".py", ".js", ".html", ".md")
    }
    assert len(texts) > 50
    assert {str(path): found for path, text in texts.items() if (found := named.findall(text))} == {}
