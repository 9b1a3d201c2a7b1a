"""In-memory twins of the edge modules; each runs the contract suite of what it stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Lock

from chalicelib.aws.errors import StoreUnavailable
from chalicelib.aws.routes import Grant, Redeemed, Route
from chalicelib.aws.sign_ins import SignIn, SignOut, sign_outs
from proxy.agent.table import News

# ── the proxy's side of the session store ────────────────────────────────────────────────────────────────────────


class ProxyStoreTwin:
    """chalicelib.aws.routes.ProxyStore in memory; `down` makes every call fail as DynamoDB does when it is away.

    `breaks_after`: so many items of a reading arrive, then it fails. `reads` counts the look-ups by kind. Tickets are
    put with `put_ticket`, routes, grants and sign-outs with `put`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.reads: Counter[str] = Counter()
        self.down = False
        self.breaks_after: int | None = None
        self._tickets: dict[str, tuple[Redeemed, int]] = {}
        self._items: dict[tuple[str, str], News] = {}
        self._clock = clock
        self._lock = Lock()

    def now_ms(self) -> int:
        return int(self._clock() * 1000)

    def put(self, item: News) -> None:
        """Store an item as it is."""
        with self._lock:
            self._items[_proxy_key(item)] = item

    def drop(self, item: News) -> None:
        """Take an item out without a trace, as a time to live does."""
        with self._lock:
            del self._items[_proxy_key(item)]

    def sign_out(self, browser: str, *owners: str) -> None:
        """Store what the hub does when a browser signs out, and these owners everywhere."""
        for sign_out in sign_outs(browser, owners, self._clock()):
            self.put(sign_out)

    def put_ticket(self, ticket: str, redeemed: Redeemed, *, expires_at: float) -> None:
        """Store a ticket that can be redeemed before `expires_at` (seconds since the epoch)."""
        with self._lock:
            self._tickets[ticket] = (redeemed, int(expires_at))

    def changes(self, since: int) -> Iterator[News]:
        self._count("changes" if since else "everything")
        with self._lock:
            items = sorted(self._items.values(), key=lambda item: item.changed_at)
        read = [item for item in items if item.changed_at >= since]
        yield from read[: self.breaks_after]
        if self.breaks_after is not None:
            raise _unavailable()

    def route(self, host: str) -> Route | None:
        self._count("route")
        item = self._items.get(("route", host))
        return item if isinstance(item, Route) else None

    def grant(self, digest: str) -> Grant | None:
        self._count("grant")
        item = self._items.get(("grant", digest))
        if not isinstance(item, Grant):
            return None
        return replace(item, revoked=True) if self._ended(item.sign_in) else item

    def redeem_ticket(self, ticket: str, host: str) -> Redeemed | None:
        self._count("ticket")
        with self._lock:
            redeemed, expires_at = self._tickets.get(ticket, (None, 0))
            if redeemed is None or redeemed.host != host or expires_at <= int(self._clock()):
                return None
            del self._tickets[ticket]
        return None if self._ended(redeemed.sign_in) else redeemed

    def put_grant(self, grant: Grant) -> None:
        self._count("put")
        self.put(replace(grant, changed_at=self.now_ms()))

    def _ended(self, sign_in: SignIn) -> bool:
        found = (self._items.get(("signed-out", name)) for name in (sign_in.browser, sign_in.owner))
        return any(isinstance(item, SignOut) and item.ends(sign_in) for item in found)

    def _count(self, kind: str) -> None:
        self.reads[kind] += 1
        if self.down:
            raise _unavailable()


def _unavailable() -> StoreUnavailable:
    return StoreUnavailable("The hub's table did not answer; try again in a moment")


def _proxy_key(item: News) -> tuple[str, str]:
    match item:
        case Route():
            return "route", item.host
        case Grant():
            return "grant", item.digest
        case SignOut():
            return "signed-out", item.of
