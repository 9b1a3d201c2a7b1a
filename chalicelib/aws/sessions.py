"""DynamoDB: sessions, owners' tokens, entry tickets, routes and browsers' grants, in one table.

    pk                   sk       what                                    written by            indexes
    session#<sid>        session  a Session as JSON, its version          web, launcher         owner, redrive
    token#<sha256>       token    whose owner token this is               web                   -
    ticket#<sha256>      ticket   a one-time entry to one session         web; the agent takes  -
    route#<sid>          route    where the notebook is, or was           launcher              feed
    grant#<sha256>       grant    a browser's lasting entry               agent                 feed

Rules

1. Every save of a session is conditional on the version it was loaded with; a lost race raises StaleSession.
2. Only SHA-256 digests of tokens, tickets and cookies are stored, never the values.
3. A withdrawn route stays as a tombstone of its generation, so a late publication of the same generation is refused
   and the feed tells the proxy of the withdrawal.
4. DynamoDB's own failures raise StoreUnavailable; nothing of botocore leaves this module.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.errors import SessionNotFound, StaleSession, StoreUnavailable
from chalicelib.events import Failure, Target
from chalicelib.machine import Limits, Line, Session, State

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Item = Mapping[str, Mapping[str, Any]]
Clock = Callable[[], float]

STOPPED_TTL: Final = 90 * 86400.0  # a stopped session is remembered for so long, in seconds
TOMBSTONE_TTL: Final = 86400.0  # long past any proxy's longest look at the feed


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


def digest_of(secret: str) -> str:
    """The SHA-256 of a token, ticket or cookie value in hex: all that is ever stored of it."""
    return sha256(secret.encode()).hexdigest()


class SessionStore:
    """Sessions, owners' tokens and entry tickets."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, clock: Clock) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._clock = clock

    def find(self, sid: str) -> Session | None:
        """Return the session, or None when there is no such id."""
        item = _get(self._dynamodb, self._table, f"session#{sid}", "session")
        return _session_of(item) if item else None

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
        condition = "version = :before" if before else "attribute_not_exists(pk)"
        values = {"ExpressionAttributeValues": {":before": {"N": str(before)}}} if before else {}
        with _translated():
            try:
                self._dynamodb.put_item(
                    TableName=self._table,
                    Item=_item_of(session, self._clock()),
                    ConditionExpression=condition,
                    **values,  # type: ignore[arg-type]  # the stubs know no optional keyword arguments
                )
            except self._dynamodb.exceptions.ConditionalCheckFailedException:
                raise StaleSession("Somebody else changed the session; look at it again") from None

    def of_owner(self, owner: str) -> list[Session]:
        """Return the owner's sessions, newest first (eventually consistent)."""
        with _translated():
            pages = self._dynamodb.get_paginator("query").paginate(
                TableName=self._table,
                IndexName="owner",
                KeyConditionExpression="#owner = :owner",
                ExpressionAttributeNames={"#owner": "owner"},
                ExpressionAttributeValues={":owner": {"S": owner}},
                ScanIndexForward=False,
            )
            return [_session_of(item) for page in pages for item in page["Items"]]

    def due(self, now: float) -> Iterator[str]:
        """Yield the ids of the sessions that nobody is at work on and whose time has come."""
        with _translated():
            pages = self._dynamodb.get_paginator("query").paginate(
                TableName=self._table,
                IndexName="redrive",
                KeyConditionExpression="redrive = :due AND redrive_at <= :now",
                ExpressionAttributeValues={":due": {"S": "due"}, ":now": {"N": repr(now)}},
            )
            for page in pages:
                for item in page["Items"]:
                    yield item["pk"]["S"].removeprefix("session#")

    def put_token(self, token: str, owners: frozenset[str], *, expires_at: float) -> None:
        """Remember whose owner token this is; a browser that uploaded several keys' bundles stands for several."""
        self._put(f"token#{digest_of(token)}", "token", {"owners": {"SS": sorted(owners)}}, expires_at)

    def owners_of(self, token: str) -> frozenset[str]:
        """Return the owners the token stands for; none when it is unknown or its time is over."""
        item = _get(self._dynamodb, self._table, f"token#{digest_of(token)}", "token")
        if item is None or int(item["ttl"]["N"]) <= self._clock():
            return frozenset()
        return frozenset(item["owners"]["SS"])

    def put_ticket(self, ticket: str, session: Session, *, path: str, expires_at: float) -> None:
        """Remember a one-time entry to the session's present launch."""
        entry = {
            "sid": {"S": session.sid},
            "generation": {"N": str(session.generation)},
            "path": {"S": path},
            "session_expires_at": {"N": str(int(session.expires_at))},
        }
        self._put(f"ticket#{digest_of(ticket)}", "ticket", entry, expires_at)

    def _put(self, pk: str, sk: str, attributes: Mapping[str, Any], expires_at: float) -> None:
        keys = {"pk": {"S": pk}, "sk": {"S": sk}, "ttl": {"N": str(int(expires_at))}}
        with _translated():
            self._dynamodb.put_item(TableName=self._table, Item={**keys, **attributes})


class RouteStore:
    """The launcher's side of the routes."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, clock: Clock) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._clock = clock

    def publish(self, session: Session) -> None:
        """Publish the session's target; a generation that was withdrawn stays withdrawn (StaleSession)."""
        if session.target is None:
            raise StaleSession("The session has no target to publish")
        target = {"address": {"S": session.target.address}, "port": {"N": str(session.target.port)}}
        self._write(session, target, published=True, ttl=session.expires_at + TOMBSTONE_TTL)

    def withdraw(self, session: Session) -> None:
        """Withdraw the route of the session's generation; also one that was never published."""
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
        with _translated():
            try:
                self._dynamodb.put_item(
                    TableName=self._table,
                    Item=item,
                    ConditionExpression=f"attribute_not_exists(pk) OR generation < :generation OR ({same})",
                    ExpressionAttributeValues=values,
                )
            except self._dynamodb.exceptions.ConditionalCheckFailedException:
                raise StaleSession("The route belongs to a later launch, or was withdrawn") from None


class ProxyStore:
    """The proxy's side: what changed, one route, one grant, and the redeeming of tickets."""

    def __init__(self, dynamodb: DynamoDBClient, table: str, clock: Clock) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._clock = clock

    def changes(self, since: int) -> Iterator[Route | Grant]:
        """Yield what changed at or after `since` (milliseconds since the epoch; 0 is everything), oldest first.

        The index is eventually consistent: look back a few seconds. Raises StoreUnavailable, also between items.
        """
        with _translated():
            pages = self._dynamodb.get_paginator("query").paginate(
                TableName=self._table,
                IndexName="feed",
                KeyConditionExpression="feed = :proxy AND changed_at >= :since",
                ExpressionAttributeValues={":proxy": {"S": "proxy"}, ":since": {"N": str(since)}},
            )
            for page in pages:
                for item in page["Items"]:
                    yield _route_of(item) if item["sk"]["S"] == "route" else _grant_of(item)

    def route(self, sid: str) -> Route | None:
        """Look one route up, consistently."""
        item = _get(self._dynamodb, self._table, f"route#{sid}", "route")
        return _route_of(item) if item else None

    def grant(self, digest: str) -> Grant | None:
        """Look one grant up, consistently."""
        item = _get(self._dynamodb, self._table, f"grant#{digest}", "grant")
        return _grant_of(item) if item else None

    def redeem_ticket(self, ticket: str, sid: str) -> Redeemed | None:
        """Take the ticket away; None when it is unknown, used, too old or for another session."""
        with _translated():
            try:
                answer = self._dynamodb.delete_item(
                    TableName=self._table,
                    Key={"pk": {"S": f"ticket#{digest_of(ticket)}"}, "sk": {"S": "ticket"}},
                    ConditionExpression="sid = :sid AND #ttl > :now",
                    ExpressionAttributeNames={"#ttl": "ttl"},
                    ExpressionAttributeValues={":sid": {"S": sid}, ":now": {"N": str(int(self._clock()))}},
                    ReturnValues="ALL_OLD",
                )
            except self._dynamodb.exceptions.ConditionalCheckFailedException:
                return None
        item = answer["Attributes"]
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
        with _translated():
            self._dynamodb.put_item(TableName=self._table, Item=item)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise StoreUnavailable("The hub's table did not answer; try again in a moment") from error


def _get(dynamodb: DynamoDBClient, table: str, pk: str, sk: str) -> Item | None:
    with _translated():
        answer = dynamodb.get_item(TableName=table, Key={"pk": {"S": pk}, "sk": {"S": sk}}, ConsistentRead=True)
    return answer.get("Item")


def _feed(clock: Clock) -> dict[str, Any]:
    return {"feed": {"S": "proxy"}, "changed_at": {"N": str(int(clock() * 1000))}}


def _item_of(session: Session, now: float) -> dict[str, Any]:
    item: dict[str, Any] = {
        "pk": {"S": f"session#{session.sid}"},
        "sk": {"S": "session"},
        "version": {"N": str(session.version)},
        "owner": {"S": session.owner},
        "created_at": {"N": repr(session.created_at)},
        "session": {"S": json.dumps(asdict(session), ensure_ascii=False, separators=(",", ":"))},
    }
    if session.due_at is None:
        item["ttl"] = {"N": str(int(now + STOPPED_TTL))}
    else:
        item["redrive"] = {"S": "due"}
        item["redrive_at"] = {"N": repr(max(session.due_at, session.held_until))}
    return item


def _session_of(item: Item) -> Session:
    values = json.loads(item["session"]["S"])
    target, failure, trouble = values["target"], values["failure"], values["trouble"]
    return Session(
        **{
            **values,
            "state": State(values["state"]),
            "limits": Limits(**values["limits"]),
            "target": Target(**target) if target else None,
            "failure": Failure(**failure) if failure else None,
            "trouble": Failure(**trouble) if trouble else None,
            "log": tuple(Line(**line) for line in values["log"]),
        }
    )


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
