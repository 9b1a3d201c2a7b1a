"""The stores on DynamoDB, as moto has it, with the table of infra/resources.yaml."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from chalicelib.aws.dynamodb import digest_of
from chalicelib.aws.errors import StaleSession, StoreUnavailable
from chalicelib.aws.routes import Grant, ProxyStore, Route, RouteStore
from chalicelib.aws.session_items import item_of
from chalicelib.aws.sessions import SessionStore
from chalicelib.aws.sign_ins import SIGN_OUT_TTL, SignIn
from chalicelib.aws.tokens import TokenStore
from chalicelib.config import LONGEST_SESSION_HOURS
from chalicelib.session import events as e
from chalicelib.session.machine import advance
from chalicelib.session.values import Failure, State, Target
from tests.builders import LABEL, LIFETIME, NOW, OWNER, SIGN_IN, a_session
from tests.contract.stores import SLOW, RouteStoreContract, SessionStoreContract, saved
from tests.table import TABLE
from tests.write_units import write_units


def a_token_store(dynamodb: Any, clock: Callable[[], float] = lambda: NOW) -> TokenStore:
    return TokenStore(dynamodb, TABLE, clock, lifetime=LIFETIME)


class TestSessionStore(SessionStoreContract):
    @pytest.fixture
    def store(self, dynamodb: Any) -> SessionStore:
        return SessionStore(dynamodb, TABLE, lambda: NOW)


def test_a_line_that_the_table_does_not_take_is_lost_and_never_the_save(
    dynamodb: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = SessionStore(dynamodb, TABLE, lambda: NOW)
    session = a_session(state=State.REMOVING, container="homeport-x-1")
    store.save(session)
    tried: list[str] = []

    def handler(params: dict[str, Any], **_: Any) -> None:
        if params["Item"]["sk"]["S"].startswith("line#"):
            tried.append(params["Item"]["line"]["S"])
            raise EndpointConnectionError(endpoint_url="https://aws.example.org")

    dynamodb.meta.events.register("provide-client-params.dynamodb.PutItem", handler)
    after = advance(session, e.EffectFailed(Failure("a-code", "The endpoint says “hello”")), NOW)
    with caplog.at_level("DEBUG", logger="homeport"):
        store.save(after)
    assert len(tried) == 1, "what is lost is not waited for line by line"
    assert store.load(session.sid) == after
    assert store.earlier_lines(after) == []
    assert "store-unavailable" in caplog.text
    assert "hello" not in caplog.text


def test_a_save_whose_answer_was_lost_is_stale_and_its_lines_are_kept_all_the_same(dynamodb: Any) -> None:
    """botocore sends the put again when its answer is lost, and the condition does not hold any more."""
    store = SessionStore(dynamodb, TABLE, lambda: NOW)
    session = a_session(state=State.PULLING)
    store.save(session)
    after = advance(session, e.EffectDelayed(SLOW), NOW)
    again: list[dict[str, Any]] = []

    def handler(params: dict[str, Any], **_: Any) -> None:
        if not again:
            again.append(params)
            dynamodb.put_item(**params)

    dynamodb.meta.events.register("provide-client-params.dynamodb.PutItem", handler)
    with pytest.raises(StaleSession):
        store.save(after)
    assert store.load(session.sid) == after
    assert store.earlier_lines(after) == list(after.log[:-1])


def test_the_index_of_lists_holds_what_a_list_shows_and_no_more(dynamodb: Any) -> None:
    SessionStore(dynamodb, TABLE, lambda: NOW).save(a_session())
    values: dict[str, Any] = {":owner": {"S": OWNER}}
    (entry,) = dynamodb.query(
        TableName=TABLE,
        IndexName="listing",
        KeyConditionExpression="#owner = :owner",
        ExpressionAttributeNames={"#owner": "owner"},
        ExpressionAttributeValues=values,
    )["Items"]
    assert entry.keys() == {"pk", "sk", "owner", "created_at", "listed"}


def test_a_save_that_changes_nothing_a_list_shows_writes_nothing_there(dynamodb: Any) -> None:
    store = SessionStore(dynamodb, TABLE, lambda: NOW)
    session = a_session(state=State.PULLING)
    with write_units(dynamodb) as units:
        store.save(session)
        assert units.spent["listing"] == 1
        for number in range(10):
            session = saved(store, session, e.PullProgressed(number / 10, f"Pulling: {number} of 10 layers"))
            session = saved(store, session, e.EffectDelayed(SLOW))
        assert units.spent["listing"] == 1
        saved(store, session, e.StopRequested())
        assert units.spent["listing"] == 2


def test_sessions_of_the_version_before_are_in_the_list(dynamodb: Any) -> None:
    """Their items have nothing for the index: the sessions themselves are read, until they are saved again."""
    store = SessionStore(dynamodb, TABLE, lambda: NOW)
    sessions = [a_session(name=f"session {number}", created_at=NOW + number) for number in range(4)]
    for session in sessions:
        item = item_of(session, NOW)
        if session.created_at % 2:
            del item["listed"]
        dynamodb.put_item(TableName=TABLE, Item=item)
    assert store.of_owner(OWNER, 10) == [session.summary for session in reversed(sessions)]


def test_a_session_that_is_gone_while_it_is_listed_is_not_in_the_list(dynamodb: Any) -> None:
    """An index is a moment behind, and an item of the version before is read after it."""
    item = item_of(a_session(), NOW)
    del item["listed"]
    dynamodb.put_item(TableName=TABLE, Item=item)

    def delete(params: dict[str, Any], **_: Any) -> None:
        dynamodb.delete_item(TableName=TABLE, Key=params["Key"])

    dynamodb.meta.events.register("provide-client-params.dynamodb.GetItem", delete)
    assert SessionStore(dynamodb, TABLE, lambda: NOW).of_owner(OWNER, 10) == []


def test_a_list_is_read_as_far_as_a_page_goes(dynamodb: Any) -> None:
    store = SessionStore(dynamodb, TABLE, lambda: NOW)
    for number in range(30):
        store.save(a_session(name=f"session {number}", created_at=NOW + number))
    asked: list[int] = []
    dynamodb.meta.events.register(
        "provide-client-params.dynamodb.Query", lambda params, **_: asked.append(params["Limit"])
    )
    assert len(store.of_owner(OWNER, 5)) == 5
    assert asked == [6]


class TestRouteStore(RouteStoreContract):
    @pytest.fixture(autouse=True, params=[1, 3])
    def routes(self, dynamodb: Any, request: pytest.FixtureRequest) -> RouteStore:
        self._proxy = ProxyStore(dynamodb, TABLE, lambda: NOW, shards=request.param)
        return RouteStore(dynamodb, TABLE, lambda: NOW, shards=request.param)

    def published(self) -> list[tuple[str, Target]]:
        found = [route for route in self._proxy.changes(0) if isinstance(route, Route) and route.published]
        assert [self._proxy.route(route.host) for route in found] == found
        return [(route.host, route.target) for route in found if route.target]


def test_grants_reach_the_feed_and_can_be_looked_up(dynamodb: Any) -> None:
    proxy = ProxyStore(dynamodb, TABLE, lambda: NOW)
    grant = Grant(digest_of("cookie"), "sid-one", False, int(NOW * 1000), int(NOW) + 60, SIGN_IN)
    proxy.put_grant(grant)
    assert proxy.grant(grant.digest) == grant
    assert list(proxy.changes(0)) == [grant]
    assert list(proxy.changes(int(NOW * 1000) + 1)) == []


def test_a_proxy_reads_all_shards_and_what_was_written_before_there_were_any(dynamodb: Any) -> None:
    sessions = [a_session(name=f"notebook {number}", target=Target("203.0.113.7", 32768)) for number in range(20)]
    for session in sessions[:10]:
        RouteStore(dynamodb, TABLE, lambda: NOW).publish(session)
    for session in sessions[10:]:
        RouteStore(dynamodb, TABLE, lambda: NOW, shards=4).publish(session)
    found = {
        route.host
        for route in ProxyStore(dynamodb, TABLE, lambda: NOW, shards=4).changes(0)
        if isinstance(route, Route)
    }
    assert found == {session.host for session in sessions}
    items = dynamodb.scan(TableName=TABLE)["Items"]
    assert {item["feed"]["S"] for item in items} == {"proxy", "proxy-1", "proxy-2", "proxy-3"}


# As the version before stored them, when all launches of a session had one host.
OLD_ROUTE: dict[str, Any] = {
    "pk": {"S": "route#0123456789abcdefghij"},
    "sk": {"S": "route"},
    "generation": {"N": "3"},
    "published": {"BOOL": True},
    "expires_at": {"N": str(int(NOW) + 3600)},
    "ttl": {"N": str(int(NOW) + 90000)},
    "feed": {"S": "proxy"},
    "changed_at": {"N": str(int(NOW * 1000))},
    "address": {"S": "203.0.113.7"},
    "port": {"N": "32768"},
}
OLD_GRANT: dict[str, Any] = {
    "pk": {"S": "grant#" + "ab" * 32},
    "sk": {"S": "grant"},
    "sid": {"S": "0123456789abcdefghij"},
    "generation": {"N": "3"},
    "revoked": {"BOOL": False},
    "expires_at": {"N": str(int(NOW) + 3600)},
    "ttl": {"N": str(int(NOW) + 90000)},
    "feed": {"S": "proxy"},
    "changed_at": {"N": str(int(NOW * 1000))},
}
OLD_TICKET: dict[str, Any] = {
    "pk": {"S": f"ticket#{digest_of('old-ticket')}"},
    "sk": {"S": "ticket"},
    "ttl": {"N": str(int(NOW) + 60)},
    "sid": {"S": "0123456789abcdefghij"},
    "generation": {"N": "3"},
    "path": {"S": "/lab"},
    "session_expires_at": {"N": str(int(NOW) + 3600)},
}


OLD_TOKEN: dict[str, Any] = {
    "pk": {"S": f"token#{digest_of('old-token')}"},
    "sk": {"S": "token"},
    "owners": {"SS": [OWNER, "cd" * 32]},
    "ttl": {"N": str(int(NOW) + 3600)},
}


def test_of_what_the_version_before_stored_a_route_serves_on_and_grants_and_tickets_are_none(dynamodb: Any) -> None:
    for item in (OLD_ROUTE, OLD_GRANT, OLD_TICKET):
        dynamodb.put_item(TableName=TABLE, Item=item)
    proxy = ProxyStore(dynamodb, TABLE, lambda: NOW)
    sid, target = "0123456789abcdefghij", Target("203.0.113.7", 32768)
    route = Route(sid, target, True, int(NOW * 1000), int(NOW) + 3600)
    assert proxy.route(sid) == route
    assert list(proxy.changes(0)) == [route]
    assert proxy.grant("ab" * 32) is None
    assert proxy.redeem_ticket("old-ticket", sid) is None


def test_a_token_of_the_version_before_stands_until_its_time_is_over_or_it_is_signed_out(dynamodb: Any) -> None:
    now = [NOW]
    dynamodb.put_item(TableName=TABLE, Item=OLD_TOKEN)
    store = a_token_store(dynamodb, lambda: now[0])
    sign_ins = store.sign_ins_of("old-token")
    assert sign_ins.keys() == {OWNER, "cd" * 32}
    store.put_token("new-token", [SignIn(sign_ins[OWNER].browser, "ef" * 32, int(NOW * 1000)), *sign_ins.values()])
    now[0] = NOW + 3599
    assert store.sign_ins_of("old-token") == sign_ins
    now[0] = NOW + 3600
    assert store.sign_ins_of("old-token") == {}
    assert store.sign_ins_of("new-token").keys() == {"ef" * 32}
    now[0] = NOW
    store.sign_out("b1" * 32, [OWNER])
    assert store.sign_ins_of("old-token").keys() == {"cd" * 32}
    store.sign_out(sign_ins[OWNER].browser)
    assert store.sign_ins_of("old-token") == store.sign_ins_of("new-token") == {}


def test_a_sign_out_is_kept_for_longer_than_any_sign_in_lasts(dynamodb: Any) -> None:
    assert SIGN_OUT_TTL > LONGEST_SESSION_HOURS * 3600
    a_token_store(dynamodb).sign_out(SIGN_IN.browser, [OWNER])
    ends = [int(item["ttl"]["N"]) for item in dynamodb.scan(TableName=TABLE)["Items"]]
    assert ends == [int(NOW + SIGN_OUT_TTL)] * 2


def test_a_sign_out_that_the_table_fails_ends_nothing_and_can_be_repeated(dynamodb: Any) -> None:
    """It is written whole or not at all: with the owner's part alone, nobody could ask again with this token."""
    store = a_token_store(dynamodb)
    store.put_token("token", [SIGN_IN])

    def away(**_: Any) -> None:
        raise EndpointConnectionError(endpoint_url="https://aws.example.org")

    for operation in ("PutItem", "TransactWriteItems"):
        dynamodb.meta.events.register(f"provide-client-params.dynamodb.{operation}", away)
    with pytest.raises(StoreUnavailable):
        store.sign_out(SIGN_IN.browser, [OWNER])
    assert store.sign_ins_of("token") == {OWNER: SIGN_IN}
    for operation in ("PutItem", "TransactWriteItems"):
        dynamodb.meta.events.unregister(f"provide-client-params.dynamodb.{operation}", away)
    store.sign_out(SIGN_IN.browser, [OWNER])
    assert store.sign_ins_of("token") == {}


def test_a_route_of_the_version_before_can_be_published_again_and_withdrawn(dynamodb: Any) -> None:
    dynamodb.put_item(TableName=TABLE, Item=OLD_ROUTE)
    store, proxy = RouteStore(dynamodb, TABLE, lambda: NOW), ProxyStore(dynamodb, TABLE, lambda: NOW)
    session = a_session(sid="0123456789abcdefghij", label="", generation=3, target=Target("203.0.113.7", 40000))
    store.publish(session)
    assert [route.target for route in proxy.changes(0) if isinstance(route, Route)] == [session.target]
    store.withdraw(session)
    assert [route.published for route in proxy.changes(0) if isinstance(route, Route)] == [False]
    relaunched = replace(session, label=LABEL, generation=4)
    store.publish(relaunched)
    found = proxy.route(relaunched.host)
    assert found is not None
    assert found.target == relaunched.target


def test_the_version_before_can_read_what_is_stored_now(dynamodb: Any) -> None:
    """Its agent would end without these attributes, and with it a proxy that serves; it must find no entry in them."""
    session, tokens = a_session(target=Target("203.0.113.7", 32768)), a_token_store(dynamodb)
    RouteStore(dynamodb, TABLE, lambda: NOW).publish(session)
    ProxyStore(dynamodb, TABLE, lambda: NOW).put_grant(Grant("cd" * 32, session.host, False, 0, int(NOW) + 60, SIGN_IN))
    tokens.put_ticket("ticket", session, SIGN_IN, path="/lab", expires_at=NOW + 60)
    tokens.put_token("token", [SIGN_IN])
    tokens.sign_out(SIGN_IN.browser)
    items = {item["sk"]["S"]: item for item in dynamodb.scan(TableName=TABLE)["Items"]}
    read = (("route", OLD_ROUTE), ("grant", OLD_GRANT), ("signed-out", OLD_GRANT), ("ticket", OLD_TICKET))
    for kind, old in (*read, ("token", OLD_TOKEN)):
        assert {name: set(value) for name, value in old.items()}.items() <= {
            name: set(value) for name, value in items[kind].items()
        }.items(), kind
    assert not re.fullmatch("[0-9a-z]{1,63}", items["route"]["pk"]["S"].removeprefix("route#"))
    for kind in ("grant", "signed-out"):
        assert not re.fullmatch("[0-9a-z]{1,63}", items[kind]["sid"]["S"])
    assert items["signed-out"]["revoked"]["BOOL"] is True


def test_only_digests_of_tokens_tickets_and_cookies_are_stored(dynamodb: Any) -> None:
    store, proxy = a_token_store(dynamodb), ProxyStore(dynamodb, TABLE, lambda: NOW)
    store.put_token("secret-token", [SIGN_IN])
    store.put_ticket("secret-ticket", a_session(), SIGN_IN, path="/lab", expires_at=NOW + 60)
    proxy.put_grant(Grant(digest_of("secret-cookie"), "sid-one", False, 0, int(NOW) + 60, SIGN_IN))
    assert "secret-" not in repr(dynamodb.scan(TableName=TABLE)["Items"])


def test_a_table_that_does_not_answer_is_unavailable(dynamodb: Any) -> None:
    store = SessionStore(dynamodb, "no-such-table", lambda: NOW)
    with pytest.raises(StoreUnavailable):
        store.find("sid")
    with pytest.raises(StoreUnavailable):
        store.save(a_session())
    with pytest.raises(StoreUnavailable):
        list(ProxyStore(dynamodb, "no-such-table", lambda: NOW).changes(0))
