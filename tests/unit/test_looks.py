"""Looks at ready sessions: when they come, what they ask, and that they write nothing but news."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from chalicelib.aws.errors import StoreUnavailable
from chalicelib.aws.queues import TickMessage
from chalicelib.config import Config
from chalicelib.engine.errors import EndpointTimeout
from chalicelib.launcher.effects import IDLE_SLACK
from chalicelib.launcher.tick import IDLE_LIMIT
from chalicelib.session import events as e
from chalicelib.session.lanes import Lane
from chalicelib.session.looks import OFTEN, SELDOM, ring_of, rings_at
from chalicelib.session.machine import STEADY_SECONDS
from chalicelib.session.values import Session, State
from tests.builders import NOW, a_session
from tests.launcher_twins import QueueTwin, SessionStoreTwin
from tests.unit.test_launcher import Stage

IDLE_LIFETIME = Config.from_environ({}).idle_lifetime


def ready(**parts: object) -> Stage:
    """A notebook that is ready, and nothing written since."""
    stage = Stage(**parts)  # type: ignore[arg-type]
    stage.run(State.READY)
    stage.store.history.clear()
    stage.engine.deadlines.clear()
    return stage


# ── when ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("steady", "minutes"), [(False, OFTEN), (True, SELDOM)])
@pytest.mark.parametrize("name", ["lessons", "work", "another"])
def test_a_ready_session_has_its_minute_in_every_turn_of_its_ring(name: str, steady: bool, minutes: int) -> None:
    session = a_session(name=name, state=State.READY, steady=steady)
    looks = [minute for minute in range(60) if ring_of(session) in rings_at(NOW + 60 * minute)]
    assert len(looks) == 60 // minutes
    assert {later - look for look, later in pairwise(looks)} == {minutes}


def test_sessions_are_spread_over_the_ring() -> None:
    rings = [ring_of(a_session(name=str(number), state=State.READY, steady=True)) for number in range(600)]
    assert len(set(rings)) == SELDOM
    assert max(map(rings.count, set(rings))) < 3 * 600 / SELDOM


# ── what is written ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_look_that_finds_nothing_new_writes_nothing_and_opens_no_credentials() -> None:
    stage = ready()
    opened = stage.credentials.get
    stage.credentials.get = None  # type: ignore[method-assign,assignment]  # whoever opens them now, fails
    for _ in range(5):
        stage.look()
    stage.credentials.get = opened  # type: ignore[method-assign]
    assert stage.store.history == []
    assert stage.queue.sent == []
    assert stage.engine.deadlines == []


def test_a_message_that_comes_five_times_at_once_looks_and_writes_nothing() -> None:
    stage = ready()
    for _ in range(5):
        stage.tick()
    assert stage.store.history == []


def test_who_was_steady_for_an_hour_is_looked_at_less_often_and_that_is_written_once() -> None:
    stage = ready()
    stage.clock.now += STEADY_SECONDS
    for _ in range(5):
        stage.look()
    assert [session.steady for session in stage.store.history] == [True]


@pytest.mark.parametrize("refuses", [None, EndpointTimeout("The endpoint does not answer")])
def test_a_dark_notebook_is_written_down_once_and_its_return_once(refuses: Exception | None) -> None:
    stage = ready()
    stage.store.sessions[stage.sid] = replace(stage.session, steady=True)
    stage.silent, stage.engine.refuses = True, refuses
    for _ in range(5):
        stage.look()
    (told,) = stage.store.history
    assert told.last_problem is not None
    assert (told.message, told.steady) == (told.last_problem.message, False)
    stage.silent, stage.engine.refuses = False, None
    for _ in range(5):
        stage.look()
    assert [session.message for session in stage.store.history[1:]] == ["Your notebook is ready"]
    assert stage.session.last_problem is None


def test_a_failure_of_the_hubs_own_stores_is_no_news_of_a_notebook() -> None:
    def unanswered(pool: object, *, consistent: bool) -> dict[str, object]:
        raise StoreUnavailable("The hub's table did not answer")

    stage = ready()
    stage.store.sessions[stage.sid] = steady = replace(stage.session, steady=True)
    held, stage.slots.held = stage.slots.held, unanswered  # type: ignore[method-assign,assignment]
    stage.look()
    stage.slots.held = held  # type: ignore[method-assign]
    stage.look()
    assert stage.store.history == []
    assert (stage.session, stage.engine.deadlines) == (steady, [])


def test_who_is_dark_for_an_hour_is_looked_at_less_often() -> None:
    stage = ready(silent=False)
    stage.silent = True
    stage.look()
    stage.clock.now += STEADY_SECONDS
    stage.look()
    assert stage.session.steady
    assert stage.session.last_problem is not None


def test_a_notebook_whose_credentials_are_forgotten_is_asked_itself_and_nobody_else() -> None:
    stage = ready()
    stage.ask_for(e.ForgetRequested())
    stage.run(State.READY)
    stage.engine.deadlines.clear()
    stage.silent = True
    stage.look()
    assert stage.session.state is State.READY
    assert stage.session.last_problem is not None
    assert stage.engine.deadlines == []


def test_a_session_that_the_version_before_stored_gets_into_the_ring_at_its_first_look() -> None:
    stage = ready()
    stage.store.sessions[stage.sid] = replace(stage.session, next_attempt_at=stage.clock.now + 300)
    stage.look()
    assert stage.session.next_attempt_at == stage.session.expires_at


def test_a_look_that_loses_its_save_to_a_stop_leaves_the_stop() -> None:
    def stop(session: Session) -> None:
        stage.store.before_save = lambda session: None
        stage.ask_for(e.StopRequested())

    stage = ready(store=SessionStoreTwin())
    stage.silent = True
    stage.store.before_save = stop
    stage.look()
    assert stage.session.state is State.WITHDRAWING


@pytest.mark.parametrize("finds", ["answers", "silent", "ended", "expired"])
def test_a_look_that_reads_what_was_before_a_stop_leaves_the_stop(finds: str) -> None:
    stage = ready(store=SessionStoreTwin(lag=1.0))
    stage.store.clock = stage.clock
    stage.silent = finds == "silent"
    if finds == "ended":
        stage.container.end(0)
    if finds == "expired":
        stage.clock.now = stage.session.expires_at
    stage.ask_for(e.StopRequested())
    stopped = stage.session
    stage.launcher(Lane.WATCH).tick(TickMessage(stage.sid))
    assert (stage.session, stage.store.history, stage.queue.sent) == (stopped, [stopped], [])


def test_a_look_that_reads_what_was_before_it_was_ready_reads_it_again() -> None:
    stage = Stage(store=SessionStoreTwin(lag=1.0))
    stage.store.clock = stage.clock
    stage.engine.images.add(stage.session.image)
    stage.tick()
    stage.silent = True
    stage.launcher(Lane.WATCH).tick(TickMessage(stage.sid))
    assert stage.session.last_problem is not None


def test_a_notebook_that_ended_is_cleared_away_by_the_leave_lane() -> None:
    stage = ready()
    stage.container.end(0)
    stage.look()
    stage.assert_nothing_is_left()


# ── the end of an idle notebook ──────────────────────────────────────────────────────────────────────────────────────


def idle_looks(stage: Stage) -> list[float]:
    """The delays of the looks that were arranged."""
    for message, lane, _ in stage.queue.sent:
        assert (message, lane) == (TickMessage(stage.sid, idle=True), Lane.WATCH)
    return [delay for _, _, delay in stage.queue.sent]


def test_when_a_notebook_will_soon_end_because_it_is_idle_it_is_looked_at_then() -> None:
    stage = ready()
    stage.idle_since = stage.clock.now + 60 * OFTEN - IDLE_LIFETIME
    stage.look()
    (delay,) = idle_looks(stage)
    assert delay == pytest.approx(IDLE_SLACK, abs=1.0)
    stage.launcher(Lane.WATCH).tick(stage.queue.sent[0][0])
    assert len(idle_looks(stage)) == 1, "whatever the notebook says, one look is followed by no more than one"
    assert stage.store.history == []


@pytest.mark.parametrize("idle_since", [None, 0.0, NOW, 1e12, -1e12], ids=str)
def test_no_look_is_arranged_for_the_past_or_for_after_the_next_one(idle_since: float | None) -> None:
    stage = ready(idle_since=idle_since)
    stage.look()
    assert idle_looks(stage) == []
    assert IDLE_LIMIT == 60 * SELDOM


def test_a_look_that_cannot_be_arranged_is_left_to_the_schedule() -> None:
    stage = ready(queue=QueueTwin())
    stage.queue.refuses = StoreUnavailable("The hub's queue did not answer")
    stage.idle_since = stage.clock.now - IDLE_LIFETIME
    stage.tick()
    assert stage.session.state is State.READY


def test_an_id_is_a_number_to_the_base_of_32() -> None:
    assert ring_of(a_session(sid="0" * 19 + "v", state=State.READY)) == "often-1"  # 31
