"""Routes and grants in DynamoDB: what the launcher writes, the agent reads, and browsers enter by.

1. A route, a ticket and a grant are for one launch, by its `host` (Session.host). Two launches share none of them, also
   not of the same session: what the one left in a browser, or gave away, is nothing to the other.
2. A withdrawn route stays as a tombstone, so a late publication of that launch is refused and the feed tells the proxy
   of the withdrawal. A host is never published again.
3. Everything the proxy has to know of carries `changed_at` and is in the index `feed`, oldest change first. An index's
   partition takes 1,000 write units a second, so the feed may have several shards, by the item's key; sign-outs, which
   are few, are all in the first (docs/adr/0005).
4. The version before had one host for all launches of a session, its id, and told them apart by `generation`. Of what
   it stored, a route serves on, since a session without a label has its id as host; a ticket or a grant without a
   sign-in (sign_ins.py) is none, so its browser comes from the hub again. A launch that was under way during the update
   fails if the one before it was withdrawn less than a day ago, and can be launched again. Our own items carry `sid`
   and `generation` for a proxy of that version, whose agent would end without them: it passes over a host that has a
   label.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from chalicelib.aws.dynamodb import Clock, Item, Table, digest_of
from chalicelib.aws.errors import LaunchWithdrawn
from chalicelib.aws.sign_ins import SignIn, SignOut, sign_in_attributes, sign_in_of, sign_out_of, standing
from chalicelib.session.errors import IllegalTransition
from chalicelib.session.values import Session, Target

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

TOMBSTONE_TTL: Final = 86400.0  # seconds; long past any proxy's longest look at the feed


@dataclass(frozen=True, slots=True)
class Route:
    """Where the proxy finds one launch's notebook. `changed_at` in milliseconds, `expires_at` in seconds (epoch)."""

    host: str
    target: Target | None
    published: bool
    changed_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Grant:
    """A browser's lasting entry to one launch; `digest` is the cookie's SHA-256 in hex."""

    digest: str
    host: str
    revoked: bool
    changed_at: int
    expires_at: int
    sign_in: SignIn


@dataclass(frozen=True, slots=True)
class Redeemed:
    """What a ticket was good for: `path` is where in the notebook's origin to go, `expires_at` the grant's end (s)."""

    host: str
    path: str
    expires_at: int
    sign_in: SignIn


class RouteStore:
    """The launcher's side of the routes; the proxies read as many `shards` of the feed, or more."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, clock: Clock, *, shards: int = 1) -> None:
        self._table = Table(dynamodb, table)
        self._clock = clock
        self._shards = shards

    def publish(self, session: Session) -> None:
        """Publish the launch's target; raises LaunchWithdrawn, and IllegalTransition when it has none."""
        if session.target is None:
            raise IllegalTransition("a session without a target cannot be published")
        target = {"address": {"S": session.target.address}, "port": {"N": str(session.target.port)}}
        item = self._item(session, published=True, ttl=session.expires_at + TOMBSTONE_TTL) | target
        condition, values = "attribute_not_exists(pk) OR published = :true", {":true": {"BOOL": True}}
        if not self._table.put(item, condition=condition, values=values):
            raise LaunchWithdrawn("This launch's route was withdrawn. Launch the notebook again")

    def withdraw(self, session: Session) -> None:
        """Withdraw the launch's route for ever, also one that was never published."""
        self._table.put(self._item(session, published=False, ttl=self._clock() + TOMBSTONE_TTL))

    def _item(self, session: Session, *, published: bool, ttl: float) -> dict[str, Any]:
        pk = f"route#{session.host}"
        return {
            "pk": {"S": pk},
            "sk": {"S": "route"},
            "generation": {"N": str(session.generation)},  # rule 4
            "published": {"BOOL": published},
            "expires_at": {"N": str(int(session.expires_at))},
            "ttl": {"N": str(int(ttl))},
            **_feed(pk, self._shards, self._clock),
        }


class ProxyStore:
    """The proxy's side: what changed in all `shards` of the feed, one route, one grant; and tickets are redeemed."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, clock: Clock, *, shards: int = 1) -> None:
        self._table = Table(dynamodb, table)
        self._clock = clock
        self._shards = shards

    def changes(self, since: int) -> Iterator[Route | Grant | SignOut]:
        """Yield what changed at or after `since` (milliseconds since the epoch; 0 is everything), in any order.

        The index is eventually consistent: look back a few seconds. Raises StoreUnavailable, also between items.
        """
        for item in self._changed(since):
            match item["sk"]["S"]:
                case "route":
                    yield _route_of(item)
                case "signed-out":
                    yield sign_out_of(item)
                case "grant" if (grant := _grant_of(item)) is not None:
                    yield grant

    def _changed(self, since: int) -> Iterator[Item]:
        for shard in range(self._shards):
            values = {":shard": {"S": _shard(shard)}, ":since": {"N": str(since)}}
            yield from self._table.query("feed", "feed = :shard AND changed_at >= :since", values)

    def route(self, host: str) -> Route | None:
        """Look one route up, consistently."""
        item = self._table.get(f"route#{host}", "route")
        return _route_of(item) if item else None

    def grant(self, digest: str) -> Grant | None:
        """Look one grant up, consistently; it is revoked if its sign-in is over."""
        item = self._table.get(f"grant#{digest}", "grant")
        grant = _grant_of(item) if item else None
        if grant is None or standing(self._table, [grant.sign_in]):
            return grant
        return replace(grant, revoked=True)

    def redeem_ticket(self, ticket: str, host: str) -> Redeemed | None:
        """Take the ticket away; None when it is unknown, used, too old, for another launch or signed out."""
        item = self._table.take(
            f"ticket#{digest_of(ticket)}",
            "ticket",
            condition="host = :host AND #ttl > :now",
            values={":host": {"S": host}, ":now": {"N": str(int(self._clock()))}},
        )
        sign_in = sign_in_of(item) if item else None
        if item is None or sign_in is None or not standing(self._table, [sign_in]):
            return None
        return Redeemed(host, item["path"]["S"], int(item["session_expires_at"]["N"]), sign_in)

    def put_grant(self, grant: Grant) -> None:
        """Remember a browser's entry; `changed_at` is set to now, for the feed."""
        pk = f"grant#{grant.digest}"
        item = {
            "pk": {"S": pk},
            "sk": {"S": "grant"},
            "host": {"S": grant.host},
            "sid": {"S": grant.host},  # rule 4, and so the next: no launch has the number 0
            "generation": {"N": "0"},
            "revoked": {"BOOL": grant.revoked},
            "expires_at": {"N": str(grant.expires_at)},
            "ttl": {"N": str(grant.expires_at + int(TOMBSTONE_TTL))},
            **sign_in_attributes(grant.sign_in),
            **_feed(pk, self._shards, self._clock),
        }
        self._table.put(item)


def _feed(pk: str, shards: int, clock: Clock) -> dict[str, Any]:
    return {"feed": {"S": _shard(zlib.crc32(pk.encode()) % shards)}, "changed_at": {"N": str(int(clock() * 1000))}}


def _shard(number: int) -> str:
    """The name of a shard; the first is the one that a feed without shards has."""
    return f"proxy-{number}" if number else "proxy"


def _route_of(item: Item) -> Route:
    published = bool(item["published"]["BOOL"])
    return Route(
        host=item["pk"]["S"].removeprefix("route#"),
        target=Target(item["address"]["S"], int(item["port"]["N"])) if published else None,
        published=published,
        changed_at=int(item["changed_at"]["N"]),
        expires_at=int(item["expires_at"]["N"]),
    )


def _grant_of(item: Item) -> Grant | None:
    sign_in = sign_in_of(item)
    if sign_in is None:  # rule 4
        return None
    return Grant(
        digest=item["pk"]["S"].removeprefix("grant#"),
        host=item["host"]["S"],
        revoked=bool(item["revoked"]["BOOL"]),
        changed_at=int(item["changed_at"]["N"]),
        expires_at=int(item["expires_at"]["N"]),
        sign_in=sign_in,
    )
