"""Files and folders that no other user of the machine can read: 0600 and 0700, from their first byte on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any, Final

UMASK: Final = 0o077


def make_folder(path: Path) -> None:
    """Make the folder, or take an existing one away from all other users."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)


def open_file(path: Path, mode: str) -> IO[Any]:
    """Open a file as `open` does; a file that was there before is taken away from all other users."""

    def private(name: str, flags: int) -> int:
        descriptor = os.open(name, flags, 0o600)
        os.fchmod(descriptor, 0o600)
        return descriptor

    return open(path, mode, opener=private)


def write_file(path: Path, content: bytes) -> None:
    """Write a whole file."""
    with open_file(path, "wb") as file:
        file.write(content)
