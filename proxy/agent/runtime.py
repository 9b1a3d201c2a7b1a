"""HAProxy's runtime socket: the one way in which maps of the running HAProxy are changed.

1. One connection per batch: the process that answers `show info` is the one that is changed. A batch for another
   process than the last one says so, because that one has read its maps from disk.
2. A table is swapped in one transaction (`prepare map` … `commit map`), so no request sees half of it.
3. Every reply is read. One that is not understood raises HaproxyUnavailable; the caller sends whole tables next.
4. An entry counts as present only if `get map` finds it. HAProxy 2.6 applies `set map` and `del map` to prepared
   versions too, so `set map` succeeds for an entry that only a prepared version has and no request sees. `get map`
   reads what requests see, and searches a tree where `set map` searches a list (0.2 ms, not 10 ms, in 200,000 entries).

5. A stream's target is where HAProxy connects to, or is connected to, for the one server of the backend `notebooks`.

Source: HAProxy 2.6 management guide, section 9.3; rules 4 and 5 were tried on 2.6.12.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from proxy.agent.table import Command, Delete, Map, Put, Replace

DEADLINE: Final = 5.0  # seconds for one read; HAProxy answers in microseconds
CHUNK: Final = 12_000  # bytes of payload per command; HAProxy's buffer takes 16,384
_PROMPT: Final = b"\n> "
_FRONTEND: Final = "notebooks_in"  # what visitors connect to
_PAYLOAD_PROMPTS: Final = re.compile(r"\A(\+ )+")  # one for each line of a payload
_FOUND: Final = re.compile(r'found=(no|yes)\b(?:.*, value="([^"]*)")?')
_STREAM: Final = re.compile(  # a line at the margin, then indented ones
    r"^(0x[0-9a-f]+): .* id=(\d+) .*\n(?: .*\n)*?  backend=notebooks .*\n  server=notebook .*?(?: addr=(\S+):(\d+))?$",
    re.MULTILINE,
)


class HaproxyUnavailable(Exception):
    """HAProxy is not there, or did not understand."""


class CertificateRefused(Exception):
    """HAProxy found no certificate with its key in what it was given."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A version of a map that is complete and that no request sees yet."""

    map: Map
    version: str


@dataclass(frozen=True, slots=True)
class Stream:
    """A request or websocket to a notebook: HAProxy's name for it, its number, its target ("ip|port"; None: not yet).

    Numbers grow, and begin again after 2**32.
    """

    name: str
    number: int
    target: str | None


class RuntimeSocket:
    """The runtime socket at `path`; one read waits for `deadline` seconds at most."""

    def __init__(self, path: Path, deadline: float = DEADLINE) -> None:
        self._path = path
        self._deadline = deadline

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        """Open one connection; raises HaproxyUnavailable."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(self._deadline)
            try:
                connection.connect(str(self._path))
                yield Connection(connection)
            except OSError as error:
                raise HaproxyUnavailable(f"HAProxy's socket: {error.strerror or error}") from error


class Connection:
    """One connection to one HAProxy process."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.sendall(b"prompt\n")
        self._read()

    def process(self) -> str:
        """Name the process that answers: its number and start."""
        info = self.ask("show info")
        pid = re.search(r"^Pid: (\d+)$", info, re.MULTILINE)
        uptime = re.search(r"^Start_time_sec: (\d+)$", info, re.MULTILINE)
        if pid is None:
            raise HaproxyUnavailable("HAProxy does not tell its process number")
        return f"{pid[1]}@{uptime[1] if uptime else ''}"

    def execute(self, commands: Iterable[Command]) -> None:
        """Carry out the commands in their order; requests see each at once."""
        for command in commands:
            match command:
                case Put(name, key, value):
                    self._put(name, key, value)
                case Delete(name, key):
                    self._expect(f"del map {name} {key}", "", "Key not found")

    def prepare(self, replacement: Replace) -> Prepared:
        """Send a whole map as a version that no request sees until it is committed."""
        name = replacement.map
        reply = self.ask(f"prepare map {name}")
        version = re.search(r"New version created: (\d+)", reply)
        if version is None:
            raise HaproxyUnavailable(f"HAProxy did not prepare {name}: {reply}")
        for payload in _chunks(f"{key} {value}\n" for key, value in replacement.entries.items()):
            self._expect(f"add map @{version[1]} {name} <<\n{payload}", "")
        return Prepared(name, version[1])

    def commit(self, versions: Iterable[Prepared]) -> None:
        """Let requests see the prepared versions instead of the present ones."""
        for prepared in versions:
            self._expect(f"commit map @{prepared.version} {prepared.map}", "")

    def table(self, name: Map) -> dict[str, str]:
        """Read a map as HAProxy holds it."""
        lines = (line.split(" ") for line in self.ask(f"show map {name}").splitlines() if line)
        return {key: value for _, key, value in lines}

    def next_stream(self) -> int:
        """Return the number that the next stream gets."""
        count = re.search(r"^CumReq: (\d+)$", self.ask("show info"), re.MULTILINE)
        if count is None:
            raise HaproxyUnavailable("HAProxy does not tell how many requests there were")
        return int(count[1])

    def hosts_with_streams(self) -> set[str]:
        """Return the hosts of all launches that have streams."""
        return set(re.findall(r" key=(\S+) ", self.ask("show table launch_streams data.conn_cur gt 0")))

    def renew(self, name: str, pem: bytes) -> None:
        """Have the certificate of the file `name` replaced by this one; raises CertificateRefused."""
        lines = [line.strip() for line in pem.decode("ascii", "replace").splitlines()]
        payload = "\n".join(line for line in lines if line)  # an empty line would end it
        if not payload.isascii():
            raise CertificateRefused
        reply = self.ask(f"set ssl cert {name} <<\n{payload}\n")
        if not reply.startswith(("Transaction created", "Transaction updated")):
            self.ask(f"abort ssl cert {name}")
            raise CertificateRefused
        if not self.ask(f"commit ssl cert {name}").endswith("Success!"):
            self.ask(f"abort ssl cert {name}")
            raise CertificateRefused

    def connections(self) -> int:
        """Count the visitors' connections that are open."""
        header, *rows = self.ask(f"show stat {_FRONTEND} 1 -1").splitlines() or [""]
        names = header.removeprefix("# ").split(",")
        values = [dict(zip(names, row.split(","), strict=False)).get("scur", "") for row in rows if row]
        if len(values) != 1 or not values[0].isdigit():
            raise HaproxyUnavailable("HAProxy does not tell how many connections there are")
        return int(values[0])

    def streams(self) -> list[Stream]:
        """List all streams to notebooks."""
        return [
            Stream(name, int(number), f"{ip_address(address)}|{port}" if address else None)
            for name, number, address, port in _STREAM.findall(self.ask("show sess all"))
        ]

    def shut(self, stream: Stream) -> None:
        """Close a stream at both ends, if it has not ended by itself."""
        self._expect(f"shutdown session {stream.name}", "", "No such session")

    def ask(self, command: str) -> str:
        """Send one command and return the reply."""
        self._socket.sendall(command.encode("ascii") + b"\n")
        return self._read()

    def _put(self, name: Map, key: str, value: str) -> None:
        reply = self.ask(f"get map {name} {key}")
        found = _FOUND.search(reply)
        if found is None:
            raise HaproxyUnavailable(f"HAProxy did not understand: {reply[:200]}")
        if found[1] == "no":
            self._expect(f"add map {name} {key} {value}", "")
        elif found[2] != value:
            self._expect(f"set map {name} {key} {value}", "")

    def _expect(self, command: str, *replies: str) -> None:
        """Send a command whose reply must be, or begin with, one of `replies`."""
        reply = self.ask(command)
        if not any(reply.startswith(known) if known else reply == "" for known in replies):
            raise HaproxyUnavailable(f"HAProxy did not understand: {reply[:200]}")

    def _read(self) -> str:
        received = bytearray()
        while not (received.endswith(_PROMPT) or received == b"> "):
            part = self._socket.recv(65536)
            if not part:
                raise HaproxyUnavailable("HAProxy closed its socket")
            received += part
        reply = received.removesuffix(b"> ").decode("ascii", "replace")
        return _PAYLOAD_PROMPTS.sub("", reply).strip()


def _chunks(lines: Iterable[str]) -> Iterator[str]:
    chunk = ""
    for line in lines:
        if len(chunk) + len(line) > CHUNK:
            yield chunk
            chunk = ""
        chunk += line
    if chunk:
        yield chunk
