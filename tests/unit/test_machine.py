"""Properties of the state machine; the table itself is not repeated here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import cycle, groupby, pairwise
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.session import events as e
from chalicelib.session.errors import IllegalTransition
from chalicelib.session.lanes import Lane
from chalicelib.session.lease import EFFECT_SECONDS, LEASE_SECONDS, claimed, is_held_by_another, with_lease
from chalicelib.session.machine import (
    EFFECTS,
    HUB_OUTAGE_ALLOWANCE,
    PATIENCE,
    PULL_STEP,
    QUEUE_PAUSE_LIMIT,
    SETTLE_SECONDS,
    TRANSITIONS,
    PullPatience,
    accepts,
    advance,
    new_session,
    next_effect,
    overdue,
)
from chalicelib.session.narration import LINE_LENGTH, MESSAGES, progress
from chalicelib.session.values import (
    ALL_IMAGES,
    PHASES,
    Failure,
    Phase,
    Session,
    State,
    Target,
    container_name,
    is_session_id,
    launch_label,
    session_id,
)
from tests.builders import LABEL, LIFETIME, NOW, a_session

FAILURE = Failure("endpoint-timeout", "The endpoint did not answer in time")
OURS = e.EffectDelayed(Failure("store-unavailable", "The hub's store did not answer"), ours=True)
EXAMPLES: dict[type, e.Event] = {
    e.EndpointVerified: e.EndpointVerified("203.0.113.7", "20.10.24"),
    e.Queued: e.Queued("4 other notebooks with your key wait for a Docker endpoint"),
    e.PullQueued: e.PullQueued("Waiting to pull the image: 4 other pulls with your key are under way"),
    e.PullProgressed: e.PullProgressed(0.5, "Pulling: 3 of 6 layers"),
    e.HelperProgressed: e.HelperProgressed(0.5, "Step 3/6 : RUN pip install"),
    e.VersionsResolved: e.VersionsResolved(("c" * 40,), f"localhost/homeport-built:{'d' * 40}"),
    e.ContentResolved: e.ContentResolved(("c" * 40,)),
    e.ImageBuilt: e.ImageBuilt(built=True),
    e.FilesCloned: e.FilesCloned("The files are in your work folder"),
    e.ContainerStarted: e.ContainerStarted(Target("203.0.113.7", 32768)),
    e.NotebookFound: e.NotebookFound(
        "203.0.113.7", "20.10.24", "hub", 4, "zzzzzzzzzz", "an/image", NOW + LIFETIME, NOW + LIFETIME
    ),
    e.NotebookMoved: e.NotebookMoved(Target("203.0.113.7", 32769)),
    e.AgainRequested: e.AgainRequested("yyyyyyyyyy"),
    e.ExtendRequested: e.ExtendRequested(NOW + 2 * LIFETIME),
    e.LaunchedAgain: e.LaunchedAgain(LIFETIME),
    e.SaveRequested: e.SaveRequested("localhost/lessons:2026-11-29"),
    e.ImageSaved: e.ImageSaved(1 << 30),
    e.TidyRequested: e.TidyRequested(ALL_IMAGES),
    e.ImageRemoved: e.ImageRemoved("An image is removed"),
    e.ImagesRemoved: e.ImagesRemoved("No image that was built here is left on the endpoint"),
    e.ContainerExited: e.ContainerExited(FAILURE),
    e.EffectDelayed: e.EffectDelayed(FAILURE),
    e.EffectFailed: e.EffectFailed(FAILURE),
    e.PatienceExpired: e.PatienceExpired(FAILURE),
}
EVENT_TYPES = get_args(e.Event)


def example(event: type) -> e.Event:
    return EXAMPLES.get(event) or event()


def due(session: Session) -> float:
    """When a session that is not stopped wants to be looked at."""
    assert session.next_attempt_at is not None
    return session.next_attempt_at


@st.composite
def walks(draw: st.DrawFn) -> list[Session]:
    """A session's life as the machine allows it: any event the state knows, at any time."""
    session, now = a_session(), NOW
    life = [session]
    for _ in range(draw(st.integers(0, 40))):
        allowed = sorted(TRANSITIONS[session.state], key=lambda event: event.__name__)
        if not allowed:
            break
        now += draw(st.floats(0, 1000))
        session = advance(session, example(draw(st.sampled_from(allowed))), now)
        life.append(session)
    return life


def test_the_table_names_every_state_and_only_states() -> None:
    assert set(TRANSITIONS) == set(State) == set(MESSAGES)
    assert {state for row in TRANSITIONS.values() for state in row.values()} == set(State)
    assert set(EFFECTS) == set(State) - {State.STOPPED}


def test_every_event_type_is_known_to_some_state() -> None:
    assert {event for row in TRANSITIONS.values() for event in row} == set(EVENT_TYPES)


@pytest.mark.parametrize("state", State)
def test_every_state_reaches_stopped(state: State) -> None:
    reached, grown = {state}, True
    while grown:
        further = {target for one in reached for target in TRANSITIONS[one].values()}
        grown = not further <= reached
        reached |= further
    assert State.STOPPED in reached


def test_there_is_one_way_out() -> None:
    into = {
        target: {state for state, row in TRANSITIONS.items() if target in row.values() and state is not target}
        for target in State
    }
    assert into[State.STOPPED] == into[State.KEPT] == {State.PURGING}
    assert into[State.PURGING] == {State.REMOVING, State.KEPT, State.STOPPED}
    assert into[State.REMOVING] == {State.WITHDRAWING, State.PURGING, State.KEPT, State.STOPPED}
    assert into[State.VERIFYING] == {State.KEPT}


def test_ready_is_left_only_by_withdrawing_the_route() -> None:
    stays = {State.READY, State.REPUBLISHING, State.FORGETTING, State.SAVING, State.TIDYING}
    assert set(TRANSITIONS[State.READY].values()) == {*stays, State.WITHDRAWING}
    for state in (State.SAVING, State.TIDYING):
        assert set(TRANSITIONS[state].values()) == {State.READY, state, State.FORGETTING, State.WITHDRAWING}
    assert set(TRANSITIONS[State.FORGETTING].values()) == {State.READY, State.FORGETTING, State.WITHDRAWING}


@pytest.mark.parametrize("state", sorted(PHASES[Phase.LAUNCHING] | {State.READY, State.FORGETTING}))
def test_stop_expiry_and_failure_lead_out_of_every_state_that_stays(state: State) -> None:
    for event in (e.StopRequested, e.SessionExpired, e.EffectFailed):
        assert TRANSITIONS[state][event] is State.WITHDRAWING


@pytest.mark.parametrize("state", State)
def test_an_event_the_state_does_not_know_is_illegal(state: State) -> None:
    session = a_session(state=state)
    for event in EVENT_TYPES:
        if event in TRANSITIONS[state]:
            assert advance(session, example(event), NOW + 1).state is TRANSITIONS[state][event]
        else:
            with pytest.raises(IllegalTransition, match=event.__name__):
                advance(session, example(event), NOW + 1)


@given(walks())
def test_every_step_is_one_version_and_adds_to_the_log_without_making_the_session_grow(life: list[Session]) -> None:
    for before, after in pairwise(life):
        assert after.version == before.version + 1
        numbers = [line.number for line in after.log]
        assert numbers == sorted(set(numbers))
        assert numbers[-1] >= before.log[-1].number
        assert len(after.log) <= 3


@given(walks())
def test_the_first_failure_is_kept(life: list[Session]) -> None:
    failures = [session.failure for session in life if session.failure]
    assert len(set(failures)) <= 1


@given(walks())
def test_progress_never_falls_during_a_launch(life: list[Session]) -> None:
    for _, launch in groupby(life, key=lambda session: session.generation):
        launching = [progress(session) for session in launch if session.state in PHASES[Phase.LAUNCHING]]
        shown = [share for share in launching if share is not None]
        assert len(shown) == len(launching)
        assert shown == sorted(shown)
        assert all(0 <= share <= 1 for share in shown)


@given(walks())
def test_only_stopped_has_nothing_due(life: list[Session]) -> None:
    for session in life:
        assert (session.next_attempt_at is None) == (session.state is State.STOPPED)
        assert (next_effect(session) is None) == (session.state is State.STOPPED)


@given(walks())
def test_stopped_means_the_credentials_are_gone(life: list[Session]) -> None:
    for session in life:
        if session.state is State.STOPPED:
            assert not session.credentials_held
            assert session.target is None


@pytest.mark.parametrize("state", sorted(PATIENCE))
def test_a_silent_endpoint_holds_no_state_longer_than_its_patience(state: State) -> None:
    session, now = a_session(state=state, container="homeport-x-1"), NOW
    for _ in range(10_000):
        missed = overdue(session, now)
        if missed:
            break
        session = advance(session, e.EffectDelayed(FAILURE), now)
        now = due(session)
    assert missed == e.PatienceExpired(FAILURE)
    assert now - NOW <= PATIENCE[state] + 61
    assert advance(session, missed, now).failure == (None if state in (State.SAVING, State.TIDYING) else FAILURE)


@pytest.mark.parametrize("state", sorted(PATIENCE))
def test_a_hub_that_was_down_gives_nothing_up_but_a_hub_that_stays_down_does(state: State) -> None:
    session = a_session(state=state, container="homeport-x-1")
    assert overdue(session, NOW + HUB_OUTAGE_ALLOWANCE) is None
    missed = overdue(session, NOW + HUB_OUTAGE_ALLOWANCE + PATIENCE[state] + 1)
    assert isinstance(missed, e.PatienceExpired)
    assert missed.failure.code == f"{state}-timed-out"


@pytest.mark.parametrize("state", sorted(PATIENCE))
def test_a_hub_whose_own_stores_are_down_gives_nothing_up_but_one_whose_stores_stay_down_does(state: State) -> None:
    session, now = a_session(state=state, container="homeport-x-1"), NOW
    while (missed := overdue(session, now)) is None:
        session = advance(session, OURS, now)
        now = due(session)
    assert isinstance(missed, e.PatienceExpired)
    assert HUB_OUTAGE_ALLOWANCE < now - NOW <= HUB_OUTAGE_ALLOWANCE + PATIENCE[state] + 61


@pytest.mark.parametrize("state", sorted(PATIENCE))
def test_an_endpoint_has_all_of_its_patience_once_the_hubs_own_stores_are_back(state: State) -> None:
    session = advance(a_session(state=state, container="homeport-x-1"), e.EffectDelayed(FAILURE), NOW)
    session = advance(session, OURS, NOW + PATIENCE[state])
    later = NOW + PATIENCE[state] + 100
    assert overdue(session, later) is None
    session = advance(session, e.EffectDelayed(FAILURE), later)
    assert overdue(session, later + PATIENCE[state]) is None
    assert overdue(session, later + PATIENCE[state] + 1) == e.PatienceExpired(FAILURE)


def test_only_the_hubs_own_stores_are_waited_for_without_end() -> None:
    bounded_by_lifetime = {State.READY, State.REPUBLISHING, State.FORGETTING, State.KEPT}
    assert set(State) - set(PATIENCE) - bounded_by_lifetime == {State.WITHDRAWING, State.PURGING, State.STOPPED}


@pytest.mark.parametrize("state", State)
def test_a_session_does_not_outlive_its_lifetime(state: State) -> None:
    missed = overdue(a_session(state=state, last_news_at=NOW + LIFETIME), NOW + LIFETIME)
    assert missed == (None if state in PHASES[Phase.LEAVING] | {State.STOPPED} else e.SessionExpired())


def test_progress_of_a_pull_is_news_that_keeps_it_alive() -> None:
    session, now = a_session(state=State.PULLING, admitted=True, progressed_at=NOW), NOW
    for layer in range(70):
        now += PATIENCE[State.PULLING] - 1
        assert overdue(session, now) is None
        session = advance(session, e.PullProgressed(layer / 100, f"Pulling: {layer} of 100 layers"), now)


def test_a_pull_that_fails_again_and_again_at_the_same_place_is_given_up() -> None:
    session, now = a_session(state=State.PULLING, admitted=True, progressed_at=NOW), NOW
    for _ in range(1000):
        missed = overdue(session, now)
        if missed:
            break
        for share in (0.1, 0.5):
            now += 5
            session = advance(session, e.PullProgressed(share, f"Pulling: {share:.0%}"), now)
        session = advance(session, e.EffectDelayed(FAILURE), now)
        now = due(session)
    assert missed == e.PatienceExpired(FAILURE)
    assert now - NOW < 2 * PATIENCE[State.PULLING]


def test_a_pull_that_gets_further_each_time_is_not_given_up() -> None:
    session, now = a_session(state=State.PULLING, admitted=True, progressed_at=NOW), NOW
    for share in range(1, 70):
        assert overdue(session, now) is None
        now += PATIENCE[State.PULLING] - 10
        session = advance(session, e.PullProgressed(share / 100, f"Pulling: {share}%"), now)
        session = advance(session, e.EffectDelayed(FAILURE), now)
        now = due(session)


def test_a_pull_that_stands_still_is_given_up_however_often_its_status_is_repeated() -> None:
    session, now = a_session(state=State.PULLING, admitted=True, progressed_at=NOW), NOW
    while overdue(session, now) is None:
        now += 2
        session = advance(session, e.PullProgressed(0.5, "Pulling: 3 of 6 layers"), now)
        assert now - NOW < HUB_OUTAGE_ALLOWANCE + PATIENCE[State.PULLING] + 60


def test_how_long_a_pull_has_stood_still_is_no_news_of_it() -> None:
    session, now = a_session(state=State.PULLING, admitted=True, progressed_at=NOW), NOW
    while (missed := overdue(session, now)) is None:
        now += 2
        pace = f"; nothing has arrived for {now - NOW:.0f} s"
        session = advance(session, e.PullProgressed(0.5, "Pulling: 3 of 6 layers", pace), now)
        assert session.message == f"Pulling: 3 of 6 layers{pace}"
        assert now - NOW < HUB_OUTAGE_ALLOWANCE + PATIENCE[State.PULLING] + 60
    assert isinstance(missed, e.PatienceExpired)


@pytest.mark.parametrize("step", [0.0, PULL_STEP / 2000])
def test_a_pull_that_says_ever_new_things_and_gets_no_further_is_given_up(step: float) -> None:
    patience = PullPatience(stalled=1800.0)
    session, now = advance(a_session(state=State.PULLING), e.PullAdmitted(), NOW), NOW
    while (missed := overdue(session, now, patience)) is None:
        now += 2
        session = advance(session, e.PullProgressed(step * (now - NOW) / 2, f"Pulling: {now:.0f}"), now)
        assert now - NOW < 100 * patience.stalled
    assert isinstance(missed, e.PatienceExpired)
    assert missed.failure.code == "pull-stalled"
    assert "30 minutes" in missed.failure.message


def test_no_pull_takes_longer_than_all_pulls_may() -> None:
    session, now = advance(a_session(state=State.PULLING), e.PullAdmitted(), NOW), NOW
    for step in range(1000):
        missed = overdue(session, now, PullPatience())
        if missed:
            break
        now += 100
        session = advance(session, e.PullProgressed(step / 1000, f"Pulling: {step} of 1000 layers"), now)
    assert isinstance(missed, e.PatienceExpired)
    assert missed.failure.code == "pull-too-long"
    assert "12 hours" in missed.failure.message
    assert now - NOW <= PullPatience().longest + 100


def test_a_pull_that_waits_for_its_slot_is_not_given_up_for_it_and_looks_less_and_less_often() -> None:
    session, pauses = a_session(state=State.PULLING), []
    for _ in range(20):
        now = due(session)
        session = advance(session, e.PullQueued("Waiting to pull the image: 4 other pulls are under way"), now)
        pauses.append(due(session) - now)
        assert session.queued
        assert overdue(session, due(session) + HUB_OUTAGE_ALLOWANCE) is None
        assert session.message == "Waiting to pull the image: 4 other pulls are under way"
        assert next_effect(session) == e.FindImage()
    assert pauses == sorted(pauses)
    assert pauses[-1] == QUEUE_PAUSE_LIMIT
    session = advance(session, e.PullAdmitted(), now)
    assert not session.queued
    assert next_effect(session) == e.PullImage()


def test_a_pull_that_never_got_its_slot_is_not_said_to_have_taken_too_long() -> None:
    session = advance(a_session(state=State.PULLING), e.PullQueued("Waiting to pull the image"), NOW)
    missed = overdue(session, NOW + PullPatience().longest + 1)
    assert isinstance(missed, e.PatienceExpired)
    assert missed.failure.code == "kept-waiting"


def test_no_waiting_of_any_kind_makes_a_launch_wait_longer_for_its_image() -> None:
    session, now = a_session(state=State.PULLING), NOW
    events: Iterator[e.Event] = cycle((e.Queued("others"), e.PullQueued("others")))
    while overdue(session, now) is None:
        session = advance(session, next(events), now)
        now = due(session)
    assert now - NOW <= PullPatience().longest + QUEUE_PAUSE_LIMIT


@pytest.mark.parametrize("state", [State.VERIFYING, State.PULLING, State.CREATING, State.STARTING, State.PROBING])
def test_whose_turn_never_comes_is_given_up_with_what_it_waited_for(state: State) -> None:
    session, line = a_session(state=state, container="homeport-x-1"), "4 other notebooks with your key wait"
    now = NOW
    while (missed := overdue(session, now)) is None:
        session = advance(session, e.Queued(line), now)
        now = due(session)
    assert isinstance(missed, e.PatienceExpired)
    assert missed.failure.code == "kept-waiting"
    assert missed.failure.message.startswith(line)
    assert now - NOW <= PATIENCE[state] + HUB_OUTAGE_ALLOWANCE + QUEUE_PAUSE_LIMIT


def test_who_waits_for_its_turn_is_asked_once_more_before_it_is_given_up() -> None:
    session = advance(a_session(), e.EffectDelayed(FAILURE), NOW)
    now = NOW
    while now - NOW <= PATIENCE[State.VERIFYING] + QUEUE_PAUSE_LIMIT:
        assert overdue(session, now) is None
        session = advance(session, e.Queued("4 other notebooks with your key wait"), now)
        assert session.attempts == 1
        now = due(session)
    assert overdue(session, now) is None, "its turn has come"
    still_silent = advance(session, e.EffectDelayed(FAILURE), now)
    assert overdue(still_silent, now) == e.PatienceExpired(FAILURE), "waiting gave it no new patience"


def test_whose_turn_never_comes_again_after_a_problem_is_given_up_too() -> None:
    line = "4 other notebooks with your key wait"
    session, now = advance(a_session(), e.EffectDelayed(FAILURE), NOW), NOW
    while (missed := overdue(session, now)) is None:
        session = advance(session, e.Queued(line), now)
        now = due(session)
    assert isinstance(missed, e.PatienceExpired)
    assert (missed.failure.code, missed.failure.message[: len(line)]) == ("kept-waiting", line)
    assert now - NOW <= PATIENCE[State.VERIFYING] + HUB_OUTAGE_ALLOWANCE + QUEUE_PAUSE_LIMIT


def test_after_its_turn_has_come_an_endpoint_has_all_of_its_patience() -> None:
    session, now = a_session(), NOW
    for _ in range(30):
        session = advance(session, e.Queued("4 other notebooks with your key wait"), now)
        now = due(session)
    session = advance(session, e.EffectDelayed(FAILURE), now)
    assert not session.queued
    assert overdue(session, now + PATIENCE[State.VERIFYING]) is None
    assert overdue(session, now + PATIENCE[State.VERIFYING] + 1) == e.PatienceExpired(FAILURE)


def test_waiting_for_its_turn_is_no_creation_that_was_sent() -> None:
    session, now = advance(a_session(state=State.PULLING), e.ImagePresent(), NOW), NOW
    while now < NOW + 5 * LEASE_SECONDS:
        session = advance(session, e.Queued("20 other notebooks with your key wait"), now)
        now = due(session)
    assert advance(session, e.ContainerCreated(), now).unsettled_until == 0.0
    stopped = advance(session, e.StopRequested(), now)
    assert stopped.creations == 1, "the tick that was about to ask may have been killed"


def test_a_creation_whose_tick_was_killed_before_the_session_waited_is_not_forgotten() -> None:
    session = advance(a_session(state=State.PULLING), e.ImagePresent(), NOW)
    now = NOW + LEASE_SECONDS
    for _ in range(3):
        session = advance(session, e.Queued("20 other notebooks with your key wait"), now)
        now = due(session)
    created = advance(session, e.ContainerCreated(), now)
    assert created.creations == 2
    assert created.unsettled_until == now + SETTLE_SECONDS


def test_a_ready_notebook_that_nobody_looks_at_for_a_while_reads_of_nothing_and_is_looked_at_soon() -> None:
    ready = a_session(state=State.READY, message="Your notebook is ready")
    queued = advance(ready, e.Queued("20 other notebooks with your key wait"), NOW + 1000)
    assert (queued.message, queued.log) == (ready.message, ready.log)
    assert due(queued) - (NOW + 1000) <= QUEUE_PAUSE_LIMIT
    assert overdue(queued, NOW + 2000) is None


@pytest.mark.parametrize("event", [e.EffectFailed(FAILURE), e.PatienceExpired(FAILURE)])
def test_a_container_that_could_not_be_removed_is_named(event: e.Event) -> None:
    earlier = Failure("notebook-exited", "The notebook ended")
    for failure in (None, earlier):
        session = a_session(state=State.REMOVING, container="homeport-x-1", failure=failure)
        session = advance(session, event, NOW)
        assert session.log[-2].text == FAILURE.message
        assert session.log[-1].text.endswith("docker rm -f homeport-x-1")
        stopped = advance(session, e.CredentialsPurged(), NOW)
        assert stopped.failure == (earlier if failure else FAILURE)
        assert stopped.message == session.log[-1].text


def test_a_watch_that_fails_does_not_outlast_the_lifetime() -> None:
    session = a_session(state=State.READY, container="homeport-x-1")
    session = advance(session, e.EffectDelayed(FAILURE), session.expires_at - 1)
    assert session.next_attempt_at == session.expires_at


def test_the_lines_of_one_pull_replace_each_other_under_new_numbers() -> None:
    session = advance(a_session(), EXAMPLES[e.EndpointVerified], NOW)
    before = session.log[-1]
    for layer in range(50):
        session = advance(session, e.PullProgressed(layer / 50, f"Pulling: {layer} of 50 layers"), NOW + layer)
    assert session.log[-1].place == before.place + 1
    assert session.log[-1].number == before.number + 50
    assert session.message == session.log[-1].text == "Pulling: 49 of 50 layers"


def test_the_same_trouble_is_logged_once() -> None:
    session = advance(a_session(), e.EffectDelayed(FAILURE), NOW)
    assert session.log[-1].text == FAILURE.message
    for second in range(10):
        again = advance(session, e.EffectDelayed(FAILURE), NOW + second)
        assert again.log == session.log[-1:]
        session = again


def test_what_an_endpoint_says_is_one_bounded_printable_line() -> None:
    session = a_session(state=State.PULLING)
    hostile = advance(session, e.PullProgressed(None, "a\x1b[31m\nb\u202e" + "x" * 5000), NOW)
    assert hostile.message.isprintable()
    assert len(hostile.message) <= LINE_LENGTH


def test_the_containers_name_is_written_down_before_it_is_created() -> None:
    session = advance(a_session(state=State.PULLING), e.ImagePresent(), NOW)
    assert session.state is State.CREATING
    assert session.container == container_name(session.sid, 1)


def test_a_forgotten_session_is_watched_without_credentials() -> None:
    session = advance(a_session(state=State.READY, container="homeport-x-1"), e.ForgetRequested(), NOW)
    session = advance(session, e.CredentialsPurged(), NOW)
    assert session.state is State.READY
    assert not session.credentials_held
    assert next_effect(session) == e.LookAtNotebook()
    assert "docker rm -f homeport-x-1" in session.message


def test_one_tick_holds_a_session_and_gives_it_back_to_wait() -> None:
    session = claimed(a_session(), "tick-1", NOW)
    assert is_held_by_another(session, "tick-2", NOW + 1)
    assert not is_held_by_another(session, "tick-1", NOW + 1)
    assert not is_held_by_another(session, "tick-2", NOW + LEASE_SECONDS)
    waiting = with_lease(replace(session, next_attempt_at=NOW + 5), "tick-1", Lane.LAUNCH, NOW)
    assert not is_held_by_another(waiting, "tick-2", NOW + 1)


def test_no_effect_outlives_its_ticks_lease() -> None:
    assert EFFECT_SECONDS < LEASE_SECONDS


def test_the_same_owner_and_name_give_the_same_id_and_no_others() -> None:
    assert session_id("a" * 64, "n") == session_id("a" * 64, "n")
    ids = {session_id(owner * 64, name) for owner in "abc" for name in ("n", "N", "n ", "ñ", "笔记")}
    assert len(ids) == 15
    assert all(len(sid) == 20 and sid.isascii() and sid.isalnum() and sid == sid.lower() for sid in ids)
    assert all(map(is_session_id, ids))


@pytest.mark.parametrize(
    "text", ["", "a" * 19, "a" * 21, "w" * 20, "A" * 20, "٣" * 20, "a" * 19 + "\n", "a" * 19 + "-"]
)
def test_other_texts_are_no_sessions_id(text: str) -> None:
    assert not is_session_id(text)


def test_a_second_launch_goes_on_counting() -> None:
    stopped = a_session(state=State.STOPPED, version=17, generation=3)
    again = new_session(
        owner=stopped.owner,
        name=stopped.name,
        endpoint=stopped.endpoint,
        image=stopped.image,
        limits=stopped.limits,
        now=NOW,
        lifetime=LIFETIME,
        request="request-2",
        label="zzzzzzzzzz",
        previous=stopped,
    )
    assert (again.sid, again.generation, again.version) == (stopped.sid, 4, 18)
    assert [line.number for line in again.log] == [stopped.log[-1].number + 1]
    assert (stopped.host, again.host) == (f"{stopped.sid}-{LABEL}", f"{stopped.sid}-zzzzzzzzzz")


@given(st.text())
def test_a_label_is_ten_letters_of_which_every_bit_counts(secret: str) -> None:
    label = launch_label(secret)
    assert re.fullmatch("[0-9a-v]{10}", label)
    assert launch_label(secret) == label
    assert a_session(label=label).host == f"{a_session().sid}-{label}"
    assert re.fullmatch("[0-9a-z](?:[0-9a-z-]{0,61}[0-9a-z])?", a_session(label=label).host)


def test_labels_of_different_secrets_differ_in_every_place() -> None:
    labels = {launch_label(f"secret {number}") for number in range(2000)}
    assert len(labels) == 2000
    for place in range(10):
        assert len({label[place] for label in labels}) == 32


def test_a_launch_that_was_stored_without_a_label_keeps_the_sessions_id_as_its_host() -> None:
    assert a_session(label="").host == a_session().sid


def test_a_session_has_no_field_for_a_secret() -> None:
    names = {field.name for field in fields(Session)}
    assert not {name for name in names if "key" in name or "secret" in name or "token" in name or "pem" in name}


# ── a session of a later version (rule 9) ────────────────────────────────────────────────────────────────────────────


def a_newer_session(state: State, **changes: Any) -> Session:
    """A session that a later version of Homeport stored."""
    return a_session(state=state, newer=True, **{"next_attempt_at": None if state is State.STOPPED else NOW, **changes})


@pytest.mark.parametrize("state", State)
def test_a_newer_session_is_left_alone_until_it_expires(state: State) -> None:
    """However long it was silent: what it waits for may be something this version does not know."""
    session = a_newer_session(state, last_problem=FAILURE, last_news_at=0.0, attempts=1000)
    assert overdue(session, NOW) is None
    assert overdue(session, session.expires_at - 1) is None


@pytest.mark.parametrize("state", State)
def test_a_newer_session_past_its_end_is_ended_by_what_its_state_knows(state: State) -> None:
    session = a_newer_session(state)
    missed = overdue(session, session.expires_at)
    ends = {Phase.LAUNCHING: e.SessionExpired(), Phase.READY: e.SessionExpired(), Phase.LEAVING: e.StopRequested()}
    assert missed == (e.SessionExpired() if state is State.KEPT else ends.get(session.phase))
    if missed is not None:
        assert accepts(session, type(missed))


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", [e.StopRequested(), e.SessionExpired()])
def test_an_end_makes_a_newer_session_ours_with_a_container_while_one_may_be_left(state: State, event: e.Event) -> None:
    session = a_newer_session(state)
    if type(event) not in TRANSITIONS[state]:
        assert not accepts(session, type(event))
        return
    ended = advance(session, event, NOW + 1)
    assert not ended.newer
    left = None if state in (State.PURGING, State.KEPT) else container_name(session.sid, session.generation)
    assert ended.container == left
    assert ended.message == MESSAGES[ended.state]
    assert ended.phase is Phase.LEAVING
    assert ended.version == session.version + 1
    assert advance(a_newer_session(state, container="homeport-x-7"), event, NOW + 1).container == "homeport-x-7"


@pytest.mark.parametrize("state", State)
def test_nothing_else_can_happen_to_a_newer_session(state: State) -> None:
    session = a_newer_session(state)
    for event in set(EVENT_TYPES) - {e.StopRequested, e.SessionExpired}:
        assert not accepts(session, event)
        with pytest.raises(IllegalTransition, match="of a later version"):
            advance(session, example(event), NOW + 1)


@pytest.mark.parametrize("state", State)
def test_what_is_accepted_is_what_can_happen(state: State) -> None:
    for event in EVENT_TYPES:
        assert accepts(a_session(state=state), event) == (event in TRANSITIONS[state])


@pytest.mark.parametrize("state", sorted(set(State) - {State.STOPPED}))
def test_a_newer_session_that_was_ended_reaches_stopped_like_any_other(state: State) -> None:
    session = a_newer_session(state)
    missed = overdue(session, session.expires_at)
    assert missed is not None
    session = advance(session, missed, session.expires_at)
    way: list[e.Event] = [e.RouteWithdrawn(), e.ContainerRemoved(), e.CredentialsPurged()]
    for event in way[[State.WITHDRAWING, State.REMOVING, State.PURGING].index(session.state) :]:
        session = advance(session, event, session.expires_at)
    assert session.state is State.STOPPED
    assert not session.credentials_held
