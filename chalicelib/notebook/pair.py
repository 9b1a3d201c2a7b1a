"""A certificate with its key, and the one form in which such a pair is stored: `{"certificate": PEM, "key": PEM}`.

The hub's parameters in SSM have this form, and so have the proxy's variables. Where only the certificate is needed the
key is left out, and is empty here. No library but Python's own, so that the proxy needs none to read it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Self

from chalicelib.errors import BadConfiguration


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, both PEM; the key is empty where it is not kept."""

    certificate: bytes
    key: bytes = field(default=b"", repr=False)

    def to_json(self) -> str:
        """Serialise for storing."""
        parts = {"certificate": self.certificate, "key": self.key}
        return json.dumps({name: pem.decode("ascii") for name, pem in parts.items() if pem})

    @classmethod
    def from_json(cls, text: str, *, name: str, with_key: bool = True) -> Self:
        """Read what `to_json` wrote; raises BadConfiguration, which names `name` and holds nothing of the text.

        Nor does its traceback: half a pair may be a whole key, and an error reporter shows the frames' variables.
        """
        wanted = ("certificate", "key") if with_key else ("certificate",)
        parts = _strings(text)
        if all(parts.get(part) for part in wanted):
            return cls(**{part: parts[part].encode("ascii") for part in wanted})
        del text, parts
        shape = ", ".join(f'"{part}": PEM' for part in wanted)
        raise BadConfiguration(f"{name} must be JSON: {{{shape}}}")


def _strings(text: str) -> dict[str, str]:
    """Read the ASCII strings of a JSON object, none of anything else; a JSONDecodeError would carry the text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(value, dict):
        return {}
    return {name: part for name, part in value.items() if isinstance(part, str) and part.isascii()}
