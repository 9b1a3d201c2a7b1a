"""Who may launch at the moment: the door that the operator closes, and rates that nobody exceeds.

A rate is a bucket of tokens: a launch takes one, and they come back evenly, all of them in `seconds`. What is stored is
one number, the moment at which the bucket will be full again. It is at most `seconds` ahead; each token moves it on by
one token's share. (This is the generic cell rate algorithm of ITU-T I.371.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HOUR: Final = 3600.0
SLACK: Final = 1e-6  # of a token's share, which is what adding numbers may lose
COUNT_SECONDS: Final = 600.0  # for which a count of sessions is believed; the schedule counts each minute


@dataclass(frozen=True, slots=True)
class Door:
    """What the operator says ("": nothing, the door is open), and how many `sessions` there were at `counted_at`."""

    message: str = ""
    sessions: int = 0
    counted_at: float = 0.0

    def holds(self, limit: int | None, now: float) -> bool:
        """Say whether there are as many sessions as are allowed; None allows any number."""
        return limit is not None and self.sessions >= limit and now < self.counted_at + COUNT_SECONDS


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in so many seconds, all of them at once if need be."""

    count: int
    seconds: float = HOUR

    @property
    def share(self) -> float:
        """Seconds until a token that was taken is available again."""
        return self.seconds / self.count

    def latest(self, now: float) -> float:
        """The latest moment at which a bucket may be full that has a token now."""
        return now + self.seconds - self.share * (1 - SLACK)

    def taken(self, full_at: float, now: float) -> tuple[float, float]:
        """Take a token of a bucket that is full at `full_at`: when it is full then, and 0.

        If it has none, unchanged, and in how many seconds it will have one.
        """
        full_at = max(full_at, now)
        if full_at <= self.latest(now):
            return full_at + self.share, 0.0
        return full_at, full_at + self.share - now - self.seconds
