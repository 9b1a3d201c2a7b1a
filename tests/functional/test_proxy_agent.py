"""The agent without HAProxy: what it learns from a store, keeps on disk, and does while the store is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chalicelib.aws.dynamodb import digest_of
from chalicelib.aws.errors import StoreUnavailable
from chalicelib.aws.routes import Grant, ProxyStore, Redeemed, Route, RouteStore
from chalicelib.aws.sessions import SessionStore
from chalicelib.session.values import Target
from proxy.agent import files
from proxy.agent.plan import Map
from proxy.agent.sync import Agent, Verdict
from tests.builders import NOW, a_session
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

    def put_ticket(self, ticket: str, redeemed: Redeemed) -> None:
        self._store.tickets[ticket] = redeemed


class TestProxyStore(ProxyStoreContract):
    @pytest.fixture
    def store(self, dynamodb: Any) -> ProxyStore:
        self._sessions = SessionStore(dynamodb, TABLE, lambda: NOW)
        return ProxyStore(dynamodb, TABLE, lambda: NOW)

    def put_ticket(self, ticket: str, redeemed: Redeemed) -> None:
        session = a_session(sid=redeemed.sid, generation=redeemed.generation, expires_at=float(redeemed.expires_at))
        self._sessions.put_ticket(ticket, session, path=redeemed.path, expires_at=NOW + 60)


class World:
    """An agent over a twin, with a clock that is set."""

    def __init__(self, folder: Path) -> None:
        self.now = NOW
        self.folder = folder
        self.store = ProxyStoreTwin(lambda: self.now)
        self.agent = self.start()

    def start(self) -> Agent:
        self.agent = Agent(self.store, self.folder, clock=lambda: self.now, new_cookie=lambda: "cookie")
        return self.agent

    def publish(self, sid: str, generation: int = 1) -> Route:
        route = Route(sid, generation, Target("192.0.2.7", 8000), True, self.store.now_ms(), LATER)
        self.store.put(route)
        return route

    @property
    def disk(self) -> dict[Any, str]:
        self.agent.save()
        return files.read(self.folder)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_published_route_follows_the_launcher_into_the_map_and_out_of_it(dynamodb: Any, tmp_path: Path) -> None:
    session = a_session(target=Target("192.0.2.7", 8000))
    routes, store = RouteStore(dynamodb, TABLE, lambda: NOW), ProxyStore(dynamodb, TABLE, lambda: NOW)
    agent = Agent(store, tmp_path, clock=lambda: NOW, new_cookie=lambda: "cookie")
    agent.sync()
    routes.publish(session)
    agent.poll()
    agent.save()
    assert files.read(tmp_path) == {(ROUTES, session.sid): "192.0.2.7|8000|1"}
    routes.withdraw(session)
    agent.poll()
    agent.save()
    assert files.read(tmp_path) == {}


def test_entering_makes_a_grant_whose_digest_alone_is_stored(dynamodb: Any, tmp_path: Path) -> None:
    session = a_session(target=Target("192.0.2.7", 8000))
    store = ProxyStore(dynamodb, TABLE, lambda: NOW)
    RouteStore(dynamodb, TABLE, lambda: NOW).publish(session)
    SessionStore(dynamodb, TABLE, lambda: NOW).put_ticket("t" * 43, session, path="/lab", expires_at=NOW + 60)
    agent = Agent(store, tmp_path, clock=lambda: NOW, new_cookie=lambda: "secret-cookie-value")
    entered = agent.enter(session.sid, "t" * 43)
    assert entered is not None
    assert (entered.cookie, entered.max_age) == ("secret-cookie-value", int(session.expires_at - NOW))
    agent.save()
    assert files.read(tmp_path) == {
        (ROUTES, session.sid): "192.0.2.7|8000|1",
        (GRANTS, digest_of("secret-cookie-value")): f"{session.sid}/1",
    }
    stored = str(dynamodb.scan(TableName=TABLE)["Items"])
    assert "secret-cookie-value" not in stored
    assert agent.enter(session.sid, "t" * 43) is None


def test_a_failed_reading_changes_nothing(world: World) -> None:
    world.publish("one")
    world.agent.sync()
    before = world.disk
    assert before == {(ROUTES, "one"): "192.0.2.7|8000|1"}
    world.store.down = True
    for read in (world.agent.sync, world.agent.poll):
        with pytest.raises(StoreUnavailable):
            read()
    assert world.disk == before


def test_a_reading_that_breaks_off_replaces_nothing(world: World) -> None:
    routes = [world.publish("one"), world.publish("two")]
    world.agent.sync()

    def broken(since: int) -> Iterator[Route | Grant]:
        yield routes[0]
        raise StoreUnavailable("gone")

    world.store.changes = broken  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        world.agent.sync()
    assert len(world.disk) == 2


def test_a_restart_without_the_store_keeps_what_is_on_disk(world: World) -> None:
    world.publish("one")
    world.agent.sync()
    assert world.disk
    world.store.down = True
    agent = world.start()
    with pytest.raises(StoreUnavailable):
        agent.sync()
    agent.expire()
    assert world.disk == {(ROUTES, "one"): "192.0.2.7|8000|1"}
    world.store.down = False
    world.publish("two")
    agent.sync()
    assert set(world.disk) == {(ROUTES, "one"), (ROUTES, "two")}


def test_a_full_reading_takes_out_what_vanished_but_not_what_was_just_learnt(world: World) -> None:
    vanished, fresh = world.publish("vanished"), world.publish("fresh")
    world.agent.sync()
    world.now += 3000
    world.store.drop(vanished)
    world.store.drop(fresh)
    fresh = world.publish("fresh", generation=2)
    world.agent.poll()
    world.store.drop(fresh)  # the index is behind
    world.agent.sync()
    assert world.disk == {(ROUTES, "fresh"): "192.0.2.7|8000|2"}
    world.now += 100
    world.agent.sync()
    assert world.disk == {}


def test_the_feed_is_read_with_an_overlap_for_clocks_that_differ(world: World) -> None:
    world.publish("one")
    world.agent.sync()
    late = Route("late", 1, Target("192.0.2.7", 1), True, world.store.now_ms() - 9000, LATER)
    world.store.put(late)
    world.agent.poll()
    assert (ROUTES, "late") in world.disk


def test_a_writer_whose_clock_is_ahead_hides_nobody(world: World) -> None:
    world.store.put(Route("ahead", 1, Target("192.0.2.7", 1), True, world.store.now_ms() + 3_600_000, LATER))
    world.agent.sync()
    world.publish("ordinary")
    world.agent.poll()
    assert (ROUTES, "ordinary") in world.disk


def test_what_expired_is_taken_out(world: World) -> None:
    world.publish("one")
    world.agent.sync()
    world.now = LATER - 1
    world.agent.expire()
    assert world.disk
    world.now = LATER
    world.agent.expire()
    assert world.disk == {}


def test_a_look_up_says_why(world: World) -> None:
    world.publish("one", generation=2)
    world.publish("two")
    world.store.put(Grant(DIGEST, "one", 1, False, world.store.now_ms(), LATER))
    assert world.agent.look_up("nobody", None) is Verdict.NO_SESSION
    assert world.agent.look_up("UPPER", None) is Verdict.NO_SESSION
    assert world.agent.look_up("one", "cd" * 32) is Verdict.NO_GRANT
    assert world.agent.look_up("one", "not a digest") is Verdict.NO_GRANT
    assert world.agent.look_up("two", DIGEST) is Verdict.OTHER_GRANT
    assert world.agent.look_up("one", DIGEST) is Verdict.OTHER_GRANT
    world.store.put(Grant("ef" * 32, "one", 2, False, world.store.now_ms(), LATER))
    assert world.agent.look_up("one", "ef" * 32) is Verdict.BUSY  # there is no HAProxy that could be told


def test_news_of_an_entry_end_its_time_as_a_miss(world: World) -> None:
    world.agent.sync()
    assert world.agent.look_up("one", None) is Verdict.NO_SESSION
    assert world.agent.look_up("one", None) is Verdict.NO_SESSION
    assert world.store.reads["route"] == 1
    world.publish("one")
    world.agent.poll()
    assert world.agent.look_up("one", None) is Verdict.BUSY
    assert world.store.reads["route"] == 1


def test_entering_a_later_launch_reads_its_route_at_once(world: World) -> None:
    world.publish("one", generation=1)
    world.agent.sync()
    world.publish("one", generation=2)
    world.store.tickets["t" * 43] = Redeemed("one", 2, "/lab", LATER)
    assert world.agent.enter("one", "t" * 43) is not None
    assert world.disk[ROUTES, "one"] == "192.0.2.7|8000|2"


def test_map_files_are_replaced_whole_and_readable_by_their_owner_only(world: World) -> None:
    world.publish("one")
    world.agent.sync()
    world.agent.save()
    assert sorted(path.name for path in world.folder.iterdir()) == ["grants.map", "routes.map"]
    assert (world.folder / "routes.map").read_text() == "one 192.0.2.7|8000|1\n"
    assert (world.folder / "routes.map").stat().st_mode & 0o777 == 0o600


def test_lines_on_disk_that_are_no_entries_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "routes.map").write_text("one 1\n\ntwo\nthree 3 4\n\xff\xfe\n")
    assert files.read(tmp_path) == {(ROUTES, "one"): "1"}
