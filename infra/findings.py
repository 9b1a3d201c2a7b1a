"""What was looked at and found, by `make preflight` and `make doctor`, and how it is mended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

AGAIN: Final = "Run the same command again once that is fixed"  # which every command that fails may be
MARKS: Final[Mapping[bool | None, str]] = {True: "ok", None: "could be better", False: "WRONG"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `good` is None for what works and could be better; `mend` says how, "" if it is good."""

    good: bool | None
    what: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{MARKS[self.good]}: {self.what}" + (f"\n    {self.mend}" if self.mend else "")
