"""The names of images and of the containers that build them: one for each version, folder and builder, and no other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.repository.address import parse_repository
from chalicelib.repository.source import Provider, Source
from chalicelib.repository.tag import REPOSITORY, build_name, image_name, is_built
from chalicelib.session.image import parse_image

SOURCE = Source(Provider.GITHUB, "https://github.com/u/r", "main", "binder")
VERSION, BUILDER = "c" * 40, "localhost/homeport-builder:1"
FIELDS = st.text(max_size=8)
SOURCES = st.builds(Source, st.sampled_from(Provider), FIELDS, FIELDS, FIELDS)


def test_an_images_name_is_one_that_no_engine_pulls() -> None:
    image = image_name(SOURCE, VERSION, BUILDER)
    assert is_built(image)
    assert parse_image(image).domain == "localhost"
    assert image == image_name(SOURCE, VERSION, BUILDER)


def test_a_version_has_one_image_whatever_it_was_called() -> None:
    assert image_name(SOURCE, VERSION, BUILDER) == image_name(replace(SOURCE, ref="v1"), VERSION, BUILDER)
    first, second = (parse_repository(text).source for text in ("U/R", "https://github.com/u/r.git"))
    assert image_name(first, VERSION, BUILDER) == image_name(second, VERSION, BUILDER)


@given(SOURCES, SOURCES, FIELDS, FIELDS, FIELDS, FIELDS)
def test_no_two_versions_share_an_image(one: Source, two: Source, v1: str, v2: str, b1: str, b2: str) -> None:
    same = (replace(one, ref=""), v1, b1) == (replace(two, ref=""), v2, b2)
    assert (image_name(one, v1, b1) == image_name(two, v2, b2)) == same


def test_parts_that_run_into_each_other_are_told_apart() -> None:
    names = {
        image_name(Source(Provider.GIT, "ab", folder="c"), "d", "e"),
        image_name(Source(Provider.GIT, "a", folder="bc"), "d", "e"),
        image_name(Source(Provider.GIT, "ab", folder="cd"), "", "e"),
        image_name(Source(Provider.GIT, "ab1:c", folder=""), "d", "e"),
        image_name(Source(Provider.GIST, "ab", folder="c"), "d", "e"),
    }
    assert len(names) == 5


def test_an_image_is_built_in_one_container() -> None:
    image = f"{REPOSITORY}:{'0123456789' * 4}"
    assert build_name(image) == "homeport-build-01234567890123456789"


@pytest.mark.parametrize(
    "image",
    ["", REPOSITORY, f"{REPOSITORY}:latest", f"{REPOSITORY}:{'a' * 39}", f"{REPOSITORY}:{'a' * 41}",
     f"{REPOSITORY}:{'A' * 40}",
     f"{REPOSITORY}:{'a' * 40}\n", f"{REPOSITORY}:{'٣' * 40}", f"docker.io/{REPOSITORY}:{'a' * 40}",
     f"x{REPOSITORY}:{'a' * 40}"],
)  # fmt: skip
def test_any_other_image_is_not_built(image: str) -> None:
    assert not is_built(image)
    with pytest.raises(ValueError, match="not the image of a repository"):
        build_name(image)


@pytest.mark.parametrize("provider", Provider)
def test_only_a_git_repository_takes_a_version(provider: Provider) -> None:
    git = provider in (Provider.GITHUB, Provider.GITLAB, Provider.GIST, Provider.GIT)
    assert Source(provider, "x").takes_ref == git
