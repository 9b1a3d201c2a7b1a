"""What HAProxy's maps shall hold. In memory only: no socket, no file, no DynamoDB, no clock.

Rules

1. Newest wins. Of a route, a withdrawal is final (each launch has a host of its own); then the later change. Of a
   grant, a revocation is final; then the later change. News in any order end in the same table.
2. Withdrawn, revoked and expired means absent. Withdrawn with a route are all grants of its host. A sign-out revokes
   the grants that it ends (chalicelib/aws/sign_ins.py), whichever of them is learnt first.
3. A route's value is "ip|port", a grant's the host: it opens one launch of one session.
4. Only well-formed items get in: the host a DNS label, the digest 64 hex digits, the address an IP address (and never
   link-local, where clouds keep their metadata), the port a port. Anything else counts as absent, so no stored
   value can inject a command into HAProxy's socket.
5. A full reading replaces everything, except what was learnt on its own a moment before or since: the index it was
   read from may not have it yet (pending is not stale).
6. A reading that failed changes nothing: it never gets here.
7. Deletions are sent before additions. A few changes are single commands, many are one swap of the whole table.
8. Until the first full reading the table may know less than HAProxy does, so nothing is swapped.
9. The lock is held for a bounded piece of work: BATCH entries, or a copy of a dictionary (3 ms for 200,000 entries).
   This module does no I/O, so nobody who needs the lock waits for any (lookups.py says which verdict waits for what).

10. When a route's value goes or changes, or a grant's goes, its host's open streams are to be cut, once HAProxy has
    the new values (`take_ended`; cutter.py).

Telling HAProxy. An entry is dirty from the moment its value changes until HAProxy has confirmed the value. The pusher
takes dirty entries with their current values (`take_changes`, `take_all`); taken ones are "in flight" until it calls
`confirm` or `give_back`. An entry that changes while it is in flight is dirty again, so its new value is sent later.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice
from threading import Event, Lock
from typing import Final, TypeVar

from chalicelib.aws.routes import Grant, Route
from chalicelib.aws.sign_ins import SignOut

MANY: Final = 200  # above this a swap of 10,000 entries (0.03 s) is quicker than single commands
BATCH: Final = 500  # entries handled in one hold of the lock: about a millisecond
PENDING_SECONDS: Final = 30.0  # an entry learnt so recently may be missing from a full reading

_HOST: Final = re.compile(r"[0-9a-z](?:[0-9a-z-]{0,61}[0-9a-z])?")  # as in haproxy.cfg
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")

Item = Route | Grant
News = Item | SignOut
T = TypeVar("T")


class Map(StrEnum):
    """The two maps, by the names of their files."""

    ROUTES = "routes.map"
    GRANTS = "grants.map"


Key = tuple[Map, str]


@dataclass(frozen=True, slots=True)
class Put:
    """Add the entry, or change its value."""

    map: Map
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Take the entry out."""

    map: Map
    key: str


@dataclass(frozen=True, slots=True)
class Replace:
    """Swap the whole map for these entries, at once."""

    map: Map
    entries: Mapping[str, str]


Command = Put | Delete


def is_host(text: str) -> bool:
    """Say whether this can be a launch's host: a DNS label in lower case."""
    return _HOST.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Say whether this is a SHA-256 in lower-case hex."""
    return _DIGEST.fullmatch(text) is not None


def key_of(item: Item) -> Key:
    """Return the key of the item's entry."""
    return (Map.ROUTES, item.host) if isinstance(item, Route) else (Map.GRANTS, item.digest)


def value_of(item: Item | None, now: float) -> str | None:
    """Return the value of the item's entry at `now` (epoch seconds); None: there is no entry (rules 2 to 4)."""
    if item is None or item.expires_at <= now or not is_host(item.host):
        return None
    if isinstance(item, Grant):
        return item.host if is_digest(item.digest) and not item.revoked else None
    if not item.published or item.target is None or not 0 < item.target.port < 65536:
        return None
    address = _address(item.target.address)
    return None if address is None else f"{address}|{item.target.port}"


def newest(known: Item | None, news: Item) -> Item:
    """Return which of two items about one entry is valid (rule 1)."""
    return news if known is None or _order(news) > _order(known) else known


def single(changes: Mapping[Key, str | None]) -> list[Command]:
    """The commands that give these entries their values, and leave all others alone (rule 7)."""
    deletions = [Delete(*key) for key, value in changes.items() if value is None]
    additions = [Put(*key, value) for key, value in changes.items() if value is not None]
    return [*deletions, *additions]


def whole(values: Mapping[Key, str]) -> list[Replace]:
    """The commands that make the maps hold exactly `values`; grants first, as without a route none is of use."""
    entries: dict[Map, dict[str, str]] = {name: {} for name in Map}
    for (name, key), value in values.items():
        entries[name][key] = value
    return [Replace(name, entries[name]) for name in (Map.GRANTS, Map.ROUTES)]


class Table:
    """The known items, the values that follow from them, and which of those HAProxy and the disk have yet to get.

    Begins with the `values` of the map files, so a start while DynamoDB is down takes nothing away. Any thread may
    call any method; those for the pusher are for one caller at a time. Times are epoch seconds.
    """

    def __init__(self, values: Mapping[Key, str]) -> None:
        self._lock = Lock()
        self._known: dict[Key, Item] = {}
        self._learnt_at: dict[Key, float] = {}
        self._sign_outs: dict[str, SignOut] = {}
        self._values = dict(values)
        self._dirty: dict[Key, None] = {}  # a set that keeps its order
        self._in_flight: dict[Key, None] = {}
        self._ended: dict[str, set[str]] = {}  # host to the values of its route
        self._synced = False
        self._replacing = False  # a full reading is being taken in
        self._unsaved = False
        self._changed = Event()

    @property
    def synced(self) -> bool:
        """Whether a full reading succeeded since the start."""
        return self._synced

    def item(self, key: Key) -> Item | None:
        """Return what is known of an entry; also when it is withdrawn, revoked or expired."""
        with self._lock:
            return self._known.get(key)

    # ── news ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def learn(self, news: Iterable[News], now: float) -> None:
        """Take in items that were read on their own or from the change feed."""
        self._take_in(news, now, learnt_at=now)
        self._changed.set()

    def replace(self, reading: Sequence[News], *, started: float, now: float) -> None:
        """Take in a full reading that began at `started` (rule 5).

        In steps, each valid by itself: what was read is news like any other, then what was not read goes. An entry
        that somebody else changes between two steps was learnt after `started`, so it is pending and stays. The files
        are not written meanwhile, nor is HAProxy told bit by bit if it is the first reading: all of it follows at once.
        """
        with self._lock:
            self._replacing = True
        self._take_in(reading, now, learnt_at=None)
        read = {key_of(item) for item in reading if not isinstance(item, SignOut)}
        with self._lock:
            entries = [*self._known, *self._values]
        pending_since = started - PENDING_SECONDS
        for batch in _batches(key for key in entries if key not in read):
            with self._lock:
                for key in batch:
                    if self._learnt_at.get(key, pending_since) <= pending_since:
                        self._known.pop(key, None)
                        self._set(key, None)
        with self._lock:
            self._learnt_at = {key: at for key, at in self._learnt_at.items() if at > pending_since}
            self._synced = True
            self._replacing = False
        self._changed.set()

    def expire(self, now: float) -> None:
        """Take out the entries that have expired by `now`."""
        with self._lock:
            self._sign_outs = {of: sign_out for of, sign_out in self._sign_outs.items() if sign_out.expires_at > now}
            known = self._known.copy()
        for batch in _batches(key for key, item in known.items() if item.expires_at <= now):
            with self._lock:
                for key in batch:
                    item = self._known.get(key)
                    if item is not None and item.expires_at <= now:
                        self._set(key, None)
        self._changed.set()

    def _take_in(self, news: Iterable[News], now: float, *, learnt_at: float | None) -> None:
        withdrawn: set[str] = set()
        signed_out = False
        for batch in _batches(news):
            sign_outs = [item for item in batch if isinstance(item, SignOut)]
            entries = [(key_of(item), item, value_of(item, now)) for item in batch if not isinstance(item, SignOut)]
            with self._lock:
                for sign_out in sign_outs:
                    latest = self._sign_outs.get(sign_out.of)
                    if latest is None or sign_out.until > latest.until:
                        self._sign_outs[sign_out.of] = sign_out
                        signed_out = True
                for key, item, value in entries:
                    known = self._known.get(key)
                    if newest(known, item) is known:
                        continue
                    self._known[key] = after = self._after_sign_outs(item)
                    if learnt_at is not None:
                        self._learnt_at[key] = learnt_at
                    self._set(key, value if after is item and not self._is_withdrawn(item.host) else None)
                    if isinstance(item, Route) and not item.published:
                        withdrawn.add(item.host)
        self._take_out_grants(withdrawn)
        if signed_out:
            self._revoke_signed_out()

    def _is_withdrawn(self, host: str) -> bool:
        route = self._known.get((Map.ROUTES, host))
        return isinstance(route, Route) and not route.published

    def _take_out_grants(self, hosts: Collection[str]) -> None:
        """Take out these hosts' grants. One that is learnt meanwhile does not get in, as the route is known."""
        if not hosts:
            return
        with self._lock:
            values = self._values.copy()
        for batch in _batches(key for key, host in values.items() if key[0] is Map.GRANTS and host in hosts):
            with self._lock:
                for key in batch:
                    self._set(key, None)

    def _revoke_signed_out(self) -> None:
        """Revoke the known grants that sign-outs end. `_take_in` does it for those that are learnt from now on."""
        with self._lock:
            known = self._known.copy()
        for batch in _batches(key for key, item in known.items() if isinstance(item, Grant)):
            with self._lock:
                for key in batch:
                    item = self._known.get(key)
                    if item is not None and (after := self._after_sign_outs(item)) is not item:
                        self._known[key] = after
                        self._set(key, None)

    def _after_sign_outs(self, item: Item) -> Item:
        """The item itself, or a grant revoked if a sign-out ends it."""
        if not self._sign_outs or isinstance(item, Route) or item.revoked:
            return item
        sign_in = item.sign_in
        found = (self._sign_outs.get(name) for name in (sign_in.browser, sign_in.owner))
        ended = any(sign_out is not None and sign_out.ends(sign_in) for sign_out in found)
        return replace(item, revoked=True) if ended else item

    def _set(self, key: Key, value: str | None) -> None:
        before = self._values.get(key)
        if before == value:
            return
        if value is None:
            del self._values[key]
        else:
            self._values[key] = value
        if before is not None:
            host, target = (
                (key[1], before) if key[0] is Map.ROUTES else (before, self._values.get((Map.ROUTES, before)))
            )
            self._ended.setdefault(host, set()).update([target] if target else [])
        self._dirty[key] = None
        self._unsaved = True

    # ── for the pusher ───────────────────────────────────────────────────────────────────────────────────────────

    @property
    def has_many_changes(self) -> bool:
        """Whether to tell HAProxy the changes by a swap of the whole table (rules 7 and 8)."""
        return self._synced and len(self._dirty) > MANY

    def values_of(self, keys: Iterable[Key]) -> dict[Key, str]:
        """Return the current values of those of the entries that have one."""
        with self._lock:
            return {key: self._values[key] for key in keys if key in self._values}

    def routes(self) -> dict[str, str]:
        """Return the current targets ("ip|port") of all hosts."""
        with self._lock:
            values = self._values.copy()
        return {key: value for (name, key), value in values.items() if name is Map.ROUTES}

    def take_ended(self) -> dict[str, set[str]]:
        """Return the hosts whose streams are to be cut, with the targets of those streams as far as known (rule 10).

        Each goes with a change that is dirty by now, so it is to be acted on when a push that began after this call
        was confirmed. Nothing before the first full reading (rule 8).
        """
        with self._lock:
            if not self._synced:
                return {}
            ended, self._ended = self._ended, {}
            return ended

    def take_changes(self) -> dict[Key, str | None]:
        """Put dirty entries, MANY at most, in flight and return their current values; None: no entry."""
        with self._lock:
            keys = [] if self._replacing and not self._synced else list(islice(self._dirty, MANY))
            for key in keys:
                del self._dirty[key]
            self._in_flight.update(dict.fromkeys(keys))
            if self._dirty and self._synced:
                self._changed.set()
            return {key: self._values.get(key) for key in keys}

    def take_all(self) -> dict[Key, str]:
        """Put all dirty entries in flight and return the values of all entries, dirty or not."""
        with self._lock:
            self._in_flight.update(self._dirty)
            self._dirty = {}
            return self._values.copy()

    def confirm(self) -> None:
        """HAProxy has what is in flight."""
        with self._lock:
            self._in_flight = {}

    def give_back(self) -> None:
        """HAProxy may not have what is in flight: it is dirty again."""
        with self._lock:
            self._dirty.update(self._in_flight)
            self._in_flight = {}

    def confirmed(self, keys: Iterable[Key]) -> bool:
        """Say whether HAProxy has confirmed the current values of all these entries."""
        with self._lock:
            return not any(key in self._dirty or key in self._in_flight for key in keys)

    def take_unsaved(self) -> dict[Key, str] | None:
        """Return all values if any changed since the last call (and no full reading is half taken in), else None."""
        with self._lock:
            if self._replacing or not self._unsaved:
                return None
            self._unsaved = False
            return self._values.copy()

    def wait(self, seconds: float) -> bool:
        """Wait for news, which may change nothing, or for `wake`; say whether either came within so many seconds."""
        changed = self._changed.wait(seconds)
        self._changed.clear()
        return changed

    def wake(self) -> None:
        """End the pusher's `wait` although nothing changed."""
        self._changed.set()


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        yield batch


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id:
            return None
        address = address.ipv4_mapped or address
    return None if address.is_link_local or address.is_multicast or address.is_unspecified else address


def _order(item: Item) -> tuple[bool, int]:
    return (not item.published if isinstance(item, Route) else item.revoked, item.changed_at)
