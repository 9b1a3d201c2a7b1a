"""The tick: load the session, perform its state's effect, save what happened, until it must wait.

Rules

1. A tick claims the session first, by a conditional write. Who loses the race, or finds the session held or waiting,
   has nothing to do: whoever made it wait has also arranged for its wake-up. So a message that is delivered five
   times costs four reads.
2. A tick that loses a save reads the session again and goes on from there if it still holds it (the visitor pressed
   Stop), and lets go if not.
3. A tick killed at any instruction leaves a session whose lease ends within a minute; the schedule then drives it on,
   and the effect is repeated.
4. A pull is handed on like a baton: shortly before its time is up, a tick calls its successor; the successor starts the
   same pull, and claims the session when the engine has let it join, whatever the first has saved meanwhile; the first
   notices at its next save and lets go. A successor that cannot join changes nothing, and another one is called.
   The engine keeps finished layers as long as one of them is there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from typing import Final, Protocol

from chalicelib.errors import StaleSession, StoreUnavailable
from chalicelib.events import Effect, EnsureImage, Event, ImagePresent, PullProgressed
from chalicelib.machine import (
    EFFECT_SECONDS,
    Session,
    advance,
    claimed,
    held_by_another,
    held_on,
    next_effect,
    overdue,
)
from chalicelib.session_store import SessionStore
from chalicelib.world import World

BATON_SECONDS: Final = EFFECT_SECONDS + 15.0  # what a successor needs to start, connect and join the pull
CALL_SECONDS: Final = 15.0  # until another successor is called
EARLY_SECONDS: Final = 1.0  # how much too early a message may come: clocks differ, and SQS counts whole seconds
QUEUE_LIMIT: Final = 60.0  # longer waits are left to the schedule, which costs nothing per session

log = logging.getLogger("homeport.launcher")


class Enqueue(Protocol):
    """Puts "advance session X" on the queue; `takeover` names the holder of a pull to take over, or is empty."""

    def __call__(self, sid: str, *, delay: float, takeover: str = "") -> None: ...


class Launcher:
    """Runs one tick. `time_left` says how many seconds its function still has; `holder` is the tick's own name."""

    def __init__(
        self,
        *,
        store: SessionStore,
        world: World,
        enqueue: Enqueue,
        clock: Callable[[], float],
        time_left: Callable[[], float],
        holder: str,
    ) -> None:
        self._store = store
        self._world = world
        self._enqueue = enqueue
        self._clock = clock
        self._time_left = time_left
        self._holder = holder
        self._calls_below = BATON_SECONDS

    def tick(self, sid: str, *, takeover: str = "") -> None:
        """Drive the session until it waits, is stopped, or somebody else holds it.

        Raises StoreUnavailable when the table cannot be read or written; the message is then delivered again.
        """
        session = self._claim(sid, takeover)
        while session is not None and session.holder == self._holder:
            effect = next_effect(session)
            if effect is None or session.due_at is None:
                return
            if session.due_at > self._clock():
                self._wait(session, session.due_at)
                return
            if self._time_left() < EFFECT_SECONDS:
                self._continue_later(session)
                return
            session = self._turn(session, effect)

    def _claim(self, sid: str, takeover: str) -> Session | None:
        session = self._store.find(sid)
        now = self._clock()
        if session is None or session.due_at is None:
            return None
        if takeover and session.holder == takeover and next_effect(session) == EnsureImage():
            return self._turn(session, EnsureImage(), heir_of=takeover)
        if session.due_at > now:
            if session.due_at - now < EARLY_SECONDS:
                self._wait(session, session.due_at)
            return None
        if held_by_another(session, self._holder, now):
            return None
        return self._saved(session, claimed(session, self._holder, now))

    def _turn(self, session: Session, effect: Effect, *, heir_of: str = "") -> Session:
        """One effect: each of its events is saved as it happens."""
        missed = overdue(session, self._clock())
        if missed is not None:
            return self._saved(session, self._after(advance(session, missed, self._clock())))
        with closing(self._world.perform(effect, session)) as events:
            for event in events:
                if session.holder == heir_of and not isinstance(event, PullProgressed | ImagePresent):
                    return session
                session, told = self._told(session, event, heir_of)
                if not told:
                    return session
                log.info("session %s: %s -> %s", session.sid, type(event).__name__, session.state)
                if isinstance(event, PullProgressed):
                    self._hand_on(session)
        return session

    def _told(self, session: Session, event: Event, heir_of: str) -> tuple[Session, bool]:
        """The session as it is stored then, and whether the event is in it.

        An heir wins over what its predecessor saves of the same pull.
        """
        while True:
            after = self._after(advance(session, event, self._clock()))
            saved = self._saved(session, after)
            if saved.holder != heir_of or saved.state is not session.state:
                return saved, saved is after
            session = saved

    def _after(self, session: Session) -> Session:
        return held_on(replace(session, holder=self._holder), self._clock())

    def _saved(self, before: Session, after: Session) -> Session:
        """Return `after` once it is stored, or what is stored instead."""
        try:
            self._store.save(after)
        except StaleSession:
            stored = self._store.load(before.sid)
            return after if stored == after else stored  # the same: only the answer to the first attempt was lost
        return after

    def _hand_on(self, session: Session) -> None:
        left = self._time_left()
        if left < self._calls_below:
            with suppress(StoreUnavailable):  # called again at the next progress
                self._enqueue(session.sid, delay=0.0, takeover=self._holder)
                self._calls_below = left - CALL_SECONDS

    def _wait(self, session: Session, due_at: float) -> None:
        delay = due_at - self._clock()
        if delay <= QUEUE_LIMIT:
            self._wake(session, max(delay, 0.0))

    def _continue_later(self, session: Session) -> None:
        released = replace(session, held_until=0.0, version=session.version + 1)
        if self._saved(session, released) is released:
            self._wake(session, 0.0)

    def _wake(self, session: Session, delay: float) -> None:
        with suppress(StoreUnavailable):  # the schedule wakes it then, a minute late
            self._enqueue(session.sid, delay=delay)
