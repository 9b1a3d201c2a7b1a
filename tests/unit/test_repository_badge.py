"""The badge and what authors paste: complete in itself, the same each time, escaped for its language."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.repository.badge import badge_svg, snippets

SVG = "{http://www.w3.org/2000/svg}"
LAUNCH, BADGE = "https://hub.example/?repo=u/r&open=a.ipynb", "https://hub.example/badge.svg"


def drawn(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def test_a_badge_has_its_two_texts_and_says_them_to_a_screen_reader_once() -> None:
    badge = drawn(badge_svg())
    assert (badge.get("role"), badge.get("aria-label")) == ("img", "launch: homeport")
    assert badge.findtext(f"{SVG}title") == "launch: homeport"
    assert [text.text for text in badge.iter(f"{SVG}text")] == ["launch", "launch", "homeport", "homeport"]


def test_a_badge_refers_to_nothing_outside_and_runs_nothing() -> None:
    svg = badge_svg()
    assert svg == badge_svg()
    assert re.findall(r"https?://[^\"]*", svg) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"href|<style|<script|\bstyle=|\son[a-z]+=|@import", svg)
    assert set(re.findall(r"url\(([^)]*)\)", svg)) == {"#r", "#s"}


def test_a_badge_is_as_wide_as_its_texts() -> None:
    badge, wider = drawn(badge_svg()), drawn(badge_svg(message="homeport, and more"))
    assert (badge.get("width"), badge.get("height")) == ("111", "20")
    assert int(wider.get("width", "")) > 111
    assert [text.get("textLength") for text in badge.iter(f"{SVG}text")] == ["37", "37", "54", "54"]
    assert [rect.get("width") for rect in badge.iter(f"{SVG}rect")] == ["111", "47", "64", "111"]


@pytest.mark.parametrize("text", ["<script>", '"><a href="x">', "&amp;", "ü 漢", "{x}", "%s"])
def test_a_badges_texts_are_text(text: str) -> None:
    badge = drawn(badge_svg(label=text, message=text))
    assert {element.text for element in badge.iter(f"{SVG}text")} == {text}
    assert badge.get("aria-label") == f"{text}: {text}"


def test_a_badges_texts_are_short() -> None:
    with pytest.raises(ValueError, match="at most 60 characters"):
        badge_svg(message="a" * 61)


def test_an_author_pastes_a_badge_with_a_link() -> None:
    found = snippets(LAUNCH, BADGE)
    assert found.markdown == f"[![Launch on Homeport]({BADGE})]({LAUNCH})"
    assert found.html == (f'<a href="{LAUNCH.replace("&", "&amp;")}"><img src="{BADGE}" alt="Launch on Homeport"></a>')
    assert found.rst == f".. image:: {BADGE}\n   :target: {LAUNCH}\n   :alt: Launch on Homeport\n"


def test_an_address_that_ends_with_an_underscore_is_no_name_of_restructuredtext() -> None:
    assert ":target: https://hub.example/?open=a%5F\n" in snippets("https://hub.example/?open=a_", BADGE).rst


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "//evil.example", "", "data:text/html,x", " https://a.example"]
)
def test_an_address_that_is_no_web_address_is_refused(address: str) -> None:
    for both in ((address, BADGE), (LAUNCH, address)):
        with pytest.raises(ValueError, match="must begin with https://"):
            snippets(*both)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, [name for name, _ in attrs]))


@given(st.text())
def test_whatever_is_in_an_address_stays_in_it(text: str) -> None:
    found = snippets(f"https://hub.example/?open={text}", BADGE)
    assert re.fullmatch(r"\[!\[Launch on Homeport\]\([^()\s<>\"\\]+\)\]\([^()\s<>\"\\]+\)", found.markdown)
    assert re.fullmatch(r"\.\. image:: \S+\n   :target: \S+[^\s_]\n   :alt: Launch on Homeport\n", found.rst)
    parser = _Tags()
    parser.feed(found.html)
    assert parser.tags == [("a", ["href"]), ("img", ["src", "alt"])]
