"""Tells the hub which notebooks do not answer: a request with a grant got 503, so the session is looked at at once.

HAProxy sends a datagram with the log line of each request that failed (haproxy.cfg, `log`).

1. A launch is reported once in REPORT_SECONDS at most, and at most MOST launches in that time.
2. Nothing is read of a line but that a notebook's request got 503, and for which launch.
3. All of it is help and no more: datagrams may be lost, and so may a report; the next look comes by the schedule.
"""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Final

from chalicelib.aws.errors import StoreUnavailable
from chalicelib.aws.queues import Enqueue, TickMessage
from chalicelib.session.lanes import Lane
from chalicelib.session.looks import ASKED_SECONDS
from chalicelib.session.values import is_session_id

REPORT_SECONDS: Final = ASKED_SECONDS
MOST: Final = 1000
LINE_BYTES: Final = 1024
WAKE_SECONDS: Final = 0.5  # between two looks at whether to stop
_FAILED: Final = re.compile(rb"\S+ \[[^\]]*\] notebooks ([0-9a-v]+)(?:-[0-9a-v]+)? \S+ \S+ 503 ")

_log = logging.getLogger("homeport.agent")


class Failures:
    """Reads the failed requests from the socket at `path` and puts their sessions on the queue of the watch lane."""

    def __init__(self, path: Path, enqueue: Enqueue, *, clock: Callable[[], float]) -> None:
        self._path = path
        self._enqueue = enqueue
        self._clock = clock
        self._reported: dict[str, float] = {}  # session to when, oldest first

    def run(self, stop: Event) -> None:
        """Report until `stop` is set."""
        self._path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lines:
            lines.bind(str(self._path))
            lines.settimeout(WAKE_SECONDS)
            while not stop.is_set():
                try:
                    line = lines.recv(LINE_BYTES)
                except TimeoutError:
                    continue
                self.take(line)

    def take(self, line: bytes) -> None:
        """Report the session of a line if it says that its notebook does not answer."""
        found = _FAILED.match(line)
        sid = found[1].decode("ascii") if found else ""
        if not is_session_id(sid) or not self._may_report(sid):
            return
        try:
            self._enqueue(TickMessage(sid), lane=Lane.WATCH, delay=0.0)
        except StoreUnavailable as error:
            _log.warning("the notebook of session %s does not answer, and the hub cannot be told: %s", sid, error.code)

    def _may_report(self, sid: str) -> bool:
        now = self._clock()
        self._reported = {one: at for one, at in self._reported.items() if at > now - REPORT_SECONDS}
        if sid in self._reported or len(self._reported) >= MOST:
            return False
        self._reported[sid] = now
        return True
