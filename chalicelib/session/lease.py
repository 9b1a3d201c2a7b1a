"""One tick at a time holds a session.

Effects are safe to repeat, but a slow *create* of one tick could still arrive after the *remove* of another, and leave
a container that nobody knows of. So a tick claims the session before its first effect and renews the lease with every
save (docs/adr/0004). A tick that was killed is forgotten when its lease is over: an effect's own deadline is shorter
than the lease, so the hub sends nothing of that tick any more. A lease cannot bound what an engine still does with a
request that the hub has given up; for a creation machine.py does (rule 7), and the other calls leave nothing behind.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from chalicelib.session.lanes import Lane, lane_of
from chalicelib.session.values import Session

EFFECT_SECONDS: Final = 30.0  # the longest any other effect but a pull may take; `docker stop` alone takes 10
SAVE_SECONDS: Final = 90.0  # writing an image may; its progress renews the lease
LEASE_SECONDS: Final = 60.0  # above EFFECT_SECONDS with room for clocks that differ


def is_held_by_another(session: Session, tick: str, now: float) -> bool:
    """Say whether another tick than `tick` is at work on the session."""
    return session.lease_expires_at > now and session.written_by != tick


def claimed(session: Session, tick: str, now: float) -> Session:
    """The session held by `tick` for LEASE_SECONDS from now."""
    return replace(session, written_by=tick, lease_expires_at=now + LEASE_SECONDS, version=session.version + 1)


def released(session: Session) -> Session:
    """The session given back, for any tick to claim."""
    return replace(session, lease_expires_at=0.0, version=session.version + 1)


def with_lease(session: Session, tick: str, lane: Lane, now: float) -> Session:
    """The session about to be saved by `tick`: the lease renewed if it has more to do at once, else given back."""
    goes_on = session.next_attempt_at is not None and session.next_attempt_at <= now and lane_of(session) is lane
    return replace(session, written_by=tick, lease_expires_at=now + LEASE_SECONDS if goes_on else 0.0)
