"""No container is left: a creation that nobody saw answered is waited for, and what is left all the same is swept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from itertools import count

import pytest

from chalicelib.aws.errors import StoreUnavailable
from chalicelib.aws.queues import TickMessage
from chalicelib.engine.errors import (
    ContainerConflict,
    EndpointError,
    EndpointFailed,
    EndpointForbidden,
    EndpointTimeout,
)
from chalicelib.notebook.certificates import HubTrust, new_ca
from chalicelib.notebook.container import LABEL, hub_label, specification
from chalicelib.session import events as e
from chalicelib.session.lanes import lane_of
from chalicelib.session.lease import EFFECT_SECONDS
from chalicelib.session.machine import SETTLE_SECONDS, new_session
from chalicelib.session.values import Failure, Limits, Session, State, container_name, session_id
from tests.builders import LIFETIME, NOW, OWNER, a_session, some_credentials
from tests.launcher_twins import Clock, ContainerTwin, Killed, SlowEngineTwin, Trouble, a_trust
from tests.unit.test_launcher import Stage

HUB = hub_label("homeport", a_trust().notebook_ca)
BY_HAND = "docker rm -f "
AGES = 86400.0


# ── a call that takes longer than anybody waits ──────────────────────────────────────────────────────────────────────


def a_slow_stage(*, trouble: Trouble | None = None, takes: Mapping[str, float]) -> tuple[Stage, SlowEngineTwin]:
    """A stage whose engine takes so many seconds for a call."""
    clock = Clock(NOW)
    engine = SlowEngineTwin(clock=clock, sleep=clock.sleep, takes=takes)
    stage = Stage(trouble=trouble or Trouble(), clock=clock, engine=engine)
    engine.images.add(stage.session.image)
    return stage, engine


def stop(stage: Stage) -> None:
    """What the web function does, which accepts a Stop of a session on its way out as well."""
    if stage.session.state is not State.STOPPED:
        stage.ask_for(e.StopRequested())


def launch(stage: Stage) -> None:
    """Wake the session whenever it is due, until the launch has succeeded or failed."""
    while stage.session.state not in (State.READY, State.STOPPED):
        stage.clock.now = max(stage.clock.now, stage.session.next_attempt_at or 0.0, stage.session.lease_expires_at)
        stage.tick()


def run_until_all_calls_have_settled(stage: Stage, engine: SlowEngineTwin) -> None:
    stage.run(State.STOPPED)
    stage.clock.now += AGES
    engine.settle()
    assert engine.under_way == []


@pytest.mark.parametrize("seconds", [10.0, 31.0, 60.0, 120.0])
@pytest.mark.parametrize("call", ["create", "start", "remove"])
def test_no_container_is_left_however_long_a_call_takes_and_whenever_stop_is_pressed(call: str, seconds: float) -> None:
    """Stop is pressed after the first save or slow call, then, in a life of its own, after the second, and so on."""
    lives = 0
    pressed = True
    while pressed:
        stage, engine = a_slow_stage(takes={call: seconds})
        pressed = press_stop_after(lives, stage, engine)
        lives += 1
        stage.assert_nothing_is_left()
    assert lives > 10


def press_stop_after(steps: int, stage: Stage, engine: SlowEngineTwin) -> bool:
    """Live through a launch with a Stop after so many steps, or at its end; say whether there were so many."""
    left = iter(range(steps))
    pressed: list[State] = []

    def step(_: object) -> None:
        if next(left, None) is None and not pressed:
            pressed.append(stage.session.state)
            stop(stage)

    stage.store.after_save = engine.sent = step
    launch(stage)
    if not pressed:
        stop(stage)
    run_until_all_calls_have_settled(stage, engine)
    return bool(pressed)


@pytest.mark.parametrize("seconds", [10.0, 31.0, 60.0, 120.0])
@pytest.mark.parametrize("goes_on", [False, True], ids=["stopped at once", "stopped when it is ready"])
def test_no_container_is_left_of_a_creation_whose_tick_was_killed(seconds: float, goes_on: bool) -> None:
    """Killed at every instruction of a launch, one of which is after the creation was sent."""
    for instruction in count(1):
        stage, engine = a_slow_stage(trouble=Trouble(at=instruction), takes={"create": seconds})
        try:
            launch(stage)
        except Killed:
            if goes_on:
                engine.takes = {}
                launch(stage)
            stop(stage)
            run_until_all_calls_have_settled(stage, engine)
            stage.assert_nothing_is_left()
        else:
            assert instruction > 5
            return


def in_creation(seconds: float) -> tuple[Stage, SlowEngineTwin]:
    """A stage whose creation was sent once and takes longer than the hub waits."""
    stage, engine = a_slow_stage(takes={"create": seconds})
    stage.tick()
    assert stage.session.state is State.CREATING
    return stage, engine


def test_while_a_creation_may_still_make_its_container_the_visitor_reads_that_the_hub_waits() -> None:
    stage, _ = in_creation(60.0)
    stop(stage)
    stage.tick()
    assert stage.session.state is State.REMOVING
    assert "may still do so" in stage.session.message
    assert stage.session.failure is None
    assert stage.session.credentials_held


def test_a_creation_that_never_ends_is_not_waited_for_without_end() -> None:
    stage, _ = in_creation(1e9)
    stop(stage)
    pressed = stage.clock.now
    stage.run(State.STOPPED)
    assert SETTLE_SECONDS <= stage.clock.now - pressed <= SETTLE_SECONDS + 61
    assert stage.session.failure is None


def test_a_stop_during_a_creation_that_is_answered_is_as_quick_as_any() -> None:
    stage, engine = a_slow_stage(takes={"create": 10.0})
    engine.sent = lambda call: stop(stage) if call == "create" else None
    stage.tick()
    stage.assert_nothing_is_left()


def test_a_stop_of_a_new_notebook_waits_for_nothing_although_its_container_is_gone() -> None:
    stage = Stage()
    stage.run(State.READY)
    stage.engine.containers.clear()
    stop(stage)
    stage.tick()
    stage.assert_nothing_is_left()


def test_a_creation_that_was_refused_leaves_nothing_to_wait_for() -> None:
    stage = Stage()
    stage.engine.images.add(stage.session.image)

    def refuse(call: str) -> None:
        if call == "create":
            raise EndpointForbidden("The endpoint forbids this")

    stage.engine.during = refuse
    stage.tick()
    stage.assert_nothing_is_left()


def test_a_second_creation_that_was_answered_does_not_settle_the_first() -> None:
    """Held up on its way for two minutes, the first arrives when the container of the second is removed again."""
    stage, engine = in_creation(120.0)
    engine.takes = {}
    stage.run(State.READY)
    assert len(engine.under_way) == 1
    stop(stage)
    run_until_all_calls_have_settled(stage, engine)
    stage.assert_nothing_is_left()


def test_hours_after_a_slow_creation_a_stop_is_as_quick_as_any() -> None:
    stage, engine = in_creation(120.0)
    engine.takes = {}
    stage.run(State.READY)
    stage.clock.now += 3600
    stop(stage)
    stage.tick()
    stage.assert_nothing_is_left()


def test_what_is_waited_for_is_longer_than_the_slowest_call_that_is_promised_for() -> None:
    assert SETTLE_SECONDS >= 120 + EFFECT_SECONDS


# ── sweeping ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def launched_again(stage: Stage, name: str) -> None:
    """The owner's next launch, of a notebook of that name."""
    previous = stage.store.sessions.get(session_id(OWNER, name))
    session = new_session(
        owner=OWNER,
        name=name,
        endpoint=stage.session.endpoint,
        image=stage.session.image,
        limits=Limits(),
        now=stage.clock(),
        lifetime=LIFETIME,
        request="request-2",
        label="zzzzzzzzzz",
        previous=previous,
    )
    stage.submit(session)


def left_running() -> Stage:
    """A notebook that was stopped after its credentials were forgotten, so that its container runs on."""
    stage = Stage()
    stage.run(State.READY)
    stage.ask_for(e.ForgetRequested())
    stage.tick()
    stage.ask_for(e.StopRequested())
    stage.tick()
    assert stage.session.state is State.STOPPED
    assert stage.container.status == "running"
    return stage


@pytest.mark.parametrize("name", ["lessons", "another notebook"])
def test_the_next_launch_with_the_key_removes_what_an_earlier_one_left(name: str) -> None:
    stage = left_running()
    calls: list[str] = []
    stage.engine.during = calls.append
    launched_again(stage, name)
    stage.run(State.READY)
    assert list(stage.engine.containers) == [container_name(stage.sid, stage.session.generation)]
    assert calls.count("launches") == 1
    assert calls.index("remove") < calls.index("create")


def test_what_appears_later_than_anybody_waits_is_removed_by_the_next_launch() -> None:
    stage, engine = in_creation(600.0)
    stop(stage)
    run_until_all_calls_have_settled(stage, engine)
    assert list(engine.containers) == [container_name(stage.sid, 1)]
    engine.takes = {}
    launched_again(stage, "lessons")
    stage.run(State.READY)
    assert list(engine.containers) == [container_name(stage.sid, 2)]


OTHER = a_session(name="another notebook", generation=3, state=State.READY)


def a_container(session: Session, hub: str = HUB) -> ContainerTwin:
    """The running container of a session."""
    asked = specification(session, hub_name=hub, image_workdir="", publish_address="", idle_lifetime=60.0)
    return ContainerTwin(asked, files=b"some", status="running")


def answers_again(stage: Stage) -> None:
    """A look that finds the notebook silent, and one that does not."""
    stage.silent = True
    stage.look()
    assert stage.session.last_problem is not None
    stage.silent = False
    stage.look()
    assert stage.session.last_problem is None


def is_left(container: ContainerTwin, item: Session | None) -> bool:
    """Say whether a container is still there when a notebook of OWNER answers again; `item` is what is stored."""
    stage = Stage()
    stage.run(State.READY)
    name = container.specification.name
    stage.engine.containers[name] = container
    if item is not None:
        stage.store.sessions[item.sid] = item
    answers_again(stage)
    assert stage.session.state is State.READY
    assert stage.container.status == "running"
    return name in stage.engine.containers


@pytest.mark.parametrize(
    "item",
    [replace(OTHER, state=State.STOPPED), replace(OTHER, generation=4), replace(OTHER, generation=4, newer=True)],
    ids=["stopped", "launched again", "launched again by a later version"],
)
def test_what_launches_that_are_over_have_left_is_removed_when_a_notebook_answers_again(item: Session) -> None:
    assert not is_left(a_container(OTHER), item)


def test_so_is_what_is_left_of_an_earlier_launch_of_the_same_notebook() -> None:
    stage = Stage()
    stage.submit(a_session(generation=2))
    stage.run(State.READY)
    stage.engine.containers[container_name(stage.sid, 1)] = a_container(a_session())
    answers_again(stage)
    assert list(stage.engine.containers) == [container_name(stage.sid, 2)]


STRANGER = "cd" * 32


@pytest.mark.parametrize(
    ("container", "item"),
    [
        (a_container(OTHER), OTHER),
        (a_container(OTHER), replace(OTHER, state=State.REMOVING)),
        (a_container(OTHER), replace(OTHER, generation=2, state=State.STOPPED)),
        (a_container(OTHER), None),
        (a_container(OTHER), replace(OTHER, owner=STRANGER, state=State.STOPPED)),
        (a_container(replace(OTHER, owner=STRANGER)), replace(OTHER, owner=STRANGER, state=State.STOPPED)),
        (a_container(OTHER, "homeport"), replace(OTHER, state=State.STOPPED)),
        (a_container(OTHER, "homeport-0123456789abcdef"), replace(OTHER, state=State.STOPPED)),
    ],
    ids=["it runs", "it is being removed", "of a launch that the table lost", "of a session that the table lost",
         "labelled as ours, of somebody else", "somebody else's", "of a hub before fingerprints", "of another hub"],
)  # fmt: skip
def test_whatever_is_not_known_to_be_over_is_left_alone(container: ContainerTwin, item: Session | None) -> None:
    assert is_left(container, item)


def test_a_session_from_before_fingerprints_sweeps_nothing() -> None:
    """Its hub's label may be another operator's, too, and so may what it lists."""
    stage = Stage()
    calls: list[str] = []
    stage.run(State.READY)
    stage.store.sessions[stage.sid] = replace(stage.session, hub="")
    stage.engine.during = calls.append
    answers_again(stage)
    assert stage.session.state is State.READY
    assert "launches" not in calls


def test_removing_a_container_ends_with_a_look_for_others() -> None:
    stage = Stage()
    stage.submit(a_session(generation=2))
    stage.run(State.READY)
    stage.engine.containers[container_name(stage.sid, 1)] = a_container(a_session())
    stop(stage)
    stage.tick()
    stage.assert_nothing_is_left()


@pytest.mark.parametrize("error", [EndpointForbidden, EndpointFailed, EndpointTimeout, ContainerConflict])
@pytest.mark.parametrize("call", ["launches", "remove"])
def test_what_cannot_be_swept_fails_no_launch(call: str, error: type[EndpointError]) -> None:
    def fail(name: str) -> None:
        if name == call:
            raise error("The endpoint forbids this")

    stage = left_running()
    stage.engine.during = fail
    launched_again(stage, "another notebook")
    stage.tick()
    assert stage.session.state is State.READY
    assert all("forbids" not in line.text for line in stage.session.log)


def test_what_cannot_be_removed_keeps_nothing_else_from_being_swept() -> None:
    removals = count(1)

    def fail(name: str) -> None:
        if name == "remove" and next(removals) == 1:
            raise EndpointFailed("driver failed to remove root filesystem")

    stage = Stage()
    stage.submit(a_session(generation=3))
    earlier = [a_container(a_session(generation=generation)) for generation in (1, 2)]
    stage.engine.containers.update({container.specification.name: container for container in earlier})
    stage.engine.during = fail
    stage.run(State.READY)
    assert list(stage.engine.containers) == [container_name(stage.sid, 1), container_name(stage.sid, 3)]


def test_a_table_that_does_not_answer_a_sweep_fails_no_launch() -> None:
    stage = left_running()
    effects = stage.effects(find_session=unanswered)
    session = replace(stage.session, state=State.VERIFYING, generation=2)
    stage.credentials.objects[session.sid, 2] = (session.owner, some_credentials())
    assert [type(event) for event in effects.perform(e.VerifyEndpoint(), session)] == [e.EndpointVerified]
    assert stage.engine.containers


def unanswered(sid: str) -> Session | None:
    raise StoreUnavailable("The hub's table did not answer")


# ── whose a container is ─────────────────────────────────────────────────────────────────────────────────────────────


@cache
def another_trust() -> HubTrust:
    """The certificates of another operator's hub, or of this one after a rotation."""
    return replace(a_trust(), notebook_ca=new_ca("Homeport test notebook CA", now=NOW, lifetime=LIFETIME))


def test_two_hubs_of_one_name_neither_adopt_nor_remove_each_others_containers() -> None:
    """Stage names are not unique: prod is everybody's. The same visitor uses both hubs, with one key and one name."""
    one = Stage()
    one.run(State.READY)
    other = Stage(trust=another_trust, engine=one.engine)
    other.run(State.STOPPED)
    assert other.session.failure is not None
    assert other.session.failure.code == "container-conflict"
    assert BY_HAND not in other.session.message, "the visitor would remove the notebook of the first hub"
    assert all(BY_HAND not in line.text for line in other.session.log)
    assert one.container.status == "running"
    assert one.container.specification.labels[f"{LABEL}hub"] == HUB
    stop(one)
    one.tick()
    one.assert_nothing_is_left()


def test_a_container_that_is_somebody_elses_by_the_end_is_told_whatever_the_launch_failed_of() -> None:
    stage = Stage()
    stage.run(State.READY)
    stage.engine.containers[container_name(stage.sid, 1)] = a_container(stage.session, "another")
    stage.ask_for(e.ContainerExited(Failure("notebook-exited", "The notebook ended")))
    stage.tick()
    assert stage.session.state is State.STOPPED
    assert stage.session.message.endswith(f"{BY_HAND}{container_name(stage.sid, 1)}")
    assert stage.engine.containers


def test_two_hubs_of_one_name_sweep_only_their_own() -> None:
    one = Stage()
    one.run(State.READY)
    other = Stage(trust=another_trust, engine=one.engine)
    other.store.sessions[one.sid] = a_session(generation=7, state=State.STOPPED, next_attempt_at=None)
    launched_again(other, "another notebook")
    other.run(State.READY)
    assert one.container.status == "running"


def test_a_notebook_that_ran_when_the_hubs_ca_was_replaced_is_removed_by_its_stop() -> None:
    stage = Stage()
    stage.run(State.READY)
    stage.trust = another_trust
    stop(stage)
    stage.tick()
    stage.assert_nothing_is_left()


@pytest.mark.parametrize("state", [State.CREATING, State.READY])
def test_a_notebook_that_was_launched_before_fingerprints_goes_on_and_is_removed_by_its_stop(state: State) -> None:
    stage = Stage()
    while stage.session.state is not State.PULLING:
        stage.launcher(lane_of(stage.session), time_left=one_effect()).tick(TickMessage(stage.sid))
    stage.store.sessions[stage.sid] = replace(stage.session, hub="")
    while stage.session.state is not state:
        stage.launcher(lane_of(stage.session), time_left=one_effect()).tick(TickMessage(stage.sid))
    stage.run(State.READY)
    assert stage.container.specification.labels[f"{LABEL}hub"] == "homeport"
    stop(stage)
    stage.tick()
    stage.assert_nothing_is_left()


def one_effect() -> Callable[[], float]:
    """Time enough for one effect of a tick."""
    left = iter([EFFECT_SECONDS])
    return lambda: next(left, 0.0)


# ── what cannot be removed is told ───────────────────────────────────────────────────────────────────────────────────


def after_forget(stage: Stage) -> None:
    stage.ask_for(e.ForgetRequested())
    stage.tick()


def without_stored_credentials(stage: Stage) -> None:
    stage.credentials.objects.clear()


def from_a_silent_endpoint(stage: Stage) -> None:
    stage.engine.refuses = EndpointTimeout("The endpoint does not answer")


def from_an_endpoint_that_refuses(stage: Stage) -> None:
    stage.engine.refuses = EndpointForbidden("The endpoint forbids this")


@pytest.mark.parametrize(
    "happens",
    [after_forget, without_stored_credentials, from_a_silent_endpoint, from_an_endpoint_that_refuses],
)
@pytest.mark.parametrize("ends", [e.StopRequested(), e.SessionExpired(), e.ContainerExited(None)])
def test_a_container_that_cannot_be_removed_is_told_with_the_command_that_removes_it(
    happens: Callable[[Stage], None], ends: e.Event
) -> None:
    stage = Stage()
    stage.run(State.READY)
    happens(stage)
    stage.ask_for(ends)
    stage.run(State.STOPPED)
    assert stage.engine.containers
    assert "your next launch with the same key removes it" in stage.session.message
    assert stage.session.message.endswith(f"{BY_HAND}{container_name(stage.sid, 1)}")
    assert stage.session.log[-1].text == stage.session.message
    assert not stage.routes.published()
    assert not stage.credentials.objects
