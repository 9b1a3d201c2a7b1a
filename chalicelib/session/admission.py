"""Who may pull, and who may hold functions with what is slow: limits that one visitor cannot fill.

Launching needs no account, and a function can be held for long: by a pull until it ends, by an engine or a notebook
that is slow to answer until the effect's deadline. So both take a *slot*, which names the three things a visitor
cannot have many of at little cost:

    owner     the key
    endpoint  the network of the endpoint's address, once the endpoint was verified: anybody can name an address
    source    the network that the launch came from

A network is an IPv4 address, or a /64 of IPv6, which one machine can have as a whole. A slot ends by itself, so a
function that was killed takes none away for long.

Launches whose engines are quick need no slot: a class that shares one engine, or one address, is not held up. What
held a function for long is noted; only while an owner or a network has many such notes, each of its sessions needs a
*turn* to be asked, a slot that it gives back at once afterwards. There are half as many turns as its lane has
functions, so that the other half is everybody else's; and three quarters for a network that the operator says is
shared by many.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from chalicelib.session.values import Session

SHARED_FACTOR: Final = 10  # how much higher the limits are for networks that the operator names as shared by many


@dataclass(frozen=True, slots=True)
class Slot:
    """What one session holds until the moment `until`, in seconds since the epoch. An empty text counts for nobody."""

    owner: str
    endpoint: str
    source: str
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How many slots there are: for one owner, for one network, and `in_all` (None: no limit).

    A `shared` network has SHARED_FACTOR times as many, up to `shared_most`.
    """

    per_owner: int
    per_network: int
    shared: tuple[IPv4Network | IPv6Network, ...] = ()
    shared_most: int = 0
    in_all: int | None = None

    def of_network(self, network: str) -> int:
        """How many slots this network may have."""
        if is_shared(network, self.shared):
            return min(self.per_network * SHARED_FACTOR, self.shared_most)
        return self.per_network


def is_shared(network: str, shared: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Say whether a network is part of one that many share."""
    mine = ip_network(network)
    return any(mine.version == one.version and mine.subnet_of(one) for one in shared)  # type: ignore[arg-type]  # one version


@dataclass(frozen=True, slots=True)
class Crowd:
    """Why there is no slot: `count` others have one, and share `what` with this session."""

    count: int
    what: str


def slot_of(session: Session, until: float) -> Slot:
    """The slot of a session; of an owner's digest the first 64 bits are enough to tell owners apart."""
    return Slot(session.owner[:16], network_of(session.address) if session.address else "", session.source, until)


def network_of(address: str) -> str:
    """The network that counts as one: the IPv4 address itself, else the IPv6 address's /64. Raises ValueError."""
    parsed = ip_address(address.partition("%")[0])
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return str(ip_network((parsed, 64 if parsed.version == 6 else 32), strict=False))


def crowd_before(held: Mapping[str, Slot], sid: str, slot: Slot, quota: Quota, now: float) -> Crowd | None:
    """Say which of the quota's limits keeps the session from having its slot; None when none does."""
    others = [other for holder, other in held.items() if holder != sid and other.until > now]
    counted = (
        (_with(others, "owner", slot.owner), quota.per_owner, "with your key"),
        (_with(others, "endpoint", slot.endpoint), _limit(quota, slot.endpoint), "on this endpoint's address"),
        (_with(others, "source", slot.source), _limit(quota, slot.source), "launched from your network"),
        (len(others), len(others) + 1 if quota.in_all is None else quota.in_all, "on this hub"),
    )
    return next((Crowd(count, what) for count, limit, what in counted if count >= limit), None)


def _with(others: Iterable[Slot], field: str, value: str) -> int:
    return sum(getattr(other, field) == value for other in others) if value else 0


def _limit(quota: Quota, network: str) -> int:
    return quota.of_network(network) if network else 1
