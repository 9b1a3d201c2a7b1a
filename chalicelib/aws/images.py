"""The images that an owner's notebooks were saved as, and those of repositories that were built for them, in DynamoDB.

There is one item for each name on each endpoint:

    pk, sk                   owner#<owner>, image#<endpoint>#<name>: it was saved
    notebook, saved_at, size
    ttl

    pk, sk                   owner#<owner>, built#<endpoint>#<name>: it was built, or found there by a launch
    repository               JSON: its provider, address, ref and folder
    version, size, built_at, used_at
    ttl

The lists only help to find them: the images are on the endpoint, which alone knows whether they still are. An item that
cannot be read is passed over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

from chalicelib.aws.dynamodb import Clock, Item, Table
from chalicelib.repository.source import Provider, Source
from chalicelib.session.values import BuiltImage, SavedImage

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SAVED_TTL: Final = 90 * 86400.0  # seconds that an image is listed, after it was saved last
BUILT_TTL: Final = 90 * 86400.0  # the same, after a launch used it last
READ_MOST: Final = 200  # items of an owner, of each kind

_OWNER: Final = "owner#"
_IMAGE: Final = "image#"
_BUILT: Final = "built#"
_Image = TypeVar("_Image", SavedImage, BuiltImage)


class ImageStore:
    """The saved and the built images of one hub's owners."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, clock: Clock) -> None:
        self._table = Table(dynamodb, table)
        self._clock = clock

    def put(self, image: SavedImage) -> None:
        """Write down that the image was saved; one of its name on that endpoint takes its place.

        Raises StoreUnavailable.
        """
        self._table.put(
            {
                "pk": {"S": f"{_OWNER}{image.owner}"},
                "sk": {"S": f"{_IMAGE}{image.endpoint}#{image.name}"},
                "notebook": {"S": image.notebook},
                "saved_at": {"N": repr(image.saved_at)},
                "size": {"N": str(image.size)},
                "ttl": {"N": str(int(image.saved_at + SAVED_TTL))},
            }
        )

    def of_owner(self, owner: str) -> list[SavedImage]:
        """Return the owner's saved images, the last saved first. Raises StoreUnavailable."""
        found = self._read(owner, _IMAGE, _saved_of)
        current = (image for image in found if image.saved_at + SAVED_TTL > self._clock())
        return sorted(current, key=lambda image: image.saved_at, reverse=True)

    def put_built(self, image: BuiltImage, *, is_new: bool) -> None:
        """Write down that a launch uses the image; unless it `is_new`, what is known of when it was built stays.

        Raises StoreUnavailable.
        """
        pk, sk = f"{_OWNER}{image.owner}", f"{_BUILT}{image.endpoint}#{image.name}"
        item = None if is_new else self._table.get(pk, sk)
        known = _built_of(item) if item else None
        if known is not None:
            image = replace(image, built_at=known.built_at)
        self._table.put(
            {
                "pk": {"S": pk},
                "sk": {"S": sk},
                "repository": {"S": json.dumps(asdict(image.repository), ensure_ascii=False, separators=(",", ":"))},
                "version": {"S": image.version},
                "size": {"N": str(image.size)},
                "built_at": {"N": repr(image.built_at)},
                "used_at": {"N": repr(image.used_at)},
                "ttl": {"N": str(int(image.used_at + BUILT_TTL))},
            }
        )

    def built_of(self, owner: str) -> list[BuiltImage]:
        """Return the images that were built for the owner, the last used first. Raises StoreUnavailable."""
        found = self._read(owner, _BUILT, _built_of)
        current = (image for image in found if image.used_at + BUILT_TTL > self._clock())
        return sorted(current, key=lambda image: image.used_at, reverse=True)

    def remove_built(self, owner: str, endpoint: str, names: Iterable[str]) -> None:
        """Take built images of an endpoint out of the owner's list. Raises StoreUnavailable."""
        for name in names:
            self._table.delete(f"{_OWNER}{owner}", f"{_BUILT}{endpoint}#{name}")

    def _read(self, owner: str, kind: str, read: Callable[[Item], _Image | None]) -> Iterator[_Image]:
        values = {":owner": {"S": f"{_OWNER}{owner}"}, ":kind": {"S": kind}}
        items = self._table.query(None, "pk = :owner AND begins_with(sk, :kind)", values, page_size=READ_MOST)
        yield from filter(None, map(read, islice(items, READ_MOST)))


def _saved_of(item: Item) -> SavedImage | None:
    try:
        endpoint, _, name = item["sk"]["S"].removeprefix(_IMAGE).partition("#")  # no address has that sign
        return SavedImage(
            owner=item["pk"]["S"].removeprefix(_OWNER),
            name=name,
            endpoint=endpoint,
            notebook=item["notebook"]["S"],
            saved_at=float(item["saved_at"]["N"]),
            size=int(item["size"]["N"]),
        )
    except (KeyError, ValueError):
        return None


def _built_of(item: Item) -> BuiltImage | None:
    try:
        endpoint, _, name = item["sk"]["S"].removeprefix(_BUILT).partition("#")
        source = json.loads(item["repository"]["S"])
        return BuiltImage(
            owner=item["pk"]["S"].removeprefix(_OWNER),
            name=name,
            endpoint=endpoint,
            repository=Source(
                Provider(source["provider"]), *(str(source[key]) for key in ("address", "ref", "folder"))
            ),
            version=item["version"]["S"],
            size=int(item["size"]["N"]),
            built_at=float(item["built_at"]["N"]),
            used_at=float(item["used_at"]["N"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
