"""Sessions in DynamoDB. Every save is conditional on the version it was loaded with; a lost race raises StaleSession.

The item of a session holds the newest line of its log. What became history by a change is written after that change is
saved, and may be lost: there is no transaction, and nothing but the log's reader ever looks at it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, groupby, islice
from typing import TYPE_CHECKING, Any

from chalicelib.aws.dynamodb import Clock, Item, Table
from chalicelib.aws.errors import SessionNotFound, StaleSession, StoreUnavailable
from chalicelib.aws.session_items import (
    LINES,
    item_of,
    line_item_of,
    line_of,
    pk_of,
    session_of,
    shard_of,
    sid_of,
    summary_of,
)
from chalicelib.session.lanes import Lane
from chalicelib.session.looks import ASKED_SECONDS, rings_at
from chalicelib.session.values import Line, Session, Summary

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

log = logging.getLogger("homeport.sessions")


@dataclass(frozen=True, slots=True)
class Due:
    """A session that is due, and since when, as the index says it."""

    sid: str
    lane: Lane
    since: str


class SessionStore:
    """The sessions of one hub."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, clock: Clock) -> None:
        self._table = Table(dynamodb, table)
        self._clock = clock

    def find(self, sid: str, *, consistent: bool = True) -> Session | None:
        """Return the session, or None when there is no such id; whatever is stored, something is returned.

        Not `consistent`: at half the price, and maybe as it was a moment ago.
        """
        item = self._table.get(pk_of(sid), "session", consistent=consistent)
        return session_of(item) if item else None

    def load(self, sid: str) -> Session:
        """Return the session; raises SessionNotFound."""
        session = self.find(sid)
        if session is None:
            raise SessionNotFound("There is no such session")
        return session

    def save(self, session: Session) -> None:
        """Write the session if the stored one is the version before it (version 1: there is none); else StaleSession.

        Raises StoreUnavailable; whether the write was done is then unknown, and a repetition is harmless.
        """
        before = session.version - 1
        saved = self._table.put(
            item_of(session, self._clock()),
            condition="version = :before" if before else "attribute_not_exists(pk)",
            values={":before": {"N": str(before)}} if before else None,
        )
        history = [line for line in session.log[:-1] if line.place]
        if history and (saved or self.find(session.sid) == session):  # it is there: only the answer was lost
            self._keep(session, history)
        if not saved:
            raise StaleSession("The session was changed meanwhile; reload it")

    def earlier_lines(self, session: Session) -> list[Line]:
        """Return what there is of the lines of this launch that the session does not hold itself, in any order."""
        values = {":session": {"S": pk_of(session.sid)}, ":lines": {"S": LINES}}
        found = self._table.query(None, "pk = :session AND begins_with(sk, :lines)", values)
        lines = (line_of(item, session.generation) for item in found)
        return [line for line in lines if line is not None]

    def of_owner(self, owner: str, limit: int, before: tuple[float, str] | None = None) -> list[Summary]:
        """Return at most `limit` of the owner's sessions, newest first (eventually consistent).

        `before` is the position of a session (Summary.position): only what comes after it in that order.
        """
        condition, values = "#owner = :owner", {":owner": {"S": owner}}
        if before is not None:
            condition += " AND created_at <= :latest"
            values[":latest"] = {"N": repr(before[0])}
        # One more than is wanted, to see that no other session was created at the same time as the last one.
        items = self._table.query(
            "listing", condition, values, names={"#owner": "owner"}, newest_first=True, page_size=limit + 1
        )
        found = (summary for summary in self._in_order(items) if before is None or summary.position < before)
        return list(islice(found, limit))

    def due(self, now: float) -> Iterator[Due]:
        """Yield each session that nobody is at work on and whose time has come; those that leave first.

        Earlier versions wrote "due" for all lanes, or "watch"; a tick passes on what is not its lane's.
        """
        shards = [(shard_of(lane), lane) for lane in (Lane.LEAVE, Lane.LAUNCH, Lane.PULL, Lane.WATCH)]
        for shard, lane in [*shards, ("watch", Lane.WATCH)]:
            values = {":shard": {"S": shard}, ":now": {"N": repr(now)}}
            for item in self._table.query("redrive", "redrive = :shard AND redrive_at <= :now", values):
                yield Due(sid_of(item), lane, item["redrive_at"]["N"])

    def count(self, most: int) -> int:
        """Count the sessions that have not ended, up to `most` (eventually consistent)."""
        shards = [*map(shard_of, Lane), "watch"]
        every = (self._table.query("redrive", "redrive = :shard", {":shard": {"S": shard}}) for shard in shards)
        return sum(1 for _ in islice(chain.from_iterable(every), most))

    def to_look_at(self, now: float) -> Iterator[str]:
        """Yield the ids of the ready sessions that are looked at in this minute (session/looks.py)."""
        for ring in rings_at(now):
            for item in self._table.query("ring", "ring = :ring", {":ring": {"S": ring}}):
                yield sid_of(item)

    def put_off(self, due: Due, until: float) -> None:
        """Have a session that was sent to its lane not be due again before `until`, unless it is due at another time.

        Times are rounded: one that was saved meanwhile may be put off, too, and its own message drives it on.
        """
        seen = {":seen": {"N": due.since}}
        self._table.change(
            pk_of(due.sid), "session", "redrive_at", {"N": repr(until)}, condition="#name = :seen", values=seen
        )

    def may_ask_for_look(self, sid: str) -> bool:
        """Say whether nobody has asked for a look at the session in the last minute; and note that now somebody has."""
        now = self._clock()
        return self._table.put(
            {
                "pk": {"S": pk_of(sid)},
                "sk": {"S": "asked"},
                "asked_at": {"N": repr(now)},
                "ttl": {"N": str(int(now + ASKED_SECONDS))},
            },
            condition="attribute_not_exists(pk) OR asked_at <= :before",
            values={":before": {"N": repr(now - ASKED_SECONDS)}},
        )

    def _keep(self, session: Session, history: list[Line]) -> None:
        """Write lines down as history, each at its place, as far as the table takes them."""
        for line in history:
            try:
                self._table.put(line_item_of(session, line, self._clock()))
            except StoreUnavailable as error:
                log.warning("session %s: line %d and those after it are lost: %s", session.sid, line.number, error.code)
                return

    def _in_order(self, items: Iterator[Item]) -> Iterator[Summary]:
        """What a list shows of an index's items, by position: those of one moment come from the index in any order."""
        for _, group in groupby(items, key=lambda item: item["created_at"]):
            summaries = filter(None, map(self._summary, group))
            yield from sorted(summaries, key=lambda summary: summary.position, reverse=True)

    def _summary(self, item: Any) -> Summary | None:
        """What a list shows of an index's item; the session itself says it if the item does not."""
        summary = summary_of(item)
        if summary is None:
            session = self.find(sid_of(item))
            summary = session.summary if session else None
        return summary
