"""What builders said while they built, in DynamoDB, beside the session: one log for each launch that built.

    pk, sk            session#<sid>, build-log#<generation> and build-log#<generation>#<part>
    text              a part of the log, as zlib packs it
    parts             how many there are (in the first)
    ttl

Only for reading it: nothing depends on it. It holds what a repository's own build printed on the visitor's endpoint.
A log that one answer could not hold loses its beginning.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Final

from chalicelib.aws.dynamodb import Clock, Table
from chalicelib.aws.session_items import pk_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

LOG_TTL: Final = 30 * 86400.0  # seconds that a log is kept
LOG_BYTES: Final = 5 << 20  # of a log, as JSON has it: a function's answer has at most 6 MB
PART_BYTES: Final = 320 << 10  # of a log in one item, which has at most 400 KB, if it cannot be packed


class BuildLogStore:
    """The logs of one hub's builds."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, clock: Clock) -> None:
        self._table = Table(dynamodb, table)
        self._clock = clock

    def put(self, sid: str, generation: int, text: str) -> None:
        """Keep a launch's log; raises StoreUnavailable. The first part is written last, when the others are there."""
        log = _fitting(text).encode("utf-8", "replace")
        parts = [log[at : at + PART_BYTES] for at in range(0, len(log), PART_BYTES)] or [b""]
        ttl = {"N": str(int(self._clock() + LOG_TTL))}
        for number in reversed(range(len(parts))):
            pk, sk = _place(sid, generation, number)
            packed = {"B": zlib.compress(parts[number])}
            count = {} if number else {"parts": {"N": str(len(parts))}}
            self._table.put({"pk": {"S": pk}, "sk": {"S": sk}, "text": packed, "ttl": ttl, **count})

    def get(self, sid: str, generation: int) -> str | None:
        """Give a launch's log, if there is one; raises StoreUnavailable."""
        first = self._table.get(*_place(sid, generation, 0))
        if first is None:
            return None
        more = [_place(sid, generation, number) for number in range(1, int(first["parts"]["N"]))]
        found = {item["sk"]["S"]: item for item in self._table.get_all(more)} if more else {}
        items = [first, *(found[sk] for _, sk in more if sk in found)]
        return b"".join(zlib.decompress(bytes(item["text"]["B"])) for item in items).decode("utf-8", "replace")


def _fitting(text: str) -> str:
    while len(json.dumps(text)) > LOG_BYTES:
        text = text[len(text) // 4 :]
    return text


def _place(sid: str, generation: int, part: int) -> tuple[str, str]:
    return pk_of(sid), f"build-log#{generation}" + (f"#{part}" if part else "")
