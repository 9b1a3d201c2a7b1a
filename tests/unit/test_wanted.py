"""What an address fills the launch form with, and what a visitor's choice between repository and image leaves out."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.repository.source import Provider, Source
from chalicelib.web.errors import BadField, MissingField
from chalicelib.web.forms import LINK_FIELDS, Launch, parse_launch, parse_wanted

SOURCE = Source(Provider.GITHUB, "https://github.com/u/r")
WORDS = ("u/r", "https://github.com/u/r/tree/main", "10.5281/zenodo.1", "main", "..", "/lab", "busybox", " ", "-x")


def sent(**fields: str) -> Launch:
    """The launch of a form with these fields."""
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'
        for name, text in {"credentials": "x", **fields}.items()
    ]
    return parse_launch("multipart/form-data; boundary=b", ("".join(parts) + "--b--\r\n").encode())


@given(st.dictionaries(st.sampled_from(LINK_FIELDS), st.one_of(st.text(max_size=40), st.sampled_from(WORDS))))
def test_no_address_fills_the_form_with_what_a_launch_would_refuse(texts: dict[str, str]) -> None:
    with suppress(BadField):
        wanted = parse_wanted(texts)
        assert not (wanted.repository and wanted.image)


def test_the_fields_of_an_address_are_read_as_those_of_the_form() -> None:
    wanted = parse_wanted({"repo": "https://github.com/u/r/blob/main/one.ipynb", "ref": " v1 ", "other": "x"})
    assert wanted.repository == Source(Provider.GITHUB, "https://github.com/u/r", "v1")
    assert (wanted.content, wanted.image, wanted.open_path, wanted.name) == (None, "", "one.ipynb", "")
    content = parse_wanted(
        {"content": "https://github.com/u/course/blob/main/one.ipynb", "image": "ada/x", "name": " a"}
    )
    assert (content.image, content.open_path, content.name) == ("ada/x", "course/one.ipynb", " a")


def test_what_was_chosen_decides_between_a_repository_and_an_image() -> None:
    both = {"repo": "u/r", "folder": "a", "image": "ada/x"}
    assert (sent(**both, what="repository").repository, sent(**both, what="repository").image) == (
        Source(Provider.GITHUB, "https://github.com/u/r", folder="a"),
        None,
    )
    assert (sent(**both, what="image").repository, sent(**both, what="image").image) == (None, "ada/x")
    with pytest.raises(BadField, match="not both"):
        sent(**both)


def test_files_go_with_either() -> None:
    for what in ("repository", "image"):
        assert sent(repo="u/env", content="u/r", what=what).content == SOURCE


def test_a_repository_that_was_chosen_and_not_named_is_asked_for() -> None:
    with pytest.raises(MissingField, match="fill in its address, or choose an image"):
        sent(what="repository")
    assert sent(what="image").image is None
    with pytest.raises(BadField, match="must be one of repository, image"):
        sent(what="both")
