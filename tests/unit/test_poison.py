"""A tick that fails in a way nobody foresaw, each time: its session ends as failed and cleaned up, or tries on."""

from __future__ import annotations

import pytest

from chalicelib.errors import BadConfiguration
from chalicelib.session.errors import IllegalTransition
from chalicelib.session.machine import PATIENCE, SETTLE_SECONDS
from chalicelib.session.values import PHASES, Phase, State
from tests.world import World

LAUNCHING = sorted(PHASES[Phase.LAUNCHING])
SECRET = "the visitor's own words"


def poisoned(state: State, error: Exception | None = None) -> tuple[World, str]:
    """A session that has come to a state whose effect fails from now on, of a defect."""
    world = World()
    world.defects_are_expected = True
    sid = world.launched(state)

    def fail() -> None:
        if world.session(sid).state is state:
            raise error or KeyError(SECRET)

    world.before_effect = fail
    return world, sid


@pytest.mark.parametrize("error", [KeyError(SECRET), IllegalTransition("a defect")])
@pytest.mark.parametrize("state", LAUNCHING)
def test_a_launch_that_fails_each_time_ends_as_failed_and_leaves_nothing(state: State, error: Exception) -> None:
    world, sid = poisoned(state, error)
    begun = world.time.now
    world.settle()
    session = world.session(sid)
    assert session.state is State.STOPPED
    assert session.failure is not None
    assert session.failure.code == "internal-error"
    assert world.time.now - begun < PATIENCE[state] + SETTLE_SECONDS + 60
    world.assert_at_rest()


def test_a_removal_that_fails_each_time_is_given_up_and_the_rest_is_cleared_away() -> None:
    world, sid = poisoned(State.REMOVING)
    world.settle()
    session = world.session(sid)
    assert session.state is State.STOPPED
    assert session.message.endswith(f"docker rm -f {session.container}")
    world.assert_at_rest()


@pytest.mark.parametrize("state", [State.FORGETTING, State.WITHDRAWING, State.PURGING])
def test_what_must_not_be_given_up_is_repeated_until_it_succeeds(state: State) -> None:
    world, sid = poisoned(state)
    ticks = 0
    begun = world.time.now
    while world.time.now < begun + 3600:
        ticks += 1
        if world.messages:
            world.deliver()
        else:
            world.sleep_until_due()
    assert world.session(sid).state is state
    assert ticks < 200
    world.before_effect = lambda: None
    world.settle()
    world.assert_at_rest()


def pass_minutes(world: World, minutes: int) -> None:
    """Let the schedule run so often, and what it sends be handled."""
    for _ in range(minutes):
        world.time.now += 60
        world.redrive()
        while world.messages:
            world.deliver()


def test_a_working_notebook_is_not_taken_away_because_it_cannot_be_looked_at() -> None:
    """A release with such a defect would end all notebooks of the hub within minutes."""
    world, sid = poisoned(State.READY)
    pass_minutes(world, 60)
    assert world.session(sid).state is State.READY
    assert world.session(sid).last_problem is not None
    world.before_effect = lambda: None
    pass_minutes(world, 15)
    assert world.session(sid).last_problem is None
    world.stop(sid)
    world.settle()
    world.assert_at_rest()


def test_a_message_is_handled_although_its_tick_met_a_defect() -> None:
    """A function that raises has Lambda slow down its whole lane, and one visitor's engine must not do that."""
    world, _ = poisoned(State.CREATING)
    world.deliver()
    assert [message for message in world.messages if message[2] <= world.time.now] == []


def test_a_defect_is_logged_with_what_and_where_it_was_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    world, sid = poisoned(State.CREATING)
    world.deliver()
    assert f"session {sid}: defect in CreateContainer, in creating: KeyError at {__name__}:" in caplog.text
    assert SECRET not in caplog.text
    assert SECRET not in repr(world.session(sid))
    assert caplog.records[-1].exc_info is None


def test_a_hub_that_is_configured_wrongly_gives_nothing_up() -> None:
    world, sid = poisoned(State.STARTING, BadConfiguration("HOMEPORT_KEY is not a key"))
    with pytest.raises(BadConfiguration):
        world.deliver()
    world.before_effect = lambda: None
    world.settle()
    assert world.session(sid).failure is None
    assert world.session(sid).state is State.READY
