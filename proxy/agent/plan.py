"""What the maps shall hold, and the commands that bring them there. Pure: no socket, no table, no clock.

Rules

1. Newest wins. Of a route, the later launch (generation); within a launch a withdrawal is final; then the later
   change. Of a grant, a revocation is final; then the later change. News in any order end in the same table.
2. Withdrawn, revoked and expired means absent.
3. A route is worth "ip|port|generation", a grant "sid/generation": it opens one launch of one session.
4. Only what is well-formed gets in: the sid a DNS label, the digest 64 hex digits, the address an IP address (and never
   link-local, where clouds keep their metadata), the port a port. Anything else counts as absent, so nothing that
   was stored can speak to HAProxy's socket.
5. A full reading replaces everything, except what was learnt on its own a moment before or since: the index it was
   read from may not have it yet (pending is not stale).
6. A reading that failed changes nothing. This module is not even asked.
7. What leaves goes before what comes. Few changes are single commands, many are one swap of the whole table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from chalicelib.aws.routes import Grant, Route

MANY: Final = 200  # above this a swap of 10,000 entries (0.03 s) is quicker than single commands

_SID: Final = re.compile(r"[0-9a-z]{1,63}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")

Item = Route | Grant


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


Command = Put | Delete | Replace


def is_sid(text: str) -> bool:
    """Say whether this can be a session's id."""
    return _SID.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Say whether this is a SHA-256 in lower-case hex."""
    return _DIGEST.fullmatch(text) is not None


def key_of(item: Item) -> Key:
    """The entry that the item is about."""
    return (Map.ROUTES, item.sid) if isinstance(item, Route) else (Map.GRANTS, item.digest)


def value_of(item: Item | None, now: float) -> str | None:
    """What the item's entry holds at `now` (epoch seconds); None: there is no entry (rules 2 to 4)."""
    if item is None or item.expires_at <= now or not is_sid(item.sid) or item.generation < 0:
        return None
    if isinstance(item, Grant):
        return f"{item.sid}/{item.generation}" if is_digest(item.digest) and not item.revoked else None
    if not item.published or item.target is None or not 0 < item.target.port < 65536:
        return None
    address = _address(item.target.address)
    return None if address is None else f"{address}|{item.target.port}|{item.generation}"


def newest(known: Item | None, news: Item) -> Item:
    """Of two items about one entry, the one that holds (rule 1)."""
    return news if known is None or _order(news) > _order(known) else known


def merged(known: Mapping[Key, Item], news: Iterable[Item]) -> dict[Key, Item]:
    """What changes in `known` through `news`: only entries whose item is a newer one."""
    changed: dict[Key, Item] = {}
    for item in news:
        key = key_of(item)
        before = changed.get(key, known.get(key))
        after = newest(before, item)
        if after is not before:
            changed[key] = after
    return changed


def replaced(known: Mapping[Key, Item], reading: Iterable[Item], pending: Iterable[Key]) -> dict[Key, Item]:
    """What is known after a full reading; `pending` are the entries that it may have come too early for (rule 5)."""
    after = {key: known[key] for key in pending if key in known}
    for item in reading:
        key = key_of(item)
        after[key] = newest(newest(known.get(key), item), after.get(key, item))
    return after


def commands(held: Mapping[Key, str], wanted: Mapping[Key, str | None]) -> list[Command]:
    """The commands that give the entries of `wanted` their values; entries it does not name stay (rule 7)."""
    changed = {key: value for key, value in wanted.items() if held.get(key) != value}
    if len(changed) > MANY:
        return whole({**held, **changed})
    leaving = [Delete(*key) for key, value in changed.items() if value is None]
    coming = [Put(*key, value) for key, value in changed.items() if value is not None]
    return [*leaving, *coming]


def whole(table: Mapping[Key, str | None]) -> list[Command]:
    """The commands that make the maps hold exactly `table`."""
    entries: dict[Map, dict[str, str]] = {name: {} for name in Map}
    for (name, key), value in table.items():
        if value is not None:
            entries[name][key] = value
    return [Replace(name, entries[name]) for name in (Map.GRANTS, Map.ROUTES)]


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


def _order(item: Item) -> tuple[int, bool, int]:
    if isinstance(item, Route):
        return (item.generation, not item.published, item.changed_at)
    return (0, item.revoked, item.changed_at)
