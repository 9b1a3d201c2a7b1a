"""The agent: a cache of DynamoDB's routes and grants, kept in HAProxy's maps. DynamoDB is the truth.

1. It begins with what the map files hold, so a start while DynamoDB is down takes nothing away.
2. A full reading first, and again every ten minutes; the change feed every half second, looking back far enough
   for clocks that differ and an index that is late. A failed reading changes nothing (plan.py decides the rest).
3. What is asked for and not known is looked up, consistently; what is not there is remembered for a few seconds, and
   all look-ups together are bounded, so junk names cost DynamoDB little.
4. What HAProxy could not be told is told whole when it answers again; so is a HAProxy process not seen before.

Times: `clock` gives epoch seconds. `store` is ProxyStore or its twin.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from pathlib import Path
from threading import Event, RLock
from typing import Final, Protocol

from chalicelib.aws.errors import StoreUnavailable
from chalicelib.aws.routes import Grant, Redeemed, Route
from proxy.agent import files, plan
from proxy.agent.plan import Item, Key, Map
from proxy.agent.runtime import HaproxyUnavailable, RuntimeSocket

OVERLAP_MS: Final = 10_000  # clocks under NTP differ by far less, and an index lags by about a second
PENDING_SECONDS: Final = 30.0  # an entry learnt so recently may be missing from a full reading
EXPIRY_SECONDS: Final = 5.0  # how often entries are looked through for those whose time is over
SAVE_SECONDS: Final = 2.0  # 100,000 lines take 0.3 s; a HAProxy that starts is told the rest half a second later
MISS_SECONDS: Final = 5.0
MISSES: Final = 10_000
LOOK_UPS_PER_SECOND: Final = 25.0
LOOK_UP_BURST: Final = 200.0

_log = logging.getLogger("homeport.agent")


class Store(Protocol):
    """What the agent needs of chalicelib.session_store.ProxyStore."""

    def changes(self, since: int) -> Iterator[Route | Grant]: ...
    def route(self, sid: str) -> Route | None: ...
    def grant(self, digest: str) -> Grant | None: ...
    def redeem_ticket(self, ticket: str, sid: str) -> Redeemed | None: ...
    def put_grant(self, grant: Grant) -> None: ...


class Verdict(Enum):
    """The answer to a request that HAProxy's maps did not let through."""

    REPEAT = "the maps hold it now"
    NO_SESSION = "there is no such session"
    NO_GRANT = "nobody knows this cookie"
    OTHER_GRANT = "the cookie is for another session or launch"
    BUSY = "HAProxy could not be told; ask again"


@dataclass(frozen=True, slots=True)
class Entered:
    """A redeemed ticket: the new cookie's value, how long it holds (seconds), and the ticket's own path."""

    cookie: str
    max_age: int
    path: str


class Agent:
    """Routes and grants as known, as the maps hold them, and the ways in which they change."""

    def __init__(
        self, store: Store, folder: Path, *, clock: Callable[[], float], new_cookie: Callable[[], str]
    ) -> None:
        self._store = store
        self._folder = folder
        self._runtime = RuntimeSocket(folder / "haproxy.sock")
        self._clock = clock
        self._new_cookie = new_cookie
        self._lock = RLock()
        self._known: dict[Key, Item] = {}
        self._learnt: dict[Key, float] = {}
        self._held: dict[Key, str] = files.read(folder)
        self._process: str | None = None
        self._synced = False
        self._written = True
        self._watermark = 0
        self._missing = Missing()
        self._allowance = Allowance(LOOK_UPS_PER_SECOND, LOOK_UP_BURST, clock())

    @property
    def synced(self) -> bool:
        """Whether a full reading succeeded since the start."""
        return self._synced

    def run(self, stop: Event, *, poll: float, full_sync: float) -> None:
        """Keep the maps current until `stop` is set; `poll` and `full_sync` are the seconds between readings."""
        full_at = expire_at = save_at = 0.0
        failing = False
        while True:
            now = self._clock()
            try:
                if now >= full_at:
                    self.sync()
                    full_at = now + full_sync
                else:
                    self.poll()
                failing = _tell(failing, None)
            except StoreUnavailable as error:
                failing = _tell(failing, error)
            if now >= expire_at:
                self.expire()
                expire_at = now + EXPIRY_SECONDS
            self.push()
            if now >= save_at:
                self.save()
                save_at = now + SAVE_SECONDS
            if stop.wait(poll):
                self.save()
                return

    def sync(self) -> None:
        """Read everything and let it replace what was known; raises StoreUnavailable and has then changed nothing."""
        started = self._clock()
        reading = list(self._store.changes(0))
        with self._lock:
            pending = [key for key, at in self._learnt.items() if at > started - PENDING_SECONDS]
            self._learnt = {key: self._learnt[key] for key in pending}
            self._known = plan.replaced(self._known, reading, pending)
            self._synced = True
            self._watermark = 0
            self._advance(reading, started)
            now = self._clock()
            wanted: dict[Key, str | None] = dict.fromkeys(self._held)
            self._change(wanted | {key: plan.value_of(item, now) for key, item in self._known.items()})

    def poll(self) -> None:
        """Read what changed lately; raises StoreUnavailable, and what came before that is kept."""
        started = self._clock()
        reading: list[Item] = []
        try:
            reading.extend(self._store.changes(max(0, self._watermark - OVERLAP_MS)))
            self._advance(reading, started)
        finally:
            self._learn(reading)

    def expire(self) -> None:
        """Take out the entries whose time is over."""
        with self._lock:
            now = self._clock()
            over = [key for key, item in self._known.items() if key in self._held and item.expires_at <= now]
            self._change(dict.fromkeys(over))

    def enter(self, sid: str, ticket: str) -> Entered | None:
        """Redeem a ticket for a grant; None: it is used, too old or not for this session. Raises StoreUnavailable."""
        if not plan.is_sid(sid):
            return None
        redeemed = self._store.redeem_ticket(ticket, sid)
        if redeemed is None:
            return None
        now = self._clock()
        cookie = self._new_cookie()
        digest = sha256(cookie.encode()).hexdigest()
        grant = Grant(digest, sid, redeemed.generation, False, int(now * 1000), redeemed.expires_at)
        self._store.put_grant(grant)
        self._learn([grant])
        self._fresh_route(sid, redeemed.generation)
        self._assure((Map.GRANTS, digest), (Map.ROUTES, sid))
        return Entered(cookie, max(0, int(redeemed.expires_at - now)), redeemed.path)

    def look_up(self, sid: str, digest: str | None) -> Verdict:
        """Find out why the maps did not let a request through, and mend them; raises StoreUnavailable."""
        if not plan.is_sid(sid):
            return Verdict.NO_SESSION
        if self._find((Map.ROUTES, sid), lambda: self._store.route(sid)) is None:
            return Verdict.NO_SESSION
        if digest is None:
            return self._repeat((Map.ROUTES, sid))
        if not plan.is_digest(digest):
            return Verdict.NO_GRANT
        grant = self._find((Map.GRANTS, digest), lambda: self._store.grant(digest))
        if not isinstance(grant, Grant):
            return Verdict.NO_GRANT
        if grant.sid != sid:
            return Verdict.OTHER_GRANT
        route = self._fresh_route(sid, grant.generation)
        if route is None or route.generation != grant.generation:
            return Verdict.OTHER_GRANT
        return self._repeat((Map.GRANTS, digest), (Map.ROUTES, sid))

    def push(self) -> bool:
        """Tell HAProxy everything if it is a process that has not been told; False when it does not answer."""
        return self._tell_haproxy([])

    def save(self) -> None:
        """Write the map files if anything changed since they were written."""
        with self._lock:
            if not self._written:
                files.write(self._folder, self._held)
                self._written = True

    def _find(self, key: Key, read: Callable[[], Item | None]) -> Item | None:
        """Return the live item of an entry, from memory or by a look-up; raises StoreUnavailable."""
        now = self._clock()
        with self._lock:
            item = self._known.get(key)
            if item is not None and plan.value_of(item, now) is not None:
                return item
            if self._missing.has(key, now):
                return None
            if not self._allowance.take(now):
                raise StoreUnavailable("Too much is being looked up; try again in a moment")
        item = read()
        if item is None or plan.value_of(item, now) is None:
            with self._lock:
                self._missing.add(key, now)
            return None
        self._learn([item])
        return item

    def _fresh_route(self, sid: str, generation: int) -> Route | None:
        """Return the session's route, read again if the known one is older than `generation`."""
        key = (Map.ROUTES, sid)
        with self._lock:
            known = self._known.get(key)
        if known is None or known.generation < generation:
            route = self._store.route(sid)
            self._learn([route] if route else [])
            with self._lock:
                known = self._known.get(key)
        return known if isinstance(known, Route) else None

    def _repeat(self, *keys: Key) -> Verdict:
        return Verdict.REPEAT if self._assure(*keys) else Verdict.BUSY

    def _assure(self, *keys: Key) -> bool:
        """Put the entries into HAProxy whatever is thought to be there; False when it does not answer."""
        with self._lock:
            return self._tell_haproxy([plan.Put(*key, self._held[key]) for key in keys if key in self._held])

    def _learn(self, news: Iterable[Item]) -> None:
        with self._lock:
            now = self._clock()
            changed = plan.merged(self._known, news)
            self._known.update(changed)
            self._learnt.update(dict.fromkeys(changed, now))
            self._missing.forget(changed)
            self._change({key: plan.value_of(item, now) for key, item in changed.items()})

    def _advance(self, reading: Iterable[Item], now: float) -> None:
        """Move the feed's watermark (milliseconds) to the newest change, never ahead of our own clock."""
        latest = max((item.changed_at for item in reading), default=0)
        self._watermark = max(self._watermark, min(latest, int(now * 1000)))

    def _change(self, wanted: Mapping[Key, str | None]) -> None:
        """Give entries their values: here, in HAProxy, and (at the next save) on disk."""
        commands = plan.commands(self._held, wanted)
        if not commands:
            return
        for key, value in wanted.items():
            if value is None:
                self._held.pop(key, None)
            else:
                self._held[key] = value
        self._written = False
        self._tell_haproxy(commands)

    def _tell_haproxy(self, commands: list[plan.Command]) -> bool:
        with self._lock:
            try:
                with self._runtime.connected() as haproxy:
                    process = haproxy.process()
                    if self._synced and process != self._process:
                        commands = plan.whole(self._held)
                    haproxy.execute(commands)
            except HaproxyUnavailable as error:
                if self._process is not None:
                    _log.warning("%s", error)
                self._process = None
                return False
            if self._synced and process != self._process:
                _log.info("told HAProxy %s all %d entries", process, len(self._held))
                self._process = process
            return True


class Missing:
    """Entries that were looked up and not found lately; at most MISSES of them, the oldest forgotten first."""

    def __init__(self) -> None:
        self._until: OrderedDict[Key, float] = OrderedDict()

    def has(self, key: Key, now: float) -> bool:
        """Say whether a look-up of `key` can be spared."""
        return self._until.get(key, 0.0) > now

    def add(self, key: Key, now: float) -> None:
        """Remember that there was nothing."""
        self._until.pop(key, None)
        self._until[key] = now + MISS_SECONDS
        if len(self._until) > MISSES:
            self._until.popitem(last=False)

    def forget(self, keys: Iterable[Key]) -> None:
        """There is something now."""
        for key in keys:
            self._until.pop(key, None)


class Allowance:
    """So many look-ups a second, with a burst (a token bucket)."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = now

    def take(self, now: float) -> bool:
        """Take one; False when there is none."""
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


def _tell(failing: bool, error: StoreUnavailable | None) -> bool:
    """Log the beginning and the end of a time without DynamoDB; answer whether it lasts."""
    if error is not None and not failing:
        _log.warning("serving from memory: %s", error.message)
    if error is None and failing:
        _log.info("the table answers again")
    return error is not None
