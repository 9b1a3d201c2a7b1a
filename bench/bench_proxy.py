"""Measure the proxy beside configurable-http-proxy and beside an HAProxy that checks nothing.

`make bench PART=proxy` runs each in front of the same stand-in notebook, an HAProxy that answers with 1 KB. Homeport's
proxy, with all of its rules, and the bare HAProxy reach it by mutual TLS, a connection for each visitor's;
configurable-http-proxy, as JupyterHub sets it up, without TLS. `wrk` asks from CONNECTIONS connections. Proxy, notebook
and wrk share the processors. Then of Homeport's proxy alone: what an idle websocket takes, how soon a change of a route
is there, and how soon all is right after agent and HAProxy were away. The store is in memory: DynamoDB's own time is
not in these figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import resource
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Final

import requests

from bench import load, peers
from bench.results import Result, Table
from chalicelib.aws.routes import Route
from chalicelib.session.values import Target
from local import processes
from local.processes import LOOPBACK
from proxy.agent.table import Map
from tests.proxy_rig import Pki, Rig, new_host

ROUNDS: Final = 7
SECONDS: Final = 4  # of each round
CONNECTIONS: Final = 32
FEW: Final = 10  # routes
MANY: Final = 100_000
RESTARTED: Final = 10_000
RESTARTS: Final = 5
CHANGES: Final = 20
WEBSOCKETS: Final = 8_000
PER_LAUNCH: Final = 400  # below the proxy's limits
PER_SOURCE: Final = 1_600
POLL: Final = 0.5  # seconds, as HOMEPORT_PROXY_POLL is by default
PATIENCE: Final = 120.0
_DEFAULTS: Final = """
global
    maxconn 9500
defaults
    mode http
    timeout connect 5s
    timeout client 10m
    timeout server 10m
    timeout tunnel 10m
    http-reuse never
"""
_NOTEBOOK: Final = """
frontend tls
    bind 127.0.0.1:{tls} ssl crt {folder}/leaves ca-file {folder}/client-ca.pem verify required
    acl is_upgrade req.hdr(upgrade) -m found
    http-request return status 200 content-type application/json file {folder}/body if !is_upgrade
    default_backend echo
frontend plain
    bind 127.0.0.1:{plain}
    http-request return status 200 content-type application/json file {folder}/body
backend echo
    server echo 127.0.0.1:{echo}
"""
_BARE: Final = """
frontend bare
    bind 127.0.0.1:{port}
    default_backend notebook
backend notebook
    server notebook 127.0.0.1:{tls} ssl verify required ca-file {folder}/notebook-ca.pem crt {folder}/client.pem sni str({host}.notebook.internal) alpn http/1.1 no-ssl-reuse
"""  # noqa: E501 - HAProxy has no other way to write a line
_ACCEPTED: Final = (  # RFC 6455 §1.3, with the key of its example
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


# ── what is asked ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Notebook:
    """The stand-in notebook's ports: with mutual TLS, and without."""

    tls: int
    plain: int


@contextmanager
def notebook(folder: Path, pki: Pki, hosts: list[str]) -> Iterator[Notebook]:
    """Run a stand-in notebook of all these launches; it takes websockets, and sends nothing in them."""
    leaves = folder / "leaves"
    leaves.mkdir()
    for host in hosts:
        leaf = pki.notebook_leaf(host)
        (leaves / f"{host}.pem").write_bytes(leaf.certificate + leaf.key)
    (folder / "client-ca.pem").write_bytes(pki.client.certificate)
    (folder / "body").write_text(secrets.token_hex(512))
    found = Notebook(processes.free_port(), processes.free_port())
    with echo() as port:
        text = _NOTEBOOK.format(folder=folder, tls=found.tls, plain=found.plain, echo=port)
        with haproxy("notebook", folder, text, found.plain):
            yield found


@contextmanager
def haproxy(name: str, folder: Path, text: str, port: int) -> Iterator[None]:
    """Run an HAProxy for as long as the block lasts."""
    config = folder / f"{name}.cfg"
    config.write_text(_DEFAULTS + text)
    with processes.running(name, ["haproxy", "-W", "-f", str(config)], folder=folder) as child:
        processes.wait_for_port(port, child=child)
        yield


@contextmanager
def echo() -> Iterator[int]:
    """Take websockets and send back what comes; gives the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_ACCEPTED)
            while data := await reader.read(1024):
                writer.write(data)
        writer.close()

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(serve, LOOPBACK, 0, backlog=4096, limit=4096))
    thread = Thread(target=loop.run_forever)
    thread.start()
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


# ── what is measured ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Bench:
    """What all of it is measured with; the notebook answers for each of `hosts`."""

    folder: Path
    pki: Pki
    hosts: list[str]
    notebook: Notebook

    @contextmanager
    def proxy(self, routes: int) -> Iterator[Rig]:
        """Run Homeport's proxy with so many routes, those of `hosts` among them."""
        folder = Path(tempfile.mkdtemp(prefix="r", dir=self.folder))
        rig = Rig(folder, {}, poll=POLL, pki=self.pki)
        try:
            for number in range(routes - len(self.hosts)):
                rig.store.put(self.route(rig, other(number), 1))
            for host in self.hosts[:routes]:
                rig.store.put(self.route(rig, host, self.notebook.tls))
            rig.proxy.start_haproxy()
            rig.start_agent()
            until(lambda: "found=yes" in found(rig, self.hosts[0]))
            yield rig
        finally:
            rig.close()

    @staticmethod
    def route(rig: Rig, host: str, port: int) -> Route:
        """A route as the launcher would publish it now."""
        return Route(host, Target(LOOPBACK, port), True, rig.store.now_ms(), int(time.time()) + 86_400)


def other(number: int) -> str:
    """The host of a launch whose notebook nobody asks."""
    return f"sid{number:017d}-aaaaaaaaaa"


def found(rig: Rig, host: str) -> str:
    """What HAProxy says of a route."""
    with rig.runtime.connected() as haproxy:
        return haproxy.ask(f"get map {Map.ROUTES} {host}")


def until(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    processes.wait_until(holds, what="what is measured", deadline=PATIENCE)


def per_second(url: str, headers: Mapping[str, str]) -> float:
    """The requests a second to an address, from CONNECTIONS connections."""
    return load.per_second(url, headers, connections=CONNECTIONS, seconds=SECONDS)


def throughput(result: Result, bench: Bench) -> None:
    """Measure requests a second of each proxy, in turn."""
    few, many = f"Homeport, {FEW} routes", f"Homeport, {MANY:,} routes"
    host, port = bench.hosts[0], processes.free_port()
    bare = _BARE.format(folder=bench.folder, port=port, tls=bench.notebook.tls, host=host)
    (bench.folder / "notebook-ca.pem").write_bytes(bench.pki.notebook.certificate)
    (bench.folder / "client.pem").write_bytes(bench.pki.proxy.certificate + bench.pki.proxy.key)
    asked: dict[str, Callable[[], float]] = {}
    with ExitStack() as running:
        for name, routes in ((few, FEW), (many, MANY)):
            asked[name] = _asks(running.enter_context(bench.proxy(routes)), host)
        running.enter_context(haproxy("bare", bench.folder, bare, port))
        asked["HAProxy, no checks"] = lambda: per_second(f"http://{LOOPBACK}:{port}/api/status", {})
        token = secrets.token_hex(16)
        chp, api = running.enter_context(peers.running_chp(bench.folder, "--log-level=error", token=token))
        for number in range(FEW):
            requests.post(
                f"http://{LOOPBACK}:{api}/api/routes/user/bench-{number}",
                json={"target": f"http://{LOOPBACK}:{bench.notebook.plain}"},
                headers={"Authorization": f"token {token}"},
                timeout=10,
            ).raise_for_status()
        asked[peers.CHP] = lambda: per_second(f"http://{LOOPBACK}:{chp}/user/bench-0/api/status", {})
        rows: dict[str, list[float]] = {name: [] for name in asked}
        for _ in range(ROUNDS):
            for name, ask in asked.items():
                result.await_quiet()
                rows[name].append(ask())
    result.add(Table(title="Requests through the proxy", unit="requests/s", rows=rows))
    for other, aim in ((peers.CHP, 6.0), ("HAProxy, no checks", 0.9)):
        result.compare(f"Homeport / {other}", rows[few], rows[other], aim=aim, at_most=False)
    result.compare(f"{MANY:,} routes / {FEW} routes", rows[many], rows[few], aim=0.95, at_most=False)


def _asks(rig: Rig, host: str) -> Callable[[], float]:
    headers = {"Host": rig.address(host), "Cookie": f"__Host-homeport={rig.cookie(host)}; _xsrf=2|0|0|0"}
    rig.stop_agent()  # its in-memory store is in this process, and would take processor time for each look at it
    return lambda: per_second(f"http://{LOOPBACK}:{rig.port}/api/status", headers)


def websockets(result: Result, bench: Bench) -> None:
    """Measure by how much HAProxy grows with idle websockets, and that they live."""
    with bench.proxy(len(bench.hosts)) as rig, ExitStack() as opened:
        cookies = [rig.cookie(host) for host in bench.hosts]
        assert rig.proxy.haproxy is not None
        pid = rig.proxy.haproxy.pid
        _open(rig, bench.hosts[0], cookies[0], LOOPBACK).close()
        before, sockets = resident(pid), []
        for number in range(WEBSOCKETS):
            at = number // PER_LAUNCH
            source = f"127.0.0.{2 + number // PER_SOURCE}"
            sockets.append(opened.enter_context(_open(rig, bench.hosts[at], cookies[at], source)))
        each = (resident(pid) - before) / WEBSOCKETS
        for connection in sockets[:: WEBSOCKETS // 100]:
            connection.sendall(b"hello")
            assert connection.recv(5) == b"hello"
    rows = {f"memory of each of {WEBSOCKETS:,} idle websockets": [each]}
    result.add(Table(title="Idle websockets in one process", unit="KiB", rows=rows, plotted=False))
    result.judge("KiB of an idle websocket", each, aim=64.0)
    result.judge("idle websockets in one process", WEBSOCKETS, aim=8000, at_most=False)


def _open(rig: Rig, host: str, cookie: str, source: str) -> socket.socket:
    connection = socket.create_connection((LOOPBACK, rig.port), 20, (source, 0))
    lines = [f"GET /api/kernels/1/channels HTTP/1.1\r\nHost: {rig.address(host)}", f"Origin: {rig.origin(host)}"]
    lines += ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", f"Cookie: __Host-homeport={cookie}"]
    connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
    answer = connection.recv(1024)
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    return connection


def resident(pid: int) -> int:
    """The KiB of a process in memory."""
    return int(re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0])


def changes(result: Result, bench: Bench) -> None:
    """Measure how soon HAProxy has a changed route, and how soon it has lost a withdrawn one."""
    changed, withdrawn = [], []
    with bench.proxy(len(bench.hosts) + CHANGES) as rig:
        for number in range(CHANGES):
            changed.append(_until_there(rig, bench.route(rig, bench.hosts[0], 10_000 + number)))
            withdrawn.append(_until_there(rig, _withdrawn(bench.route(rig, other(number), 1))))
    rows = {"a changed route is there": changed, "a withdrawn route is gone": withdrawn}
    result.add(Table(title="Changes of a route", unit="seconds", rows=rows, plotted=False))
    result.judge("the slowest change of a route, seconds", max(changed + withdrawn), aim=1.0)


def _withdrawn(route: Route) -> Route:
    return replace(route, published=False, target=None)


def _until_there(rig: Rig, route: Route) -> float:
    time.sleep(random.uniform(0, POLL))  # the feed is read every POLL seconds
    begun = time.perf_counter()
    rig.store.put(replace(route, changed_at=rig.store.now_ms()))
    until(lambda: is_there(rig, route))
    return time.perf_counter() - begun


def is_there(rig: Rig, route: Route) -> bool:
    """Whether HAProxy knows the route as it is."""
    return (f"|{route.target.port}" if route.target else "found=no") in found(rig, route.host)


def restarts(result: Result, bench: Bench) -> None:
    """Measure how soon all is right after agent and HAProxy were away, while a route changed and one was withdrawn."""
    seconds, starts = [], []
    with bench.proxy(RESTARTED) as rig:
        host = bench.hosts[0]
        cookie = rig.cookie(host)
        for number in range(RESTARTS):
            rig.stop_agent()
            rig.proxy.stop()
            news = [bench.route(rig, other(0), 10_000 + number), _withdrawn(bench.route(rig, other(1 + number), 1))]
            for route in news:
                rig.store.put(route)
            result.await_quiet()
            begun = time.perf_counter()
            rig.proxy.start_haproxy()
            rig.start_agent()
            for route in news:
                until(partial(is_there, rig, route))
            assert rig.ask(host, "/api/status", cookie=cookie).status == 200
            seconds.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", "import proxy.agent.__main__"], check=True)
            starts.append(time.perf_counter() - begun)
    rows = {f"with {RESTARTED:,} routes: until all is right": seconds, "besides: Python's start of the agent": starts}
    result.add(Table(title="Agent and HAProxy started again", unit="seconds", rows=rows, plotted=False))
    result.judge("the slowest restart with Python's start, seconds", max(seconds) + max(starts), aim=2.0)


def measure(result: Result) -> None:
    """Measure everything."""
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(files, min(20_000, most)), most))
    version = subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=True).stdout.split()[2]
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    chp = f"{peers.CHP} {peers.CHP_VERSION} on Node.js {node}"
    result.versions = f"HAProxy {version}, {chp}; {CONNECTIONS} connections."
    peers.chp()
    with tempfile.TemporaryDirectory(prefix="hpb-", ignore_cleanup_errors=True) as name:
        pki, folder = Pki.new(), Path(name)
        hosts = [new_host() for _ in range(WEBSOCKETS // PER_LAUNCH)]
        with notebook(folder, pki, hosts) as stand_in:
            bench = Bench(folder, pki, hosts, stand_in)
            for part in (throughput, websockets, changes, restarts):
                part(result, bench)
