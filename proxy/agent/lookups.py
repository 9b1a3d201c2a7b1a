"""Entering a notebook, and look-ups of what HAProxy's maps do not hold.

1. An entry redeems a ticket for a grant: the browser's cookie is the secret, its SHA-256 is all that is stored. The
   grant descends from the ticket's sign-in, so a sign-out that comes at any moment of the entry ends it.
2. What a request names and the table does not know is looked up, consistently. What is not there is remembered for a
   few seconds, and all look-ups together are bounded, so junk names cost DynamoDB little.
3. REPEAT, which sends the browser to the same address once more, is answered only when HAProxy has confirmed the
   entries. If it confirmed them before the question, the request was only a moment too early: that is believed once,
   without asking HAProxy. A second question within seconds means that HAProxy has lost them (a new process, say), and
   then they are put again, else the browser would go round in circles.
4. No other verdict waits for HAProxy. What a look-up learnt is told by the pusher's own thread, at once.
5. No lock is held while DynamoDB or HAProxy is asked.

Times: `clock` gives epoch seconds. `store` is ProxyStore or its twin.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from threading import Lock
from typing import Final, Protocol

from chalicelib.aws.errors import StoreUnavailable
from chalicelib.aws.routes import Grant, Redeemed, Route
from proxy.agent.pusher import Pusher
from proxy.agent.table import Item, Key, Map, Table, is_digest, is_host, value_of

RECENT_SECONDS: Final = 5.0
RECENT_MOST: Final = 10_000
LOOK_UPS_PER_SECOND: Final = 25.0
LOOK_UP_BURST: Final = 200.0


class LookupStore(Protocol):
    """What entering and looking up need of chalicelib.aws.routes.ProxyStore."""

    def route(self, host: str) -> Route | None: ...
    def grant(self, digest: str) -> Grant | None: ...
    def redeem_ticket(self, ticket: str, host: str) -> Redeemed | None: ...
    def put_grant(self, grant: Grant) -> None: ...


class Verdict(Enum):
    """The answer to a request that HAProxy's maps did not let through."""

    REPEAT = "the maps hold it now"
    NO_ROUTE = "there is no such launch, or it is over"
    NO_GRANT = "there is no such grant"
    OTHER_GRANT = "the cookie is for another launch"
    BUSY = "HAProxy could not be told; ask again"


@dataclass(frozen=True, slots=True)
class Entered:
    """A redeemed ticket: the new cookie's value, how long it is valid (seconds), and the ticket's own path."""

    cookie: str
    max_age: int
    path: str


class Lookups:
    """Entries and look-ups, each in the calling thread."""

    def __init__(
        self,
        store: LookupStore,
        table: Table,
        pusher: Pusher,
        *,
        clock: Callable[[], float],
        new_cookie: Callable[[], str],
    ) -> None:
        self._store = store
        self._table = table
        self._pusher = pusher
        self._clock = clock
        self._new_cookie = new_cookie
        self._lock = Lock()  # of the three below; held for their dictionary operations only
        self._missing = Recent()
        self._repeated = Recent()
        self._allowance = Allowance(LOOK_UPS_PER_SECOND, LOOK_UP_BURST, clock())

    def enter(self, host: str, ticket: str) -> Entered | None:
        """Redeem a ticket for a grant; None: it is used, too old or not for this launch. Raises StoreUnavailable."""
        if not is_host(host):
            return None
        redeemed = self._store.redeem_ticket(ticket, host)
        if redeemed is None:
            return None
        now = self._clock()
        cookie = self._new_cookie()
        digest = sha256(cookie.encode()).hexdigest()
        grant = Grant(digest, host, False, int(now * 1000), redeemed.expires_at, redeemed.sign_in)
        self._store.put_grant(grant)
        news: list[Item] = [grant]
        if self._table.item((Map.ROUTES, host)) is None and (route := self._store.route(host)) is not None:
            news.append(route)
        self._table.learn(news, self._clock())
        self._pusher.force_put([(Map.GRANTS, digest), (Map.ROUTES, host)])
        return Entered(cookie, max(0, int(redeemed.expires_at - now)), redeemed.path)

    def look_up(self, host: str, digest: str | None) -> Verdict:
        """Find out why the maps did not let a request through, and correct them; raises StoreUnavailable."""
        if not is_host(host):
            return Verdict.NO_ROUTE
        if self._find((Map.ROUTES, host), lambda: self._store.route(host)) is None:
            return Verdict.NO_ROUTE
        if digest is None:
            return self._repeat((Map.ROUTES, host))
        if not is_digest(digest):
            return Verdict.NO_GRANT
        grant = self._find((Map.GRANTS, digest), lambda: self._store.grant(digest))
        if not isinstance(grant, Grant):
            return Verdict.NO_GRANT
        if grant.host != host:
            return Verdict.OTHER_GRANT
        return self._repeat((Map.GRANTS, digest), (Map.ROUTES, host))

    def _find(self, key: Key, read: Callable[[], Item | None]) -> Item | None:
        """Return the valid item of an entry, from memory or by a look-up; raises StoreUnavailable."""
        now = self._clock()
        known = self._table.item(key)
        if known is not None and value_of(known, now) is not None:
            return known
        miss = (key, known)  # with the item known at the time, so news of the entry end the miss
        with self._lock:
            if self._missing.has(miss, now):
                return None
            if not self._allowance.take(now):
                raise StoreUnavailable("Too many look-ups; try again in a moment")
        item = read()
        if item is not None and value_of(item, now) is not None:
            self._table.learn([item], self._clock())
            item = self._table.item(key)  # the table may know better: what is final is not undone by a late answer
        if item is None or value_of(item, now) is None:
            with self._lock:
                self._missing.add(miss, now)
            return None
        return item

    def _repeat(self, *keys: Key) -> Verdict:
        now = self._clock()
        with self._lock:
            again = self._repeated.has(keys, now)
            self._repeated.add(keys, now)
        if not again and self._pusher.has_told(keys):
            return Verdict.REPEAT
        return Verdict.REPEAT if self._pusher.force_put(keys) else Verdict.BUSY


class Recent:
    """What happened in the last RECENT_SECONDS; at most RECENT_MOST of it, the oldest forgotten first."""

    def __init__(self) -> None:
        self._until: OrderedDict[Hashable, float] = OrderedDict()

    def has(self, what: Hashable, now: float) -> bool:
        """Say whether it happened recently."""
        return self._until.get(what, 0.0) > now

    def add(self, what: Hashable, now: float) -> None:
        """Remember that it happened."""
        self._until.pop(what, None)
        self._until[what] = now + RECENT_SECONDS
        if len(self._until) > RECENT_MOST:
            self._until.popitem(last=False)


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
