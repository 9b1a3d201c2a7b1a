"""The agent without HAProxy: what it learns from a store, keeps on disk, and does while the store is away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chalicelib.aws.dynamodb import digest_of
from chalicelib.aws.errors import StoreUnavailable
from chalicelib.aws.routes import Grant, ProxyStore, Redeemed, Route, RouteStore
from chalicelib.aws.tokens import TokenStore
from chalicelib.session.values import Target
from proxy.agent import files
from proxy.agent.agent import Agent
from proxy.agent.lookups import Verdict
from proxy.agent.table import Map
from tests.builders import LIFETIME, NOW, SIGN_IN, a_session, no_queue
from tests.contract.proxy_store import ProxyStoreContract
from tests.table import TABLE
from tests.twins import ProxyStoreTwin

ROUTES, GRANTS = Map.ROUTES, Map.GRANTS
DIGEST = "ab" * 32
LATER = int(NOW) + 3600


class TestProxyStoreTwin(ProxyStoreContract):
    @pytest.fixture
    def store(self) -> ProxyStoreTwin:
        self._store = ProxyStoreTwin(lambda: NOW)
        return self._store

    def put_ticket(self, ticket: str, redeemed: Redeemed, *, expires_at: float = NOW + 60) -> None:
        self._store.put_ticket(ticket, redeemed, expires_at=expires_at)

    def sign_out(self, browser: str, *owners: str) -> None:
        self._store.sign_out(browser, *owners)


class TestProxyStore(ProxyStoreContract):
    @pytest.fixture
    def store(self, dynamodb: Any) -> ProxyStore:
        self._tokens = TokenStore(dynamodb, TABLE, lambda: NOW, lifetime=LIFETIME)
        return ProxyStore(dynamodb, TABLE, lambda: NOW)

    def put_ticket(self, ticket: str, redeemed: Redeemed, *, expires_at: float = NOW + 60) -> None:
        sid, _, label = redeemed.host.partition("-")
        session = a_session(sid=sid, label=label, expires_at=float(redeemed.expires_at))
        self._tokens.put_ticket(ticket, session, redeemed.sign_in, path=redeemed.path, expires_at=expires_at)

    def sign_out(self, browser: str, *owners: str) -> None:
        self._tokens.sign_out(browser, owners)


class World:
    """An agent over a twin, with a clock that is set."""

    def __init__(self, folder: Path) -> None:
        self.now = NOW
        self.folder = folder
        self.store = ProxyStoreTwin(lambda: self.now)
        self.agent = self.start()

    def start(self) -> Agent:
        self.agent = Agent(self.store, no_queue, self.folder, clock=lambda: self.now, new_cookie=lambda: "cookie")
        return self.agent

    def publish(self, host: str) -> Route:
        route = Route(host, Target("192.0.2.7", 8000), True, self.store.now_ms(), LATER)
        self.store.put(route)
        return route

    @property
    def disk(self) -> dict[Any, str]:
        self.agent.pusher.save()
        return files.read(self.folder)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_published_route_follows_the_launcher_into_the_map_and_out_of_it(dynamodb: Any, tmp_path: Path) -> None:
    session = a_session(target=Target("192.0.2.7", 8000))
    routes, store = RouteStore(dynamodb, TABLE, lambda: NOW), ProxyStore(dynamodb, TABLE, lambda: NOW)
    agent = Agent(store, no_queue, tmp_path, clock=lambda: NOW, new_cookie=lambda: "cookie")
    agent.feed.sync()
    routes.publish(session)
    agent.feed.poll()
    agent.pusher.save()
    assert files.read(tmp_path) == {(ROUTES, session.host): "192.0.2.7|8000"}
    routes.withdraw(session)
    agent.feed.poll()
    agent.pusher.save()
    assert files.read(tmp_path) == {}


def test_entering_makes_a_grant_whose_digest_alone_is_stored(dynamodb: Any, tmp_path: Path) -> None:
    session = a_session(target=Target("192.0.2.7", 8000))
    store = ProxyStore(dynamodb, TABLE, lambda: NOW)
    RouteStore(dynamodb, TABLE, lambda: NOW).publish(session)
    tokens = TokenStore(dynamodb, TABLE, lambda: NOW, lifetime=LIFETIME)
    tokens.put_ticket("t" * 43, session, SIGN_IN, path="/lab", expires_at=NOW + 60)
    agent = Agent(store, no_queue, tmp_path, clock=lambda: NOW, new_cookie=lambda: "secret-cookie-value")
    entered = agent.lookups.enter(session.host, "t" * 43)
    assert entered is not None
    assert (entered.cookie, entered.max_age) == ("secret-cookie-value", int(session.expires_at - NOW))
    agent.pusher.save()
    assert files.read(tmp_path) == {
        (ROUTES, session.host): "192.0.2.7|8000",
        (GRANTS, digest_of("secret-cookie-value")): session.host,
    }
    stored = str(dynamodb.scan(TableName=TABLE)["Items"])
    assert "secret-cookie-value" not in stored
    assert agent.lookups.enter(session.host, "t" * 43) is None


def test_a_failed_reading_changes_nothing(world: World) -> None:
    world.publish("one")
    world.agent.feed.sync()
    before = world.disk
    assert before == {(ROUTES, "one"): "192.0.2.7|8000"}
    world.store.down = True
    for read in (world.agent.feed.sync, world.agent.feed.poll):
        with pytest.raises(StoreUnavailable):
            read()
    assert world.disk == before


def test_a_reading_that_breaks_off_replaces_nothing(world: World) -> None:
    world.publish("one")
    world.publish("two")
    world.agent.feed.sync()
    world.store.breaks_after = 1
    with pytest.raises(StoreUnavailable):
        world.agent.feed.sync()
    assert len(world.disk) == 2


def test_of_a_reading_of_the_feed_that_breaks_off_what_came_before_is_kept(world: World) -> None:
    world.agent.feed.sync()
    world.publish("one")
    world.now += 1
    world.publish("two")
    world.store.breaks_after = 1
    with pytest.raises(StoreUnavailable):
        world.agent.feed.poll()
    assert set(world.disk) == {(ROUTES, "one")}
    world.store.breaks_after = None
    world.agent.feed.poll()
    assert set(world.disk) == {(ROUTES, "one"), (ROUTES, "two")}


def test_a_restart_without_the_store_keeps_what_is_on_disk(world: World) -> None:
    world.publish("one")
    world.agent.feed.sync()
    assert world.disk
    world.store.down = True
    agent = world.start()
    with pytest.raises(StoreUnavailable):
        agent.feed.sync()
    agent.table.expire(world.now)
    assert world.disk == {(ROUTES, "one"): "192.0.2.7|8000"}
    world.store.down = False
    world.publish("two")
    agent.feed.sync()
    assert set(world.disk) == {(ROUTES, "one"), (ROUTES, "two")}


def test_a_full_reading_takes_out_what_vanished_but_not_what_was_just_learnt(world: World) -> None:
    vanished, earlier = world.publish("one-vanished"), world.publish("two-earlier")
    world.agent.feed.sync()
    world.now += 3000
    world.store.drop(vanished)
    world.store.drop(earlier)
    fresh = world.publish("two-fresh")
    world.agent.feed.poll()
    world.store.drop(fresh)  # the index is behind
    world.agent.feed.sync()
    assert world.disk == {(ROUTES, "two-fresh"): "192.0.2.7|8000"}
    world.now += 100
    world.agent.feed.sync()
    assert world.disk == {}


def test_the_feed_is_read_with_an_overlap_for_clocks_that_differ(world: World) -> None:
    world.publish("one")
    world.agent.feed.sync()
    late = Route("late", Target("192.0.2.7", 1), True, world.store.now_ms() - 9000, LATER)
    world.store.put(late)
    world.agent.feed.poll()
    assert (ROUTES, "late") in world.disk


def test_a_writer_whose_clock_is_ahead_hides_nobody(world: World) -> None:
    world.store.put(Route("ahead", Target("192.0.2.7", 1), True, world.store.now_ms() + 3_600_000, LATER))
    world.agent.feed.sync()
    world.publish("ordinary")
    world.agent.feed.poll()
    assert (ROUTES, "ordinary") in world.disk


def test_what_expired_is_taken_out(world: World) -> None:
    world.publish("one")
    world.agent.feed.sync()
    world.now = LATER - 1
    world.agent.table.expire(world.now)
    assert world.disk
    world.now = LATER
    world.agent.table.expire(world.now)
    assert world.disk == {}


def test_a_look_up_says_why(world: World) -> None:
    world.publish("one-later")
    world.publish("two")
    world.store.put(Grant(DIGEST, "one-early", False, world.store.now_ms(), LATER, SIGN_IN))
    assert world.agent.lookups.look_up("nobody", None) is Verdict.NO_ROUTE
    assert world.agent.lookups.look_up("UPPER", None) is Verdict.NO_ROUTE
    assert world.agent.lookups.look_up("one-later", "cd" * 32) is Verdict.NO_GRANT
    assert world.agent.lookups.look_up("one-later", "not a digest") is Verdict.NO_GRANT
    assert world.agent.lookups.look_up("two", DIGEST) is Verdict.OTHER_GRANT
    assert world.agent.lookups.look_up("one-later", DIGEST) is Verdict.OTHER_GRANT
    assert world.agent.lookups.look_up("one-early", DIGEST) is Verdict.NO_ROUTE
    world.store.put(Grant("ef" * 32, "one-later", False, world.store.now_ms(), LATER, SIGN_IN))
    assert world.agent.lookups.look_up("one-later", "ef" * 32) is Verdict.BUSY  # there is no HAProxy that could be told


def test_a_sign_out_between_a_look_up_s_reading_and_its_answer_counts(tmp_path: Path) -> None:
    class Store(ProxyStoreTwin):
        def grant(self, digest: str) -> Grant | None:
            found = super().grant(digest)
            self.sign_out(SIGN_IN.browser)
            agent.feed.poll()
            return found

    store = Store(lambda: NOW)
    agent = Agent(store, no_queue, tmp_path, clock=lambda: NOW, new_cookie=lambda: "cookie")
    agent.feed.sync()
    store.put(Route("one", Target("192.0.2.7", 8000), True, store.now_ms(), LATER))
    store.put(Grant(DIGEST, "one", False, store.now_ms() - 60_000, LATER, SIGN_IN))  # the feed has not shown it
    assert agent.lookups.look_up("one", DIGEST) is Verdict.NO_GRANT


def test_news_of_an_entry_end_its_time_as_a_miss(world: World) -> None:
    world.agent.feed.sync()
    assert world.agent.lookups.look_up("one", None) is Verdict.NO_ROUTE
    assert world.agent.lookups.look_up("one", None) is Verdict.NO_ROUTE
    assert world.store.reads["route"] == 1
    world.publish("one")
    world.agent.feed.poll()
    assert world.agent.lookups.look_up("one", None) is Verdict.BUSY
    assert world.store.reads["route"] == 1


def test_entering_a_later_launch_reads_its_route_at_once(world: World) -> None:
    world.publish("one-early")
    world.agent.feed.sync()
    world.publish("one-later")
    world.store.put_ticket("t" * 43, Redeemed("one-later", "/lab", LATER, SIGN_IN), expires_at=NOW + 60)
    assert world.agent.lookups.enter("one-early", "t" * 43) is None
    assert world.agent.lookups.enter("one-later", "t" * 43) is not None
    assert world.disk[ROUTES, "one-later"] == "192.0.2.7|8000"


def test_a_ticket_that_expired_enters_nothing(world: World) -> None:
    world.publish("one")
    world.store.put_ticket("t" * 43, Redeemed("one", "/lab", LATER, SIGN_IN), expires_at=NOW + 60)
    world.now += 60
    assert world.agent.lookups.enter("one", "t" * 43) is None
    assert world.disk == {}


def test_map_files_are_replaced_whole_and_readable_by_their_owner_only(world: World) -> None:
    world.publish("one")
    world.agent.feed.sync()
    world.agent.pusher.save()
    assert sorted(path.name for path in world.folder.iterdir()) == ["grants.map", "routes.map"]
    assert (world.folder / "routes.map").read_text() == "one 192.0.2.7|8000\n"
    assert (world.folder / "routes.map").stat().st_mode & 0o777 == 0o600


def test_lines_on_disk_that_are_no_entries_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "routes.map").write_text("one 1\n\ntwo\nthree 3 4\n\xff\xfe\n")
    assert files.read(tmp_path) == {(ROUTES, "one"): "1"}
