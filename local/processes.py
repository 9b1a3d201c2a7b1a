"""Children of the one-machine stack: start one with its log in a folder, wait until it answers, stop it by its own id.

1. A child never outlives its parent: it is started under `setpriv --pdeathsig TERM` (prctl(2), PR_SET_PDEATHSIG), so
   even a parent that is killed leaves nothing behind. A parent that was killed before that was in place is noticed by
   the child, which has another parent by then. The kernel ties that signal to the *thread* that started the
   child: start children from a thread that lives as long as they should.
2. A child has a session of its own, so Ctrl-C at the terminal reaches the parent alone, which stops its children in
   order.
3. Only what was started here is ever signalled: the child's own id, and at the end its own process group.
4. What a child writes is for its own user (umask 077), its log too. No child is told of a Docker engine by
   environment: those that need one are told in other ways, and the embedded AWS would start containers on it.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local import private

LOOPBACK: Final = "127.0.0.1"
POLL_INTERVAL: Final = 0.02  # seconds between two looks; a look costs microseconds
TAIL_LINES: Final = 12
_UNLESS_ORPHANED: Final = 'test "$PPID" = "$0" && exec "$@"'


class StackError(Exception):
    """A part of the one-machine stack did not start or stop; the message says which and what its log says."""


@dataclass(frozen=True, slots=True)
class Child:
    """A running program and the file its output goes to."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def alive(self) -> bool:
        """Tell whether the program still runs."""
        return self.process.poll() is None

    def log_tail(self) -> str:
        """Give the last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:])


def start(
    name: str,
    command: Sequence[str | Path],
    *,
    folder: Path,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    descriptors: Sequence[int] = (),
) -> Child:
    """Start `command` with its output in `folder`/`name`.log; raises StackError when this machine has no such program.

    `environ` is the child's whole environment; None hands on the parent's. `descriptors` are files to hand on.
    """
    if shutil.which(str(command[0])) is None:
        raise StackError(
            f"{name} needs {command[0]}, which this machine does not have; `make setup` as root installs it"
        )
    private.make_folder(folder)
    log = folder / f"{name}.log"
    tied = ["setpriv", "--pdeathsig", "TERM", "--", "sh", "-c", _UNLESS_ORPHANED, str(os.getpid())]
    with private.open_file(log, "ab") as output:
        process = subprocess.Popen(
            [*tied, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=without_docker(os.environ if environ is None else environ),
            cwd=cwd,
            start_new_session=True,
            umask=private.UMASK,
            pass_fds=descriptors,
        )
    return Child(name, process, log)


def without_docker(environ: Mapping[str, str]) -> dict[str, str]:
    """Give an environment without the Docker engine, and Docker's settings, of whoever runs this."""
    return {name: value for name, value in environ.items() if not name.startswith("DOCKER_")}


def stop(child: Child, *, patience: float = 10.0) -> None:
    """End the child: TERM, `patience` seconds, then KILL for it and what it left in its process group."""
    if child.alive():
        child.process.send_signal(signal.SIGTERM)
        try:
            child.process.wait(patience)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # the group is empty, as it should be


@contextmanager
def running(
    name: str,
    command: Sequence[str | Path],
    *,
    folder: Path,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    descriptors: Sequence[int] = (),
    patience: float = 10.0,
) -> Iterator[Child]:
    """Run `command` for as long as the block lasts; see `start` and `stop`."""
    child = start(name, command, folder=folder, environ=environ, cwd=cwd, descriptors=descriptors)
    try:
        yield child
    finally:
        stop(child, patience=patience)


def wait_until(ready: Callable[[], bool], *, what: str, deadline: float, child: Child | None = None) -> None:
    """Look until `ready()` is true; raises StackError after `deadline` seconds, or at once when `child` ended."""
    until = time.monotonic() + deadline
    while not ready():
        if child is not None and not child.alive():
            raise StackError(f"{child.name} ended with status {child.process.returncode}:\n{child.log_tail()}")
        if time.monotonic() > until:
            tail = f":\n{child.log_tail()}" if child is not None else ""
            raise StackError(f"{what} did not happen within {deadline:.0f} s{tail}")
        time.sleep(POLL_INTERVAL)


def wait_for_port(port: int, *, child: Child, deadline: float = 20.0, host: str = LOOPBACK) -> None:
    """Wait until something accepts connections on `port`; raises StackError."""
    wait_until(
        lambda: accepts((host, port)), what=f"{child.name} listening on port {port}", deadline=deadline, child=child
    )


def accepts(address: tuple[str, int] | Path) -> bool:
    """Tell whether a TCP port, or a unix socket (a path), takes a connection."""
    family = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(address) if isinstance(address, Path) else address)
        except OSError:
            return False
    return True


class SocketFileConnection(http.client.HTTPConnection):
    """HTTP through a unix socket; `timeout` in seconds."""

    def __init__(self, path: Path, *, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        """Connect to the socket's file."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def free_port(preferred: int = 0) -> int:
    """Give a TCP port nobody listens on at 127.0.0.1: the preferred one when it is free, else any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, preferred))
        except OSError:
            probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
