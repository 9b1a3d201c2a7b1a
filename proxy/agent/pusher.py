"""The only writer of HAProxy's maps, in the running HAProxy and on disk.

Rules

1. A HAProxy process not seen before is told the whole table; so is one that could not be told something. It began with
   the map files, which are written about SAVE_SECONDS after a change, later while a swap is sent.
2. Before the first full reading only single entries are told: the table may know less than HAProxy does.
3. `force_put` returns True only after HAProxy has confirmed those of the entries that have a value.
4. The table's lock is never held here: values are copied out of it, then sent.
5. When HAProxy has confirmed a change that shuts somebody out, their open streams are cut (cutter.py). After a start,
   and after a time without an answer, so are the streams of launches that have no route.

Why HAProxy ends with the table's values, whatever threads are at work

Two locks. `_pushing` lets one `push` run at a time; `_visible` is held for every command that changes what a request
sees, and values are taken from the table only after it was acquired. So of two batches the later one carries values
that are no older; and an entry that changes after its value was taken is dirty again, so another batch follows.

A swap takes seconds to send when the table is long. It fills a new version of the map that no request sees, so it holds
`_visible` only at both ends: to take its copy of the table, and to commit. Look-ups put their entries meanwhile. At the
commit the copy may be older than what they put, so right after it, before `_visible` is released, their entries are
sent again, and with them what changed since the copy. Deletions are sent by `push` alone, so no swap brings back an
entry whose deletion HAProxy had confirmed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Lock
from typing import Final

from proxy.agent import files
from proxy.agent.cutter import Cutter
from proxy.agent.runtime import Connection, HaproxyUnavailable, RuntimeSocket
from proxy.agent.table import Key, Table, single, whole

SAVE_SECONDS: Final = 2.0  # 100,000 lines take 0.3 s; a HAProxy that starts is told the rest half a second later
LOOK_PAUSE: Final = 10.0  # a look for streams to cut takes long when there are many; the next is so much later

_log = logging.getLogger("homeport.agent")


class Pusher:
    """Tells the HAProxy behind `haproxy`, and the map files in `folder`, what `table` holds."""

    def __init__(self, table: Table, haproxy: RuntimeSocket, folder: Path, *, clock: Callable[[], float]) -> None:
        self._table = table
        self._haproxy = haproxy
        self._folder = folder
        self._clock = clock
        self._pushing = Lock()
        self._visible = Lock()
        self._saving = Lock()
        self._put_meanwhile: dict[Key, None] | None = None  # by `force_put`, since the swap at work took its copy
        self._cutter = Cutter(table)
        self._ended: dict[str, set[str]] = {}  # taken from the table; the change was not confirmed yet
        self._look_at = 0.0
        self._process: str | None = None  # the HAProxy process that was told the whole table

    def run(self, stop: Event, *, poll: float) -> None:
        """Tell HAProxy every change at once, and look for a new process every `poll` seconds, until `stop` is set."""
        save_at = 0.0
        while not stop.is_set():
            self.push()
            now = self._clock()
            if now >= save_at and self.save():
                save_at = now + SAVE_SECONDS
            self._table.wait(poll)

    def push(self) -> bool:
        """Tell HAProxy what it was not told yet, all of it if it is a new process, and cut the streams that this ends.

        False when HAProxy does not answer.
        """
        with self._pushing:
            for host, targets in self._table.take_ended().items():
                self._ended.setdefault(host, set()).update(targets)
            try:
                with self._haproxy.connected() as haproxy:
                    process = haproxy.process()
                    is_new = self._table.synced and process != self._process
                    if is_new or self._table.has_many_changes:
                        self._push_all(haproxy, process)
                    else:
                        with self._visible:
                            haproxy.execute(single(self._table.take_changes()))
                    self._table.confirm()
                    self._cut(haproxy, strays=is_new)
            except HaproxyUnavailable as error:
                self._table.give_back()
                self._log_outage(error)
                return False
            return True

    def _cut(self, haproxy: Connection, *, strays: bool) -> None:
        if strays:
            self._cutter.end_strays(haproxy)
        if self._ended:
            self._cutter.end(self._ended, haproxy)
            self._ended = {}
        started = self._clock()
        if started >= self._look_at:
            self._cutter.look(haproxy)
            self._look_at = started + LOOK_PAUSE * (self._clock() - started)

    def _push_all(self, haproxy: Connection, process: str) -> None:
        put_meanwhile: dict[Key, None] = {}
        with self._visible:
            values = self._table.take_all()
            self._put_meanwhile = put_meanwhile
        try:
            versions = [haproxy.prepare(replacement) for replacement in whole(values)]
            with self._visible:
                haproxy.commit(versions)
                changes = self._table.take_changes()
                haproxy.execute(single({**changes, **self._table.values_of(put_meanwhile)}))
        finally:
            self._put_meanwhile = None
        if process != self._process:
            _log.info("told HAProxy %s all %d entries", process, len(values))
        self._process = process

    def force_put(self, keys: Sequence[Key]) -> bool:
        """Put the entries into HAProxy, whatever it is thought to hold; False when it does not answer."""
        try:
            with self._haproxy.connected() as haproxy, self._visible:
                values = self._table.values_of(keys)
                if (meanwhile := self._put_meanwhile) is not None:
                    meanwhile.update(dict.fromkeys(values))
                haproxy.execute(single(values))
        except HaproxyUnavailable as error:
            self._log_outage(error)
            return False
        return True

    def has_told(self, keys: Sequence[Key]) -> bool:
        """Say, without asking HAProxy, whether it confirmed these entries and answered since."""
        return self._process is not None and self._table.confirmed(keys)

    def save(self) -> bool:
        """Write the map files if anything changed since they were written; say whether they were."""
        with self._saving:
            values = self._table.take_unsaved()
            if values is None:
                return False
            files.write(self._folder, values)
            return True

    def _log_outage(self, error: HaproxyUnavailable) -> None:
        """Log the start of a time without HAProxy, at whose end it is told everything."""
        if self._process is not None:
            _log.warning("%s", error)
        self._process = None
