"""What running processes write, as the kernel sees it: strace(1) attached to them, and its output taken apart.

Only calls that open, make or write something are traced. `-xx` writes every string in hex, so that nothing is lost, and
`-y` says what a descriptor stands for. A call that another thread interrupts has its arguments in its first line.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from local.processes import wait_until

OPENING = ("open", "openat", "openat2", "creat")
MAKING = (
    "mkdir", "mkdirat", "mknod", "mknodat", "link", "linkat", "symlink", "symlinkat", "rename", "renameat", "renameat2",
    "truncate", "ftruncate",
)  # fmt: skip
WRITING = (
    "write", "writev", "pwrite64", "pwritev", "pwritev2", "sendto", "sendmsg", "sendmmsg", "sendfile", "splice",
    "vmsplice", "copy_file_range",
)  # fmt: skip
OTHERS = ("memfd_create", "execve", "execveat", "io_uring_setup")
LONGEST = 1 << 22  # bytes of a string that are shown; nothing here writes as much at once

_LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_DESCRIPTOR = re.compile(r"\d+<((?:\\x[0-9a-f]{2})*)>")


@dataclass(frozen=True, slots=True)
class Call:
    """One system call: its name, what its descriptor stands for, the strings among its arguments, and the flags."""

    name: str
    descriptor: str
    strings: tuple[bytes, ...] = field(repr=False)
    flags: str

    @property
    def path(self) -> str:
        """The path of a call that takes one."""
        return self.strings[0].decode(errors="replace") if self.strings else self.descriptor

    @property
    def makes_a_file(self) -> bool:
        """Whether it opens a path for writing, or makes or changes one."""
        if self.name in OPENING:
            return (
                self.name == "creat" or re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC|APPEND|TMPFILE)", self.flags) is not None
            )
        return self.name in MAKING

    @property
    def in_memory(self) -> bool:
        """Whether it writes to an anonymous file in memory (memfd_create(2))."""
        return self.descriptor.startswith("/memfd:")

    @property
    def to_a_file(self) -> bool:
        """Whether it writes to what has a path, devices left out."""
        return self.descriptor.startswith("/") and not self.in_memory and not self.descriptor.startswith("/dev/")


@contextmanager
def traced(pids: Mapping[str, int], folder: Path) -> Iterator[None]:
    """Trace processes, all their threads and children, into `folder`/<name>.strace; skips where that cannot be."""
    if shutil.which("strace") is None:
        pytest.skip("needs `apt-get install strace`")
    with ExitStack() as traces:
        for name, pid in pids.items():
            traces.enter_context(_attached(pid, folder / f"{name}.strace"))
        yield


@contextmanager
def _attached(pid: int, output: Path) -> Iterator[None]:
    complaints = output.with_suffix(".stderr")
    command = ["strace", *options(output), "-p", str(pid)]
    with complaints.open("wb") as errors, subprocess.Popen(command, stderr=errors) as tracer:
        try:
            wait_until(lambda: tracer.poll() is not None or _is_traced(pid), what="strace attaching", deadline=20)
            if tracer.poll() is not None:
                pytest.skip(f"needs the right to trace processes (CAP_SYS_PTRACE): {complaints.read_text()}")
            yield
        finally:
            if tracer.poll() is None:
                tracer.send_signal(signal.SIGINT)
            tracer.wait(20)


def options(output: Path) -> list[str]:
    """The options of strace."""
    calls = ",".join((*OPENING, *MAKING, *WRITING, *OTHERS))
    return ["-f", "-y", "-xx", "-s", str(LONGEST), "-e", f"trace={calls}", "-e", "signal=none", "-o", str(output)]


def _is_traced(pid: int) -> bool:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return all("TracerPid:\t0\n" not in (task / "status").read_text() for task in tasks)


def calls_of(output: Path) -> list[Call]:
    """Take the output apart."""
    found = []
    for line in output.read_text().splitlines():
        match = _LINE.match(line)
        if match:
            found.append(_call(match[1], match[2]))
    return found


def _call(name: str, arguments: str) -> Call:
    first = _DESCRIPTOR.match(arguments)
    strings = _STRING.findall(arguments)
    assert not any(cut for _, cut in strings), "strace cut a string"
    plain = _STRING.sub("", arguments)
    return Call(
        name,
        _text(first[1]) if first else "",
        tuple(_bytes(text) for text, _ in strings),
        plain.partition(" = ")[0],
    )


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _text(text: str) -> str:
    return os.fsdecode(_bytes(text))


def written(calls: Sequence[Call]) -> dict[str, bytes]:
    """All that was written, by where it went: a path, a socket, a pipe, memory; in the order in which it was."""
    found: dict[str, bytearray] = {}
    for call in calls:
        if call.name in WRITING:
            found.setdefault(call.descriptor, bytearray()).extend(b"".join(call.strings))
    return {place: bytes(data) for place, data in found.items()}
