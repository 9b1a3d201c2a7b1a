"""Measure a full reading of a large table, and how long look-ups that run meanwhile wait.

`python -m bench.bench_agent` fills an in-memory store with 100,000 routes and 100,000 grants, and runs a real HAProxy
and the agent's parts in this process. Rows:

    first       the first full reading: all of it is new, HAProxy is told the whole table
    again       the next ones, of which 1,000 routes have changed; median
    look-up     meanwhile, one after the other from one thread; the longest is what matters. An unknown session (404),
                an unknown cookie (401), a route that HAProxy has, and a route that is read from the store and put into
                HAProxy before the answer (both: sent round once more)
    withdrawal  a route withdrawn while a reading is taken in: until HAProxy has lost it
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from itertools import count
from pathlib import Path
from threading import Event, Thread

from chalicelib.aws.routes import Grant, Route
from chalicelib.session.values import Target
from proxy.agent.agent import Agent
from proxy.agent.lookups import Verdict
from proxy.agent.runtime import RuntimeSocket
from proxy.agent.table import Map
from tests.builders import SIGN_IN, no_queue
from tests.proxy_rig import Rig
from tests.twins import ProxyStoreTwin

ENTRIES = 100_000  # routes, and as many grants
CHANGED = 1_000
ROUNDS = 3
PATIENCE = 120.0  # seconds
PAUSE = 0.01  # seconds between two look-ups; new routes are looked up 25 times a second at most


def fill(store: ProxyStoreTwin) -> list[Route]:
    """Put the routes and grants; gives the routes."""
    later = int(time.time()) + 86_400
    begun = store.now_ms() - 3_600_000
    routes = [Route(f"sid{n:017d}-0123456789", Target("192.0.2.1", 8888), True, begun, later) for n in range(ENTRIES)]
    for route in routes:
        store.put(route)
        store.put(Grant(sha256(route.host.encode()).hexdigest(), route.host, False, begun, later, SIGN_IN))
    return routes


@contextmanager
def looking_up(agent: Agent, store: ProxyStoreTwin, routes: list[Route]) -> Iterator[dict[str, list[float]]]:
    """Look up again and again for as long as the block lasts; gives the seconds by kind."""
    stop, waits = Event(), defaultdict(list)
    kinds: dict[str, Callable[[Route], Verdict]] = {
        "unknown session": lambda _route: agent.lookups.look_up("nobody", None),
        "unknown cookie": lambda route: agent.lookups.look_up(route.host, "0" * 64),
        "known route": lambda route: agent.lookups.look_up(route.host, None),
        "new route": lambda route: agent.lookups.look_up(f"new{route.host}", None),
    }

    def loop() -> None:
        for number in count():
            store.put(replace(routes[number % 1000], host=f"new{routes[number % 1000].host}"))
            for kind, look_up in kinds.items():
                if stop.is_set():
                    return
                begun = time.perf_counter()
                look_up(routes[number % 1000])
                waits[kind].append(time.perf_counter() - begun)
                time.sleep(PAUSE)

    thread = Thread(target=loop)
    thread.start()
    try:
        yield waits
    finally:
        stop.set()
        thread.join()


def row(name: str, seconds: list[float]) -> str:
    """One line of the table."""
    return (
        f"{name:<34} {statistics.median(seconds):7.3f} s   "
        f"(min {min(seconds):.3f}, max {max(seconds):.3f}, n={len(seconds)})"
    )


def wait_for(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > until:
            raise TimeoutError(f"nothing came of it in {PATIENCE:.0f} seconds")
        time.sleep(PAUSE)


def measure(report: Callable[[str], None]) -> None:
    """Print every row."""
    folder = Path(tempfile.mkdtemp(prefix="hp"))  # short: unix sockets' names end at 108 bytes
    rig = Rig(folder, {})
    agent = Agent(rig.store, no_queue, rig.run, clock=time.time, new_cookie=lambda: "cookie")
    stop = Event()
    try:
        rig.proxy.start_haproxy()
        routes = fill(rig.store)
        socket = RuntimeSocket(rig.run / "haproxy.sock")
        pushing = Thread(target=agent.pusher.run, args=(stop,), kwargs={"poll": 0.5}, daemon=True)
        first: list[float] = []
        first_told: list[float] = []
        again: list[float] = []
        again_told: list[float] = []

        def read(news: list[Route], taken: list[float], told: list[float]) -> None:
            for route in news:
                rig.store.put(route)
            keys = [(Map.ROUTES, route.host) for route in news]
            begun = time.perf_counter()
            agent.feed.sync()
            taken.append(time.perf_counter() - begun)
            wait_for(lambda: agent.pusher.has_told(keys))
            told.append(time.perf_counter() - begun)

        pushing.start()
        with looking_up(agent, rig.store, routes) as waits:
            read(routes[-CHANGED:], first, first_told)
            for later in range(1, 1 + ROUNDS):
                news = [
                    replace(route, target=Target("192.0.2.2", later), changed_at=later + route.changed_at)
                    for route in routes[-CHANGED:]
                ]
                read(news, again, again_told)
        report(row("first: read", first))
        report(row("first: read and told", first_told))
        report(row("again: read", again))
        report(row("again: read and told", again_told))
        for kind, seconds in waits.items():
            report(row(f"look-up, {kind}", seconds))

        gone = routes[ENTRIES // 2]
        reading = Thread(target=agent.feed.sync)
        begun = time.perf_counter()
        reading.start()
        agent.table.learn([replace(gone, published=False, target=None)], time.time())

        def has_lost() -> bool:
            with socket.connected() as haproxy:
                return "found=no" in haproxy.ask(f"get map {Map.ROUTES} {gone.host}")

        wait_for(has_lost)
        report(row("withdrawal during a reading", [time.perf_counter() - begun]))
        reading.join()
    finally:
        stop.set()
        agent.table.wake()
        rig.close()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Print the table."""
    print(f"{ENTRIES} routes and {ENTRIES} grants, {CHANGED} of the routes changed at each reading but the first")
    measure(lambda line: print(line, flush=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
