"""What a visitor reads about a session, whatever happens to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.session import events as e
from chalicelib.session.machine import TRANSITIONS, advance
from chalicelib.session.narration import (
    LINE_LENGTH,
    MESSAGES,
    PROGRESS,
    WARNING_SECONDS,
    begin,
    headline,
    progress,
    silence,
    warning,
)
from chalicelib.session.values import PHASES, Failure, Line, Phase, Session, State, phase_of
from chalicelib.text import is_visible
from tests.builders import NOW, a_session

SLOW = Failure("endpoint-timeout", "The endpoint did not answer in time")


def told(session: Session, *events: e.Event) -> Session:
    for second, event in enumerate(events):
        session = advance(session, event, NOW + second)
    return session


def whole_log(session: Session, *events: e.Event) -> list[Line]:
    """The log of a session to which these events happen: what each save holds, by place."""
    log = {line.place: line for line in session.log}
    for event in events:
        session = told(session, event)
        log |= {line.place: line for line in session.log}
    assert sorted(log) == list(range(1, len(log) + 1))
    return [log[place] for place in sorted(log)]


def texts(lines: Iterable[Line]) -> list[str]:
    return [line.text for line in lines]


# ── where a session is ───────────────────────────────────────────────────────────────────────────────────────────────


def test_every_state_has_exactly_one_phase_and_every_phase_a_state() -> None:
    assert sorted(state for states in PHASES.values() for state in states) == sorted(State)
    assert {phase_of(state) for state in State} == set(Phase) == set(PHASES)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("failure", [None, SLOW])
def test_every_session_has_a_headline_of_one_word(state: State, failure: Failure | None) -> None:
    session = a_session(state=state, failure=failure)
    assert headline(session).isalpha()
    assert (headline(session) == "Failed") is (session.phase is Phase.STOPPED and failure is not None)
    assert session.phase is phase_of(state)


def test_headlines_of_different_phases_differ() -> None:
    assert len({headline(a_session(state=state)) for state in State}) == len(Phase)


@pytest.mark.parametrize("state", State)
def test_every_state_has_a_message_and_a_share_of_progress_while_it_stays(state: State) -> None:
    assert is_visible(MESSAGES[state])
    assert 0 < len(MESSAGES[state]) <= LINE_LENGTH
    leaves = phase_of(state) in (Phase.LEAVING, Phase.STOPPED)
    assert (progress(a_session(state=state)) is None) is leaves
    assert (state in PROGRESS) is not leaves


@pytest.mark.parametrize("fraction", [-1.0, 0.0, 0.5, 1.0, 7.0])
def test_a_pull_fills_the_gap_to_the_next_state_and_no_more(fraction: float) -> None:
    share = progress(a_session(state=State.PULLING, fraction=fraction))
    assert share is not None
    assert PROGRESS[State.PULLING] <= share <= PROGRESS[State.CREATING]


def test_a_fraction_counts_for_nothing_outside_a_pull_and_a_build() -> None:
    for state in set(State) - {State.PULLING, State.BUILDING}:
        assert progress(a_session(state=state, fraction=0.5)) == progress(a_session(state=state))


# ── the lines of a pull ──────────────────────────────────────────────────────────────────────────────────────────────


def pulled(done: int) -> e.PullProgressed:
    return e.PullProgressed(done / 10, f"Pulling: {done} of 10 layers")


def test_a_pulls_line_replaces_the_one_before_it() -> None:
    log = whole_log(a_session(state=State.PULLING), pulled(1), pulled(2), pulled(3))
    assert texts(log)[1:] == ["Pulling: 3 of 10 layers"]
    assert log[-1].progress
    assert log[-1].number == 4


def test_what_happened_during_a_pull_stays_and_the_pull_goes_on_below_it() -> None:
    log = whole_log(a_session(state=State.PULLING), pulled(1), e.EffectDelayed(SLOW), pulled(2), pulled(3))
    assert texts(log)[1:] == ["Pulling: 1 of 10 layers", SLOW.message, "Pulling: 3 of 10 layers"]
    assert [line.progress for line in log] == [False, True, False, True]
    assert [line.number for line in log] == [1, 2, 3, 5]


def test_what_the_hubs_own_stores_fail_of_again_and_again_is_one_line() -> None:
    log = whole_log(a_session(), *[e.EffectDelayed(SLOW, ours=True)] * 3)
    assert texts(log)[1:] == [SLOW.message]


def test_the_last_line_of_a_pull_is_kept_when_the_pull_is_over() -> None:
    log = whole_log(a_session(state=State.PULLING), pulled(9), pulled(10), e.ImagePresent(), e.ContainerCreated())
    assert texts(log)[1:] == ["Pulling: 10 of 10 layers", MESSAGES[State.CREATING], MESSAGES[State.STARTING]]


def test_a_pulls_line_never_replaces_a_line_of_another_kind() -> None:
    """Not even one that says the same."""
    repeated = Failure("pull-failed", "Pulling: 1 of 10 layers")
    log = whole_log(a_session(state=State.PULLING), e.EffectDelayed(repeated), pulled(2), pulled(3))
    assert texts(log)[1:] == ["Pulling: 1 of 10 layers", "Pulling: 3 of 10 layers"]


def test_a_status_that_repeats_itself_adds_no_line() -> None:
    log = whole_log(a_session(state=State.PULLING), pulled(1), pulled(1), pulled(1))
    assert [(line.number, line.text) for line in log[1:]] == [(2, "Pulling: 1 of 10 layers")]


@given(st.lists(st.sampled_from([*(pulled(done) for done in range(4)), e.EffectDelayed(SLOW)]), max_size=30))
def test_two_lines_of_a_pull_never_follow_each_other(happened: list[e.Event]) -> None:
    log = whole_log(a_session(state=State.PULLING), *happened)
    assert not any(before.progress and after.progress for before, after in pairwise(log))
    numbers = [line.number for line in log]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    ("engine", "note", "line"),
    [
        ("20.10.24", "", "Connected to Docker 20.10.24 at 203.0.113.7"),
        ("swarm/1.2.9", "", "Connected to Docker swarm/1.2.9 at 203.0.113.7"),
        ("Podman 4.3.1", "It cannot limit CPUs", "Connected to Podman 4.3.1 at 203.0.113.7. It cannot limit CPUs"),
    ],
)
def test_the_engine_is_called_by_its_name(engine: str, note: str, line: str) -> None:
    assert line in texts(told(a_session(), e.EndpointVerified("203.0.113.7", engine, note)).log)


# ── what is said ─────────────────────────────────────────────────────────────────────────────────────────────────────

HOSTILE = "a\x1b[2J\u202e\u200b\n" + "x" * 5000
HOSTILE_EVENTS: tuple[e.Event, ...] = (
    e.EndpointVerified(HOSTILE, HOSTILE, HOSTILE),
    e.PullProgressed(None, HOSTILE),
    e.EffectDelayed(Failure("a-code", HOSTILE)),
    e.EffectFailed(Failure("a-code", HOSTILE)),
    e.PatienceExpired(Failure("a-code", HOSTILE)),
    e.ContainerExited(Failure("a-code", HOSTILE)),
)


@pytest.mark.parametrize("event", HOSTILE_EVENTS, ids=lambda event: type(event).__name__)
def test_whatever_an_endpoint_says_the_log_is_short_printable_lines(event: e.Event) -> None:
    (state, *_) = [state for state, row in TRANSITIONS.items() if type(event) in row]
    session = told(a_session(state=state), event)
    assert len(session.log) > 1
    assert all(is_visible(line.text) and len(line.text) <= LINE_LENGTH for line in session.log)


def test_a_hostile_name_is_shown_as_one_line_too() -> None:
    session = begin(a_session(name="a\u202e\nb" * 100), NOW)
    assert is_visible(session.log[0].text)
    assert len(session.log[0].text) <= LINE_LENGTH


def test_a_launch_begins_a_new_log_whose_numbers_go_on() -> None:
    first = told(a_session(state=State.PULLING), pulled(1), pulled(2))
    again = begin(first, NOW + 10)
    assert [line.number for line in again.log] == [first.log[-1].number + 1]
    assert again.log[0].at == NOW + 10
    assert not again.log[0].progress
    assert again.log[0].place == 1


# ── the newest line and the history ──────────────────────────────────────────────────────────────────────────────────


def test_a_session_holds_its_newest_line_and_what_the_last_change_made_history() -> None:
    first = a_session(state=State.REMOVING, container="homeport-x-1")
    assert [line.place for line in first.log] == [1]
    second = told(first, e.EffectFailed(SLOW))
    assert [line.place for line in second.log] == [1, 2, 3]
    third = told(second, e.StopRequested())
    assert third.log == second.log[-1:]
    assert [line.place for line in told(third, e.CredentialsPurged()).log] == [3, 4]


def test_a_line_of_a_pull_that_is_replaced_never_becomes_history() -> None:
    session = told(a_session(state=State.PULLING), pulled(1))
    assert [line.place for line in session.log] == [1, 2]
    session = told(session, pulled(2))
    assert [(line.place, line.number) for line in session.log] == [(2, 3)]


@given(st.lists(st.sampled_from([*(pulled(done) for done in range(4)), e.EffectDelayed(SLOW)]), max_size=30))
def test_every_line_but_the_newest_becomes_history_once(happened: list[e.Event]) -> None:
    session = a_session(state=State.PULLING)
    history: list[Line] = []
    for event in happened:
        session = told(session, event)
        history += session.log[:-1]
    assert [line.place for line in history] == list(range(1, session.log[-1].place))


def test_a_log_that_was_stored_whole_gets_its_places_at_the_next_change() -> None:
    """The version before kept all lines in the session: none is lost, and none stays there after that."""
    old = tuple(Line(number, NOW, f"line {number}") for number in range(5, 25))
    session = a_session(state=State.PULLING, log=old)
    changed = told(session, pulled(1))
    assert texts(changed.log) == [*texts(old), "Pulling: 1 of 10 layers"]
    assert [line.place for line in changed.log] == list(range(1, 22))
    assert [line.number for line in changed.log] == list(range(5, 26))
    assert texts(told(changed, pulled(2)).log) == ["Pulling: 2 of 10 layers"]


def test_a_log_that_was_stored_whole_and_is_changed_by_nothing_to_tell_is_kept_all_the_same() -> None:
    old = tuple(Line(number, NOW, f"line {number}") for number in range(1, 4))
    session = a_session(state=State.READY, log=old)
    assert [line.place for line in told(session, e.NotebookAnswered()).log] == [1, 2, 3]


def test_a_broken_sessions_log_begins_anew() -> None:
    assert [line.place for line in told(a_session(state=State.WITHDRAWING, log=()), e.RouteWithdrawn()).log] == [1]


@pytest.mark.parametrize("state", State)
def test_silence_has_a_code_of_its_own_for_every_state_and_names_the_seconds(state: State) -> None:
    failure = silence(a_session(state=state), 90.4)
    assert failure.code == f"{state}-timed-out"
    assert failure.message.startswith(MESSAGES[state])
    assert "90 seconds" in failure.message


# ── its end ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (WARNING_SECONDS + 1, None),
        (WARNING_SECONDS, "This notebook ends in less than 2 hours: save your work"),
        (3700, "This notebook ends in less than 1 hour and 15 minutes: save your work"),
        (60, "This notebook ends in less than 15 minutes: save your work"),
        (-5, "This notebook ends in less than 15 minutes: save your work"),
    ],
)
def test_a_notebook_warns_of_its_end_in_its_last_two_hours(left: float, said: str | None) -> None:
    ready = a_session(state=State.READY, longest_until=0.0)
    assert warning(ready, ready.expires_at - left) == said
    assert warning(replace(ready, state=State.PROBING), ready.expires_at - left) is None


def test_the_warning_offers_to_keep_longer_what_can_be() -> None:
    ready = a_session(state=State.READY)
    longer = replace(ready, longest_until=ready.expires_at + 1)
    assert "keep it longer here, or save your work" in str(warning(longer, ready.expires_at - 60))


def test_what_is_deleted_says_so_from_when_it_was_asked_for_to_the_end_unless_it_failed() -> None:
    leaving, stopped = (a_session(state=state, deletes=True) for state in (State.REMOVING, State.STOPPED))
    assert [headline(one) for one in (leaving, stopped, stopped.summary)] == ["Deleting", "Deleted", "Deleted"]
    assert headline(replace(stopped, failure=SLOW)) == "Failed"
