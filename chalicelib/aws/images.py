"""The images that an owner's notebooks were saved as, in DynamoDB: one item for each name on each endpoint.

    pk, sk                   owner#<owner>, image#<endpoint>#<name>
    notebook, saved_at, size
    ttl

The list only helps to find them: the images are on the endpoint, which alone knows whether they still are. An item that
cannot be read is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

from chalicelib.aws.dynamodb import Clock, Item, Table
from chalicelib.session.values import SavedImage

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SAVED_TTL: Final = 90 * 86400.0  # seconds that an image is listed, after it was saved last
READ_MOST: Final = 200  # items of an owner

_OWNER: Final = "owner#"
_IMAGE: Final = "image#"


class ImageStore:
    """The saved images of one hub's owners."""

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
        """Return the owner's images, the last saved first. Raises StoreUnavailable."""
        values = {":owner": {"S": f"{_OWNER}{owner}"}, ":images": {"S": _IMAGE}}
        items = self._table.query(None, "pk = :owner AND begins_with(sk, :images)", values, page_size=READ_MOST)
        return sorted(self._read(islice(items, READ_MOST)), key=lambda image: image.saved_at, reverse=True)

    def _read(self, items: Iterator[Item]) -> Iterator[SavedImage]:
        for item in items:
            image = _image_of(item)
            if image is not None and image.saved_at + SAVED_TTL > self._clock():
                yield image


def _image_of(item: Item) -> SavedImage | None:
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
