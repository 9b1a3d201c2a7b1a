"""The hub's services fail for a minute, launchers are paused, clocks are wrong: nothing is doubled, nothing lost."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from chalicelib.session.lease import LEASE_SECONDS
from chalicelib.session.values import PHASES, Phase, State
from tests.world import SERVICES, World

STATES = [state for state in State if state is not State.STOPPED]
OUTAGE = 60.0  # seconds


@pytest.mark.parametrize("how", ["down", "lost"])
@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("state", STATES)
def test_a_minute_without_a_service_loses_nothing_whatever_state_a_session_is_in(
    state: State, service: str, how: str
) -> None:
    """`lost`: the service does what it is asked, and its answers do not come."""
    world = World()
    sid = world.launched(state)
    begun = world.time.now
    getattr(world, how).add(service)
    while world.time.now < begun + OUTAGE:
        if service == "sqs" or not world.messages:
            world.time.now += 1
            world.redrive()
        else:
            world.deliver()
    world.settle()
    session = world.session(sid)
    leaves = state in PHASES[Phase.LEAVING]
    assert session.failure is None, session.message
    assert session.state is (State.STOPPED if leaves else State.KEPT if state is State.KEPT else State.READY)
    assert session.credentials_held is (not leaves and state is not State.FORGETTING)
    world.assert_at_rest()
    if session.credentials_held:
        world.stop(sid)
        world.settle()
        world.assert_at_rest()


def whole_life(world: World) -> None:
    """A launch with all its waiting, credentials that are deleted and brought again, and a Stop."""
    sid = world.launch("lessons")
    world.settle()
    if world.session(sid).state is State.READY:
        world.forget(sid)
        world.settle()
        world.launch("lessons")
        world.settle()
    world.stop(sid)
    world.settle()


def instructions_of_a_life() -> int:
    world = World()
    with world.interrupted(None):
        whole_life(world)
    return world.trouble.count


def nothing_else(world: World, sid: str) -> None:
    """The others go on where the paused one was."""


def a_stop(world: World, sid: str) -> None:
    """The visitor presses Stop meanwhile."""
    world.stop(sid)


def a_stop_and_another_launch(world: World, sid: str) -> None:
    """The visitor presses Stop meanwhile, and launches again when all is cleared away."""
    world.stop(sid)
    world.settle()
    if world.session(sid).state is State.STOPPED:
        world.launch("lessons")


@pytest.mark.parametrize("meanwhile", [nothing_else, a_stop, a_stop_and_another_launch])
@pytest.mark.parametrize("instruction", range(1, instructions_of_a_life() + 1))
def test_a_launcher_that_is_paused_past_its_lease_doubles_nothing_when_it_goes_on(
    instruction: int, meanwhile: Callable[[World, str], None]
) -> None:
    """Paused at any instruction, while another one takes the session over and brings it to rest."""
    world = World()

    def pause() -> None:
        with world.acting("somebody else"):
            world.time.now += LEASE_SECONDS + 1
            for sid in list(world.store.sessions):  # none before the upload is written down
                meanwhile(world, sid)
            world.redrive()
            world.settle()

    with world.interrupted(instruction, pause):
        whole_life(world)
    assert world.trouble.count >= instruction
    world.settle()
    world.assert_at_rest()


@pytest.mark.parametrize("seed", range(20))
def test_launchers_whose_clocks_differ_by_ten_minutes_and_are_told_everything_several_times_double_nothing(
    seed: int,
) -> None:
    world, random = World(), Random(seed)

    def run() -> None:
        for _ in range(400):
            if world.messages:
                skew = random.choice((-600.0, 0.0, 600.0))
                world.deliver(random.randrange(64), again=random.random() < 0.6, skew=skew)
            else:
                world.sleep_until_due()
            if all(session.state in (State.READY, State.STOPPED) for session in world.store.sessions.values()):
                return

    sids = [world.launch(name) for name in ("lessons", "notes", "a third one")]
    run()
    world.settle()
    world.assert_at_rest()
    assert [world.session(sid).state for sid in sids] == [State.READY] * 3
    for sid in sids:
        world.stop(sid)
    run()
    world.settle()
    world.assert_at_rest()
    assert [world.session(sid).state for sid in sids] == [State.STOPPED] * 3
    assert all(world.session(sid).failure is None for sid in sids)


@pytest.mark.parametrize(
    ("meanwhile", "skew"),
    [
        (nothing_else, 600.0),
        (nothing_else, -600.0),
        (a_stop_and_another_launch, 600.0),
        (a_stop_and_another_launch, -600.0),
        (a_stop, 120.0),
        (a_stop, -600.0),
    ],
)
def test_a_launcher_with_another_clock_that_takes_a_session_over_from_one_at_work_doubles_nothing(
    meanwhile: Callable[[World, str], None], skew: float
) -> None:
    """At any instruction. By its clock the other's lease may be over.

    A clock that is more than two minutes and a half ahead could end the wait for a creation that was sent just before
    the Stop; its container is then swept by the owner's next launch. AWS takes no request from a clock that is five
    minutes wrong.
    """
    for instruction in range(1, instructions_of_a_life() + 1):
        world = World()

        def take_over(world: World = world) -> None:
            with world.acting("somebody else"):
                for sid in list(world.store.sessions):
                    meanwhile(world, sid)
                world.redrive()
                for _ in range(200):
                    if not world.messages:
                        world.sleep_until_due()
                    if world.messages:
                        world.deliver(skew=skew)
                    if all(session.state in (State.READY, State.STOPPED) for session in world.store.sessions.values()):
                        return

        with world.interrupted(instruction, take_over):
            whole_life(world)
        world.settle()
        world.assert_at_rest()
