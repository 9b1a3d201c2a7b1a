"""HAProxy's runtime socket in memory: the commands that proxy/agent/runtime.py sends, as HAProxy 2.6 carries them out.

`hold` makes it hang at a command, `restart` is the end of its process and the start of another one without map files.
`open_stream` is a request that it let in and that goes on.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingMixIn, UnixStreamServer
from threading import Event, Lock, Thread

from proxy.agent.table import Map

_COMMAND = re.compile(r"(\w+) map (?:@(\d+) )?([\w.]+)(?: (\S+))?(?: (.+))?")


@dataclass
class Gate:
    """A command at which HAProxy hangs: `reached` is set when the first one is there, `open` lets all go on.

    `once`: only the first such command hangs.
    """

    prefix: str
    once: bool = False
    reached: Event = field(default_factory=Event)
    open: Event = field(default_factory=Event)


@dataclass(frozen=True)
class OpenStream:
    """A stream to a notebook; `target` ("ip|port") is None between two attempts to connect."""

    host: str
    target: str | None


class HaproxyTwin(ThreadingMixIn, UnixStreamServer):
    """The maps and streams of one HAProxy behind the socket `path`."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path) -> None:
        self._lock = Lock()
        self._connections: list[socket.socket] = []
        self._gates: list[Gate] = []
        self._pid = 0
        self.restart()
        super().__init__(str(path), _Conversation)

    def restart(self) -> None:
        """Cut all connections and begin again, with another process number and empty maps."""
        with self._lock:
            self._pid += 1
            self._current = dict.fromkeys(Map, 0)
            self._asked = 0
            self.streams: dict[int, OpenStream] = {}  # by number
            self._versions: dict[Map, dict[int, dict[str, str]]] = {name: {0: {}} for name in Map}
        self.hang_up()

    def hang_up(self) -> None:
        """Break off all connections."""
        with self._lock:
            connections, self._connections = self._connections, []
        for connection in connections:
            with suppress(OSError):  # the agent hung up already
                connection.shutdown(socket.SHUT_RDWR)

    def hold(self, prefix: str, *, once: bool = False) -> Gate:
        """From now on hang at commands that begin with `prefix`, until the gate is opened."""
        gate = Gate(prefix, once)
        self._gates.append(gate)
        return gate

    def release(self) -> None:
        """Open all gates."""
        for gate in self._gates:
            gate.open.set()

    def table(self, name: Map) -> dict[str, str]:
        """What requests see of a map."""
        with self._lock:
            return dict(self._versions[name][self._current[name]])

    def open_stream(self, host: str, target: str | None) -> int:
        """Let a request in; gives its number."""
        with self._lock:
            self._asked += 1
            self.streams[self._asked - 1] = OpenStream(host, target)
            return self._asked - 1

    def begin(self, connection: socket.socket) -> int:
        """Remember a connection; gives the process it is to."""
        with self._lock:
            self._connections.append(connection)
            return self._pid

    def end(self, connection: socket.socket) -> None:
        with self._lock:
            if connection in self._connections:
                self._connections.remove(connection)

    def answer(self, pid: int, command: str, payload: list[str]) -> str:
        for gate in self._gates:
            if not command.startswith(gate.prefix) or (gate.once and gate.reached.is_set()):
                continue
            gate.reached.set()
            assert gate.open.wait(60), command
        with self._lock:
            if pid != self._pid:
                raise ConnectionResetError
            if command == "prompt":
                return ""
            if command == "show info":
                return f"Name: HAProxy\nPid: {self._pid}\nStart_time_sec: 1\nCumReq: {self._asked}\n"
            if command == "show table launch_streams data.conn_cur gt 0":
                hosts = {stream.host for stream in self.streams.values()}
                return "# table: launch_streams\n" + "".join(f"0x1: key={host} use=1 conn_cur=1\n" for host in hosts)
            if command == "show sess all":
                return "".join(_shown(number, stream) for number, stream in self.streams.items())
            if command.startswith("shutdown session 0x"):
                found = self.streams.pop(int(command.rpartition(" ")[2], 16), None)
                return "" if found else "No such session (use 'show sess').\n"
            parts = _COMMAND.fullmatch(command)
            assert parts, command
            verb, version, name, key, value = parts.groups()
            return self._map(verb, Map(name), int(version) if version else None, key, value, payload)

    def _map(self, verb: str, name: Map, version: int | None, key: str, value: str | None, payload: list[str]) -> str:
        versions, current = self._versions[name], self._current[name]
        match verb:
            case "show":
                return "".join(f"0x1 {key} {value}\n" for key, value in versions[current].items())
            case "prepare":
                versions[max(versions) + 1] = {}
                return f"New version created: {max(versions)}\n"
            case "commit":
                assert version is not None
                self._current[name] = version
                self._versions[name] = {number: held for number, held in versions.items() if number >= version}
                return ""
            case "add" if version is not None:
                entries = (line.partition(" ") for line in payload)
                versions[version].update((key, value) for key, _, value in entries)
                return ""
            case "add":
                assert value is not None
                versions[current][key] = value
                return ""
            case "get" if key in versions[current]:
                return f'type=str, case=sensitive, found=yes, idx=tree, key="{key}", value="{versions[current][key]}"\n'
            case "get":
                return "type=str, case=sensitive, found=no\n"
        holding = [held for held in versions.values() if key in held]  # prepared versions among them
        for held in holding:
            if verb == "set":
                assert value is not None
                held[key] = value
            else:
                assert verb == "del"
                del held[key]
        return "" if holding else "entry not found.\n" if verb == "set" else "Key not found.\n"


def _shown(number: int, stream: OpenStream) -> str:
    address = " addr={}:{}".format(*stream.target.split("|")) if stream.target else ""
    return (
        f"{number:#x}: [01/Jan/2026:00:00:00.000000] id={number} proto=tcpv4 source=192.0.2.1:5\n"
        "  frontend=notebooks_in (id=2 mode=http), listener=? (id=1) addr=192.0.2.2:443\n"
        "  backend=notebooks (id=10 mode=http) addr=192.0.2.2:6\n"
        f"  server=notebook (id=1){address}\n"
        "  task=0x1 (state=0x00)\n"
    )


class _Conversation(StreamRequestHandler):
    server: HaproxyTwin

    def handle(self) -> None:
        pid = self.server.begin(self.connection)
        try:
            while line := self.rfile.readline():
                command = line.decode("ascii").strip()
                payload = list(self._payload()) if command.endswith("<<") else []
                reply = self.server.answer(pid, command.removesuffix(" <<"), payload)
                self.wfile.write(reply.encode("ascii") + b"\n> ")
        except OSError:
            pass  # restarted, or the agent hung up
        finally:
            self.server.end(self.connection)

    def _payload(self) -> Iterator[str]:
        while line := self.rfile.readline().decode("ascii").strip():
            yield line


@contextmanager
def haproxy_twin(path: Path) -> Iterator[HaproxyTwin]:
    """A running twin."""
    with HaproxyTwin(path) as twin:
        thread = Thread(target=twin.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield twin
        finally:
            twin.release()
            twin.restart()
            twin.shutdown()
            thread.join(20)
