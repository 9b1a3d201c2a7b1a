"""What builders said while they built, in DynamoDB: one item for each launch that built, beside its session.

    pk, sk            session#<sid>, build-log#<generation>
    text              the end of the log, as zlib packs it
    ttl

Only for reading it: nothing depends on it. It holds what a repository's own build printed on the visitor's endpoint.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from chalicelib.aws.dynamodb import Clock, Table
from chalicelib.aws.session_items import pk_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

LOG_TTL: Final = 30 * 86400.0  # seconds that a log is kept
LOG_BYTES: Final = 512 * 1024  # of the end of a log, in UTF-8
PACKED_BYTES: Final = 300 * 1024  # an item has at most 400 KB


class BuildLogStore:
    """The logs of one hub's builds."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, clock: Clock) -> None:
        self._table = Table(dynamodb, table)
        self._clock = clock

    def put(self, sid: str, generation: int, text: str) -> None:
        """Keep the end of a launch's log; raises StoreUnavailable."""
        end, packed = text.encode("utf-8", "replace")[-LOG_BYTES:], b""
        while len(packed := zlib.compress(end)) > PACKED_BYTES:
            end = end[len(end) // 4 :]
        ttl = str(int(self._clock() + LOG_TTL))
        pk, sk = _place(sid, generation)
        self._table.put({"pk": {"S": pk}, "sk": {"S": sk}, "text": {"B": packed}, "ttl": {"N": ttl}})

    def get(self, sid: str, generation: int) -> str | None:
        """Give a launch's log, if there is one; raises StoreUnavailable."""
        item = self._table.get(*_place(sid, generation))
        return None if item is None else zlib.decompress(bytes(item["text"]["B"])).decode("utf-8", "replace")


def _place(sid: str, generation: int) -> tuple[str, str]:
    return pk_of(sid), f"build-log#{generation}"
