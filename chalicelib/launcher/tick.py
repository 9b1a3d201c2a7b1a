"""The tick: load the session, perform its state's effect, save what happened, until it must wait.

Rules

1. A tick claims the session first, by a conditional write. Who loses the race, or finds the session held or waiting,
   has nothing to do: whoever made it wait has also arranged for its wake-up. So a message that is delivered five
   times costs four reads.
2. A tick that loses a save reads the session again and goes on from there if it still holds it (the visitor pressed
   Stop), and lets go if not.
3. A tick killed at any instruction leaves a session whose lease ends within a minute; the schedule then drives it on,
   and the effect is repeated.
4. A tick performs the effects of its own lane (session/lanes.py). A session that comes into another lane is given back
   and sent there; a message that came to the wrong lane is passed on.
5. A pull that outlives its tick is handed over.
6. A ready session is looked at without a claim, by every message that comes; nothing but news is written
   (session/looks.py). If its notebook says that it will soon end because it is idle, one more look is arranged.
   It is read as it may have been a moment ago, at half the price: what comes of a version that is past is not saved.

The handover of a pull

A pull may take longer than a function lives. An engine cancels a pull when its client goes, and throws away even the
layers that were finished, unless another client has asked for the same image in the meantime and *joined*: then the
layers stay, and the pull goes on for that one. So a tick whose time ends offers its pull to another one, by a message
that names the first, and both pull for a moment:

    tick 1   claims ── pulls, saves progress ── offers ── pulls, saves progress ── loses a save: lets go, cuts its pull
                                                  │                                  ▲
    tick 2                                        └─▶ starts the same pull ── joins ─┴─ saves: holds it ── pulls on …

Tick 2 saves nothing before its pull has joined; until then the session is tick 1's, and if tick 2 fails it has changed
nothing, and the pull is offered once more; one tick at a time tries it (effects.py). Its first save then wins over
whatever tick 1 saves of the same pull meanwhile, and that save is what tells tick 1. So at every moment somebody's pull
has joined, and no layer is fetched twice.

Progress comes once a second, for as long as an endpoint likes, and each save costs money. So what comes too soon after
the last one saved (`progress_pause`, about as long as the session's page waits before it asks again) is held back, and
is saved when the pull is over if nothing newer was. A save is also how a tick learns that it has lost the session, to
another tick or to the visitor's Stop: it may take as long.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from typing import Final, Protocol

from chalicelib.aws.errors import StaleSession, StoreUnavailable
from chalicelib.aws.queues import Enqueue, Handover, TickMessage
from chalicelib.launcher.effects import Effects, seconds_of
from chalicelib.launcher.figures import failure_of, figures_of
from chalicelib.metrics import SILENT, Metrics
from chalicelib.session.events import (
    BuilderPresent,
    Effect,
    Event,
    ImagePresent,
    LookAtNotebook,
    NotebookAnswered,
    PullImage,
    PullProgressed,
)
from chalicelib.session.lanes import Lane, lane_of
from chalicelib.session.lease import EFFECT_SECONDS, claimed, is_held_by_another, released, with_lease
from chalicelib.session.machine import PullPatience, advance, is_news, next_effect, overdue
from chalicelib.session.values import Session, State
from chalicelib.tracing import UNTRACED, Span, Tracer

# What the pulls of a full lane need to be taken over one after another: in four rounds, as a fifth of the functions
# is for that (config.PULL_SLOTS); each takes as long as one function to start and join, and the other to let go.
HANDOVER_SECONDS: Final = 75.0
OFFER_AGAIN_SECONDS: Final = 3.0  # until the handover is offered once more
PROGRESS_SECONDS, LONGEST_PROGRESS_SECONDS, PROGRESS_SHARE = 3.0, 6.0, 0.1  # between two saves of a pull's progress
EARLY_SECONDS: Final = 1.0  # how much too early a message may come: clocks differ, and SQS counts whole seconds
QUEUE_LIMIT: Final = 60.0  # longer waits are left to the schedule, which costs nothing per session
IDLE_LIMIT: Final = 900.0  # by then the next look comes, and SQS delays no longer

log = logging.getLogger("homeport.launcher")


def progress_pause(age: float) -> float:
    """The least time between two saves of the progress of a pull that has been at work for so long, in seconds."""
    return min(max(PROGRESS_SECONDS, PROGRESS_SHARE * age), LONGEST_PROGRESS_SECONDS)


class Sessions(Protocol):
    """What a tick needs of chalicelib.aws.sessions.SessionStore."""

    def find(self, sid: str, *, consistent: bool = ...) -> Session | None: ...
    def load(self, sid: str) -> Session: ...
    def save(self, session: Session) -> None: ...


class Launcher:
    """Runs one tick in one lane. `time_left` says how many seconds its function still has; `name` is the tick's own."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        effects: Effects,
        enqueue: Enqueue,
        lane: Lane,
        pulls: PullPatience,
        clock: Callable[[], float],
        time_left: Callable[[], float],
        name: str,
        metrics: Metrics = SILENT,
        tracer: Tracer = UNTRACED,
    ) -> None:
        self._sessions = sessions
        self._effects = effects
        self._enqueue = enqueue
        self._lane = lane
        self._pulls = pulls
        self._clock = clock
        self._time_left = time_left
        self._name = name
        self._metrics = metrics
        self._tracer = tracer
        self._offer_below = HANDOVER_SECONDS

    def tick(self, message: TickMessage) -> None:
        """Drive the message's session until it waits, comes into another lane, or somebody else holds it.

        Raises StoreUnavailable when the table cannot be read or written; the message is then delivered again.
        """
        with closing(self._effects):
            self._tick(message)

    def _tick(self, message: TickMessage) -> None:
        session = self._find(message.sid)
        if session is None or session.next_attempt_at is None:
            return
        if session.state is State.READY and self._lane is Lane.WATCH and not session.newer:
            session = self._look(session, message)
        elif message.handover is not None and _still_offers(session, message.handover):
            session = self._accept(message.handover, session)
        else:
            session = self._claim(session)
        if session is not None:
            self._effects.end_tick(self._drive(session))

    def _find(self, sid: str) -> Session | None:
        """The session as it is stored, or as it was a moment ago if it was ready then (rule 6)."""
        if self._lane is Lane.WATCH:
            session = self._sessions.find(sid, consistent=False)
            if session is not None and session.state is State.READY:
                return session
        return self._sessions.find(sid)

    def _drive(self, session: Session) -> Session:
        """Perform effects for as long as the session is this tick's; gives the session as it is stored then."""
        while session.written_by == self._name:
            if lane_of(session) is not self._lane:
                self._change_lane(session)
                break
            effect = next_effect(session)
            if effect is None or session.next_attempt_at is None:
                break
            if session.next_attempt_at > self._clock():
                self._wait(session, session.next_attempt_at)
                break
            if self._time_left() < max(seconds_of(effect), EFFECT_SECONDS):
                self._continue_later(session)
                break
            if session.lease_expires_at <= self._clock():  # the save took so long that another tick may have claimed it
                session = self._save_or_reload(session, claimed(session, self._name, self._clock()))
                continue
            session = self._turn(session, effect)
        return session

    def _claim(self, session: Session) -> Session | None:
        """The session as it is stored once it is claimed, or None when there is nothing to do for this tick."""
        now = self._clock()
        wait = (session.next_attempt_at or 0.0) - now
        if wait > 0:
            if wait < EARLY_SECONDS:
                self._wait(session, now + wait)
            return None
        if is_held_by_another(session, self._name, now):
            return None
        if lane_of(session) is not self._lane:
            self._wake(session, 0.0)
            return None
        if session.newer:  # left alone until its time is over; then made ours by the same save that ends it
            return self._save_overdue(session)
        return self._save_or_reload(session, claimed(session, self._name, now))

    def _look(self, session: Session, message: TickMessage) -> Session:
        """Look at a ready session (rule 6); gives it as it is stored then."""
        ended = self._save_overdue(session)
        if ended is not None:
            return ended
        with closing(self._perform(LookAtNotebook(), session)) as events:
            for event in events:
                if isinstance(event, NotebookAnswered) and not message.idle:
                    self._look_when_idle(session.sid, event)
                if is_news(session, advance(session, event, self._clock())):
                    session, saved = self._save_event(session, event)
                    if not saved:
                        break
                elif failure_of(event):
                    self._report(session, event, session, self._clock())
        return session

    def _look_when_idle(self, sid: str, found: NotebookAnswered) -> None:
        delay = (found.idle_at or 0.0) - self._clock()
        if 0 < delay < IDLE_LIMIT:
            with suppress(StoreUnavailable):  # the next look comes all the same
                self._enqueue(TickMessage(sid, idle=True), lane=Lane.WATCH, delay=delay)

    def _turn(self, session: Session, effect: Effect) -> Session:
        """One effect: each of its events is saved as it happens."""
        ended = self._save_overdue(session)
        if ended is not None:
            return ended
        with closing(self._perform(effect, session)) as events:
            return self._save_events(session, events)

    def _accept(self, handover: Handover, session: Session) -> Session:
        """Join the pull of the tick that offers it, hold the session from then on, and pull to the end.

        The first event says whether the engine let this pull join. If it did not, nothing is saved.
        """
        ended = self._save_overdue(session)
        if ended is not None:
            return ended
        with closing(self._perform(PullImage(joins=True), session)) as events:
            joined = next(events)
            if not isinstance(joined, PullProgressed | ImagePresent | BuilderPresent):
                failure = failure_of(joined)
                log.info("session %s: not taken over: %s", session.sid, failure.code if failure else "not its turn")
                return self._sessions.load(session.sid)
            session, saved = self._save_event(session, joined)
            while not saved and _still_offers(session, handover):  # it saved progress of the same pull; ours counts
                session, saved = self._save_event(session, joined)
            return self._save_events(session, events) if saved else session

    def _perform(self, effect: Effect, session: Session) -> Generator[Event, None, None]:
        """Perform an effect, and have it recorded: with what is done of each event, and the last failure's code."""
        span = Span(type(effect).__name__, session=session.sid, state=str(session.state))
        with self._tracer.record(span), closing(self._effects.perform(effect, session)) as events:
            for event in events:
                if failure := failure_of(event):
                    span.code = failure.code
                yield event

    def _save_events(self, session: Session, events: Iterator[Event]) -> Session:
        """Save each event as it happens, but not all progress, until the last one or until a save is lost."""
        saved_at, held_back = -math.inf, list[Event]()
        for event in events:
            progresses = isinstance(event, PullProgressed)
            now = self._clock()
            if progresses and now - saved_at < progress_pause(now - session.entered_at):
                held_back = [event]
            else:
                for news in [event] if progresses else [*held_back, event]:
                    session, saved = self._save_event(session, news)
                    if not saved:
                        return session
                saved_at, held_back = self._clock(), []
            if progresses:
                self._offer_handover(session)
        return session

    def _save_overdue(self, session: Session) -> Session | None:
        """The session as it is stored once a deadline that has passed is in it; None while none has."""
        missed = overdue(session, self._clock(), self._pulls)
        return self._save_event(session, missed)[0] if missed else None

    def _save_event(self, session: Session, event: Event) -> tuple[Session, bool]:
        """The session as it is stored then, and whether the event is in it."""
        now = self._clock()
        after = with_lease(advance(session, event, now), self._name, self._lane, now)
        stored = self._save_or_reload(session, after)
        if stored is after:
            self._report(session, event, after, now)
        return stored, stored is after

    def _report(self, before: Session, event: Event, after: Session, now: float) -> None:
        """Tell the operator: a failure by its code, never by words that an endpoint may have chosen."""
        failure = failure_of(event)
        what = f"{type(event).__name__} {failure.code} in {before.state}" if failure else type(event).__name__
        log.info("session %s: %s -> %s", before.sid, what, after.state)
        figures, code = figures_of(before, event, after, now), failure.code if failure else ""
        self._metrics.put(figures, session=before.sid, state=str(before.state), code=code)

    def _save_or_reload(self, before: Session, after: Session) -> Session:
        """Return `after` once it is stored, or what is stored instead."""
        try:
            self._sessions.save(after)
        except StaleSession:
            stored = self._sessions.load(before.sid)
            return after if stored == after else stored  # the same: only the answer to the first attempt was lost
        return after

    def _offer_handover(self, session: Session) -> None:
        """Offer the pull to another tick when the time for it has come, and again when none accepted."""
        left = self._time_left()
        if left < self._offer_below:
            with suppress(StoreUnavailable):  # offered again at the next progress
                self._enqueue(TickMessage(session.sid, Handover(self._name)), lane=self._lane, delay=0.0)
                self._offer_below = left - OFFER_AGAIN_SECONDS

    def _wait(self, session: Session, until: float) -> None:
        delay = until - self._clock()
        if delay <= QUEUE_LIMIT:
            self._wake(session, max(delay, 0.0))

    def _change_lane(self, session: Session) -> None:
        """Send the session to its lane, given back if the save that brought it there did not do so."""
        if session.lease_expires_at > self._clock():
            self._continue_later(session)
        else:
            self._wait(session, session.next_attempt_at or 0.0)

    def _continue_later(self, session: Session) -> None:
        while session.written_by == self._name:  # it may have been changed by the visitor
            after = released(session)
            session = self._save_or_reload(session, after)
            if session is after:
                self._wake(session, 0.0)
                return

    def _wake(self, session: Session, delay: float) -> None:
        with suppress(StoreUnavailable):  # the schedule wakes it then, a minute late
            self._enqueue(TickMessage(session.sid), lane=lane_of(session), delay=delay)


def _still_offers(session: Session, handover: Handover) -> bool:
    """Say whether the tick that offers is still the one at work, and still at a pull; a later version's is its own."""
    at_work = session.written_by == handover.tick and not session.newer
    return at_work and next_effect(session) == PullImage()
