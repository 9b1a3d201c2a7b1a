"""Serves a renewed certificate: watches the file of HOMEPORT_PROXY_CERTIFICATE and hands HAProxy what is new in it.

1. HAProxy takes the new certificate in one step (`set ssl cert`, `commit ssl cert`): handshakes from then on see it,
   and no connection is dropped.
2. Each HAProxy process is told once what is there when it is first seen: it may have read the file before a change.
3. What HAProxy refuses (a file that is half written, a key of another certificate) is logged once and read again in the
   next round; the old certificate stays.
4. Nothing of the file is ever logged.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from threading import Event
from typing import Final

from proxy.agent.runtime import CertificateRefused, HaproxyUnavailable, RuntimeSocket

PERIOD: Final = 5.0  # seconds between two looks at the file

_log = logging.getLogger("homeport.agent")


class Renewal:
    """Watches the certificate `name`, as HAProxy's configuration has it; nothing if it is empty."""

    def __init__(self, haproxy: RuntimeSocket, name: str) -> None:
        self._haproxy = haproxy
        self._name = name
        self._told: tuple[str, str] | None = None  # the HAProxy process, and the digest of what it was told
        self._refused = ""  # the digest of what it refused last

    def run(self, stop: Event) -> None:
        """Look at the file in each round until `stop` is set."""
        while not stop.wait(PERIOD):
            if self._name:
                self.look()

    def look(self) -> None:
        """Tell HAProxy what the file holds, if it was not told yet."""
        try:
            pem = Path(self._name).read_bytes()
        except OSError as error:
            self._refuse("", f"cannot be read: {error.strerror}")
            return
        digest = hashlib.sha256(pem).hexdigest()
        try:
            with self._haproxy.connected() as haproxy:
                process = haproxy.process()
                if self._told == (process, digest):
                    return
                haproxy.renew(self._name, pem)
        except CertificateRefused:
            self._refuse(digest, "is no certificate with its key")
            return
        except HaproxyUnavailable:
            return  # the pusher says so
        if self._told is not None and self._told[1] != digest:
            _log.info("a renewed certificate is served")
        self._told = (process, digest)
        self._refused = ""

    def _refuse(self, digest: str, why: str) -> None:
        if self._refused != (refused := f"{digest} {why}"):
            _log.warning("the file of HOMEPORT_PROXY_CERTIFICATE %s; the one before stays", why)
        self._refused = refused
