"""A local TLS server that stands for a visitor's Docker endpoint and can misbehave in named ways.

`HostileEngine(pki, {"GET /version": answer})` listens on 127.0.0.1 and demands a client certificate. Paths are matched
without the API version; an answer is bytes to send as they are, or a function of the connection, which may send what
and how it likes. All it heard is in `heard`, what it sent in `sent_bytes`. Threads end when the block does.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

from chalicelib.bundle.address import Endpoint
from chalicelib.bundle.credentials import Credentials
from tests.certificates import Ca, Leaf

Answer = bytes | Callable[["Connection"], None]
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Pki:
    """One endpoint's certificates: a CA, the engine's leaf and the visitor's."""

    ca: Ca
    server: Leaf
    client: Leaf

    @classmethod
    def new(cls, server: Callable[[Ca], Leaf] | None = None) -> Pki:
        ca = Ca.new()
        leaf = server(ca) if server else ca.issue("engine", sans=(LOOPBACK, "localhost"), server=True)
        return cls(ca, leaf, ca.issue("visitor", client=True))

    def credentials(self, port: int, host: str = LOOPBACK) -> Credentials:
        return Credentials(Endpoint(host, port), self.ca.certificate, self.client.certificate, self.client.key)


@dataclass
class Request:
    """What a client asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = field(repr=False, default=b"")


class Connection:
    """One connection as an answer sees it."""

    def __init__(self, engine: HostileEngine, peer: socket.socket) -> None:
        self.engine = engine
        self.peer = peer

    def send(self, data: bytes) -> None:
        """Send it all; raises OSError when the client is gone or the engine is being stopped."""
        self.peer.sendall(data)
        self.engine.sent_bytes += len(data)

    def flood(self, data: bytes) -> None:
        """Send it again and again until the client has had enough."""
        while not self.engine.stopping.is_set():
            self.send(data)

    def drip(self, data: bytes) -> None:
        """Send it a byte at a time, slowly, again and again."""
        while not self.engine.stopping.is_set():
            for index in range(len(data)):
                self.send(data[index : index + 1])
                self.engine.stopping.wait(0.02)

    def wait(self) -> None:
        """Say nothing until the client hangs up or the engine is stopped."""
        while not self.engine.stopping.is_set():
            self.peer.settimeout(0.05)
            try:
                if not self.peer.recv(1):
                    return
            except TimeoutError:
                continue


class HostileEngine:
    """See the module."""

    def __init__(
        self,
        pki: Pki,
        answers: Mapping[str, Answer] | None = None,
        *,
        client_ca: bytes | None = None,
        tls: Callable[[ssl.SSLContext], None] | None = None,
        greet: Callable[[socket.socket], None] | None = None,
        host: str = LOOPBACK,
    ) -> None:
        self.pki = pki
        self.answers: dict[str, Answer] = {"GET /_ping": ping(), "GET /version": version(), **(answers or {})}
        self.heard: list[Request] = []
        self.connections = 0
        self.sent_bytes = 0
        self.stopping = threading.Event()
        self.closed = threading.Event()  # a connection has ended
        self.has_let_go = False
        self._greet = greet
        self._context = _context(pki.server, client_ca or pki.ca.certificate)
        if tls:
            tls(self._context)
        self._listener = socket.create_server((host, 0))
        self._threads: list[threading.Thread] = []
        self._peers: list[socket.socket] = []

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def credentials(self) -> Credentials:
        return self.pki.credentials(self.port)

    def asked(self, method: str) -> list[str]:
        """The paths asked for with this method, without the API version."""
        return [_plain(request.path) for request in self.heard if request.method == method]

    def let_go(self) -> None:
        """Hang up on whoever is still there."""
        self.has_let_go = True
        self.stopping.set()
        for peer in self._peers:
            _shut(peer)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:  # the first is the one that accepts: no more are added after it
            for peer in self._peers:
                _shut(peer)
            thread.join()
        self._listener.close()

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as engines do; else each answer waits 40 ms
            self.connections += 1
            self._peers.append(peer)
            self._start(self._serve, peer)

    def _serve(self, peer: socket.socket) -> None:
        try:
            if self._greet is not None:
                self._greet(peer)
                return
            with self._context.wrap_socket(peer, server_side=True) as wrapped:
                self._peers.append(wrapped)
                self._answer_all(Connection(self, wrapped))
        except OSError:
            return  # the client hung up, as it should with such a server
        finally:
            peer.close()
            self.closed.set()

    def _answer_all(self, connection: Connection) -> None:
        stream = connection.peer.makefile("rb")
        with stream:
            while (request := _read_request(stream)) is not None:
                self.heard.append(request)
                answer = self.answers.get(f"{request.method} {_plain(request.path)}", NOT_FOUND)
                if not isinstance(answer, bytes):
                    answer(connection)
                    return
                connection.send(answer)


def _context(leaf: Leaf, client_ca: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=client_ca.decode())
    load_leaf(context, leaf)
    return context


def load_leaf(context: ssl.SSLContext, leaf: Leaf) -> None:
    """Give a context a leaf; OpenSSL wants a path."""
    descriptor = os.memfd_create("leaf")
    try:
        os.write(descriptor, leaf.certificate + leaf.key)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _shut(peer: socket.socket) -> None:
    try:
        socket.socket.shutdown(peer, socket.SHUT_RDWR)
    except OSError:
        return


def _plain(path: str) -> str:
    return re.sub(r"^/v1\.[0-9]+", "", path.partition("?")[0])


def _read_request(stream: Any) -> Request | None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline(65536)
        if not line:
            return None
        head += line
    lines = head.decode("latin-1").split("\r\n")
    method, path, _ = lines[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    return Request(method, path, headers, stream.read(int(headers.get("content-length", "0"))))


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def http(
    body: bytes = b"", *, status: int = 200, headers: Sequence[tuple[str, str]] = (), length: int | None = None
) -> bytes:
    """A whole HTTP answer; `length` lies about the body's."""
    size = len(body) if length is None else length
    reason = HTTPStatus(status).phrase
    lines = [f"HTTP/1.1 {status} {reason}", f"Content-Length: {size}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode() + body


def of_json(value: object, *, status: int = 200) -> bytes:
    """A JSON answer."""
    return http(json.dumps(value).encode(), status=status, headers=[("Content-Type", "application/json")])


def refusal(status: int, message: str) -> bytes:
    """An engine's error answer."""
    return of_json({"message": message}, status=status)


def ping(api: str = "1.41") -> bytes:
    return http(b"OK", headers=[("Api-Version", api)])


def version(api: str = "1.41", **more: object) -> bytes:
    return of_json({"Version": "20.10.24", "ApiVersion": api, "MinAPIVersion": "1.12", "Os": "linux", **more})


NOT_FOUND = refusal(404, "page not found")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def pull_of(*entries: Mapping[str, object], end: Callable[[Connection], None] | None = None) -> Answer:
    """A pull that says these entries, one chunk each, and then ends, or goes on as `end` likes."""

    def answer(connection: Connection) -> None:
        connection.send(CHUNKED)
        for entry in entries:
            connection.send(chunk(json.dumps(entry).encode() + b"\r\n"))
        if end is not None:
            end(connection)
        connection.send(b"0\r\n\r\n")

    return answer
