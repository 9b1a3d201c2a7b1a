"""Cuts the open streams (websockets, downloads) of launches whose route, or one of whose grants, is gone from the maps.

HAProxy asks its maps once per request. A stream that it let in goes on for as long as both ends like, so it is shut
down over the runtime socket.

Rules

1. First the map, then the cut: when `end` is called, HAProxy has confirmed the change. A client that comes back is
   judged by the new map: a grant that is still good lets it in, and nothing else does.
2. Only what was let in before is cut. HAProxy numbers its streams, and `end` notes the number of the next one. So a
   client that came back is not cut again, and there is an end to cutting.
3. HAProxy's table of launches with streams (launch_streams) says whether a host has any; the streams themselves are
   found by the address and port that they lead to. All of a launch's are cut, whichever grant they came with. Where an
   address and port passed to another launch meanwhile, that one's are cut too, and its clients come back.
4. With them go all streams that lead to no launch's address. So a launch is also cut whose address is not known any
   more (the agent was restarted after the withdrawal).
5. A stream that was let in a moment before the change may be counted a moment later, or be between two attempts to
   connect. So a launch is looked at until QUIET looks in a row found nothing of it.
6. HAProxy lists its streams (1.6 kB each, 13 MB for 8,000) only when one of the launches has any. The pusher lets looks
   take a tenth of its time at most.
7. HAProxy names a stream by its place in memory. If one ends by itself between the list and the cut, another one may
   get its place and be cut instead; its client comes back.

For one thread.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Final

from proxy.agent.runtime import Connection, Stream
from proxy.agent.table import Table

QUIET: Final = 2
_NUMBERS: Final = 2**32  # HAProxy counts streams in an unsigned 32-bit number


@dataclass(slots=True)
class _Cut:
    """What is to be cut of one launch: streams to these targets ("ip|port"), numbered before `before`."""

    targets: set[str]
    before: int
    quiet: int = 0

    def among(self, streams: Iterable[Stream]) -> list[Stream]:
        """Those that were let in before the change."""
        return [stream for stream in streams if 0 < (self.before - stream.number) % _NUMBERS < _NUMBERS // 2]


class Cutter:
    """The launches to be cut, until nothing of them is found; `table` has the routes that there are."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._cuts: dict[str, _Cut] = {}

    def end(self, ended: Mapping[str, Iterable[str]], haproxy: Connection) -> None:
        """Have these hosts' streams cut; for each, the targets that it is known to have. Raises HaproxyUnavailable."""
        before = haproxy.next_stream()
        for host, targets in ended.items():
            known = self._cuts.get(host)
            self._cuts[host] = _Cut({*targets, *(known.targets if known else ())}, before)

    def end_strays(self, haproxy: Connection) -> None:
        """Have the streams of all hosts cut that have no route (any more); raises HaproxyUnavailable.

        For a HAProxy that may be another process than before: what was still to be cut is numbered anew.
        """
        hosts, routes = haproxy.hosts_with_streams(), self._table.routes()
        self.end(dict.fromkeys([*self._cuts, *(hosts - routes.keys())], ()), haproxy)

    def look(self, haproxy: Connection) -> None:
        """Cut what is found of the hosts to be cut; raises HaproxyUnavailable."""
        if not self._cuts:
            return
        found = self._find(haproxy.hosts_with_streams() & self._cuts.keys(), haproxy)
        for stream in chain.from_iterable(found.values()):
            if stream.target is not None:
                haproxy.shut(stream)
        for host, cut in self._cuts.items():
            cut.quiet = 0 if found.get(host) else cut.quiet + 1
        self._cuts = {host: cut for host, cut in self._cuts.items() if cut.quiet < QUIET}

    def _find(self, hosts: Collection[str], haproxy: Connection) -> dict[str, list[Stream]]:
        """Return these hosts' streams that are to be cut, and those that may be, as they have no target yet."""
        if not hosts:
            return {}
        streams: defaultdict[str | None, list[Stream]] = defaultdict(list)
        for stream in haproxy.streams():
            streams[stream.target].append(stream)
        strays = streams.keys() - self._table.routes().values()
        found = {}
        for host in hosts:
            cut = self._cuts[host]
            targets = cut.targets | strays
            found[host] = [stream for target in targets for stream in cut.among(streams[target])]
        return found
