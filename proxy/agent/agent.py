"""The agent: a cache of DynamoDB's routes and grants, kept in HAProxy's maps. DynamoDB is the truth.

    DynamoDB ──feed──▶ table ──pusher──▶ HAProxy's runtime socket, map files
                        ▲ │
                        │ ▼
    browser ─HAProxy─▶ lookups ◀──▶ DynamoDB (one item each)
               └──────▶ failures ──▶ the watch lane's queue

`table` decides and does no I/O; `feed`, `pusher`, `failures`, `figures` and `renewal` have a thread each, look-ups run
in those of `entry`.
Each module has its rules at its top.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from typing import Protocol

from chalicelib.aws.queues import Enqueue
from chalicelib.metrics import SILENT, Metrics
from proxy.agent import files
from proxy.agent.failures import Failures
from proxy.agent.feed import Feed, FeedStore
from proxy.agent.figures import Figures
from proxy.agent.lookups import Lookups, LookupStore
from proxy.agent.pusher import Pusher
from proxy.agent.renewal import Renewal
from proxy.agent.runtime import RuntimeSocket
from proxy.agent.table import Table


class Store(FeedStore, LookupStore, Protocol):
    """What the agent needs of chalicelib.aws.routes.ProxyStore."""


class Agent:
    """The parts, wired together for one run folder; `certificate`: the file that HAProxy serves TLS with, or ""."""

    def __init__(
        self,
        store: Store,
        enqueue: Enqueue,
        folder: Path,
        *,
        clock: Callable[[], float],
        new_cookie: Callable[[], str],
        metrics: Metrics = SILENT,
        certificate: str = "",
    ) -> None:
        self.table = Table(files.read(folder))
        haproxy = RuntimeSocket(folder / "haproxy.sock")
        self.pusher = Pusher(self.table, haproxy, folder, clock=clock)
        self.figures = Figures(haproxy, metrics)
        self.renewal = Renewal(haproxy, certificate)
        self.feed = Feed(store, self.table, clock=clock)
        self.failures = Failures(folder / "failures.sock", enqueue, clock=clock)
        self.lookups = Lookups(store, self.table, self.pusher, clock=clock, new_cookie=new_cookie)

    def run(self, stop: Event, *, poll: float, full_sync: float) -> None:
        """Keep the maps current until `stop` is set; `poll` and `full_sync` are the seconds between readings.

        An error in one of the threads ends all and is raised here: half an agent would serve stale maps.
        """
        with ThreadPoolExecutor(max_workers=5) as threads:
            running = [
                threads.submit(self.feed.run, stop, poll=poll, full_sync=full_sync),
                threads.submit(self.pusher.run, stop, poll=poll),
                threads.submit(self.failures.run, stop),
                threads.submit(self.figures.run, stop),
                threads.submit(self.renewal.run, stop),
            ]
            wait(running, return_when=FIRST_COMPLETED)
            stop.set()
            self.table.wake()
        for thread in running:
            thread.result()
        self.pusher.save()
