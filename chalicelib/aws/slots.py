"""The slots of sessions in DynamoDB: one item per pool, changed on condition of its version.

    pk              sk      what
    slots#pull      slots   who pulls
    slots#handover  slots   whose pull is being taken over
    slots#slow      slots   what held a function for long lately
    slots#launch    slots   whose turn it is in that lane, among those of slow owners and networks;
                            slots#leave and slots#watch likewise
    slots#repository-<hash of it>  slots   which sessions launch or run that repository (HOMEPORT_REPOSITORY_LIMIT)

`slots` is JSON: for each session [owner, endpoint, source, until]. Slots whose time is over are left out at the next
change, and the item goes with the last one (`ttl`). What cannot be read counts for no slot: all of them end by
themselves. An item has 400 KB at most. Nobody pulls or has a turn without a function, so their number bounds those
items; NOTES_MOST bounds that of the slow, 100 slots of 110 bytes, and config.REPOSITORY_MOST that of a repository, 500
of 50.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple
from enum import StrEnum
from hashlib import sha256
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from chalicelib.aws.dynamodb import Clock, Item, Table
from chalicelib.aws.errors import StoreUnavailable
from chalicelib.repository.source import Source
from chalicelib.session.admission import Crowd, Quota, Slot, crowd_before
from chalicelib.session.lanes import Lane

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

RENEWAL_SECONDS: Final = 30.0  # a slot that would end so little later is not written again,
NOTE_RENEWAL_SECONDS: Final = 10.0  # and a note, which has to outlast the next call
RACES: Final = 20  # a change loses only against another one; the pauses between them are 5 seconds in all
FIRST_PAUSE: Final = 0.02  # seconds at most; a read and a write take about as long
NOTES_MOST: Final = 100  # several times what it takes to make an owner or a network wait for its turn


class Pool(StrEnum):
    """What there are slots of, besides repositories (repository_pool)."""

    PULL = "pull"
    HANDOVER = "handover"
    SLOW = "slow"
    LAUNCH_TURN = "launch"
    LEAVE_TURN = "leave"
    WATCH_TURN = "watch"


TURNS: Final[Mapping[Lane, Pool]] = MappingProxyType(
    {Lane.LAUNCH: Pool.LAUNCH_TURN, Lane.LEAVE: Pool.LEAVE_TURN, Lane.WATCH: Pool.WATCH_TURN}
)


def repository_pool(source: Source) -> str:
    """Name the pool of a repository, whatever its version and folder."""
    return f"repository-{sha256(f'{source.provider} {source.address}'.encode()).hexdigest()[:40]}"


class SlotStore:
    """The slots of one hub."""

    def __init__(
        self, dynamodb: DynamoDBClient, table: str, clock: Clock, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._table = Table(dynamodb, table)
        self._clock = clock
        self._sleep = sleep

    def held(self, pool: str, *, consistent: bool = True) -> dict[str, Slot]:
        """The slots of a pool by session, those whose time is over left out.

        Not `consistent`: at half the price, and maybe as they were a moment ago.
        """
        return self._read(pool, consistent=consistent)[1]

    def take(self, pool: str, sid: str, slot: Slot, quota: Quota) -> Crowd | None:
        """Give the session its slot, or renew it; else say who is before it. Raises StoreUnavailable."""
        crowd: Crowd | None = None

        def with_ours(held: Mapping[str, Slot]) -> Mapping[str, Slot]:
            nonlocal crowd
            if _lasts(held, sid, slot, RENEWAL_SECONDS):
                return held
            crowd = crowd_before(held, sid, slot, quota, self._clock())
            return held if crowd else {**held, sid: slot}

        self._change(pool, sid, with_ours)
        return crowd

    def put(self, pool: str, sid: str, slot: Slot) -> None:
        """Give the session a slot, whoever else has one; the oldest make room. Raises StoreUnavailable."""

        def with_ours(held: Mapping[str, Slot]) -> Mapping[str, Slot]:
            others = [(holder, other) for holder, other in held.items() if holder != sid]
            if _lasts(held, sid, slot, NOTE_RENEWAL_SECONDS):
                return held
            return dict([*others, (sid, slot)][-NOTES_MOST:])

        self._change(pool, sid, with_ours)

    def give_back(self, pool: str, sid: str) -> None:
        """Take the session's slot away, if it has one. Raises StoreUnavailable."""
        self._change(pool, sid, lambda held: {holder: slot for holder, slot in held.items() if holder != sid})

    def _change(self, pool: str, sid: str, change: Callable[[Mapping[str, Slot]], Mapping[str, Slot]]) -> None:
        for race in range(RACES):
            version, before = self._read(pool)
            after = change(before)
            if after == before or self._write(pool, version, after):
                return
            self._sleep(_pause(sid, race))
        raise StoreUnavailable("Others change the hub's slots at the same time; try again in a moment")

    def _read(self, pool: str, *, consistent: bool = True) -> tuple[int, dict[str, Slot]]:
        item = self._table.get(f"slots#{pool}", "slots", consistent=consistent)
        if item is None:
            return 0, {}
        return int(item["version"]["N"]), _slots_of(item, self._clock())

    def _write(self, pool: str, version: int, slots: Mapping[str, Slot]) -> bool:
        item = {
            "pk": {"S": f"slots#{pool}"},
            "sk": {"S": "slots"},
            "version": {"N": str(version + 1)},
            "slots": {"S": json.dumps({sid: astuple(slot) for sid, slot in slots.items()}, separators=(",", ":"))},
            "ttl": {"N": str(int(max((slot.until for slot in slots.values()), default=self._clock())) + 1)},
        }
        if version == 0:
            return self._table.put(item, condition="attribute_not_exists(pk)")
        return self._table.put(item, condition="version = :before", values={":before": {"N": str(version)}})


def _pause(sid: str, race: int) -> float:
    """How long to wait after a lost race, in seconds: longer each time, and never as long as another session."""
    share = int.from_bytes(sha256(f"{sid} {race}".encode()).digest()[:2], "big") / 65536
    return share * FIRST_PAUSE * 2.0 ** min(race, 5)


def _lasts(held: Mapping[str, Slot], sid: str, slot: Slot, renewal: float) -> bool:
    return sid in held and held[sid].until > slot.until - renewal


def _slots_of(item: Item, now: float) -> dict[str, Slot]:
    try:
        stored = {sid: Slot(*parts[:4]) for sid, parts in json.loads(item["slots"]["S"]).items()}
        return {sid: slot for sid, slot in stored.items() if slot.until > now}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
