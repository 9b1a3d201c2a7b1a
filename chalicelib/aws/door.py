"""The door and the rates of launching, in DynamoDB.

pk, sk            hub, door: what the operator says
message

pk, sk            hub, sessions: how many there were when the schedule counted
sessions, counted_at

pk, sk            rate#<digest of whom it is about>, rate
full_at           when its bucket is full again (session/door.py)
ttl
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from chalicelib.aws.dynamodb import Clock, Table
from chalicelib.aws.errors import StoreUnavailable
from chalicelib.session.door import Door, Rate

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

RACES: Final = 8  # of requests of one visitor

_HUB: Final = "hub"
_DOOR: Final = "door"
_SESSIONS: Final = "sessions"
_RATE: Final = "rate"


class DoorStore:
    """The door of one hub."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, clock: Clock) -> None:
        self._table = Table(dynamodb, table)
        self._clock = clock

    def read(self) -> Door:
        """Look at the door; raises StoreUnavailable."""
        found = {item["sk"]["S"]: item for item in self._table.get_all([(_HUB, _DOOR), (_HUB, _SESSIONS)])}
        message = found[_DOOR]["message"]["S"] if _DOOR in found else ""
        if _SESSIONS not in found:
            return Door(message)
        count = found[_SESSIONS]
        return Door(message, int(count["sessions"]["N"]), float(count["counted_at"]["N"]))

    def close(self, message: str) -> None:
        """Have launches refused with a message, which is not empty; raises StoreUnavailable."""
        self._table.put({"pk": {"S": _HUB}, "sk": {"S": _DOOR}, "message": {"S": message}})

    def open(self) -> None:
        """Have launches accepted again; raises StoreUnavailable."""
        self._table.delete(_HUB, _DOOR)

    def count(self, sessions: int) -> None:
        """Write down how many sessions there are; raises StoreUnavailable."""
        item = {"pk": {"S": _HUB}, "sk": {"S": _SESSIONS}, "sessions": {"N": str(sessions)}}
        self._table.put({**item, "counted_at": {"N": repr(self._clock())}})

    def take(self, whose: str, rate: Rate) -> float:
        """Take a token of somebody's bucket: 0, or in how many seconds there is one. Raises StoreUnavailable."""
        pk = f"{_RATE}#{sha256(whose.encode()).hexdigest()[:40]}"
        now = self._clock()
        full_at, late = rate.taken(now, now)
        if not late and self._write(pk, full_at, "attribute_not_exists(pk) OR full_at <= :seen", now):
            return 0.0
        for _ in range(RACES):
            item = self._table.get(pk, _RATE)
            seen = float(item["full_at"]["N"]) if item else now
            full_at, late = rate.taken(seen, now)
            if late:
                return late
            if self._write(pk, full_at, "attribute_not_exists(pk) OR full_at = :seen", seen):
                return 0.0
        raise StoreUnavailable("Too many requests at the same moment; try again in a few seconds")

    def _write(self, pk: str, full_at: float, condition: str, seen: float) -> bool:
        item = {"pk": {"S": pk}, "sk": {"S": _RATE}, "full_at": {"N": repr(full_at)}}
        item["ttl"] = {"N": str(int(full_at) + 1)}
        return self._table.put(item, condition=condition, values={":seen": {"N": repr(seen)}})
