"""The maps on disk: what a HAProxy process starts with.

A file is replaced in one rename, so a reader sees the old table or the new one, never a part.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from proxy.agent.table import Key, Map


def read(folder: Path) -> dict[Key, str]:
    """Read both maps; a file that is not there is empty, a line that is not an entry is skipped."""
    table: dict[Key, str] = {}
    for name in Map:
        try:
            lines = (folder / name).read_text(encoding="ascii", errors="replace").splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            key, separator, value = line.partition(" ")
            if separator and value and " " not in value:
                table[name, key] = value
    return table


def write(folder: Path, table: Mapping[Key, str]) -> None:
    """Write both maps."""
    for name in Map:
        lines = (f"{key} {value}\n" for (table_name, key), value in table.items() if table_name is name)
        temporary = folder / f".{name}.new"
        with open(temporary, "w", encoding="ascii", opener=_private) as file:
            file.writelines(lines)
        temporary.replace(folder / name)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
