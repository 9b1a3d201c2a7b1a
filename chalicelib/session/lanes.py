"""The four lanes in which sessions are driven on: each is a queue and a function, and none waits for another.

1. A state belongs to one lane: `lane_of` says which. A tick performs the effects of its own lane; when a session comes
   into another one, the tick gives it back and sends it there.
2. *launch*: a visitor waits. *pull*: pulls that were admitted, and nothing else, as each holds its function for as long
   as it lasts (admission.py). *leave*: what takes a route, a container or a secret away; it never waits for a launch.
   *watch*: ready notebooks are looked at, and nobody waits.
3. What keeps one visitor from filling a lane is admission.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, assert_never

from chalicelib.session.values import Phase, Session, State


class Lane(StrEnum):
    """A queue and the function that takes its messages; the part of both names that tells the lanes apart."""

    LAUNCH = "launch"
    PULL = "pull"
    LEAVE = "leave"
    WATCH = "watch"


_READY_LANES: Final[Mapping[State, Lane]] = MappingProxyType(
    {
        State.READY: Lane.WATCH,
        State.REPUBLISHING: Lane.LAUNCH,
        State.SAVING: Lane.LAUNCH,  # a certificate is signed
        State.TIDYING: Lane.LAUNCH,
        State.FORGETTING: Lane.LEAVE,
    }
)


def lane_of(session: Session) -> Lane:
    """The lane whose function performs the session's next effect."""
    match session.phase:
        case Phase.LAUNCHING:
            return Lane.PULL if session.admitted else Lane.LAUNCH
        case Phase.READY:
            return _READY_LANES[session.state]
        case Phase.LEAVING | Phase.STOPPED:
            return Lane.LEAVE
        case _:
            assert_never(session.phase)


def queue_of(prefix: str, lane: Lane) -> str:
    """The name of a lane's queue, or its address, from what those of all lanes begin with."""
    return f"{prefix}-{lane}"
