"""How often a ready session is looked at, without a word being written down for it.

A look that finds nothing new writes nothing, so the time of the next one cannot be stored. It follows from the clock
instead: ready sessions stand in rings of one-minute places, each at the place that its id gives it, and every minute
the schedule sends those to their lane whose place the minute is. The small ring comes round every five minutes; who
has been steady for an hour stands in the large one, of fifteen. That also spreads the looks evenly, and the index over
as many partitions as there are places.

Besides, a session is looked at when somebody asks for it (its page is opened, the proxy finds it silent), but only once
in ASKED_SECONDS; when its notebook is to end because it is idle; and when it expires.
"""

from __future__ import annotations

from typing import Final

from chalicelib.session.values import Session

OFTEN: Final = 5  # minutes from one look to the next,
SELDOM: Final = 15  # and for a steady session
ASKED_SECONDS: Final = 60.0  # at most one look that is asked for in so long


def ring_of(session: Session) -> str:
    """The ring a ready session stands in, and its place there: the name under which the schedule finds it."""
    place = int(session.sid, 32)  # an id is a number to the base of 32
    return _name("seldom", place, SELDOM) if session.steady else _name("often", place, OFTEN)


def rings_at(now: float) -> tuple[str, ...]:
    """The places whose minute `now` (epoch seconds) is in."""
    minute = int(now // 60)
    return _name("often", minute, OFTEN), _name("seldom", minute, SELDOM)


def _name(ring: str, place: int, places: int) -> str:
    return f"{ring}-{place % places}"
