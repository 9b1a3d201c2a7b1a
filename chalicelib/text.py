"""Text that a stranger wrote, made fit to be shown: one printable line, no longer than its place takes.

Endpoints, registries, certificates, archives and visitors all send text that ends on a page, in a log or in a terminal.
One rule holds for all of it:

1. What cannot be seen goes: bidi controls, zero-width characters and other format characters, variation selectors, and
   the letters that show nothing. They reorder or disguise what stands beside them (Unicode TR 36, "Trojan Source").
2. Line breaks, control characters, unusual spaces, surrogates and unassigned characters become one ordinary space.
3. What is longer than the limit, in characters, is cut and ends with an ellipsis. A text of any length costs the same:
   no more than four times the limit is looked at.
"""

from __future__ import annotations

import unicodedata
from typing import Final

# What Unicode calls letters, marks and symbols but shows nothing: joiner, Hangul and Khmer fillers, blank Braille.
BLANK: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_SELECTORS: Final = (range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0), range(0x180B, 0x1810))


def one_line(text: str, limit: int) -> str:
    """Give `text` as one printable line of at most `limit` characters."""
    line = " ".join("".join(map(_shown, text[: 4 * limit])).split())
    if len(line) <= limit and len(text) <= 4 * limit:
        return line
    return line[: limit - 1] + "…"


def lines(text: str, *, most: int, limit: int) -> list[str]:
    """Give the last `most` lines of `text` that show something, each as `one_line` does."""
    found = [one_line(line, limit) for line in text.splitlines()[-4 * most :]]
    return [line for line in found if line][-most:]


def is_visible(text: str) -> bool:
    """Tell whether every character is printable and shows something, ordinary spaces included."""
    return all(_shown(character) == character for character in text)


def _shown(character: str) -> str:
    if character in BLANK or unicodedata.category(character) == "Cf":
        return ""
    if any(ord(character) in selectors for selectors in _SELECTORS):
        return ""
    return character if character.isprintable() else " "
