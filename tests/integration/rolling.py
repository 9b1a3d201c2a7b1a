"""A rolling replacement as AWS makes it: `unshare --net python -m tests.integration.rolling FOLDER`.

The balancer is HAProxy in TCP mode that terminates TLS, as the network load balancer does, and asks each proxy's
listener for health. Each proxy is `python -m proxy.run`, as in the container, at an address of its own. There are two;
two more are started, the balancer finds them ready, the first two are taken out, and get SIGTERM once nobody new comes.

Meanwhile visitors are at work. One whose websocket is closed opens it again, as JupyterLab does; one whose kept
connection is closed while a request is under way sends it again on a new one, as browsers do (RFC 9110, 9.2.2). What
they saw is written to FOLDER/report.json.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Final

from chalicelib.aws.routes import RouteStore
from chalicelib.aws.sign_ins import SignIn
from chalicelib.aws.tokens import TokenStore
from chalicelib.notebook.certificates import Ca, issue_notebook
from chalicelib.session.values import Session, Target
from local import processes
from local.aws import Aws, own_environ
from local.processes import Child
from proxy.settings import PACKAGE
from tests.builders import a_session
from tests.proxy_rig import HUB, NotebookServer, eventually, web_certificate
from tests.role_guard import guarded_aws
from tests.roles import environ_of

FRONT: Final = "10.99.0.1"
PROXIES: Final = ("10.99.0.2", "10.99.0.3", "10.99.0.4", "10.99.0.5")
OLD, NEW = PROXIES[:2], PROXIES[2:]
DRAIN: Final = 3  # seconds
WEBSOCKETS: Final = 12
PAUSE: Final = 0.05  # seconds between a visitor's messages
DOMAIN: Final = "notebooks.test"
BALANCER: Final = """\
global
    stats socket {folder}/balancer.sock mode 600 level admin
defaults
    mode tcp
    timeout connect 2s
    timeout client 350s
    timeout server 350s
frontend front
    bind {front}:443 ssl crt {certificate}
    default_backend proxies
backend proxies
    option httpchk GET /.homeport/ready
    default-server port 8081 check inter 500ms fall 3 rise 2 disabled
{servers}
"""


@dataclass
class Seen:
    """What visitors saw."""

    requests: int = 0
    sent_again: int = 0
    messages: int = 0
    closed: int = 0
    opened_again: int = 0
    errors: list[str] = field(default_factory=list)
    drained: list[int] = field(default_factory=list)  # the old proxies' exit statuses
    connections_left: int = -1  # to old proxies, when all is over


class Visitor:
    """A browser that has entered the launch's notebook."""

    def __init__(self, session: Session, cookie: str) -> None:
        self.host = f"{session.host}.{DOMAIN}"
        self.headers = {"Host": self.host, "Cookie": f"__Host-homeport={cookie}"}
        self._tls = ssl.create_default_context()
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE

    def connect(self) -> ssl.SSLSocket:
        """A new connection."""
        return self._tls.wrap_socket(socket.create_connection((FRONT, 443), 20), server_hostname=self.host)

    def websocket(self) -> ssl.SSLSocket:
        """A new websocket; raises ConnectionError when it is refused."""
        connection = self.connect()
        lines = ["GET /api/kernels/1/channels HTTP/1.1", f"Host: {self.host}", f"Origin: https://{self.host}"]
        lines += ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
        lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", f"Cookie: {self.headers['Cookie']}", "", ""]
        connection.sendall("\r\n".join(lines).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            part = connection.recv(1)
            if not part:
                raise ConnectionResetError(f"closed after {head!r}")
            head += part
        if head.split()[1] != b"101":
            raise ConnectionRefusedError(head.decode())
        return connection

    def talk(self, seen: Seen, stop: Event) -> None:
        """Keep a websocket in use, and open it again whenever it is closed."""
        connection = self.websocket()
        while not stop.wait(PAUSE):
            try:
                connection.sendall(b"hello")
                if connection.recv(100) != b"hello":
                    raise ConnectionResetError("closed")
                seen.messages += 1
            except OSError:
                seen.closed += 1
                connection.close()
                try:
                    connection = self.websocket()
                except OSError as error:
                    seen.errors.append(f"websocket: {error!r}")
                    return
                seen.opened_again += 1
        connection.close()

    def read(self, seen: Seen, stop: Event, *, keeps: bool) -> None:
        """Ask for a page again and again, on a connection that is kept or on a new one each time."""
        connection: http.client.HTTPConnection | None = None
        while not stop.wait(PAUSE):
            reused = connection is not None
            connection = connection or self._client()
            try:
                status, kept = self._get(connection)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                connection = None
                if not reused:
                    seen.errors.append(f"request: {error!r}")
                    return
                seen.sent_again += 1
                continue
            seen.requests += 1
            if status != 200:
                seen.errors.append(f"request: {status}")
            if not (keeps and kept):
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _client(self) -> http.client.HTTPConnection:
        client = http.client.HTTPConnection(FRONT, 443, timeout=20)
        client.sock = self.connect()
        client.auto_open = 0
        return client

    def _get(self, client: http.client.HTTPConnection) -> tuple[int, bool]:
        """Ask once: the status, and whether the proxy keeps the connection."""
        client.request("GET", "/lab", headers=self.headers)
        answer = client.getresponse()
        answer.read()
        return answer.status, not answer.will_close


class Balancer:
    """The balancer, by its runtime socket."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "balancer.sock"

    def tell(self, command: str) -> str:
        """Send a command and return the answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._socket))
            connection.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def column(self, proxy: str, name: str) -> str:
        """What the statistics say of a proxy."""
        header, *rows = self.tell("show stat proxies 4 -1").splitlines()
        names = header.removeprefix("# ").split(",")
        found = [dict(zip(names, row.split(","), strict=False)) for row in rows if row]
        return next(row[name] for row in found if row["svname"] == proxy)

    def take_in(self, proxy: str) -> None:
        """Send visitors there, for as long as it says that it is ready."""
        assert self.tell(f"set server proxies/{proxy} state ready").strip() == ""

    def take_out(self, proxy: str) -> None:
        """Send nobody new there; who is there stays."""
        assert self.tell(f"set server proxies/{proxy} state drain").strip() == ""


def is_ready(address: str) -> bool:
    """Ask a proxy as load balancers do."""
    return answers(address, 8081, "/.homeport/ready", {})


def answers(address: str, port: int, path: str, headers: Mapping[str, str]) -> bool:
    """Say whether a request to a proxy itself is answered with 200."""
    client = http.client.HTTPConnection(address, port, timeout=5)
    try:
        client.request("GET", path, headers=dict(headers))
        return client.getresponse().status == 200
    except OSError:
        return False
    finally:
        client.close()


def network() -> None:
    """Give the namespace its addresses."""
    for command in (
        ["link", "set", "lo", "up"],
        *(["addr", "add", f"{ip}/32", "dev", "lo"] for ip in (FRONT, *PROXIES)),
    ):
        subprocess.run(["ip", *command], check=True)


def proxy_environ(cloud: Aws, folder: Path, address: str) -> dict[str, str]:
    """What a proxy's container is given."""
    return {
        **own_environ(os.environ),
        **environ_of("proxy", cloud.environ),
        "PYTHONPATH": str(PACKAGE.parent),
        "HOMEPORT_HUB_ORIGIN": HUB,
        "HOMEPORT_NOTEBOOK_URL": f"https://*.{DOMAIN}",
        "HOMEPORT_PROXY_NOTEBOOK_CA": cloud.secret_pair("notebook-ca-certificate", with_key=False).to_json(),
        "HOMEPORT_PROXY_CLIENT": cloud.secret_pair("proxy-client").to_json(),
        "HOMEPORT_PROXY_BIND": f"{address}:8080",
        "HOMEPORT_PROXY_HEALTH_BIND": f"{address}:8081",
        "HOMEPORT_PROXY_RUN": str(folder / address),
        "HOMEPORT_PROXY_MAXCONN": "1000",
        "HOMEPORT_PROXY_DRAIN": str(DRAIN),
    }


def start_proxies(
    cloud: Aws, folder: Path, balancer: Balancer, stack: ExitStack, which: tuple[str, ...]
) -> list[Child]:
    """Start proxies, and give each to the balancer once it is ready."""
    started = []
    for address in which:
        environ = proxy_environ(cloud, folder, address)
        command = [sys.executable, "-m", "proxy.run"]
        running = processes.running(address, command, folder=folder, environ=environ, patience=20)
        started.append(stack.enter_context(running))
    for address, child in zip(which, started, strict=True):
        processes.wait_until(partial(is_ready, address), what=f"{address} being ready", deadline=60, child=child)
        balancer.take_in(address)
    return started


@contextmanager
def notebook(cloud: Aws, folder: Path) -> Iterator[Session]:
    """A launch with its notebook, published."""
    session = a_session(expires_at=time.time() + 3600)
    ca = cloud.secret_pair("notebook-ca")
    leaf = issue_notebook(Ca(ca.certificate, ca.key), session.host, now=time.time(), lifetime=3600)
    server = NotebookServer(session.host, leaf, cloud.secret_pair("client-ca", with_key=False).certificate, folder)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    session = replace(session, target=Target("127.0.0.1", server.port))
    try:
        RouteStore(cloud.client("dynamodb"), cloud.environ["HOMEPORT_TABLE"], time.time).publish(session)
        yield session
    finally:
        server.shutdown()
        thread.join(20)
        server.server_close()


def enter(cloud: Aws, session: Session) -> str:
    """Enter the launch as the hub's page does; the cookie."""
    store = TokenStore(cloud.client("dynamodb"), cloud.environ["HOMEPORT_TABLE"], time.time, lifetime=3600)
    sign_in = SignIn("b0" * 32, session.owner, int(time.time() * 1000))
    store.put_ticket("t" * 43, session, sign_in, path="/lab", expires_at=time.time() + 60)
    visitor = Visitor(session, "")
    connection = visitor.connect()
    body = "ticket=" + "t" * 43
    lines = ["POST /.homeport/enter HTTP/1.1", f"Host: {visitor.host}", f"Origin: {HUB}", "Connection: close"]
    lines += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(body)}", "", body]
    connection.sendall("\r\n".join(lines).encode())
    answer = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
    connection.close()
    assert " 303 " in answer.splitlines()[0], answer
    return answer.partition("__Host-homeport=")[2].partition(";")[0]


def replace_all(folder: Path, seen: Seen) -> None:
    """Replace both proxies while visitors are at work."""
    network()
    with ExitStack() as stack:
        cloud = stack.enter_context(guarded_aws(folder))
        session = stack.enter_context(notebook(cloud, folder))
        servers = "\n".join(f"    server {address} {address}:8080" for address in PROXIES)
        certificate = web_certificate(folder)
        config = BALANCER.format(folder=folder, front=FRONT, certificate=certificate, servers=servers)
        (folder / "balancer.cfg").write_text(config)
        command = ["haproxy", "-db", "-f", str(folder / "balancer.cfg")]
        child = stack.enter_context(processes.running("balancer", command, folder=folder))
        processes.wait_for_port(443, child=child, host=FRONT)
        balancer = Balancer(folder)
        old = start_proxies(cloud, folder, balancer, stack, OLD)
        visitor = Visitor(session, enter(cloud, session))
        # One of them has made the grant; the other one reads of it, or asks when a page is opened there.
        for address in OLD:
            opened = partial(answers, address, 8080, "/lab", visitor.headers)
            eventually(opened, f"the grant at {address}", deadline=30)
        with at_work(visitor, seen):
            eventually(lambda: seen.messages > 50 and seen.requests > 10, "visitors at work", deadline=30)
            start_proxies(cloud, folder, balancer, stack, NEW)
            for address, child in zip(OLD, old, strict=True):
                balancer.take_out(address)
                child.process.send_signal(signal.SIGTERM)
            seen.drained = [child.process.wait(60) for child in old]
            eventually(
                lambda: seen.opened_again >= WEBSOCKETS or seen.errors, "all websockets there again", deadline=30
            )
            before = (seen.messages, seen.requests)
            eventually(
                lambda: (seen.messages > before[0] + 50 and seen.requests > before[1] + 10) or seen.errors,
                "visitors at work after it",
                deadline=30,
            )
            seen.connections_left = sum(int(balancer.column(address, "scur")) for address in OLD)


@contextmanager
def at_work(visitor: Visitor, seen: Seen) -> Iterator[None]:
    """Have visitors at work for as long as the block lasts."""
    stop = Event()
    work: list[Callable[[], None]] = [partial(visitor.talk, seen, stop) for _ in range(WEBSOCKETS)]
    work += [partial(visitor.read, seen, stop, keeps=keeps) for keeps in (True, False)]
    threads = [Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def main(folder: Path) -> None:
    """Do it and write the report."""
    seen = Seen()
    replace_all(folder, seen)
    (folder / "report.json").write_text(json.dumps(asdict(seen)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
