"""Looks for secrets in what an error shows: message, repr, traceback, and everything it is chained to."""

from __future__ import annotations

import base64
import traceback
from dataclasses import dataclass, field

WINDOW = 12  # characters; shorter pieces of base64 or hex are in any text by chance


@dataclass(frozen=True, slots=True)
class Secrets:
    """Key material in every spelling that might be shown."""

    spellings: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, *pems: bytes) -> Secrets:
        """Take private keys as PEM."""
        spellings = []
        for pem in pems:
            body = b"".join(line for line in pem.splitlines() if not line.startswith(b"-----"))
            der = base64.b64decode(body)
            spellings += [pem.decode(), body.decode(), der.hex(), der.hex().upper(), repr(der), der.decode("latin-1")]
        return cls(tuple(spellings))

    def assert_not_in(self, error: BaseException) -> None:
        """Check an error and all it is chained to."""
        assert error.__cause__ is None
        assert error.__context__ is None
        self.assert_not_in_text(f"{error!r}\n{error.args!r}\n{vars(error)!r}")
        self.assert_not_in_text("".join(traceback.format_exception_only(error)))

    def assert_not_in_text(self, text: str) -> None:
        """Check that no piece of a secret stands in a text."""
        pieces = {text[i : i + WINDOW] for i in range(len(text) - WINDOW + 1)}
        for spelling in self.spellings:
            for piece in pieces:
                assert piece not in spelling or piece.strip("-") in "-----BEGIN PRIVATE KEY-----", "a secret is shown"
