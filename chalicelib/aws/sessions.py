"""Sessions in DynamoDB. Every save is conditional on the version it was loaded with; a lost race raises
StaleSession."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from chalicelib.aws.dynamodb import Clock, Table
from chalicelib.aws.errors import SessionNotFound, StaleSession
from chalicelib.aws.session_items import item_of, session_of, sid_of
from chalicelib.session.lanes import Lane
from chalicelib.session.values import Session

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class SessionStore:
    """The sessions of one hub."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, clock: Clock) -> None:
        self._table = Table(dynamodb, table)
        self._clock = clock

    def find(self, sid: str) -> Session | None:
        """Return the session, or None when there is no such id; whatever is stored, something is returned."""
        item = self._table.get(f"session#{sid}", "session")
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
        if not saved:
            raise StaleSession("The session was changed meanwhile; reload it")

    def of_owner(self, owner: str) -> list[Session]:
        """Return the owner's sessions, newest first (eventually consistent)."""
        found = self._table.query(
            "owner", "#owner = :owner", {":owner": {"S": owner}}, names={"#owner": "owner"}, newest_first=True
        )
        return [session_of(item) for item in found]

    def due(self, now: float) -> Iterator[tuple[str, Lane]]:
        """Yield id and lane of each session that nobody is at work on and whose time has come; those that leave first.

        The version before wrote "due" instead of a lane; a tick passes on what is not its lane's.
        """
        shards = [(lane.value, lane) for lane in (Lane.LEAVE, Lane.LAUNCH, Lane.PULL, Lane.WATCH)]
        for shard, lane in [*shards, ("due", Lane.LAUNCH)]:
            values = {":shard": {"S": shard}, ":now": {"N": repr(now)}}
            for item in self._table.query("redrive", "redrive = :shard AND redrive_at <= :now", values):
                yield sid_of(item), lane
