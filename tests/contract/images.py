"""What every store of saved images must do: inherited by the tests of the twin and of DynamoDB."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from chalicelib.aws.images import SAVED_TTL
from chalicelib.launcher import effects
from chalicelib.session.values import SavedImage
from chalicelib.web import hub
from tests.builders import NOW, OWNER

IMAGE = SavedImage(
    OWNER, "localhost/lessons:2026-11-29", "tcp://[2001:db8::1]:2376", "Übung 笔记 🛳", NOW + 0.25, 1 << 33
)


class Images(effects.Images, hub.Images, Protocol):
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
