"""The agent's HTTP side, behind HAProxy and reachable only through a socket file: entering, look-ups, health.

HAProxy says in X-Homeport-… what a request is about, and passes on no visitor's header of that name.

1. A session is entered by POST of a ticket, sent by the hub's own page (Origin); everything else is rejected.
2. The answer to an entry is a cookie that only this launch's origin gets back (`__Host-`: Secure, Path=/, no Domain;
   RFC 6265bis §4.1.3) and that no script can read, and a redirection to a path on this origin.
3. A look-up that found what was missing sends the visitor to the same address once more.
4. Nothing of a request is logged.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qs

from chalicelib.aws.errors import StoreUnavailable
from proxy import pages
from proxy.agent.lookups import Entered, Lookups, Verdict
from proxy.agent.table import Table

COOKIE: Final = "__Host-homeport"
DEFAULT_PATH: Final = "/lab"
MAX_BODY: Final = 8192  # bytes; a ticket and a path
READ_SECONDS: Final = 10.0

_log = logging.getLogger("homeport.agent")

# A path on this origin: "//host" and "/\host" would leave it, and "/.homeport/" is the agent's.
_LOCAL_PATH: Final = re.compile(r"/(?!/|\.homeport(?:/|$|\?))[!-\[\]-~]{0,2047}")
_TICKET: Final = re.compile(r"[A-Za-z0-9_.~-]{16,512}")

_STATUS: Final[Mapping[Verdict, int]] = MappingProxyType(
    {
        Verdict.REPEAT: 307,
        Verdict.NO_ROUTE: 404,
        Verdict.NO_GRANT: 401,
        Verdict.OTHER_GRANT: 403,
        Verdict.BUSY: 503,
    }
)


def local_path(*candidates: str) -> str:
    """Return the first candidate that is not empty if it stays on this origin, else the default."""
    wanted = next(filter(None, candidates), DEFAULT_PATH)
    return wanted if _LOCAL_PATH.fullmatch(wanted) else DEFAULT_PATH


def set_cookie(entered: Entered) -> str:
    """Return the Set-Cookie field of an entry."""
    return f"{COOKIE}={entered.cookie}; Max-Age={entered.max_age}; Path=/; Secure; HttpOnly; SameSite=Lax"


def ticket_and_path(content_type: str, body: bytes) -> tuple[str, str] | None:
    """Read the form of an entry; None if it is not one."""
    if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        return None
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=4)
    except ValueError:
        return None
    tickets, paths = fields.get("ticket", []), fields.get("path", [""])
    if len(tickets) != 1 or len(paths) != 1 or not _TICKET.fullmatch(tickets[0]):
        return None
    return tickets[0], paths[0]


class Entry(ThreadingMixIn, UnixStreamServer):
    """The agent's HTTP server on the socket file `path`; HAProxy's `maxconn` bounds its threads."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: Path, lookups: Lookups, table: Table, *, hub_origin: str, hub_url: str) -> None:
        path.unlink(missing_ok=True)
        super().__init__(str(path), _Handler, bind_and_activate=False)
        previous = os.umask(0o177)
        try:
            self.server_bind()
        finally:
            os.umask(previous)
        self.server_activate()
        self.lookups = lookups
        self.table = table
        self.hub_origin = hub_origin
        self.hub_url = hub_url

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a peer that hung up; log anything else."""
        if not isinstance(sys.exception(), OSError):
            _log.exception("a request failed")


class _Handler(BaseHTTPRequestHandler):
    server: Entry
    timeout = READ_SECONDS
    server_version = "homeport"
    sys_version = ""

    def do_GET(self) -> None:
        match self.headers.get("X-Homeport-Ask"):
            case "look-up":
                self._look_up()
            case "health":
                self._health()
            case _:
                self._refuse()

    do_HEAD = do_GET
    do_OPTIONS = do_GET

    def do_POST(self) -> None:
        if self.headers.get("X-Homeport-Ask") != "enter" or self.path != "/.homeport/enter":
            self._refuse()
        elif self.headers.get("Origin") != self.server.hub_origin:
            self._page(403)
        else:
            self._enter()

    do_PUT = do_DELETE = do_PATCH = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: HAProxy's log has the request without its secrets."""

    def address_string(self) -> str:
        return "haproxy"

    def _refuse(self) -> None:
        known = self.path.partition("?")[0] == "/.homeport/enter"
        self._page(405 if known else 404)

    def _enter(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or not 0 < int(length) <= MAX_BODY:
            self._page(413 if length.isdigit() and int(length) else 403)
            return
        form = ticket_and_path(self.headers.get("Content-Type", ""), self.rfile.read(int(length)))
        if form is None:
            self._page(403)
            return
        ticket, path = form
        try:
            entered = self.server.lookups.enter(self.headers.get("X-Homeport-Host", ""), ticket)
        except StoreUnavailable:
            self._page(503)
            return
        if entered is None:
            self._page(403)
            return
        self._redirect(303, local_path(path, entered.path), set_cookie(entered))

    def _look_up(self) -> None:
        host = self.headers.get("X-Homeport-Host", "")
        try:
            verdict = self.server.lookups.look_up(host, self.headers.get("X-Homeport-Digest"))
        except StoreUnavailable:
            verdict = Verdict.BUSY
        if verdict is Verdict.REPEAT and not self.path.startswith("/"):
            self._page(400)
        elif verdict is Verdict.REPEAT:
            self._redirect(307, self.headers.get("X-Homeport-Origin", "") + self.path)
        else:
            self._page(_STATUS[verdict])

    def _health(self) -> None:
        ready = self.path == "/.homeport/health" or self.server.table.synced
        body = b"ok\n" if ready else b"not synchronised yet\n"
        self._answer(200 if ready else 503, {"Content-Type": "text/plain", "Cache-Control": "no-store"}, body)

    def _redirect(self, status: int, location: str, cookie: str | None = None) -> None:
        fields = {"Location": location, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        self._answer(status, fields | ({"Set-Cookie": cookie} if cookie else {}), b"")

    def _page(self, status: int) -> None:
        fields = dict(pages.HEADERS) | ({"Allow": "POST"} if status == 405 else {})
        self._answer(status, fields, pages.html(status, self.server.hub_url))

    def _answer(self, status: int, fields: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
