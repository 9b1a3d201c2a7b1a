"""The door and the rates of launching, in DynamoDB.

    pk, sk            hub, door: what the operator says
    message

    pk, sk            hub, sessions: how many there were when the schedule counted
    sessions, counted_at

    pk, sk            rate#<digest of whom it is about>, rate
    full_at           when its bucket is full again
    ttl

What a door and a rate are is said in session/door.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from chalicelib.aws.dynamodb import Clock, Table
from chalicelib.aws.errors import StoreUnavailable
from chalicelib.session.door import Door, Rate

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

RACES: Final = 4  # between seeing that a bucket is full and taking of it as one that is not

_HUB: Final = "hub"
_DOOR: Final = "door"
_SESSIONS: Final = "sessions"
_RATE: Final = "rate"


class DoorStore:
    """The door of one hub."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, clock: Clock) -> None:
        self._table = Table(dynamodb, table)
        self._clock = clock

    def read(self, *, counted: bool = True) -> Door:
        """Look at the door, and at how many sessions were `counted` if that matters; raises StoreUnavailable."""
        places = [(_HUB, _DOOR), (_HUB, _SESSIONS)] if counted else [(_HUB, _DOOR)]
        found = {item["sk"]["S"]: item for item in self._table.get_all(places)}
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
        """Take a token of somebody's bucket: 0, or in how many seconds there is one. Raises StoreUnavailable.

        Nothing is read before it is changed: fifty who come at the same moment do not get into each other's way.
        """
        pk, now = f"{_RATE}#{sha256(whose.encode()).hexdigest()[:40]}", self._clock()
        values = {":now": _number(now), ":ttl": {"N": str(int(now + rate.seconds) + 1)}}
        for _ in range(RACES):
            if self._change(
                pk, ":first", "attribute_not_exists(pk) OR full_at <= :now", values, first=now + rate.share
            ):
                return 0.0
            numbers = {"share": rate.share, "latest": rate.latest(now)}
            if self._change(pk, "full_at + :share", "full_at > :now AND full_at <= :latest", values, **numbers):
                return 0.0
            item = self._table.get(pk, _RATE)
            _, late = rate.taken(float(item["full_at"]["N"]) if item else now, now)
            if late:
                return late
        raise StoreUnavailable("Too many requests at the same moment; try again in a few seconds")

    def _change(self, pk: str, full_at: str, condition: str, values: Mapping[str, Any], **numbers: float) -> bool:
        return self._table.update(
            pk,
            _RATE,
            f"SET full_at = {full_at}, #ttl = :ttl",
            condition=condition,
            names={"#ttl": "ttl"},
            values={**values, **{f":{name}": _number(number) for name, number in numbers.items()}},
        )


def _number(value: float) -> dict[str, str]:
    return {"N": repr(value)}
