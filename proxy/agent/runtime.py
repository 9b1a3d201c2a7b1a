"""HAProxy's runtime socket: the one way in which maps of the running HAProxy are changed.

1. One connection per batch: the process that answers `show info` is the one that is changed. A batch for another
   process than the last one says so, because that one has read its maps from disk.
2. A table is swapped in one transaction (`prepare map` … `commit map`), so no request sees half of it.
3. Every reply is read. One that is not understood raises HaproxyUnavailable; the caller sends whole tables next.

Source: HAProxy 2.6 management guide, section 9.3.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from proxy.agent.plan import Command, Delete, Map, Put, Replace

DEADLINE: Final = 5.0  # seconds for one read; HAProxy answers in microseconds
CHUNK: Final = 12_000  # bytes of payload per command; HAProxy's buffer takes 16,384
_PROMPT: Final = b"\n> "
_PAYLOAD_PROMPTS: Final = re.compile(r"\A(\+ )+")  # one for each line of a payload


class HaproxyUnavailable(Exception):
    """HAProxy is not there, or did not understand."""


class RuntimeSocket:
    """The runtime socket at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        """Open one connection; raises HaproxyUnavailable."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DEADLINE)
            try:
                connection.connect(str(self._path))
                yield Connection(connection)
            except OSError as error:
                raise HaproxyUnavailable(f"HAProxy's socket: {error.strerror or error}") from error


class Connection:
    """One conversation with one HAProxy process."""

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
        """Carry out the commands in their order."""
        for command in commands:
            match command:
                case Put(name, key, value):
                    self._put(name, key, value)
                case Delete(name, key):
                    self._expect(f"del map {name} {key}", "", "Key not found")
                case Replace(name, entries):
                    self._replace(name, entries)

    def table(self, name: Map) -> dict[str, str]:
        """Read a map as HAProxy holds it."""
        lines = (line.split(" ") for line in self.ask(f"show map {name}").splitlines() if line)
        return {key: value for _, key, value in lines}

    def ask(self, command: str) -> str:
        """Send one command and return the reply."""
        self._socket.sendall(command.encode("ascii") + b"\n")
        return self._read()

    def _put(self, name: Map, key: str, value: str) -> None:
        if self._expect(f"set map {name} {key} {value}", "", "entry not found"):
            self._expect(f"add map {name} {key} {value}", "")

    def _replace(self, name: Map, entries: Mapping[str, str]) -> None:
        reply = self.ask(f"prepare map {name}")
        version = re.search(r"New version created: (\d+)", reply)
        if version is None:
            raise HaproxyUnavailable(f"HAProxy did not prepare {name}: {reply}")
        for payload in _chunks(f"{key} {value}\n" for key, value in entries.items()):
            self._expect(f"add map @{version[1]} {name} <<\n{payload}", "")
        self._expect(f"commit map @{version[1]} {name}", "")

    def _expect(self, command: str, *replies: str) -> str:
        """Send a command whose reply must be, or begin with, one of `replies`."""
        reply = self.ask(command)
        if not any(reply.startswith(known) if known else reply == "" for known in replies):
            raise HaproxyUnavailable(f"HAProxy did not understand: {reply[:200]}")
        return reply

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
