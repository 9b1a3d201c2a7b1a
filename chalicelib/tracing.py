"""What an operator may see of how long the parts of the work take: spans, and who records them.

1. A span's fields are all that is ever told of a part: no payload, path, address, or name that somebody chose.
2. To record a span never fails, and never waits.
3. Nothing is recorded unless a tracer is handed in: chalicelib/aws/xray.py is one.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, Protocol


@dataclass(slots=True)
class Span:
    """A part of the work.

    `name` is an effect's, or a method and an address as its pattern; `session` the id, `state` as it was at the
    beginning, `code` that of a failure, `status` of an answer. Who does the work fills in what is known at its end.
    """

    name: str
    session: str = ""
    state: str = ""
    code: str = ""
    status: int | None = None


class Tracer(Protocol):
    """Records spans. Those that begin within another one's time, in the same thread, are its parts."""

    def record(self, span: Span) -> AbstractContextManager[None]:
        """Record the span from now until the block ends."""

    def belongs_to(self, sid: str) -> None:
        """Say which session the innermost span turned out to be about."""


class _Untraced:
    def record(self, span: Span) -> AbstractContextManager[None]:
        return nullcontext()

    def belongs_to(self, sid: str) -> None:
        """Do nothing."""


UNTRACED: Final[Tracer] = _Untraced()
