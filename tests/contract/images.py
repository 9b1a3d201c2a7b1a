"""What every store of saved images must do: inherited by the tests of the twin and of DynamoDB."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from chalicelib.aws.images import BUILT_TTL, SAVED_TTL
from chalicelib.launcher import outside
from chalicelib.repository.source import Provider, Source
from chalicelib.session.values import BuiltImage, SavedImage
from chalicelib.web import hub
from tests.builders import NOW, OWNER

IMAGE = SavedImage(
    OWNER, "localhost/lessons:2026-11-29", "tcp://[2001:db8::1]:2376", "Übung 笔记 🛳", NOW + 0.25, 1 << 33
)


BUILT = BuiltImage(
    OWNER,
    f"localhost/homeport-built:{40 * 'a'}",
    "tcp://[2001:db8::1]:2376",
    Source(Provider.GITHUB, "https://github.com/somebody/lessons", "main", "Übung"),
    40 * "b",
    1 << 33,
    NOW + 0.25,
    NOW + 0.5,
)


class Images(outside.Images, hub.Images, Protocol):
    """All that anybody needs of a store of images: the launcher writes, the hub reads."""


class ImageStoreContract:
    """`images` is a fixture of the inheriting class; its clock shows `self.now`."""

    now = NOW + 1

    def test_an_image_that_was_saved_is_in_its_owners_list_and_in_no_other(self, images: Images) -> None:
        images.put(IMAGE)
        assert images.of_owner(OWNER) == [IMAGE]
        assert images.of_owner("cd" * 32) == []

    def test_one_that_is_written_down_twice_is_there_once_as_it_was_saved_last(self, images: Images) -> None:
        again = replace(IMAGE, saved_at=NOW + 0.5, size=7, notebook="another")
        for image in (IMAGE, IMAGE, again):
            images.put(image)
        assert images.of_owner(OWNER) == [again]

    def test_images_of_one_name_on_two_endpoints_are_two_and_the_last_saved_is_first(self, images: Images) -> None:
        later = replace(IMAGE, endpoint="tcp://docker.example.org:2376", saved_at=NOW + 0.75)
        other = replace(IMAGE, name="registry.example.org:5000/a/b", saved_at=NOW, size=0)
        for image in (IMAGE, later, other):
            images.put(image)
        assert images.of_owner(OWNER) == [later, IMAGE, other]

    def test_it_is_listed_for_its_time_and_no_longer(self, images: Images) -> None:
        images.put(IMAGE)
        self.now = IMAGE.saved_at + SAVED_TTL - 1
        assert images.of_owner(OWNER) == [IMAGE]
        self.now = IMAGE.saved_at + SAVED_TTL
        assert images.of_owner(OWNER) == []

    def test_an_image_that_was_built_is_in_its_owners_list_beside_the_saved_ones(self, images: Images) -> None:
        images.put(IMAGE)
        images.put_built(BUILT, is_new=True)
        assert images.built_of(OWNER) == [BUILT]
        assert images.built_of("cd" * 32) == []
        assert images.of_owner(OWNER) == [IMAGE]

    def test_a_built_image_that_is_used_again_keeps_when_it_was_built_unless_it_was_built_anew(
        self, images: Images
    ) -> None:
        later = replace(BUILT, built_at=NOW + 7, used_at=NOW + 7, size=7)
        images.put_built(BUILT, is_new=False)
        images.put_built(later, is_new=False)
        assert images.built_of(OWNER) == [replace(later, built_at=BUILT.built_at)]
        images.put_built(later, is_new=True)
        assert images.built_of(OWNER) == [later]

    def test_built_images_are_taken_out_of_one_endpoints_list_and_the_last_used_is_first(self, images: Images) -> None:
        other = replace(BUILT, endpoint="tcp://docker.example.org:2376", used_at=NOW + 1)
        third = replace(BUILT, name=BUILT.name.replace("a", "c"), used_at=NOW)
        for image in (BUILT, other, third):
            images.put_built(image, is_new=True)
        assert images.built_of(OWNER) == [other, BUILT, third]
        for _ in range(2):
            images.remove_built(OWNER, BUILT.endpoint, [BUILT.name, third.name])
            assert images.built_of(OWNER) == [other]

    def test_a_built_image_is_listed_for_its_time_after_its_last_use_and_no_longer(self, images: Images) -> None:
        images.put_built(BUILT, is_new=True)
        self.now = BUILT.used_at + BUILT_TTL - 1
        assert images.built_of(OWNER) == [BUILT]
        self.now = BUILT.used_at + BUILT_TTL
        assert images.built_of(OWNER) == []
