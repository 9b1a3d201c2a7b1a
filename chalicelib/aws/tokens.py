"""Owner tokens and entry tickets in DynamoDB: what the web function hands out, by their digests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from chalicelib.aws.dynamodb import Clock, Table, digest_of
from chalicelib.session.values import Session

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class TokenStore:
    """The owner tokens and entry tickets of one hub."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, clock: Clock) -> None:
        self._table = Table(dynamodb, table)
        self._clock = clock

    def put_token(self, token: str, owners: frozenset[str], *, expires_at: float) -> None:
        """Remember whose owner token this is; a browser that uploaded several keys' bundles stands for several."""
        self._put(f"token#{digest_of(token)}", "token", {"owners": {"SS": sorted(owners)}}, expires_at)

    def owners_of(self, token: str) -> frozenset[str]:
        """Return the owners the token stands for; none when it is unknown or its time is over."""
        item = self._table.get(f"token#{digest_of(token)}", "token")
        if item is None or int(item["ttl"]["N"]) <= self._clock():
            return frozenset()
        return frozenset(item["owners"]["SS"])

    def put_ticket(self, ticket: str, session: Session, *, path: str, expires_at: float) -> None:
        """Remember a one-time entry to the session's present launch; ProxyStore.redeem_ticket takes it.

        `sid` and `generation` are for a proxy of the version before (routes.py, rule 4).
        """
        entry = {
            "host": {"S": session.host},
            "sid": {"S": session.sid},
            "generation": {"N": str(session.generation)},
            "path": {"S": path},
            "session_expires_at": {"N": str(int(session.expires_at))},
        }
        self._put(f"ticket#{digest_of(ticket)}", "ticket", entry, expires_at)

    def _put(self, pk: str, sk: str, attributes: Mapping[str, Any], expires_at: float) -> None:
        self._table.put({"pk": {"S": pk}, "sk": {"S": sk}, "ttl": {"N": str(int(expires_at))}, **attributes})
