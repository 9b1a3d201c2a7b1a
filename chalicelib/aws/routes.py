"""Routes and grants in DynamoDB: what the launcher writes, the agent reads, and browsers enter by.

1. A withdrawn route stays as a tombstone of its generation, so a late publication of the same generation is refused
   and the feed tells the proxy of the withdrawal.
2. Everything the proxy has to know of carries `changed_at` and is in the index `feed`, oldest change first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from chalicelib.aws.dynamodb import Clock, Item, Table, digest_of
from chalicelib.aws.errors import GenerationWithdrawn
from chalicelib.session.errors import IllegalTransition
from chalicelib.session.values import Session, Target

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

TOMBSTONE_TTL: Final = 86400.0  # seconds; long past any proxy's longest look at the feed


@dataclass(frozen=True, slots=True)
class Route:
    """Where the proxy finds one launch's notebook. `changed_at` in milliseconds, `expires_at` in seconds (epoch)."""

    sid: str
    generation: int
    target: Target | None
    published: bool
    changed_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Grant:
    """A browser's lasting entry to one launch of one session; `digest` is the cookie's SHA-256 in hex."""

    digest: str
    sid: str
    generation: int
    revoked: bool
    changed_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Redeemed:
    """What a ticket was good for: `path` is where in the notebook's origin to go."""

    sid: str
    generation: int
    path: str
    expires_at: int


class RouteStore:
    """The launcher's side of the routes."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, clock: Clock) -> None:
        self._table = Table(dynamodb, table)
        self._clock = clock

    def publish(self, session: Session) -> None:
        """Publish the session's target; raises GenerationWithdrawn, and IllegalTransition when it has none."""
        if session.target is None:
            raise IllegalTransition("a session without a target cannot be published")
        target = {"address": {"S": session.target.address}, "port": {"N": str(session.target.port)}}
        self._write(session, target, published=True, ttl=session.expires_at + TOMBSTONE_TTL)

    def withdraw(self, session: Session) -> None:
        """Withdraw the route of the session's generation, also one that was never published.

        Raises GenerationWithdrawn when a later launch has the route.
        """
        self._write(session, {}, published=False, ttl=self._clock() + TOMBSTONE_TTL)

    def _write(self, session: Session, target: Mapping[str, Any], *, published: bool, ttl: float) -> None:
        same = "generation = :generation" + (" AND published = :true" if published else "")
        values: dict[str, Any] = {":generation": {"N": str(session.generation)}}
        if published:
            values[":true"] = {"BOOL": True}
        item = {
            "pk": {"S": f"route#{session.sid}"},
            "sk": {"S": "route"},
            "generation": {"N": str(session.generation)},
            "published": {"BOOL": published},
            "expires_at": {"N": str(int(session.expires_at))},
            "ttl": {"N": str(int(ttl))},
            **_feed(self._clock),
            **target,
        }
        condition = f"attribute_not_exists(pk) OR generation < :generation OR ({same})"
        if not self._table.put(item, condition=condition, values=values):
            raise GenerationWithdrawn("This launch's route was withdrawn, or belongs to a later launch")


class ProxyStore:
    """The proxy's side: what changed, one route, one grant, and the redeeming of tickets."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, clock: Clock) -> None:
        self._table = Table(dynamodb, table)
        self._clock = clock

    def changes(self, since: int) -> Iterator[Route | Grant]:
        """Yield what changed at or after `since` (milliseconds since the epoch; 0 is everything), oldest first.

        The index is eventually consistent: look back a few seconds. Raises StoreUnavailable, also between items.
        """
        values = {":proxy": {"S": "proxy"}, ":since": {"N": str(since)}}
        for item in self._table.query("feed", "feed = :proxy AND changed_at >= :since", values):
            yield _route_of(item) if item["sk"]["S"] == "route" else _grant_of(item)

    def route(self, sid: str) -> Route | None:
        """Look one route up, consistently."""
        item = self._table.get(f"route#{sid}", "route")
        return _route_of(item) if item else None

    def grant(self, digest: str) -> Grant | None:
        """Look one grant up, consistently."""
        item = self._table.get(f"grant#{digest}", "grant")
        return _grant_of(item) if item else None

    def redeem_ticket(self, ticket: str, sid: str) -> Redeemed | None:
        """Take the ticket away; None when it is unknown, used, too old or for another session."""
        item = self._table.take(
            f"ticket#{digest_of(ticket)}",
            "ticket",
            condition="sid = :sid AND #ttl > :now",
            values={":sid": {"S": sid}, ":now": {"N": str(int(self._clock()))}},
        )
        if item is None:
            return None
        return Redeemed(sid, int(item["generation"]["N"]), item["path"]["S"], int(item["session_expires_at"]["N"]))

    def put_grant(self, grant: Grant) -> None:
        """Remember a browser's entry; `changed_at` is set to now, for the feed."""
        item = {
            "pk": {"S": f"grant#{grant.digest}"},
            "sk": {"S": "grant"},
            "sid": {"S": grant.sid},
            "generation": {"N": str(grant.generation)},
            "revoked": {"BOOL": grant.revoked},
            "expires_at": {"N": str(grant.expires_at)},
            "ttl": {"N": str(grant.expires_at + int(TOMBSTONE_TTL))},
            **_feed(self._clock),
        }
        self._table.put(item)


def _feed(clock: Clock) -> dict[str, Any]:
    return {"feed": {"S": "proxy"}, "changed_at": {"N": str(int(clock() * 1000))}}


def _route_of(item: Item) -> Route:
    published = bool(item["published"]["BOOL"])
    return Route(
        sid=item["pk"]["S"].removeprefix("route#"),
        generation=int(item["generation"]["N"]),
        target=Target(item["address"]["S"], int(item["port"]["N"])) if published else None,
        published=published,
        changed_at=int(item["changed_at"]["N"]),
        expires_at=int(item["expires_at"]["N"]),
    )


def _grant_of(item: Item) -> Grant:
    return Grant(
        digest=item["pk"]["S"].removeprefix("grant#"),
        sid=item["sid"]["S"],
        generation=int(item["generation"]["N"]),
        revoked=bool(item["revoked"]["BOOL"]),
        changed_at=int(item["changed_at"]["N"]),
        expires_at=int(item["expires_at"]["N"]),
    )
