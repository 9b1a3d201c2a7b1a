"""An engine's socket in front of an engine, which holds requests back until it is told to pass them on.

`HeldEngine(socket, behind)` listens at `socket` and passes each request on to the engine's socket `behind`, over a
connection of its own. While `hold` names one, such requests are held back until `release`, also when whoever sent them
has hung up: an engine that takes its time. Threads end when the block does.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self


class HeldEngine:
    """See the module. `held` is set while at least one request is held back."""

    def __init__(self, path: Path, behind: Path) -> None:
        self.socket = path
        self.held = threading.Event()
        self._behind = behind
        self._holds: re.Pattern[str] | None = None
        self._released = threading.Event()
        self._threads: list[threading.Thread] = []
        self._held_threads: list[threading.Thread] = []
        self._peers: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()

    def hold(self, request: str) -> None:
        """Hold back requests like this: method and path without the API version, a regular expression."""
        self._released.clear()
        self._holds = re.compile(request)

    def release(self) -> None:
        """Pass on what was held back, and wait until the engine has answered all of it."""
        self._holds = None
        self._released.set()
        for thread in self._held_threads:
            thread.join()
        self._held_threads.clear()
        self.held.clear()

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:  # the first is the one that accepts: no more are added after it
            for peer in self._peers:
                _shut(peer)
            thread.join()
        self._listener.close()

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self._peers.append(peer)
            self._start(self._serve, peer)

    def _serve(self, peer: socket.socket) -> None:
        with peer, peer.makefile("rb") as stream:
            head, body = _read_request(stream)
            if not head:
                return
            if self._holds is not None and self._holds.fullmatch(_request_line(head)):
                self._held_threads.append(threading.current_thread())
                self.held.set()
                self._released.wait()
            with socket.socket(socket.AF_UNIX) as engine:
                engine.connect(str(self._behind))
                engine.sendall(_closing(head) + body)
                while part := engine.recv(65536):
                    _send(peer, part)


def _read_request(stream: BinaryIO) -> tuple[bytes, bytes]:
    """Read a request's head, empty if there is none, and its body, which has a length."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return b"", b""
        head += line
    length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
    return head, stream.read(int(length[1]) if length else 0)


def _request_line(head: bytes) -> str:
    method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
    return f"{method} {re.sub(r'^/v1[.][0-9]+', '', target.partition('?')[0])}"


def _closing(head: bytes) -> bytes:
    """The head with the wish that the connection ends with the answer."""
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([lines[0], b"Connection: close", *lines[1:]])


def _send(peer: socket.socket, part: bytes) -> None:
    try:
        peer.sendall(part)
    except OSError:
        return  # whoever asked has hung up; the engine goes on


def _shut(peer: socket.socket) -> None:
    try:
        peer.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
