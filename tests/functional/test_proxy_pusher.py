"""What HAProxy is told and when, with a HAProxy that hangs, restarts, and is told by several threads at once."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random
from threading import Event

import pytest

from chalicelib.aws.routes import Grant, Route
from chalicelib.session.values import Target
from proxy.agent import files
from proxy.agent.agent import Agent
from proxy.agent.feed import Feed
from proxy.agent.lookups import Lookups, Verdict
from proxy.agent.pusher import Pusher
from proxy.agent.runtime import RuntimeSocket
from proxy.agent.table import MANY, Key, Map, News, Table, key_of, newest, value_of
from tests.builders import NOW, SIGN_IN, no_queue
from tests.contract.runtime_socket import RuntimeSocketContract
from tests.haproxy_twin import HaproxyTwin, haproxy_twin
from tests.twins import ProxyStoreTwin

ROUTES, GRANTS = Map.ROUTES, Map.GRANTS
LATER = int(NOW) + 3600
DIGEST, OTHER_DIGEST = "ab" * 32, "cd" * 32
PATIENCE = 60.0  # seconds: a hang that is waited for would end long after the test's own questions


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: unix sockets' names end at 108 bytes."""
    made = Path(tempfile.mkdtemp(prefix="hp"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def haproxy(folder: Path) -> Iterator[HaproxyTwin]:
    with haproxy_twin(folder / "haproxy.sock") as twin:
        yield twin


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


class Parts:
    """An agent's parts over the twins of its store and of HAProxy."""

    def __init__(self, folder: Path, store: ProxyStoreTwin | None = None) -> None:
        self.store = store or ProxyStoreTwin(lambda: NOW)
        self.table = Table({})
        self.pusher = Pusher(self.table, RuntimeSocket(folder / "haproxy.sock", PATIENCE), folder, clock=lambda: NOW)
        self.feed = Feed(self.store, self.table, clock=lambda: NOW)
        self.lookups = Lookups(self.store, self.table, self.pusher, clock=lambda: NOW, new_cookie=lambda: "cookie")

    def publish(self, host: str, port: int = 1) -> None:
        self.store.put(a_route(host, port))


@pytest.fixture
def parts(folder: Path, haproxy: HaproxyTwin) -> Parts:
    """Parts that have read and told two sessions and a grant of the first."""
    made = Parts(folder)
    made.publish("one")
    made.publish("two")
    made.store.put(Grant(DIGEST, "one", False, int(NOW * 1000), LATER, SIGN_IN))
    made.feed.sync()
    assert made.pusher.push()
    assert haproxy.table(ROUTES) == {"one": value("one", 1), "two": value("two", 1)}
    return made


def a_route(host: str, port: int = 1, *, published: bool = True) -> Route:
    """A route of a launch; with a greater port, published later."""
    target = Target("192.0.2.7", port) if published else None
    return Route(host, target, published, int(NOW * 1000) + port, LATER)


def value(host: str, port: int) -> str:
    return value_of(a_route(host, port), NOW) or ""


def assert_told_entries_and_refusals_wait_for_nothing(lookups: Lookups) -> None:
    assert lookups.look_up("one", DIGEST) is Verdict.REPEAT
    assert lookups.look_up("one", None) is Verdict.REPEAT
    assert lookups.look_up("two", DIGEST) is Verdict.OTHER_GRANT
    assert lookups.look_up("one", OTHER_DIGEST) is Verdict.NO_GRANT
    assert lookups.look_up("nobody", DIGEST) is Verdict.NO_ROUTE
    assert lookups.look_up("nobody", None) is Verdict.NO_ROUTE


class TestHaproxyTwin(RuntimeSocketContract):
    @pytest.fixture
    def runtime(self, haproxy: HaproxyTwin, folder: Path) -> RuntimeSocket:
        assert haproxy.table(ROUTES) == {}
        return RuntimeSocket(folder / "haproxy.sock")

    @pytest.fixture
    def open_stream(self, haproxy: HaproxyTwin) -> Callable[[str], str]:
        def opened(host: str) -> str:
            number = haproxy.open_stream(host, f"2001:db8::1|{len(haproxy.streams) + 1}")
            return haproxy.streams[number].target or ""

        return opened


# ── nothing that a look-up needs is held while somebody else waits ───────────────────────────────────────────────


@pytest.mark.parametrize("command", ["prompt", "show info", "get map", "add map", "del map"])
def test_no_look_up_waits_while_haproxy_hangs_at_a_change(
    parts: Parts, haproxy: HaproxyTwin, threads: ThreadPoolExecutor, command: str
) -> None:
    parts.publish("three")
    parts.publish("four", port=2)
    parts.store.put(Grant(OTHER_DIGEST[::-1], "one", False, int(NOW * 1000), LATER, SIGN_IN))
    parts.feed.poll()
    assert parts.pusher.push()
    parts.publish("five")
    parts.store.put(a_route("four", 2, published=False))
    parts.feed.poll()
    gate = haproxy.hold(command)
    pushing = threads.submit(parts.pusher.push)
    assert gate.reached.wait(20)
    assert_told_entries_and_refusals_wait_for_nothing(parts.lookups)
    assert not pushing.done()
    gate.open.set()
    assert pushing.result(20)
    assert set(haproxy.table(ROUTES)) == {"one", "two", "three", "five"}


@pytest.mark.parametrize("command", ["prepare map", "add map @", "commit map"])
def test_no_look_up_waits_while_haproxy_hangs_at_a_swap(
    folder: Path, haproxy: HaproxyTwin, threads: ThreadPoolExecutor, command: str
) -> None:
    parts = Parts(folder)
    parts.publish("two")
    parts.store.put(Grant(DIGEST, "one", False, int(NOW * 1000), LATER, SIGN_IN))
    parts.feed.sync()
    gate = haproxy.hold(command)
    pushing = threads.submit(parts.pusher.push)
    assert gate.reached.wait(20)
    assert parts.lookups.look_up("two", DIGEST) is Verdict.OTHER_GRANT
    assert parts.lookups.look_up("two", OTHER_DIGEST) is Verdict.NO_GRANT
    assert parts.lookups.look_up("one", DIGEST) is Verdict.NO_ROUTE
    assert not pushing.done()
    gate.open.set()
    assert pushing.result(20)
    assert (haproxy.table(ROUTES), set(haproxy.table(GRANTS))) == ({"two": value("two", 1)}, {DIGEST})


def test_no_look_up_waits_for_a_full_reading(folder: Path, haproxy: HaproxyTwin, threads: ThreadPoolExecutor) -> None:
    reached, go_on = Event(), Event()

    class SlowStore(ProxyStoreTwin):
        """Hangs in the middle of every reading once `slow` is set."""

        slow = False

        def changes(self, since: int) -> Iterator[News]:
            for item in super().changes(since):
                yield item
                if self.slow:
                    reached.set()
                    assert go_on.wait(PATIENCE)

    store = SlowStore(lambda: NOW)
    parts = Parts(folder, store)
    parts.publish("one")
    parts.publish("two")
    store.put(Grant(DIGEST, "one", False, int(NOW * 1000), LATER, SIGN_IN))
    parts.feed.sync()
    assert parts.pusher.push()
    store.slow = True
    parts.publish("three")
    reading = threads.submit(parts.feed.sync)
    assert reached.wait(20)
    assert_told_entries_and_refusals_wait_for_nothing(parts.lookups)
    assert parts.lookups.look_up("three", None) is Verdict.REPEAT
    assert haproxy.table(ROUTES)["three"] == value("three", 1)
    parts.table.expire(NOW)
    assert parts.pusher.push()
    assert not reading.done()
    go_on.set()
    reading.result(20)
    assert set(haproxy.table(ROUTES)) == {"one", "two", "three"}


def test_no_look_up_waits_for_the_disk(parts: Parts, folder: Path, threads: ThreadPoolExecutor) -> None:
    pipe = folder / ".routes.map.new"
    os.mkfifo(pipe)  # opening it for writing waits for a reader
    saving = threads.submit(parts.pusher.save)
    assert_told_entries_and_refusals_wait_for_nothing(parts.lookups)
    parts.publish("three")
    assert parts.lookups.look_up("three", None) is Verdict.REPEAT
    assert not saving.done()
    with pipe.open(encoding="ascii") as reader:
        lines = reader.read().splitlines()
    assert saving.result(20)
    assert {f"{host} {value(host, 1)}" for host in ("one", "two")} <= set(lines)


# ── what is told, and in which order ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("changes", [0, 2 * MANY])
def test_a_look_up_puts_its_entry_while_a_swap_is_under_way_and_the_swap_does_not_take_it_out(
    folder: Path, haproxy: HaproxyTwin, threads: ThreadPoolExecutor, changes: int
) -> None:
    parts = Parts(folder)
    parts.publish("one")
    parts.feed.sync()
    gate = haproxy.hold("add map @")
    pushing = threads.submit(parts.pusher.push)
    assert gate.reached.wait(20)
    for number in range(changes):
        parts.publish(f"other{number}")
    parts.publish("one", port=2)
    parts.publish("two")
    parts.feed.poll()
    assert parts.lookups.look_up("one", None) is Verdict.REPEAT
    assert parts.lookups.look_up("two", None) is Verdict.REPEAT
    both = {"one": value("one", 2), "two": value("two", 1)}
    assert haproxy.table(ROUTES) == both
    assert not pushing.done()
    gate.open.set()
    assert pushing.result(20)
    assert both.items() <= haproxy.table(ROUTES).items()
    assert parts.pusher.push()
    assert len(haproxy.table(ROUTES)) == changes + 2


def test_what_is_withdrawn_while_a_swap_is_under_way_is_gone_when_it_ends(
    folder: Path, haproxy: HaproxyTwin, threads: ThreadPoolExecutor
) -> None:
    parts = Parts(folder)
    parts.publish("one")
    parts.publish("two")
    parts.feed.sync()
    gate = haproxy.hold("commit map")
    pushing = threads.submit(parts.pusher.push)
    assert gate.reached.wait(20)
    parts.store.put(a_route("one", published=False))
    parts.feed.poll()
    gate.open.set()
    assert pushing.result(20)
    assert haproxy.table(ROUTES) == {"two": value("two", 1)}


def test_a_withdrawal_overtaken_by_its_own_publication_leaves_haproxy(
    parts: Parts, haproxy: HaproxyTwin, threads: ThreadPoolExecutor
) -> None:
    parts.publish("late")
    parts.feed.poll()
    gate = haproxy.hold("add map")
    publishing = threads.submit(parts.pusher.push)
    assert gate.reached.wait(20)
    parts.store.put(a_route("late", published=False))
    parts.feed.poll()
    withdrawing = threads.submit(parts.pusher.push)
    gate.open.set()
    assert publishing.result(20)
    assert withdrawing.result(20)
    assert "late" not in haproxy.table(ROUTES)


def test_a_look_up_that_is_overtaken_by_a_withdrawal_puts_nothing_back(
    parts: Parts, haproxy: HaproxyTwin, threads: ThreadPoolExecutor
) -> None:
    gate = haproxy.hold("prompt", once=True)
    putting = threads.submit(parts.pusher.force_put, [(ROUTES, "one"), (ROUTES, "two")])
    assert gate.reached.wait(20)
    parts.store.put(a_route("one", published=False))
    parts.feed.poll()
    assert parts.pusher.push()
    assert not putting.done()
    gate.open.set()
    assert putting.result(20)
    assert set(haproxy.table(ROUTES)) == {"two"}


def test_a_repeat_is_answered_only_when_haproxy_holds_the_entries(
    parts: Parts, haproxy: HaproxyTwin, threads: ThreadPoolExecutor
) -> None:
    parts.publish("three")
    gate = haproxy.hold("add map")
    asking = threads.submit(parts.lookups.look_up, "three", None)
    assert gate.reached.wait(20)
    assert not asking.done()
    gate.open.set()
    assert asking.result(20) is Verdict.REPEAT
    assert haproxy.table(ROUTES)["three"] == value("three", 1)


def test_a_haproxy_that_lost_told_entries_is_believed_once_and_then_told_again(
    parts: Parts, haproxy: HaproxyTwin
) -> None:
    haproxy.restart()
    assert parts.lookups.look_up("one", DIGEST) is Verdict.REPEAT
    assert haproxy.table(ROUTES) == {}
    assert parts.lookups.look_up("one", DIGEST) is Verdict.REPEAT
    assert (haproxy.table(ROUTES), set(haproxy.table(GRANTS))) == ({"one": value("one", 1)}, {DIGEST})


def test_a_new_process_is_told_everything(parts: Parts, haproxy: HaproxyTwin) -> None:
    haproxy.restart()
    assert parts.pusher.push()
    assert (set(haproxy.table(ROUTES)), set(haproxy.table(GRANTS))) == ({"one", "two"}, {DIGEST})


def test_a_change_that_could_not_be_told_is_told_with_everything_else_later(
    parts: Parts, haproxy: HaproxyTwin, threads: ThreadPoolExecutor
) -> None:
    parts.store.put(a_route("one", published=False))
    parts.publish("three")
    parts.feed.poll()
    gate = haproxy.hold("del map")
    pushing = threads.submit(parts.pusher.push)
    assert gate.reached.wait(20)
    haproxy.restart()
    gate.open.set()
    assert not pushing.result(20)
    assert not parts.pusher.has_told([(ROUTES, "two")])
    assert parts.pusher.push()
    assert set(haproxy.table(ROUTES)) == {"two", "three"}


def test_before_the_first_full_reading_a_change_is_told_alone_and_takes_nothing_away(
    folder: Path, haproxy: HaproxyTwin
) -> None:
    before = Parts(folder)
    before.publish("one")
    before.feed.sync()
    assert before.pusher.push()
    after = Parts(folder, before.store)
    before.publish("two")
    assert after.lookups.look_up("two", None) is Verdict.REPEAT
    assert after.pusher.push()
    assert set(haproxy.table(ROUTES)) == {"one", "two"}


def test_a_change_that_could_not_be_told_before_the_first_full_reading_is_told_alone_later(
    folder: Path, haproxy: HaproxyTwin, threads: ThreadPoolExecutor
) -> None:
    parts = Parts(folder)
    parts.table.learn([a_route("one")], NOW)
    gate = haproxy.hold("add map")
    pushing = threads.submit(parts.pusher.push)
    assert gate.reached.wait(20)
    haproxy.restart()
    gate.open.set()
    assert not pushing.result(20)
    assert parts.pusher.push()
    assert set(haproxy.table(ROUTES)) == {"one"}


@pytest.fixture
def hurried() -> Iterator[None]:
    """Threads that take turns a hundred times as often as usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 100)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("seed", range(5))
def test_publications_and_withdrawals_raced_end_with_haproxy_holding_what_the_table_says(
    folder: Path, haproxy: HaproxyTwin, threads: ThreadPoolExecutor, seed: int
) -> None:
    parts, random = Parts(folder), Random(seed)
    parts.feed.sync()
    hosts = [f"sid{number}-{launch}" for number in range(20) for launch in range(1, 6)]
    stay = hosts[4::10]  # the last launch of every second session
    news = [
        a_route(host, port, published=published)
        for host in hosts
        for port in (1, 2)
        for published in (True, False)
        if published or host not in stay
    ]
    expected: dict[Key, Route] = {}
    for item in news:
        last = newest(expected.get(key_of(item)), item)
        assert isinstance(last, Route)
        expected[key_of(item)] = last
    over = Event()

    def until_over(act: Callable[[], object]) -> Callable[[], None]:
        def loop() -> None:
            while not over.is_set():
                act()

        return loop

    def learn(items: list[Route]) -> None:
        for item in items:
            parts.table.learn([item], NOW)

    pushers = [threads.submit(until_over(parts.pusher.push)) for _ in range(2)]
    asking = threads.submit(until_over(lambda: parts.pusher.force_put([(ROUTES, random.choice(hosts))])))
    learners = [threads.submit(learn, random.sample(news, len(news))) for _ in range(3)]
    for learner in learners:
        haproxy.restart()  # so swaps are in the race
        learner.result(PATIENCE)
    over.set()
    for thread in (*pushers, asking):
        thread.result(PATIENCE)
    assert parts.pusher.push()
    assert haproxy.table(ROUTES) == {
        host: worth for (_, host), item in expected.items() if (worth := value_of(item, NOW)) is not None
    }
    assert set(haproxy.table(ROUTES)) == set(stay)


# ── open streams are cut ─────────────────────────────────────────────────────────────────────────────────────────


def open_hosts(haproxy: HaproxyTwin) -> list[str]:
    return sorted(stream.host for stream in haproxy.streams.values())


def revoke(parts: Parts) -> None:
    parts.store.put(Grant(DIGEST, "one", True, int(NOW * 1000) + 1, LATER, SIGN_IN))
    parts.feed.poll()


def withdraw(parts: Parts, host: str) -> None:
    parts.store.put(a_route(host, published=False))
    parts.feed.poll()


@pytest.fixture
def apart(parts: Parts, haproxy: HaproxyTwin) -> Parts:
    """Parts whose two launches have each a port of its own, and a stream."""
    parts.publish("two", port=2)
    parts.feed.poll()
    assert [parts.pusher.push() for _ in range(2)] == [True] * 2  # twice, for streams to two's former target
    haproxy.open_stream("one", value("one", 1))
    haproxy.open_stream("two", value("two", 2))
    return parts


@pytest.mark.parametrize("command", ["del map", "show table", "shutdown session"])
def test_a_withdrawn_launch_s_streams_are_cut_when_haproxy_has_lost_route_and_grants_and_not_before(
    apart: Parts, haproxy: HaproxyTwin, threads: ThreadPoolExecutor, command: str
) -> None:
    withdraw(apart, "one")
    gate = haproxy.hold(command)
    pushing = threads.submit(apart.pusher.push)
    assert gate.reached.wait(20)
    told = command == "del map"
    assert ("one" in haproxy.table(ROUTES), DIGEST in haproxy.table(GRANTS)) == (told, told)
    assert open_hosts(haproxy) == ["one", "two"]
    gate.open.set()
    assert pushing.result(20)
    assert open_hosts(haproxy) == ["two"]


def test_streams_to_a_target_that_the_route_had_before_are_cut(apart: Parts, haproxy: HaproxyTwin) -> None:
    apart.publish("one", port=3)
    apart.feed.poll()
    assert apart.pusher.push()
    assert open_hosts(haproxy) == ["two"]


def test_what_many_withdrawals_end_is_cut(apart: Parts, haproxy: HaproxyTwin) -> None:
    for number in range(MANY):
        apart.publish(f"other{number}", port=10 + number)
    apart.feed.poll()
    assert apart.pusher.push()
    for number in range(MANY):
        haproxy.open_stream(f"other{number}", value("other", 10 + number))
        withdraw(apart, f"other{number}")
    withdraw(apart, "one")
    assert apart.table.has_many_changes
    assert apart.pusher.push()
    assert open_hosts(haproxy) == ["two"]


def test_a_revoked_grant_s_streams_are_cut_once_and_who_comes_back_is_not(apart: Parts, haproxy: HaproxyTwin) -> None:
    revoke(apart)
    assert apart.pusher.push()
    assert open_hosts(haproxy) == ["two"]
    haproxy.open_stream("one", value("one", 1))
    assert [apart.pusher.push() for _ in range(3)] == [True] * 3
    assert open_hosts(haproxy) == ["one", "two"]


def test_a_stream_that_was_let_in_just_before_and_is_counted_just_after_is_cut(
    apart: Parts, haproxy: HaproxyTwin
) -> None:
    late = haproxy.open_stream("one", value("one", 1))
    streams, haproxy.streams = haproxy.streams, {}
    withdraw(apart, "one")
    assert apart.pusher.push()
    haproxy.streams = {late: streams[late]}
    assert apart.pusher.push()
    assert open_hosts(haproxy) == []


def test_a_stream_that_is_about_to_connect_again_is_waited_for(apart: Parts, haproxy: HaproxyTwin) -> None:
    withdraw(apart, "one")
    between = haproxy.open_stream("one", None)
    for _ in range(3):
        assert apart.pusher.push()
    assert open_hosts(haproxy) == ["one", "two"]
    haproxy.streams[between] = replace(haproxy.streams[between], target=value("one", 1))
    assert apart.pusher.push()
    assert open_hosts(haproxy) == ["two"]


def test_an_agent_that_was_restarted_before_the_cut_makes_up_for_it(
    apart: Parts, folder: Path, haproxy: HaproxyTwin
) -> None:
    withdraw(apart, "one")
    after = Parts(folder, apart.store)
    assert after.pusher.push()
    assert open_hosts(haproxy) == ["one", "two"]  # nothing is known yet
    after.feed.sync()
    assert after.pusher.push()
    assert open_hosts(haproxy) == ["two"]


def test_another_process_s_streams_are_not_cut_for_what_the_one_before_let_in(
    apart: Parts, haproxy: HaproxyTwin
) -> None:
    revoke(apart)
    assert apart.pusher.push()
    haproxy.restart()
    assert apart.pusher.push()
    haproxy.open_stream("one", value("one", 1))
    assert [apart.pusher.push() for _ in range(3)] == [True] * 3
    assert open_hosts(haproxy) == ["one"]


def test_a_cut_that_haproxy_broke_off_is_made_up_for(
    apart: Parts, haproxy: HaproxyTwin, threads: ThreadPoolExecutor
) -> None:
    revoke(apart)
    gate = haproxy.hold("show sess", once=True)
    pushing = threads.submit(apart.pusher.push)
    assert gate.reached.wait(20)
    haproxy.hang_up()
    gate.open.set()
    assert not pushing.result(20)
    assert open_hosts(haproxy) == ["one", "two"]
    assert apart.pusher.push()
    assert open_hosts(haproxy) == ["two"]


def test_haproxy_lists_its_streams_only_for_a_launch_that_has_some(apart: Parts, haproxy: HaproxyTwin) -> None:
    listing = haproxy.hold("show sess")
    apart.publish("three", port=3)
    apart.feed.poll()
    assert apart.pusher.push()
    withdraw(apart, "three")
    assert [apart.pusher.push() for _ in range(3)] == [True] * 3
    assert not listing.reached.is_set()


def test_looks_for_streams_take_a_tenth_of_the_time_at_most(
    apart: Parts, folder: Path, haproxy: HaproxyTwin, threads: ThreadPoolExecutor
) -> None:
    now = [NOW]
    pusher = Pusher(apart.table, RuntimeSocket(folder / "haproxy.sock", PATIENCE), folder, clock=lambda: now[0])
    assert pusher.push()
    withdraw(apart, "one")
    slow = haproxy.hold("show sess", once=True)
    pushing = threads.submit(pusher.push)
    assert slow.reached.wait(20)
    now[0] += 1
    slow.open.set()
    assert pushing.result(20)
    assert open_hosts(haproxy) == ["two"]
    withdraw(apart, "two")
    now[0] += 8
    assert pusher.push()
    assert open_hosts(haproxy) == ["two"]
    now[0] += 1
    assert pusher.push()
    assert open_hosts(haproxy) == []


# ── the two threads ──────────────────────────────────────────────────────────────────────────────────────────────


def test_an_error_in_one_of_the_agent_s_threads_ends_both_and_is_raised(folder: Path) -> None:
    class Broken(ProxyStoreTwin):
        def changes(self, since: int) -> Iterator[Route | Grant]:
            raise ValueError("a programming error")

    agent = Agent(Broken(lambda: NOW), no_queue, folder, clock=lambda: NOW, new_cookie=lambda: "cookie")
    with pytest.raises(ValueError, match="a programming error"):
        agent.run(Event(), poll=600, full_sync=600)


def test_a_change_is_told_at_once_and_all_is_on_disk_when_the_agent_ends(
    folder: Path, haproxy: HaproxyTwin, threads: ThreadPoolExecutor
) -> None:
    store = ProxyStoreTwin(lambda: NOW)
    store.put(a_route("one"))
    agent = Agent(store, no_queue, folder, clock=lambda: NOW, new_cookie=lambda: "cookie")
    stop = Event()
    committed = haproxy.hold("commit map")
    running = threads.submit(agent.run, stop, poll=600, full_sync=600)
    try:
        assert committed.reached.wait(20)  # the first reading is told, though no poll is due for ten minutes
        committed.open.set()
        added = haproxy.hold(f"add map {ROUTES} two")
        agent.table.learn([a_route("two")], NOW)
        assert added.reached.wait(20)
        added.open.set()
    finally:
        stop.set()
        running.result(20)
    assert files.read(folder) == {(ROUTES, host): value(host, 1) for host in ("one", "two")}
