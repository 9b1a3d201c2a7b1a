"""A proxy to test with: real HAProxy, the real agent in threads here, an in-memory store and stand-in notebooks.

A stand-in notebook is a small TLS server that demands the proxy's client certificate, tells in JSON what it was asked,
answers with the headers it was asked for (`/answer?Name=value`), and echoes what comes after an upgrade. It may have
pages of its own, which it answers with instead, and something to send before each answer.
"""

from __future__ import annotations

import http.client
import itertools
import json
import secrets
import shutil
import socket
import ssl
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from chalicelib.aws.queues import TickMessage
from chalicelib.aws.routes import Grant, Redeemed, Route
from chalicelib.aws.sign_ins import SignIn
from chalicelib.metrics import SILENT, Metrics
from chalicelib.notebook.certificates import Ca, Leaf, issue_client, issue_notebook, new_ca
from chalicelib.session.lanes import Lane
from chalicelib.session.values import Target
from local import processes
from local.proxy import Proxy
from proxy.agent.agent import Agent
from proxy.agent.entry import Entry
from proxy.agent.runtime import RuntimeSocket
from proxy.agent.table import Map
from proxy.settings import Settings, prepare
from tests.builders import SIGN_IN
from tests.twins import ProxyStoreTwin

HUB = "http://localhost:8000"
DAY = 86400.0
_numbers = itertools.count()


def new_host(sid: str = "") -> str:
    """A launch's host nobody else has; of the session `sid`, if it is to be another launch of that one."""
    number = next(_numbers)
    return f"{sid or f'sid{number:017d}'}-{number:010d}"


def eventually(holds: Callable[[], Any], what: str, *, deadline: float = 10.0) -> None:
    """Look until it holds; fails after `deadline` seconds."""
    processes.wait_until(lambda: bool(holds()), what=what, deadline=deadline)


@dataclass(frozen=True)
class Pki:
    """The two CAs and what the proxy shows to notebooks."""

    notebook: Ca
    client: Ca
    proxy: Leaf

    @classmethod
    def new(cls) -> Pki:
        now = time.time()
        client = new_ca("clients", now=now, lifetime=DAY)
        return cls(
            new_ca("notebooks", now=now, lifetime=DAY),
            client,
            issue_client(client, "proxy", now=now, lifetime=DAY),
        )

    def notebook_leaf(self, host: str) -> Leaf:
        return issue_notebook(self.notebook, host, now=time.time(), lifetime=DAY)


class _Notebook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: NotebookServer

    def do_GET(self) -> None:
        if self.headers.get("Upgrade", "").lower() == "websocket":
            self._echo()
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        seen = {
            "notebook": self.server.host,
            "method": self.command,
            "path": self.path,
            "headers": [[name.lower(), value] for name, value in self.headers.items()],
            "body": body.decode(),
        }
        self.server.asked += 1
        self.server.paths.append(self.path)
        self.server.cookies.extend(self.headers.get_all("Cookie", []))
        fields, text = self.server.pages.get(urlsplit(self.path).path, ({"Content-Type": "application/json"}, ""))
        answer = (text or json.dumps(seen)).encode()
        self.server.may_answer.wait(20)
        self.wfile.write(self.server.interim)
        self.send_response(200)
        if self.path.startswith("/answer?"):
            for name, value in parse_qsl(urlsplit(self.path).query):
                self.send_header(name, value)
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = do_GET

    def _echo(self) -> None:
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        key = self.headers.get("Sec-WebSocket-Key", "") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §4.2.2
        self.send_header("Sec-WebSocket-Accept", b64encode(sha1(key.encode()).digest()).decode())
        self.end_headers()
        self.close_connection = True
        self.connection.settimeout(60)
        while data := self.connection.recv(4096):
            self.connection.sendall(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


class NotebookServer(ThreadingHTTPServer):
    """A stand-in notebook of the launch `host`; `leaf` is what it shows, `client_ca` (PEM) whom it lets in."""

    daemon_threads = True

    def __init__(self, host: str, leaf: Leaf, client_ca: bytes | None, folder: Path, bind: str = "127.0.0.1") -> None:
        self.host = host
        self.asked = 0
        self.paths: list[str] = []
        self.cookies: list[str] = []
        self.pages: Mapping[str, tuple[Mapping[str, str], str]] = {}
        self.interim = b""  # interim responses
        self.may_answer = Event()  # cleared: requests wait
        self.may_answer.set()
        self.address_family = socket.AF_INET6 if ":" in bind else socket.AF_INET
        super().__init__((bind, 0), _Notebook)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        file = folder / f"{secrets.token_hex(4)}.pem"
        file.write_bytes(leaf.certificate + leaf.key)
        context.load_cert_chain(file)
        if client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=client_ca.decode())
        self._context = context
        self.port = int(self.server_address[1])

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            with self._context.wrap_socket(request, server_side=True) as secure:
                secure.settimeout(20)
                self.finish_request(secure, client_address)
        except OSError:
            request.close()  # a handshake that failed, or a peer that left: what the tests are about

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        connection.settimeout(20)
        return connection, address


@dataclass
class Answer:
    """One HTTP answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        """The values of every header of that name."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The value of the header, if there is one."""
        return next(iter(self.all(name)), None)

    @property
    def seen(self) -> dict[str, Any]:
        """What the stand-in notebook says it was asked."""
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value

    def seen_all(self, name: str) -> list[str]:
        """The values of every header of that name that the notebook got."""
        return [value for key, value in self.seen["headers"] if key == name.lower()]


def ask(
    port: int,
    host: str | Sequence[str],
    path: str = "/lab",
    *,
    method: str = "GET",
    headers: Sequence[tuple[str, str]] = (),
    body: bytes | None = None,
    connection: http.client.HTTPConnection | None = None,
) -> Answer:
    """Send one request with exactly these headers (and a Content-Length when there is a body)."""
    used = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        used.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name in [host] if isinstance(host, str) else host:
            used.putheader("Host", name)
        for name, value in headers:
            used.putheader(name, value)
        if body is not None:
            used.putheader("Content-Length", str(len(body)))
        used.endheaders(body)
        answer = used.getresponse()
        return Answer(answer.status, answer.getheaders(), answer.read())
    finally:
        if connection is None:
            used.close()


@contextmanager
def websocket(
    port: int, address: str, *, cookie: str | None, origin: str | None
) -> Iterator[tuple[int, socket.socket]]:
    """Ask for a websocket; gives the status and the connection."""
    lines = [f"GET /api/kernels/1/channels HTTP/1.1\r\nHost: {address}"]
    lines += ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    lines += [f"Cookie: __Host-homeport={cookie}"] if cookie else []
    lines += [f"Origin: {origin}"] if origin else []
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            part = connection.recv(1)
            assert part, head
            head += part
        yield int(head.split()[1]), connection


def lives(connection: socket.socket) -> bool:
    """Say whether the notebook at the other end of a websocket echoes."""
    connection.sendall(b"hello")
    return connection.recv(100) == b"hello"


def closed(connection: socket.socket) -> bool:
    """Wait until the proxy closes a websocket; fails if it does not within 15 seconds."""
    connection.settimeout(15)
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


class AgentThreads:
    """The agent's threads over any store; `stop` ends them as the end of its process would.

    `reported` has the sessions whose notebooks were silent.
    """

    def __init__(
        self,
        store: Any,
        folder: Path,
        *,
        poll: float = 0.1,
        full_sync: float = 600.0,
        hub: str = HUB,
        certificate: str = "",
        metrics: Metrics = SILENT,
    ) -> None:
        self.reported: list[str] = []
        self.agent = Agent(
            store,
            self._enqueue,
            folder,
            clock=time.time,
            new_cookie=lambda: secrets.token_urlsafe(32),
            certificate=certificate,
            metrics=metrics,
        )
        self._entry = Entry(
            folder / "agent.sock", self.agent.lookups, self.agent.table, hub_origin=hub, hub_url=f"{hub}/"
        )
        self._stop = Event()
        run = self.agent.run
        self._threads = [
            Thread(target=self._entry.serve_forever, kwargs={"poll_interval": 0.05}),
            Thread(target=run, args=(self._stop,), kwargs={"poll": poll, "full_sync": full_sync}),
        ]
        for thread in self._threads:
            thread.start()

    def _enqueue(self, message: TickMessage, *, lane: Lane, delay: float) -> None:
        assert (lane, delay) == (Lane.WATCH, 0.0)
        self.reported.append(message.sid)

    def stop(self) -> None:
        self._stop.set()
        self._entry.shutdown()
        for thread in self._threads:
            thread.join(20)
        self._entry.server_close()


class Rig:
    """One proxy with its store and its notebooks."""

    def __init__(
        self,
        folder: Path,
        environ: dict[str, str],
        *,
        poll: float = 0.1,
        full_sync: float = 600.0,
        hub: str = HUB,
        origins: str = "http://*.localhost",
        pki: Pki | None = None,
    ) -> None:
        self.pki = pki or Pki.new()
        self.port = processes.free_port()
        self.folder = folder
        self.run = folder / "run"
        self.store = ProxyStoreTwin(time.time)
        self.settings = Settings.from_environ(
            {
                "HOMEPORT_PROXY_RUN": str(self.run),
                "HOMEPORT_PROXY_BIND": f"127.0.0.1:{self.port}",
                "HOMEPORT_NOTEBOOK_URL": f"{origins}:{self.port}",
                "HOMEPORT_HUB_ORIGIN": hub,
                "HOMEPORT_PROXY_NOTEBOOK_CA": self.pki.notebook.certificate.decode(),
                "HOMEPORT_PROXY_CLIENT": self.pki.proxy.to_json(),
                "HOMEPORT_PROXY_ENTRY_RATE": "100000",
                **environ,
            }
        )
        prepare(self.settings)
        self.figures: list[str] = []  # the lines that the agent's figures are
        self._hub = hub
        self._poll = poll
        self._full_sync = full_sync
        self._notebooks: list[tuple[NotebookServer, Thread]] = []
        self.proxy = Proxy(self.settings, {}, folder)
        self.agent: AgentThreads | None = None

    def start_agent(self, *, wait: bool = True) -> None:
        """Start the agent; `wait` until it has read the store."""
        self.agent = AgentThreads(
            self.store,
            self.run,
            poll=self._poll,
            full_sync=self._full_sync,
            hub=self._hub,
            certificate=self.settings.certificate,
            metrics=Metrics(self.settings.stage, time.time, self.figures.append),
        )
        if wait:
            eventually(lambda: self.agent and self.agent.agent.table.synced, "the first reading")

    def stop_agent(self) -> None:
        """Stop the agent."""
        if self.agent is not None:
            self.agent.stop()
            self.agent = None

    def close(self) -> None:
        """Stop everything."""
        self.stop_agent()
        self.proxy.stop()
        for server, thread in self._notebooks:
            server.shutdown()
            thread.join(20)
            server.server_close()

    def address(self, host: str) -> str:
        """What a browser sends as Host."""
        return self.origin(host).partition("://")[2]

    def origin(self, host: str) -> str:
        """The launch's origin."""
        return self.settings.notebook_url.replace("*", host)

    def notebook(
        self, host: str, *, leaf: Leaf | None = None, client_ca: bytes | None = None, bind: str = "127.0.0.1"
    ) -> NotebookServer:
        """Start a stand-in notebook."""
        ca = self.pki.client.certificate if client_ca is None else client_ca
        server = NotebookServer(host, leaf or self.pki.notebook_leaf(host), ca, self.folder, bind)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        self._notebooks.append((server, thread))
        return server

    def publish(self, host: str, port: int, *, address: str = "127.0.0.1") -> None:
        """Publish a route and wait until HAProxy has it."""
        self.store.put(Route(host, Target(address, port), True, self.store.now_ms(), self._later()))
        value = f"{address}|{port}"
        eventually(lambda: self.table(Map.ROUTES).get(host) == value, "the route in HAProxy")

    def withdraw(self, host: str) -> None:
        """Withdraw a route and wait until HAProxy has lost it."""
        self.store.put(Route(host, None, False, self.store.now_ms(), self._later()))
        eventually(lambda: host not in self.table(Map.ROUTES), "the route gone from HAProxy")

    def ticket(self, host: str, *, path: str = "/lab", sign_in: SignIn = SIGN_IN) -> str:
        """A ticket for the launch."""
        ticket = secrets.token_urlsafe(24)
        self.store.put_ticket(ticket, Redeemed(host, path, self._later(), sign_in), expires_at=time.time() + 60)
        return ticket

    def cookie(self, host: str, *, sign_in: SignIn = SIGN_IN) -> str:
        """A granted cookie's value, known to HAProxy."""
        cookie = secrets.token_urlsafe(32)
        digest = sha256(cookie.encode()).hexdigest()
        self.store.put(Grant(digest, host, False, self.store.now_ms(), self._later(), sign_in))
        eventually(lambda: digest in self.table(Map.GRANTS), "the grant in HAProxy")
        return cookie

    @property
    def runtime(self) -> RuntimeSocket:
        """HAProxy's runtime socket."""
        return RuntimeSocket(self.run / "haproxy.sock")

    def table(self, name: Map) -> dict[str, str]:
        """A map as HAProxy holds it."""
        with self.runtime.connected() as haproxy:
            return haproxy.table(name)

    def ask(
        self, host: str, path: str = "/lab", *, cookie: str | None = None, origin: str | None = None, **more: Any
    ) -> Answer:
        """Ask the launch's origin, or what `named` says in the Host header."""
        headers = [*more.pop("headers", ())]
        if cookie is not None:
            headers.append(("Cookie", f"__Host-homeport={cookie}"))
        if origin is not None:
            headers.append(("Origin", origin))
        return ask(self.port, more.pop("named", self.address(host)), path, headers=headers, **more)

    def enter(self, host: str, ticket: str, *, path: str | None = None, origin: str | None = HUB) -> Answer:
        """Post a ticket as the hub's page does."""
        form = f"ticket={ticket}" + (f"&path={path}" if path is not None else "")
        headers = [("Content-Type", "application/x-www-form-urlencoded")]
        return self.ask(host, "/.homeport/enter", method="POST", headers=headers, origin=origin, body=form.encode())

    @contextmanager
    def websocket(self, host: str, *, cookie: str | None, origin: str | None) -> Iterator[tuple[int, socket.socket]]:
        """Ask for a websocket; gives the status and the connection."""
        with websocket(self.port, self.address(host), cookie=cookie, origin=origin) as asked:
            yield asked

    @staticmethod
    def _later() -> int:
        return int(time.time()) + 3600


@contextmanager
def rig(
    *, haproxy: bool = True, agent: bool = True, environ: dict[str, str] | None = None, **more: Any
) -> Iterator[Rig]:
    """A running rig."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="hp"))  # short: unix sockets' names end at 108 bytes
        stack.callback(shutil.rmtree, folder)
        made = Rig(folder, environ or {}, **more)
        stack.callback(made.close)
        if agent:
            made.start_agent()
        if haproxy:
            made.proxy.start_haproxy()
        yield made


@pytest.fixture(scope="module")
def door() -> Iterator[Rig]:
    """A rig for the tests of a module that neither stop parts of it nor set it up; each uses sessions of its own."""
    with rig() as running:
        yield running


def open_session(door: Rig) -> tuple[str, str]:
    """A session with a notebook, and the cookie of a browser that entered it."""
    host = new_host()
    door.publish(host, door.notebook(host).port)
    return host, door.cookie(host)


def web_certificate(folder: Path) -> str:
    """A file with a certificate for TLS in HAProxy."""
    web = issue_client(new_ca("web", now=time.time(), lifetime=DAY), "web", now=time.time(), lifetime=DAY)
    (folder / "web.pem").write_bytes(web.certificate + web.key)
    return str(folder / "web.pem")
