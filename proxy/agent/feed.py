"""The reader of DynamoDB's change feed: what it reads goes into the table.

1. A full reading first, and again every ten minutes; the change feed every half second.
2. The feed is read from the newest change seen (the watermark), less an overlap for clocks that differ and an index
   that is late; a writer whose clock is ahead moves the watermark no further than our own clock.
3. A full reading is used only when it is complete. A failed one changes nothing; of a failed reading of the feed, what
   came before the failure is used.

Times: `clock` gives epoch seconds. `store` is ProxyStore or its twin. For one thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from threading import Event
from typing import Final, Protocol

from chalicelib.aws.errors import StoreUnavailable
from proxy.agent.table import News, Table

OVERLAP_MS: Final = 10_000  # clocks under NTP differ by far less, and an index lags by about a second
EXPIRY_SECONDS: Final = 5.0  # how often the table is searched for expired entries

_log = logging.getLogger("homeport.agent")


class FeedStore(Protocol):
    """What the feed needs of chalicelib.aws.routes.ProxyStore."""

    def changes(self, since: int) -> Iterator[News]: ...


class Feed:
    """The change feed and how far it was read."""

    def __init__(self, store: FeedStore, table: Table, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._table = table
        self._clock = clock
        self._watermark = 0  # milliseconds since the epoch

    def run(self, stop: Event, *, poll: float, full_sync: float) -> None:
        """Keep the table current until `stop` is set; `poll` and `full_sync` are the seconds between readings."""
        full_at = expire_at = 0.0
        failing = False
        while True:
            now = self._clock()
            try:
                if now >= full_at:
                    self.sync()
                    full_at = now + full_sync
                else:
                    self.poll()
                failing = _log_outage(failing, None)
            except StoreUnavailable as error:
                failing = _log_outage(failing, error)
            if now >= expire_at:
                self._table.expire(self._clock())
                expire_at = now + EXPIRY_SECONDS
            if stop.wait(poll):
                return

    def sync(self) -> None:
        """Read everything and let it replace what is known; raises StoreUnavailable and has then changed nothing."""
        started = self._clock()
        reading = list(self._store.changes(0))
        self._table.replace(reading, started=started, now=self._clock())
        self._watermark = 0
        self._advance(reading, started)

    def poll(self) -> None:
        """Read what changed lately; raises StoreUnavailable, and what came before that is kept."""
        started = self._clock()
        reading: list[News] = []
        try:
            reading.extend(self._store.changes(max(0, self._watermark - OVERLAP_MS)))
            self._advance(reading, started)
        finally:
            self._table.learn(reading, self._clock())

    def _advance(self, reading: Iterable[News], now: float) -> None:
        latest = max((item.changed_at for item in reading), default=0)
        self._watermark = max(self._watermark, min(latest, int(now * 1000)))


def _log_outage(failing: bool, error: StoreUnavailable | None) -> bool:
    """Log the start and the end of a time without DynamoDB; return whether it lasts."""
    if error is not None and not failing:
        _log.warning("serving from memory: %s", error.message)
    if error is None and failing:
        _log.info("the table answers again")
    return error is not None
