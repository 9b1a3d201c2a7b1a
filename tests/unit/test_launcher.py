"""The launcher against an engine and stores in memory: killed at every instruction, told everything twice, raced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import cycle, pairwise
from typing import Any

import pytest

from chalicelib.aws.errors import StoreUnavailable
from chalicelib.aws.queues import Handover, TickMessage
from chalicelib.aws.slots import Pool
from chalicelib.bundle.address import AddressPolicy, Endpoint
from chalicelib.bundle.errors import ForbiddenAddress
from chalicelib.config import ENDPOINT_NETWORKS, Config
from chalicelib.engine.errors import (
    EndpointError,
    EndpointExpiredCertificate,
    EndpointTimeout,
    NotebookNotTls,
    NotebookSilent,
    NotebookUnreachable,
    NotebookWrongCertificate,
)
from chalicelib.launcher.effects import LEAST_SECONDS, PROBE_SECONDS, Effects
from chalicelib.launcher.outside import Resolve
from chalicelib.launcher.tick import HANDOVER_SECONDS, LONGEST_PROGRESS_SECONDS, PROGRESS_SECONDS, Launcher
from chalicelib.launcher.visit import HUNG_SECONDS, NOTED_SECONDS, SLOW_SECONDS
from chalicelib.notebook.certificates import HubTrust
from chalicelib.session import events as e
from chalicelib.session.admission import Slot, slot_of
from chalicelib.session.lanes import Lane, lane_of
from chalicelib.session.lease import EFFECT_SECONDS, LEASE_SECONDS, with_lease
from chalicelib.session.looks import OFTEN
from chalicelib.session.machine import PATIENCE, QUEUE_PAUSE, PullPatience, advance
from chalicelib.session.narration import MESSAGES
from chalicelib.session.values import PHASES, Failure, Limits, Options, Phase, Session, State, Target, container_name
from tests.builders import NOW, a_session, some_credentials
from tests.launcher_twins import (
    BuildLogTwin,
    Clock,
    ContainerTwin,
    CredentialsTwin,
    EngineTwin,
    ImageStoreTwin,
    Killed,
    QueueTwin,
    RouteStoreTwin,
    SessionStoreTwin,
    SlotStoreTwin,
    Trouble,
    a_trust,
    drive,
)

PLENTY = 1000.0


def _at_once(endpoint: Endpoint, policy: AddressPolicy) -> str:
    """A name server that always gives the engine's address."""
    return EngineTwin.address


@dataclass
class Stage:
    """One session on one engine, and the means to run ticks on it. What is to go wrong is given to the part it is in.

    `resolve` is what the name server says of the endpoint, checked. While `silent`, the notebook does not answer, for
    the reason of its `silence`, and if it is to `hang`, it does not even refuse the connection; it says that it is idle
    since `idle_since`.
    `trust` is the hub's own certificates, `networks` the private ones that endpoints may be in.
    """

    trouble: Trouble = field(default_factory=Trouble)
    clock: Clock = field(default_factory=lambda: Clock(NOW))
    store: SessionStoreTwin = field(default_factory=SessionStoreTwin)
    queue: QueueTwin = field(default_factory=QueueTwin)
    resolve: Resolve = _at_once
    silent: bool = False
    silence: EndpointError = field(default_factory=lambda: NotebookSilent("The notebook does not answer yet"))
    hang: bool = False
    idle_since: float | None = None
    trust: Callable[[], HubTrust] = a_trust
    networks: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    engine: EngineTwin = field(default_factory=EngineTwin)
    ticks: int = 0

    def __post_init__(self) -> None:
        self.routes = RouteStoreTwin(self.trouble)
        self.credentials = CredentialsTwin(self.trouble)
        self.engine.trouble = self.store.trouble = self.queue.trouble = self.trouble
        self.slots = SlotStoreTwin(self.clock, self.trouble)
        self.images = ImageStoreTwin(self.clock, self.trouble)
        self.build_logs = BuildLogTwin(self.trouble)
        self.submit(a_session())

    def submit(self, session: Session) -> None:
        """What the web function does with an upload; from now on this is the session."""
        self.sid = session.sid
        self.store.sessions[session.sid] = session
        self.credentials.objects[session.sid, session.generation] = (session.owner, some_credentials())

    @property
    def session(self) -> Session:
        return self.store.sessions[self.sid]

    @property
    def container(self) -> ContainerTwin:
        return self.engine.containers[container_name(self.sid, self.session.generation)]

    def launcher(self, lane: Lane = Lane.LAUNCH, time_left: Callable[[], float] = lambda: PLENTY) -> Launcher:
        self.ticks += 1
        return Launcher(
            sessions=self.store,
            effects=self.effects(),
            enqueue=self.queue.enqueue,
            lane=lane,
            pulls=PullPatience(),
            clock=self.clock,
            time_left=time_left,
            name=f"tick-{self.ticks}",
        )

    def effects(self, find_session: Callable[[str], Session | None] | None = None) -> Effects:
        return Effects(
            config=Config.from_environ({ENDPOINT_NETWORKS.name: self.networks, **self.environ}),
            credentials=self.credentials,
            routes=self.routes,
            slots=self.slots,
            images=self.images,
            build_logs=self.build_logs,
            trust=self.trust,
            find_session=find_session or self.store.find,
            clock=self.clock,
            sleep=self.clock.sleep,
            connect=self.engine.connect,
            resolve=self.resolve,
            probe=self.probe,
        )

    def probe(self, target: Target, host: str, trust: HubTrust, *, deadline: float) -> float | None:
        container = self.engine.containers.get(container_name(self.sid, self.session.generation))
        if self.hang:
            self.clock.now += deadline
        if self.silent or container is None or container.status != "running":
            raise self.silence
        return self.idle_since

    def tick(self, handover: Handover | None = None) -> Session:
        """A message, and what the lanes send each other at once because of it."""
        self.launcher(lane_of(self.session)).tick(TickMessage(self.sid, handover))
        while at_once := [sent for sent in self.queue.sent if sent[2] == 0 and sent[0].handover is None]:
            self.queue.sent.remove(at_once[0])
            message, lane, _ = at_once[0]
            self.launcher(lane).tick(message)
        return self.session

    def run_to_pull(self) -> None:
        """Have the pull admitted; what is left is the pull lane's."""
        self.launcher(Lane.LAUNCH).tick(TickMessage(self.sid))
        assert self.session.admitted
        self.queue.sent.clear()

    def look(self) -> Session:
        """What the schedule does with a ready session when its minute has come."""
        self.clock.now = min(self.clock.now + 60 * OFTEN, self.session.next_attempt_at or 0.0)
        return self.tick()

    def run(self, until: State, ticks: int = 300) -> Session:
        """What queue and schedule do: wake the session whenever it is due, until it is there."""
        for _ in range(ticks):
            if self.session.state is until:
                return self.session
            if self.session.state is State.READY:
                self.look()
                continue
            wake = max(self.session.next_attempt_at or self.clock.now, self.session.lease_expires_at)
            self.clock.now = max(self.clock.now, wake)
            self.tick()
        raise AssertionError(f"still {self.session.state} after {ticks} ticks: {self.session.message}")

    def ask_for(self, event: e.Event) -> None:
        """What the web function does for a visitor."""
        self.store.save(advance(self.session, event, self.clock()))

    def assert_nothing_is_left(self) -> None:
        assert self.session.state is State.STOPPED
        assert not self.engine.containers
        assert not self.routes.published()
        assert not self.credentials.objects


def test_a_warm_launch_takes_one_tick() -> None:
    stage = Stage()
    stage.engine.images.add(stage.session.image)
    stage.tick()
    assert stage.session.state is State.READY
    assert stage.queue.sent == []
    assert [route.target for route in stage.routes.published()] == [Target("203.0.113.7", 32768)]


def test_a_tick_makes_one_connection_to_the_endpoint_and_closes_it() -> None:
    stage = Stage()
    stage.engine.images.add(stage.session.image)
    stage.tick()
    assert (stage.engine.connected, stage.engine.connections) == (1, 0)
    assert len(stage.engine.deadlines) == 4, "verify, find the image, create, start: each with a deadline of its own"


def test_a_connection_on_which_something_failed_is_not_used_again() -> None:
    failures = iter([EndpointTimeout("The endpoint did not answer in time")])

    def fail(call: str) -> None:
        if call == "start" and (failure := next(failures, None)):
            raise failure

    stage = Stage(engine=EngineTwin(during=fail))
    stage.engine.images.add(stage.session.image)
    launcher = stage.launcher()
    launcher.tick(TickMessage(stage.sid))
    assert (stage.session.state, stage.engine.connected, stage.engine.connections) == (State.STARTING, 1, 0)
    stage.run(State.READY)
    assert stage.engine.connections == 0


def test_a_tick_that_finds_another_address_connects_there() -> None:
    addresses = cycle(["203.0.113.7", "203.0.113.8"])
    stage = Stage(resolve=lambda endpoint, policy: next(addresses))
    stage.engine.images.add(stage.session.image)
    stage.tick()
    assert stage.session.state is State.READY
    assert (stage.engine.connected, stage.engine.connections) == (4, 0)


@pytest.mark.parametrize("at", range(1, 40))
def test_a_tick_that_ends_in_any_way_leaves_no_connection_open(at: int) -> None:
    stage = Stage(trouble=Trouble(at))
    stage.engine.images.add(stage.session.image)
    with suppress(Killed):
        stage.tick()
    assert stage.engine.connections == 0


def test_a_cold_launch_pulls_once_and_shows_it() -> None:
    stage = Stage()
    stage.tick()
    assert stage.session.state is State.READY
    assert stage.engine.pulls == 1
    assert any("of 4 layers" in line.text for session in stage.store.history for line in session.log)


def test_a_stop_leaves_nothing() -> None:
    stage = Stage()
    stage.run(State.READY)
    stage.ask_for(e.StopRequested())
    stage.tick()
    stage.assert_nothing_is_left()
    assert stage.session.failure is None


def effects_of_a_whole_life() -> int:
    stage = Stage()
    stage.run(State.READY)
    stage.ask_for(e.StopRequested())
    stage.run(State.STOPPED)
    return stage.trouble.count


@pytest.mark.parametrize("instruction", range(1, effects_of_a_whole_life() + 1))
def test_killed_at_any_instruction_it_goes_on_with_the_same_container(instruction: int) -> None:
    stage = Stage(trouble=Trouble(at=instruction))
    killed = False
    for goal, event in ((State.READY, None), (State.STOPPED, e.StopRequested())):
        while stage.session.state is not goal:
            try:
                if event and stage.session.state not in PHASES[Phase.LEAVING]:
                    stage.ask_for(event)
                stage.run(goal)
            except Killed:
                killed = True
                stage.clock.now += LEASE_SECONDS
    assert killed
    assert stage.engine.created == [container_name(stage.sid, 1)]
    stage.assert_nothing_is_left()


def test_a_lost_save_after_each_effect_repeats_the_effect_and_nothing_else() -> None:
    """Perform, lose the save, tick again: the odd instructions of the store are those before its write."""
    for instruction in range(1, effects_of_a_whole_life() + 1):
        stage = Stage(trouble=Trouble(at=instruction))
        try:
            stage.run(State.READY)
        except Killed:
            stage.clock.now += LEASE_SECONDS
            stage.run(State.READY)
        assert len(stage.engine.created) == 1
        assert len(stage.routes.published()) == 1


def test_five_deliveries_of_every_message_do_everything_once() -> None:
    stage = Stage()
    for _ in range(5):
        stage.tick()
    assert stage.engine.created == [container_name(stage.sid, 1)]
    assert stage.engine.pulls == 1
    stage.ask_for(e.StopRequested())
    for _ in range(5):
        stage.tick()
    stage.assert_nothing_is_left()
    assert stage.queue.sent == []


@pytest.mark.parametrize("call", ["verify", "pull", "create", "put_files", "start"])
def test_a_second_tick_during_any_call_leaves_the_session_alone(call: str) -> None:
    stage = Stage()
    seen: list[Session] = []

    def meanwhile(name: str) -> None:
        if name == call and not seen:
            seen.append(stage.session)
            stage.tick()
            assert stage.session == seen[0]

    stage.engine.during = meanwhile
    stage.tick()
    assert stage.session.state is State.READY
    assert seen
    assert len(stage.engine.created) == 1


@pytest.mark.parametrize("call", ["verify", "pull", "create", "put_files", "start"])
def test_a_stop_during_any_call_is_obeyed_by_the_tick_at_work(call: str) -> None:
    stage = Stage()
    pressed: list[str] = []

    def meanwhile(name: str) -> None:
        if name == call and not pressed:
            pressed.append(name)
            stage.ask_for(e.StopRequested())

    stage.engine.during = meanwhile
    stage.tick()
    assert pressed
    stage.assert_nothing_is_left()


def test_a_tick_whose_lease_is_over_may_act_beside_the_next_one_and_nothing_is_doubled() -> None:
    stage = Stage()
    raced: list[str] = []

    def meanwhile(name: str) -> None:
        if name in ("create", "start") and name not in raced:
            raced.append(name)
            stage.clock.now += LEASE_SECONDS + 1
            stage.tick()

    stage.engine.during = meanwhile
    stage.tick()
    stage.run(State.READY)
    assert raced == ["create"] or raced == ["create", "start"]
    assert len(stage.engine.created) == 1
    assert len(stage.routes.published()) == 1


def test_a_pull_is_handed_over_to_the_tick_that_was_called() -> None:
    stage = Stage()
    stage.run_to_pull()
    progress = []

    def meanwhile(name: str) -> None:
        if name == "pull":
            progress.append(stage.session.written_by)
            if len(progress) == 2:  # the first tick called the next one with its first progress
                ((message, lane, delay),) = stage.queue.sent
                assert (message, lane, delay) == (TickMessage(stage.sid, Handover("tick-2")), Lane.PULL, 0.0)
                stage.queue.sent.clear()
                stage.tick(message.handover)

    stage.engine.during = meanwhile
    stage.launcher(Lane.PULL, time_left=lambda: HANDOVER_SECONDS - 1).tick(TickMessage(stage.sid))
    stage.tick()
    assert stage.session.state is State.READY
    assert "tick-3" in {session.written_by for session in stage.store.history if session.admitted}
    assert stage.engine.pulls == 2
    assert len(stage.engine.created) == 1


def a_long_pull(layers: int = 600, then: Callable[[Stage, int], None] = lambda stage, layer: None) -> Stage:
    """A stage whose image is pulled at a layer a second; `then` happens after each, by its number."""
    stage = Stage()
    stage.engine.layers = layers
    seen: list[str] = []

    def meanwhile(name: str) -> None:
        if name == "pull":
            seen.append(name)
            stage.clock.now += 1
            then(stage, len(seen))

    stage.engine.during = meanwhile
    return stage


def progress_saved(stage: Stage) -> list[Session]:
    return [session for session in stage.store.history if session.log[-1].progress]


def test_progress_is_saved_every_few_seconds_however_long_a_pull_takes_and_so_is_the_last() -> None:
    stage = a_long_pull(600)
    stage.tick()
    assert stage.session.state is State.READY
    *often, last = progress_saved(stage)
    pauses = [after.log[-1].at - before.log[-1].at for before, after in pairwise(often)]
    assert all(PROGRESS_SECONDS <= pause < LONGEST_PROGRESS_SECONDS + 2 for pause in pauses)
    assert max(pauses[:5]) < 5, "somebody has only begun to wait"
    assert 600 / 8 < len(often) <= 600 / LONGEST_PROGRESS_SECONDS + 20
    assert often[0].fraction == 0.0
    assert last.log[-1].text == "Pulling: 599 of 600 layers"


def test_a_pull_that_saves_little_holds_its_lease_all_the_same() -> None:
    held: list[bool] = []

    def look(stage: Stage, layer: int) -> None:
        if layer > 1:  # at the first one nothing of the pull was saved yet
            held.append(stage.session.lease_expires_at > stage.clock.now + EFFECT_SECONDS)

    a_long_pull(200, look).tick()
    assert held == [True] * 199


@pytest.mark.parametrize("pressed_at", [*range(2, 10), 200])
def test_a_stop_during_a_long_pull_is_obeyed_within_seconds(pressed_at: int) -> None:
    pressed, layers = list[float](), list[int]()

    def press(stage: Stage, layer: int) -> None:
        layers.append(layer)
        if layer == pressed_at:
            stage.ask_for(e.StopRequested())
            pressed.append(stage.clock.now)

    stage = a_long_pull(600, press)
    stage.tick()
    stage.assert_nothing_is_left()
    assert layers[-1] - pressed_at <= (PROGRESS_SECONDS if pressed_at < 30 else LONGEST_PROGRESS_SECONDS)


@pytest.mark.parametrize("taken_at", range(2, 10))
def test_a_tick_whose_pull_was_taken_over_lets_go_within_seconds(taken_at: int) -> None:
    layers: list[int] = []

    def take_over(stage: Stage, layer: int) -> None:
        layers.append(layer)
        if layer == taken_at:
            taken = advance(stage.session, e.PullProgressed(0.5, "Pulling: half of it"), stage.clock())
            stage.store.save(with_lease(taken, "tick-9", Lane.PULL, stage.clock()))

    stage = a_long_pull(600, take_over)
    assert stage.tick().written_by == "tick-9"
    assert stage.session.state is State.PULLING
    assert layers[-1] - taken_at <= PROGRESS_SECONDS


def test_what_happened_is_all_in_the_log_and_no_session_held_more_than_its_newest_lines() -> None:
    stage = a_long_pull(60)
    stage.tick()
    stage.ask_for(e.StopRequested())
    stage.tick()
    stage.assert_nothing_is_left()
    assert max(len(session.log) for session in stage.store.history) <= 2
    lines = {line.number: line for line in (*stage.store.earlier_lines(stage.session), *stage.session.log)}
    assert [lines[number].text for number in sorted(lines)] == [
        "Launch 1 of “lessons” on tcp://203.0.113.7:2376",
        "Connected to Docker 20.10.24 at 203.0.113.7",
        "Pulling: 59 of 60 layers",
        *(MESSAGES[state] for state in (State.CREATING, State.STARTING, State.PROBING, State.PUBLISHING, State.READY)),
        *(MESSAGES[state] for state in (State.WITHDRAWING, State.REMOVING, State.PURGING, State.STOPPED)),
    ]


def test_a_handover_offered_twice_is_taken_once() -> None:
    stage = Stage()
    stage.tick()
    before = stage.session
    stage.tick(Handover("tick-1"))
    assert stage.session == before


def test_the_next_tick_takes_the_pull_over_although_the_first_goes_on_saving_progress() -> None:
    stage = Stage()
    stage.run_to_pull()
    calls = []

    def meanwhile(name: str) -> None:
        if name == "pull":
            calls.append(stage.session.written_by)
            if len(calls) == 2:
                stage.tick(Handover("tick-2"))
            elif len(calls) == 3:  # the next tick is about to join, and the first saves what it heard
                stage.ask_for(e.PullProgressed(0.9, "Pulling: almost there"))

    stage.engine.during = meanwhile
    stage.launcher(Lane.PULL, time_left=lambda: HANDOVER_SECONDS - 1).tick(TickMessage(stage.sid))
    stage.tick()
    assert stage.session.state is State.READY
    assert "tick-3" in {session.written_by for session in stage.store.history if session.admitted}
    assert stage.engine.pulls == 2


def test_a_tick_that_cannot_join_leaves_the_pull_to_the_first() -> None:
    stage = Stage()
    stage.run_to_pull()

    def meanwhile(name: str) -> None:
        if name == "pull" and stage.ticks == 2:
            before = stage.session
            stage.engine.refuses = EndpointError("The endpoint does not answer")
            stage.tick(Handover("tick-2"))
            stage.engine.refuses = None
            assert stage.session == before

    stage.engine.during = meanwhile
    stage.tick()
    assert stage.session.state is State.READY
    assert stage.engine.pulls == 1


def test_the_next_tick_is_called_again_when_none_comes() -> None:
    stage = Stage()
    stage.run_to_pull()
    left = iter([PLENTY, HANDOVER_SECONDS - 1, HANDOVER_SECONDS - 2, 20.0, 19.0])
    stage.launcher(Lane.PULL, time_left=lambda: next(left, PLENTY)).tick(TickMessage(stage.sid))
    handovers = [sent for sent in stage.queue.sent if sent[0].handover]
    assert handovers == [(TickMessage(stage.sid, Handover("tick-2")), Lane.PULL, 0.0)] * 2


def test_a_write_whose_answer_was_lost_does_not_cut_the_pull() -> None:
    def unheard(session: Session) -> None:
        if session.state is State.PULLING:
            stage.store.save(session)  # what botocore's retry does: the condition now fails

    stage = Stage(store=SessionStoreTwin(after_save=unheard))
    stage.tick()
    assert stage.session.state is State.READY
    assert stage.engine.pulls == 1


def test_a_message_that_comes_a_moment_early_is_sent_again() -> None:
    stage = Stage()
    stage.store.sessions[stage.sid] = replace(stage.session, next_attempt_at=NOW + 0.5)
    stage.tick()
    assert stage.session.version == 1
    ((message, lane, delay),) = stage.queue.sent
    assert (message, lane) == (TickMessage(stage.sid), Lane.LAUNCH)
    assert 0 < delay < 0.5


def test_without_time_for_another_effect_the_tick_calls_the_next_one() -> None:
    stage = Stage()
    stage.launcher(time_left=lambda: 1.0).tick(TickMessage(stage.sid))
    assert stage.queue.sent == [(TickMessage(stage.sid), Lane.LAUNCH, 0.0)]
    assert stage.session.state is State.VERIFYING
    stage.run(State.READY)


def test_an_endpoint_that_comes_late_is_waited_for() -> None:
    stage = Stage()
    stage.engine.refuses = EndpointTimeout("The endpoint does not answer")
    stage.tick()
    assert stage.session.state is State.VERIFYING
    assert stage.session.message == "The endpoint does not answer"
    assert stage.queue.sent[0][0] == TickMessage(stage.sid)
    stage.engine.refuses = None
    stage.run(State.READY)
    assert stage.session.failure is None


def test_an_endpoint_that_never_comes_is_given_up() -> None:
    stage = Stage()
    stage.engine.refuses = EndpointTimeout("The endpoint does not answer")
    stage.run(State.STOPPED)
    assert stage.session.failure == Failure("endpoint-timeout", "The endpoint does not answer")
    assert stage.clock.now - NOW < PATIENCE[State.VERIFYING] + 30
    stage.assert_nothing_is_left()


def test_a_final_refusal_ends_the_launch_at_once() -> None:
    stage = Stage()
    stage.engine.refuses = EndpointError("The endpoint does not accept this certificate")
    stage.tick()
    assert stage.session.state is State.STOPPED
    assert stage.session.message == "The endpoint does not accept this certificate"
    stage.assert_nothing_is_left()


def test_credentials_that_are_still_on_their_way_are_waited_for() -> None:
    """The schedule may find the session between the write of its item and that of its credentials."""
    stage = Stage()
    arriving = dict(stage.credentials.objects)
    stage.credentials.objects.clear()
    stage.tick()
    assert stage.session.state is State.VERIFYING
    stage.credentials.objects.update(arriving)
    stage.run(State.READY)
    assert stage.session.failure is None


def test_the_endpoints_address_is_checked_again_for_every_effect() -> None:
    """A name that is bound to a forbidden address after it was verified gets nothing more."""
    verified: list[Endpoint] = []

    def rebound(endpoint: Endpoint, policy: AddressPolicy) -> str:
        if verified:
            raise ForbiddenAddress("The endpoint's address is not one this hub connects to")
        verified.append(endpoint)
        return EngineTwin.address

    stage = Stage(resolve=rebound)
    stage.engine.images.add(stage.session.image)
    stage.tick()
    assert verified == [some_credentials().endpoint]
    assert stage.engine.created == []
    assert stage.session.failure is not None
    assert stage.session.failure.code == "forbidden-address"
    stage.assert_nothing_is_left()


def test_an_upload_that_never_completed_ends_by_itself() -> None:
    stage = Stage()
    stage.credentials.objects.clear()
    stage.run(State.STOPPED)
    assert stage.session.failure is not None
    assert stage.session.failure.code == "credentials-missing"


def test_a_notebook_that_ends_says_why() -> None:
    def die() -> None:
        for container in stage.engine.containers.values():
            container.end(1, "ModuleNotFoundError: No module named 'jupyterlab'")

    stage = Stage(silent=True, clock=Clock(NOW, during_sleep=die))
    stage.run(State.STOPPED)
    assert stage.session.failure is not None
    assert stage.session.failure.code == "notebook-exited"
    assert "No module named 'jupyterlab'" in stage.session.failure.message
    stage.assert_nothing_is_left()


def test_a_notebook_that_is_paused_before_it_answers_is_waited_for() -> None:
    def pause() -> None:
        for container in stage.engine.containers.values():
            container.pause()

    stage = Stage(silent=True, clock=Clock(NOW, during_sleep=pause))
    stage.tick()
    assert stage.session.state is State.PROBING
    assert "docker unpause" in stage.session.message


def test_a_container_removed_before_its_notebook_answers_ends_the_session() -> None:
    def remove() -> None:
        stage.engine.containers.clear()

    stage = Stage(silent=True, clock=Clock(NOW, during_sleep=remove))
    stage.run(State.STOPPED)
    assert stage.session.failure is not None
    assert stage.session.failure.code == "container-removed"


def test_an_effect_ends_with_its_ticks_lease_however_long_the_save_before_it_took() -> None:
    stage = Stage()
    held = replace(stage.session, lease_expires_at=stage.clock.now + 5)
    list(stage.effects().perform(e.VerifyEndpoint(), held))
    assert 0 < stage.engine.deadlines[0] <= 5


def test_no_call_begins_once_an_effects_time_is_over() -> None:
    """AWS or a name server that takes a minute: another tick may hold the session by then, and have removed all."""

    def slow(endpoint: Endpoint, policy: AddressPolicy) -> str:
        stage.clock.now += LEASE_SECONDS
        return EngineTwin.address

    stage = Stage(resolve=slow)
    stage.tick()
    assert stage.engine.deadlines == []
    assert stage.session.state is State.VERIFYING
    assert stage.session.last_problem is not None
    assert stage.session.last_problem.code == "endpoint-timeout"


def test_a_tick_whose_save_took_longer_than_its_lease_does_nothing_that_another_one_has_done_meanwhile() -> None:
    """The save before the creation is slow, and by its end the session is stopped, and all of it cleared away."""
    stage = Stage()
    stage.engine.images.add(stage.session.image)

    def slow(session: Session) -> None:
        if session.state is State.CREATING and session.written_by == "tick-1":
            stage.store.after_save = lambda session: None
            stage.clock.now += LEASE_SECONDS + 1
            stage.ask_for(e.StopRequested())
            stage.run(State.STOPPED)

    stage.store.after_save = slow
    stage.tick()
    stage.assert_nothing_is_left()
    assert stage.engine.created == []


def test_a_tick_whose_save_took_longer_than_the_pause_it_saved_claims_the_session_again() -> None:
    """It had given the session back, and another tick may have claimed it."""
    stage = Stage()
    stage.engine.refuses = EndpointTimeout("The endpoint does not answer")
    held: list[bool] = []

    def slow(session: Session) -> None:
        stage.clock.now += 1

    def look(endpoint: Endpoint, policy: AddressPolicy) -> str:
        held.append(stage.session.lease_expires_at > stage.clock.now)
        return EngineTwin.address

    stage.store.after_save = slow
    stage.resolve = look
    stage.tick()
    assert len(held) > 1
    assert all(held)


def test_a_notebooks_last_log_lines_are_quoted_short() -> None:
    stage = Stage()
    stage.run(State.READY)
    stage.container.end(1, "\n".join(f"line {number} {'x' * 4000}" for number in range(9)))
    stage.run(State.STOPPED)
    assert stage.session.failure is not None
    message = stage.session.failure.message
    assert [number for number in range(9) if f"line {number} xxx" in message] == [4, 5, 6, 7, 8]
    assert message.index("line 4") < message.index("line 8")
    assert len(message) < 900


@pytest.mark.parametrize(
    "line",
    [
        "/opt/homeport/start: 8: exec: jupyter: not found",
        "/opt/homeport/start: line 8: exec: jupyter: not found",
        "Jupyter command `jupyter-lab` not found.",
    ],
)
def test_an_image_without_jupyter_is_told_as_such_with_what_its_shell_said(line: str) -> None:
    def die() -> None:
        for container in stage.engine.containers.values():
            container.end(127, f"setting up\n{line}")

    stage = Stage(silent=True, clock=Clock(NOW, during_sleep=die))
    stage.run(State.STOPPED)
    assert stage.session.failure is not None
    assert stage.session.failure.code == "image-without-jupyter"
    assert stage.session.failure.message.endswith(f"Last log lines: setting up | {line}")
    stage.assert_nothing_is_left()


def test_a_port_that_cannot_be_reached_is_told_at_once_and_is_the_failure_in_the_end() -> None:
    stage = Stage(silent=True, silence=NotebookUnreachable("Open port 32768"))
    stage.tick()
    assert stage.session.state is State.PROBING
    assert stage.session.message == "Open port 32768"
    stage.run(State.STOPPED)
    assert stage.session.failure == Failure("notebook-unreachable", "Open port 32768")
    stage.assert_nothing_is_left()


def test_a_port_that_is_opened_in_time_is_a_notebook_like_any_other() -> None:
    stage = Stage(silent=True, silence=NotebookUnreachable("Open port 32768"))
    stage.tick()
    stage.silent = False
    stage.run(State.READY)
    assert stage.session.failure is None


@pytest.mark.parametrize("wrong", [NotebookNotTls("No TLS"), NotebookWrongCertificate("Another's")])
def test_something_else_at_the_notebooks_port_ends_the_container_at_once(wrong: EndpointError) -> None:
    stage = Stage(silent=True, silence=wrong)
    stage.engine.images.add(stage.session.image)
    stage.tick()
    assert stage.session.failure == Failure(wrong.code, wrong.message)
    stage.assert_nothing_is_left()


@pytest.mark.parametrize("node", ["198.18.0.7", "2001:db8::7"])
def test_a_notebook_on_a_clusters_node_is_routed_to_that_node(node: str) -> None:
    stage = Stage(networks="198.18.0.0/15 2001:db8::/32")
    stage.engine.node = node
    stage.run(State.READY)
    assert [route.target for route in stage.routes.published()] == [Target(node, 32768)]


@pytest.mark.parametrize(
    "node",
    ["169.254.169.254", "fd00:ec2::254", "10.0.0.5", "127.0.0.1", "::1", "node-1", "1", "fe80::1%eth0", "x" * 99],
)
def test_a_node_where_the_hub_does_not_connect_to_ends_the_launch(node: str) -> None:
    stage = Stage()
    stage.engine.node = node
    stage.run(State.STOPPED)
    assert stage.session.failure is not None
    assert stage.session.failure.code == "node-forbidden"
    assert node[:40] in stage.session.failure.message
    assert len(stage.session.failure.message) < 300
    stage.assert_nothing_is_left()


def test_without_credentials_the_removal_is_given_up_at_once() -> None:
    """Forget and Stop, one right after the other: what opened the endpoint once cannot still be on its way."""
    stage = Stage()
    stage.run(State.READY)
    stage.credentials.objects.clear()
    stage.ask_for(e.StopRequested())
    stage.tick()
    assert stage.session.state is State.STOPPED
    assert stage.session.message.endswith(f"docker rm -f {container_name(stage.sid, 1)}")
    assert not stage.routes.published()


@pytest.mark.parametrize(("exit_code", "failed"), [(0, False), (143, False), (1, True), (137, True)])
def test_a_ready_notebook_that_ends_is_cleared_away(exit_code: int, failed: bool) -> None:
    stage = Stage()
    stage.run(State.READY)
    stage.container.end(exit_code)
    stage.run(State.STOPPED)
    assert (stage.session.failure is not None) == failed
    stage.assert_nothing_is_left()


def test_a_look_that_fails_takes_no_working_notebook_away() -> None:
    """The notebook has much to do, and the endpoint's certificate has expired."""
    stage = Stage()
    stage.run(State.READY)
    stage.silent = True
    stage.engine.refuses = EndpointExpiredCertificate("The endpoint showed a certificate that has expired")
    stage.look()
    assert stage.session.state is State.READY
    assert stage.session.message == "The endpoint showed a certificate that has expired"
    assert stage.routes.published()
    stage.silent = False
    stage.look()
    assert stage.session.message == "Your notebook is ready"


def test_a_paused_container_is_not_taken_for_an_ended_one() -> None:
    stage = Stage()
    stage.run(State.READY)
    stage.container.pause()
    stage.look()
    assert stage.session.state is State.READY
    assert "docker unpause" in stage.session.message
    assert stage.engine.containers


def test_the_calls_of_one_effect_share_its_time() -> None:
    """A probe waits for the notebook first, and then looks at the container: together within an effect's time."""
    stage = Stage(silent=True)
    stage.tick()
    assert stage.session.state is State.PROBING
    assert max(stage.engine.deadlines[:-1]) <= EFFECT_SECONDS
    assert stage.engine.deadlines[-1] <= EFFECT_SECONDS - PROBE_SECONDS


def test_a_container_removed_by_its_owner_ends_the_session() -> None:
    stage = Stage()
    stage.run(State.READY)
    stage.engine.containers.clear()
    stage.run(State.STOPPED)
    assert stage.session.failure is not None
    assert stage.session.failure.code == "container-removed"


def test_a_ready_session_ends_with_its_lifetime() -> None:
    stage = Stage()
    stage.run(State.READY)
    stage.clock.now = stage.session.expires_at
    stage.run(State.STOPPED)
    stage.assert_nothing_is_left()


def test_forgotten_credentials_leave_the_notebook_running() -> None:
    stage = Stage()
    stage.run(State.READY)
    stage.ask_for(e.ForgetRequested())
    stage.tick()
    assert stage.session.state is State.READY
    assert not stage.credentials.objects
    assert stage.engine.containers
    assert stage.routes.published()
    stage.ask_for(e.StopRequested())
    assert stage.tick().state is State.STOPPED
    assert stage.session.failure is not None
    assert stage.session.failure.code == "credentials-forgotten"
    assert f"docker rm -f {container_name(stage.sid, 1)}" in stage.session.message
    assert not stage.routes.published()


def test_an_unplugged_table_loses_nothing() -> None:
    clock = Clock(NOW)

    def unplugged(session: Session) -> None:
        if clock.now < NOW + 60:
            clock.now += 5
            raise StoreUnavailable("The hub's table did not answer")

    stage = Stage(clock=clock, store=SessionStoreTwin(before_save=unplugged))
    for _ in range(20):
        try:
            stage.run(State.READY)
        except StoreUnavailable:
            continue
    assert stage.session.state is State.READY
    assert len(stage.engine.created) == 1


def test_without_the_queue_the_schedule_drives_the_session_on() -> None:
    stage = Stage(queue=QueueTwin(refuses=StoreUnavailable("The hub's queue did not answer")))
    stage.engine.refuses = EndpointTimeout("The endpoint does not answer")
    stage.tick()
    assert [(due.sid, due.lane) for due in stage.store.due(stage.clock.now + LEASE_SECONDS)] == [
        (stage.sid, Lane.LAUNCH)
    ]
    stage.engine.refuses = None
    stage.run(State.READY)


def test_a_late_publication_never_brings_a_withdrawn_route_back() -> None:
    stage = Stage()
    stage.run(State.READY)
    late = stage.session
    stage.ask_for(e.StopRequested())
    stage.run(State.STOPPED)
    assert [type(event) for event in stage.effects().perform(e.PublishRoute(), late)] == [e.EffectFailed]
    assert not stage.routes.published()


def test_a_session_of_a_later_version_is_not_touched_by_a_tick() -> None:
    stage = Stage()
    stage.store.sessions[stage.sid] = newer = replace(stage.session, state=State.READY, newer=True)
    for _ in range(3):
        stage.tick()
        stage.clock.now += LEASE_SECONDS + 1
    assert stage.session == newer
    assert stage.store.history == []
    assert stage.queue.sent == []


def test_a_session_of_a_later_version_ends_with_its_lifetime_and_leaves_nothing() -> None:
    stage = Stage()
    stage.run(State.READY)
    stage.store.sessions[stage.sid] = replace(stage.session, newer=True, container=None)
    stage.clock.now = stage.session.expires_at
    stage.run(State.STOPPED)
    stage.assert_nothing_is_left()
    assert not stage.session.newer


def test_a_session_of_a_later_version_can_be_stopped() -> None:
    stage = Stage()
    stage.run(State.READY)
    stage.store.sessions[stage.sid] = replace(stage.session, newer=True)
    stage.ask_for(e.StopRequested())
    stage.tick()
    stage.assert_nothing_is_left()


# ── lanes and limits ─────────────────────────────────────────────────────────────────────────────────────────────────


def others(stage: Stage, pool: Pool, count: int, **same: str) -> None:
    """Give other sessions slots, which share with the stage's own what is named."""
    for number in range(count):
        slot = Slot(**{"owner": f"owner-{number}", "endpoint": "", "source": ""} | same, until=NOW + 3600)
        stage.slots.pools[pool][f"other-{number}"] = slot


def test_a_message_in_a_wrong_lane_is_passed_on_and_changes_nothing() -> None:
    stage = Stage()
    before = stage.session
    for lane in set(Lane) - {Lane.LAUNCH}:
        stage.launcher(lane).tick(TickMessage(stage.sid))
    assert stage.session == before
    assert stage.queue.sent == [(TickMessage(stage.sid), Lane.LAUNCH, 0.0)] * 3


def test_each_effect_is_performed_in_its_own_lane() -> None:
    stage = Stage()
    lanes: dict[str, str] = {}
    performed: list[tuple[str, Lane]] = []

    def launcher(lane: Lane) -> Launcher:
        launcher = stage.launcher(lane)
        lanes[f"tick-{stage.ticks}"] = lane
        return launcher

    def meanwhile(call: str) -> None:
        performed.append((call, Lane(lanes[stage.session.written_by])))

    stage.engine.during = meanwhile
    drive(launcher, stage.store, TickMessage(stage.sid))
    stage.ask_for(e.StopRequested())
    drive(launcher, stage.store, TickMessage(stage.sid))
    stage.assert_nothing_is_left()
    assert set(performed) == {
        ("verify", Lane.LAUNCH),
        ("launches", Lane.LAUNCH),  # what is left of earlier launches is looked for when the endpoint is verified
        ("pull", Lane.PULL),
        ("create", Lane.LAUNCH),
        ("put_files", Lane.LAUNCH),
        ("start", Lane.LAUNCH),
        ("remove", Lane.LEAVE),
        ("launches", Lane.LEAVE),
    }


def test_a_pull_beyond_the_owners_limit_waits_is_told_so_and_begins_when_another_has_ended() -> None:
    stage = Stage()
    others(stage, Pool.PULL, 4, owner=stage.session.owner[:16])
    stage.tick()
    assert stage.session.state is State.PULLING
    assert stage.session.message == "Waiting to pull the image: 4 other pulls with your key are under way"
    assert stage.engine.pulls == 0
    del stage.slots.pools[Pool.PULL]["other-0"]
    stage.run(State.READY)
    assert stage.engine.pulls == 1
    assert stage.sid not in stage.slots.pools[Pool.PULL]


def test_an_image_that_somebody_elses_pull_brought_needs_no_slot() -> None:
    stage = Stage()
    others(stage, Pool.PULL, 4, owner=stage.session.owner[:16])
    stage.tick()
    stage.engine.images.add(stage.session.image)
    stage.run(State.READY)
    assert stage.engine.pulls == 0


def test_not_more_pulls_are_admitted_than_the_lane_can_take() -> None:
    stage = Stage()
    capacity = Config.from_environ({}).pull_quota.in_all
    assert capacity == 24
    others(stage, Pool.PULL, capacity)
    stage.tick()
    assert stage.session.message == "Waiting to pull the image: 24 other pulls on this hub are under way"
    assert not stage.session.admitted


def test_a_pull_that_has_lost_its_slot_waits_again() -> None:
    stage = Stage()
    stage.run_to_pull()
    stage.slots.pools[Pool.PULL].clear()
    others(stage, Pool.PULL, 4, owner=stage.session.owner[:16])
    stage.launcher(Lane.PULL).tick(TickMessage(stage.sid))
    assert not stage.session.admitted
    assert stage.engine.pulls == 0
    stage.slots.pools[Pool.PULL].clear()
    stage.run(State.READY)


def test_a_stop_ends_a_pull_at_its_next_status_and_gives_its_slot_back() -> None:
    stage = Stage()
    stage.run_to_pull()
    assert stage.sid in stage.slots.pools[Pool.PULL]

    def meanwhile(call: str) -> None:
        if call == "pull" and stage.session.state is State.PULLING:
            stage.ask_for(e.StopRequested())

    stage.engine.during = meanwhile
    stage.launcher(Lane.PULL).tick(TickMessage(stage.sid))
    assert stage.queue.sent == [(TickMessage(stage.sid), Lane.LEAVE, 0.0)]
    assert stage.slots.pools[Pool.PULL] == {}
    stage.run(State.STOPPED)
    stage.assert_nothing_is_left()


def test_a_pull_that_was_handed_over_keeps_its_slot() -> None:
    stage = Stage()
    stage.run_to_pull()
    taken: list[str] = []

    def meanwhile(call: str) -> None:
        if call == "pull" and not taken:
            taken.append(call)
            stage.store.save(replace(stage.session, written_by="tick-9", version=stage.session.version + 1))

    stage.engine.during = meanwhile
    stage.launcher(Lane.PULL).tick(TickMessage(stage.sid))
    assert stage.session.written_by == "tick-9"
    assert stage.sid in stage.slots.pools[Pool.PULL]


def a_slow_engine(seconds: float, **stage: Any) -> Stage:
    """A stage whose engine takes so long for each call."""
    made = Stage(**stage)

    def slow(call: str) -> None:
        made.clock.now += seconds

    made.engine.during = slow
    made.engine.images.add(made.session.image)
    return made


def test_what_holds_a_function_for_long_is_noted_and_what_does_not_is_not() -> None:
    quick, slow = Stage(), a_slow_engine(SLOW_SECONDS + 1)
    quick.run(State.READY)
    slow.run(State.READY)
    assert quick.slots.pools[Pool.SLOW] == {}
    note = slow.slots.pools[Pool.SLOW][slow.sid]
    assert note.owner == slow.session.owner[:16]
    assert NOW < note.until <= slow.clock.now + NOTED_SECONDS


@pytest.mark.parametrize("error", [EndpointTimeout("No answer"), EndpointExpiredCertificate("Its certificate expired")])
def test_an_endpoint_that_fails_after_a_while_is_noted_whatever_it_fails_of(error: EndpointError) -> None:
    stage = Stage()

    def late(endpoint: Endpoint, policy: AddressPolicy) -> str:
        stage.clock.now += HUNG_SECONDS + 0.1
        raise error

    stage.resolve = late
    stage.tick()
    assert stage.sid in stage.slots.pools[Pool.SLOW]


@pytest.mark.parametrize("slow", ["verify", "create", "start"])
def test_no_stop_hides_how_long_a_call_took(slow: str) -> None:
    stage = a_slow_engine(0.0)

    def meanwhile(call: str) -> None:
        if call == slow:
            stage.clock.now += 9
            stage.ask_for(e.StopRequested())

    stage.engine.during = meanwhile
    stage.tick()
    assert stage.sid in stage.slots.pools[Pool.SLOW]


def test_many_calls_that_are_quick_enough_are_slow_together() -> None:
    stage = a_slow_engine(1.0)
    stage.run(State.READY)
    assert stage.sid in stage.slots.pools[Pool.SLOW]


def test_who_is_asked_all_the_time_is_noted_all_the_time() -> None:
    stage, gaps = Stage(), list[float]()
    for _ in range(12):
        stage.clock.now += EFFECT_SECONDS
        note = slot_of(stage.session, stage.clock.now + NOTED_SECONDS)
        stage.slots.put(Pool.SLOW, stage.sid, note)
        gaps.append(stage.slots.pools[Pool.SLOW][stage.sid].until - stage.clock.now)
    assert min(gaps) > EFFECT_SECONDS + QUEUE_PAUSE


@pytest.mark.parametrize(("part", "call"), [("credentials", "get"), ("slots", "take"), ("store", "save")])
def test_when_the_hubs_own_stores_are_slow_nobodys_endpoint_is(part: str, call: str) -> None:
    stage = Stage()
    store = getattr(stage, part)
    usual = getattr(store, call)

    def slow(*arguments: Any) -> Any:
        stage.clock.now += SLOW_SECONDS + 1
        return usual(*arguments)

    setattr(store, call, slow)
    stage.run(State.READY)
    assert stage.slots.pools[Pool.SLOW] == {}


def test_while_an_owner_is_slow_half_of_the_lane_is_all_that_it_may_hold() -> None:
    stage = Stage()
    stage.engine.images.add(stage.session.image)
    turns = Config.from_environ({}).turn_quota(Lane.LAUNCH).per_owner
    assert turns == 20
    mine = stage.session.owner[:16]
    others(stage, Pool.SLOW, turns, owner=mine)
    others(stage, Pool.LAUNCH_TURN, turns, owner=mine)
    stage.tick()
    assert stage.engine.deadlines == []
    assert stage.session.state is State.VERIFYING
    assert stage.session.message.startswith("20 other notebooks with your key wait for a Docker endpoint or a notebook")
    del stage.slots.pools[Pool.LAUNCH_TURN]["other-0"]
    stage.run(State.READY)
    assert stage.clock.now - NOW < 10
    assert stage.sid not in stage.slots.pools[Pool.LAUNCH_TURN], "a turn is given back"


def test_who_is_not_slow_needs_no_turn() -> None:
    stage = Stage()
    others(stage, Pool.SLOW, 400)
    others(stage, Pool.LAUNCH_TURN, 400)
    stage.run(State.READY)
    assert stage.clock.now - NOW < 5


def test_a_tick_takes_its_turn_as_soon_as_its_owner_has_become_slow() -> None:
    """All first asks are let through; those that then held their function are bounded from the next one on."""
    stage = a_slow_engine(10.0)
    mine = stage.session.owner[:16]
    slow = stage.engine.during

    def meanwhile(call: str) -> None:
        slow(call)
        others(stage, Pool.SLOW, 20, owner=mine)
        others(stage, Pool.LAUNCH_TURN, 20, owner=mine)

    stage.engine.during = meanwhile
    stage.tick()
    assert stage.session.queued
    assert stage.session.state is State.PULLING
    assert len(stage.engine.deadlines) == 1


def test_who_has_waited_for_a_turn_looks_for_the_image_and_needs_no_slot_to_pull_one_that_is_there() -> None:
    stage = Stage()
    stage.engine.images.add(stage.session.image)
    stage.store.sessions[stage.sid] = replace(stage.session, state=State.PULLING, queued=True)
    others(stage, Pool.PULL, 4, owner=stage.session.owner[:16])
    stage.tick()
    assert stage.session.state is State.READY
    assert stage.engine.pulls == 0


def test_who_waits_for_a_slot_does_not_ask_the_endpoint_each_time() -> None:
    stage = Stage()
    others(stage, Pool.PULL, 4, owner=stage.session.owner[:16])
    stage.tick()
    assert stage.session.pull_waits
    asked = len(stage.engine.deadlines)
    for _ in range(5):
        stage.clock.now = stage.session.next_attempt_at or 0.0
        stage.tick()
    assert len(stage.engine.deadlines) == asked
    stage.slots.pools[Pool.PULL].clear()
    stage.run(State.READY)
    assert stage.engine.pulls == 1


def test_no_value_of_a_variable_is_told_by_what_the_container_or_the_engine_says() -> None:
    secret = "s3cret-token-value"
    stage = Stage()
    stage.submit(a_session(options=Options(environment=("TOKEN",))))
    owner, credentials = stage.credentials.objects[stage.sid, 1]
    stage.credentials.objects[stage.sid, 1] = owner, replace(credentials, environment={"TOKEN": secret})
    stage.run(State.READY)
    stage.container.end(1, f"ValueError: invalid literal for int(): '{secret}'")
    stage.run(State.STOPPED)
    assert stage.session.failure is not None
    assert "invalid literal for int(): '…'" in stage.session.failure.message
    assert secret not in repr(stage.store.history)


def test_what_the_operator_limits_is_not_refused_on_a_smaller_machine() -> None:
    """The visitor, who asked for no limit, could not ask for less."""
    stage = Stage(environ={"HOMEPORT_MEMORY_LIMIT": "16g", "HOMEPORT_CPU_LIMIT": "4"})
    stage.engine.memory = 8 << 30
    stage.submit(a_session(limits=Limits(memory=16 << 30, cpus=4.0)))
    stage.run(State.READY)
    asked = a_session(name="asked", limits=Limits(memory=12 << 30))
    stage.submit(asked)
    stage.run(State.STOPPED)
    assert stage.session.failure is not None
    assert stage.session.failure.code == "limits-refused"


@pytest.mark.parametrize(("shared", "waits"), [("source", False), ("owner", True), ("endpoint", True)])
def test_the_others_behind_the_same_address_hold_up_nobodys_leaving(shared: str, waits: bool) -> None:
    stage = Stage()
    stage.store.sessions[stage.sid] = replace(stage.session, source="198.51.100.1/32")
    stage.run(State.READY)
    same = {"source": "198.51.100.1/32", "owner": stage.session.owner[:16], "endpoint": "203.0.113.7/32"}
    for pool in (Pool.SLOW, Pool.LEAVE_TURN):
        others(stage, pool, 20, **{shared: same[shared]})
    stage.ask_for(e.StopRequested())
    stage.tick()
    assert (stage.session.state is State.REMOVING) == waits
    stage.clock.now = NOW + 3600
    stage.run(State.STOPPED)
    assert not stage.credentials.objects


def test_a_stop_gives_back_the_slot_of_a_pull_that_no_tick_is_at() -> None:
    stage = Stage()
    stage.run_to_pull()
    stage.ask_for(e.StopRequested())
    stage.run(State.STOPPED)
    assert stage.slots.pools[Pool.PULL] == {}


def test_a_slot_that_cannot_be_given_back_keeps_no_other_one() -> None:
    stage = Stage()
    mine = stage.session.owner[:16]
    others(stage, Pool.SLOW, 20, owner=mine)
    given_back: list[str] = []

    def refuse(pool: str, sid: str) -> None:
        given_back.append(pool)
        raise StoreUnavailable("The table does not answer")

    stage.slots.give_back = refuse  # type: ignore[method-assign]
    stage.tick()
    assert sorted(set(given_back)) == [Pool.LAUNCH_TURN, Pool.PULL]
    assert stage.session.state is State.READY


def test_a_stop_while_the_image_is_looked_for_leaves_no_slot() -> None:
    stage = Stage()

    def meanwhile(call: str) -> None:
        if stage.session.state is State.PULLING:
            stage.ask_for(e.StopRequested())

    stage.slots.during = meanwhile
    stage.run(State.STOPPED)
    assert stage.slots.pools[Pool.PULL] == {}


def test_a_handover_is_accepted_however_slow_others_are() -> None:
    stage = Stage()
    stage.run_to_pull()
    for pool in (Pool.SLOW, Pool.LAUNCH_TURN):
        others(stage, pool, 20, owner=stage.session.owner[:16])
    stage.store.save(replace(stage.session, written_by="tick-0", version=stage.session.version + 1))
    stage.launcher(Lane.PULL).tick(TickMessage(stage.sid, Handover("tick-0")))
    assert stage.engine.pulls == 1
    assert stage.session.state is State.CREATING


def offered(stage: Stage) -> Handover:
    """The handover that the tick offers which holds the stage's pull."""
    stage.run_to_pull()
    stage.store.save(replace(stage.session, written_by="tick-0", version=stage.session.version + 1))
    return Handover("tick-0")


def test_a_pull_is_taken_over_by_one_tick_at_a_time() -> None:
    stage = Stage()
    handover = offered(stage)
    before = stage.session
    stage.slots.put(Pool.HANDOVER, stage.sid, slot_of(stage.session, stage.clock.now + 60))
    stage.launcher(Lane.PULL).tick(TickMessage(stage.sid, handover))
    assert (stage.session, stage.engine.pulls) == (before, 0)
    assert stage.sid in stage.slots.pools[Pool.HANDOVER], "it is the other tick's"


@pytest.mark.parametrize("shared", ["owner", "endpoint"])
def test_no_owner_and_no_network_has_more_than_half_of_the_functions_that_take_pulls_over(shared: str) -> None:
    stage = Stage()
    handover = offered(stage)
    mine = slot_of(stage.session, 0.0)
    others(stage, Pool.HANDOVER, 100)
    others(stage, Pool.HANDOVER, 3, **{shared: getattr(mine, shared)})
    before = stage.session
    stage.launcher(Lane.PULL).tick(TickMessage(stage.sid, handover))
    assert (stage.session, stage.engine.pulls) == (before, 0)
    del stage.slots.pools[Pool.HANDOVER]["other-0"]
    stage.launcher(Lane.PULL).tick(TickMessage(stage.sid, handover))
    assert stage.session.state is State.CREATING


def test_the_turn_of_taking_a_pull_over_ends_when_it_has_joined() -> None:
    stage = Stage()
    handover = offered(stage)
    held: list[bool] = []
    stage.engine.during = lambda call: held.append(stage.sid in stage.slots.pools[Pool.HANDOVER])
    stage.launcher(Lane.PULL).tick(TickMessage(stage.sid, handover))
    assert held == [True] + [False] * (stage.engine.layers - 1)


def test_a_tick_that_cannot_join_gives_its_turn_back() -> None:
    stage = Stage()
    handover = offered(stage)
    stage.engine.refuses = EndpointError("The endpoint does not answer")
    stage.launcher(Lane.PULL).tick(TickMessage(stage.sid, handover))
    assert stage.slots.pools[Pool.HANDOVER] == {}


def test_a_pull_that_is_joined_has_to_answer_in_time_for_another_tick_to_try() -> None:
    stage = Stage()
    handover = offered(stage)
    stage.launcher(Lane.PULL).tick(TickMessage(stage.sid, handover))
    assert 0 < stage.engine.answer_within <= EFFECT_SECONDS < HANDOVER_SECONDS / 2


@pytest.mark.parametrize("answers", ["hangs", "refuses"])
def test_while_others_notebooks_hang_the_first_look_is_as_short_as_all_others(answers: str) -> None:
    stage = Stage(silent=True)
    stage.hang = answers == "hangs"
    stage.engine.images.add(stage.session.image)
    others(stage, Pool.SLOW, 20, owner=stage.session.owner[:16])
    stage.tick()
    assert stage.session.state is State.PROBING
    assert stage.clock.now - NOW < 2 * LEAST_SECONDS
    assert (stage.sid in stage.slots.pools[Pool.SLOW]) == stage.hang


def test_a_notebook_that_does_not_answer_holds_no_function_after_the_first_wait() -> None:
    stage = Stage(silent=True)
    stage.engine.images.add(stage.session.image)
    stage.tick()
    assert stage.clock.now - NOW > PROBE_SECONDS
    for _ in range(5):
        stage.clock.now = begun = stage.session.next_attempt_at or 0.0
        stage.tick()
        assert stage.session.state is State.PROBING
        assert stage.clock.now - begun < 2
