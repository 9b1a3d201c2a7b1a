"""The stores on DynamoDB, as moto has it, with the table of infra/resources.yaml."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.aws.dynamodb import digest_of
from chalicelib.aws.errors import StoreUnavailable
from chalicelib.aws.routes import Grant, ProxyStore, Route, RouteStore
from chalicelib.aws.sessions import SessionStore
from chalicelib.aws.tokens import TokenStore
from chalicelib.session.values import Target
from tests.builders import LIFETIME, NOW, OWNER, a_session
from tests.contract.stores import RouteStoreContract, SessionStoreContract
from tests.table import TABLE


class TestSessionStore(SessionStoreContract):
    @pytest.fixture
    def store(self, dynamodb: Any) -> SessionStore:
        return SessionStore(dynamodb, TABLE, lambda: NOW)


class TestRouteStore(RouteStoreContract):
    @pytest.fixture(autouse=True)
    def routes(self, dynamodb: Any) -> RouteStore:
        self._proxy = ProxyStore(dynamodb, TABLE, lambda: NOW)
        return RouteStore(dynamodb, TABLE, lambda: NOW)

    def published(self) -> list[tuple[str, int, Target]]:
        found = [route for route in self._proxy.changes(0) if isinstance(route, Route) and route.published]
        assert [self._proxy.route(route.sid) for route in found] == found
        return [(route.sid, route.generation, route.target) for route in found if route.target]


def test_a_token_stands_for_its_owners_until_its_time_is_over(dynamodb: Any) -> None:
    now = [NOW]
    store = TokenStore(dynamodb, TABLE, lambda: now[0])
    owners = frozenset({OWNER, "cd" * 32})
    store.put_token("token-1", owners, expires_at=NOW + 100)
    assert store.owners_of("token-1") == owners
    assert store.owners_of("token-2") == frozenset()
    now[0] = NOW + 100
    assert store.owners_of("token-1") == frozenset()


def test_a_ticket_is_good_once_for_its_session_and_for_its_time(dynamodb: Any) -> None:
    now = [NOW]
    store, proxy = TokenStore(dynamodb, TABLE, lambda: now[0]), ProxyStore(dynamodb, TABLE, lambda: now[0])
    session = a_session()
    store.put_ticket("ticket-1", session, path="/lab", expires_at=NOW + 60)
    assert proxy.redeem_ticket("ticket-1", "another-session") is None
    redeemed = proxy.redeem_ticket("ticket-1", session.sid)
    assert redeemed is not None
    assert (redeemed.sid, redeemed.generation, redeemed.path) == (session.sid, 1, "/lab")
    assert redeemed.expires_at == int(NOW + LIFETIME)
    assert proxy.redeem_ticket("ticket-1", session.sid) is None
    store.put_ticket("ticket-2", session, path="/lab", expires_at=NOW + 60)
    now[0] = NOW + 60
    assert proxy.redeem_ticket("ticket-2", session.sid) is None


def test_grants_reach_the_feed_and_can_be_looked_up(dynamodb: Any) -> None:
    proxy = ProxyStore(dynamodb, TABLE, lambda: NOW)
    grant = Grant(digest_of("cookie"), "sid", 1, False, int(NOW * 1000), int(NOW) + 60)
    proxy.put_grant(grant)
    assert proxy.grant(grant.digest) == grant
    assert list(proxy.changes(0)) == [grant]
    assert list(proxy.changes(int(NOW * 1000) + 1)) == []


def test_only_digests_of_tokens_tickets_and_cookies_are_stored(dynamodb: Any) -> None:
    store, proxy = TokenStore(dynamodb, TABLE, lambda: NOW), ProxyStore(dynamodb, TABLE, lambda: NOW)
    store.put_token("secret-token", frozenset({OWNER}), expires_at=NOW + 60)
    store.put_ticket("secret-ticket", a_session(), path="/lab", expires_at=NOW + 60)
    proxy.put_grant(Grant(digest_of("secret-cookie"), "sid", 1, False, 0, int(NOW) + 60))
    assert "secret-" not in repr(dynamodb.scan(TableName=TABLE)["Items"])


def test_a_table_that_does_not_answer_is_unavailable(dynamodb: Any) -> None:
    store = SessionStore(dynamodb, "no-such-table", lambda: NOW)
    with pytest.raises(StoreUnavailable):
        store.find("sid")
    with pytest.raises(StoreUnavailable):
        store.save(a_session())
    with pytest.raises(StoreUnavailable):
        list(ProxyStore(dynamodb, "no-such-table", lambda: NOW).changes(0))
