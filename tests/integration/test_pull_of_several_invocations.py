"""Pulls that outlive their functions, on real engines: what the registry has to serve, with the handover and without.

Two computers at two addresses, a registry for each image, the hub's own functions on real queues
(short_functions.py). An image's first layer comes at once, the second one waits at its gate until the test has seen
what it wants to see: how many functions have pulled the image, and how many pulls there are beside it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

import docker
import pytest
from docker.errors import NotFound

from chalicelib.aws.queues import TickMessage
from chalicelib.aws.session_items import REDRIVE_STEP
from chalicelib.aws.slots import Pool, SlotStore
from chalicelib.bundle.address import Endpoint
from chalicelib.bundle.credentials import Credentials
from chalicelib.config import Config
from chalicelib.engine.errors import ImageWithoutJupyter
from chalicelib.session.lanes import Lane, lane_of
from chalicelib.session.lease import released
from chalicelib.session.machine import new_session
from chalicelib.session.values import Limits, Session, State, launch_label
from chalicelib.wiring import CLOCK, Wiring
from local import containers
from local.aws import Aws
from local.endpoint import LocalEndpoint, endpoint
from local.engine import Engine, own_engine
from local.processes import wait_until
from tests.integration.gated_registry import GatedRegistry
from tests.integration.short_functions import ShortFunctions, short_functions
from tests.role_guard import guarded_aws

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("dockerd") or not shutil.which("haproxy"),
    reason="run as root after: apt-get install docker.io iptables haproxy",
)

HUB: Final = "several-invocations"
FUNCTIONS: Final = 20  # the least there are: 6 of the pull lane, 4 pulls
OF_LAYER: Final = 2_000_000  # bytes: manifest and configuration, which each function's pull asks for, are nothing to it
SPAN: Final = 3  # functions that pull an image at least
MOST: Final = 1.05  # of an image's bytes may be served
DEADLINE: Final = 120.0  # seconds
PAUSE: Final = 0.1  # seconds between two looks, which take the embedded AWS's time


@dataclass(frozen=True)
class Computer:
    """A visitor's computer: an engine, and its endpoint at an address of its own."""

    engine: Engine
    offered: LocalEndpoint

    @property
    def credentials(self) -> Credentials:
        pki = self.offered.pki
        pems = (pem.encode() for pem in (pki.ca, pki.certificate, pki.key))
        return Credentials(Endpoint(self.offered.address, self.offered.port), *pems)


@dataclass
class Pull:
    """A launch whose image is served by a registry of its own; `ticks` are those that were seen to hold the pull."""

    hub: Wiring
    sid: str
    registry: GatedRegistry
    ticks: set[str] = field(default_factory=set)

    def session(self) -> Session:
        session = self.hub.sessions.load(self.sid)
        if session.message.startswith("Pulling: "):
            self.ticks.add(session.written_by)
        return session

    @property
    def served(self) -> float:
        """What was served, as a share of the image."""
        return self.registry.served / self.registry.size


@dataclass(frozen=True)
class Rig:
    """All parts."""

    cloud: Aws
    config: Config
    computers: Sequence[Computer]

    @contextmanager
    def image(self, computer: Computer) -> Iterator[GatedRegistry]:
        """An image in a registry of its own, whose second layer waits; the computer does not keep it."""
        with closing(docker.APIClient(computer.engine.url, timeout=60)) as behind:
            try:
                with GatedRegistry(2, OF_LAYER) as registry:
                    registry.open_gates(0)
                    yield registry
            finally:
                with suppress(NotFound):
                    behind.remove_image(registry.image, force=True)

    @contextmanager
    def images(self, count: int) -> Iterator[list[tuple[Computer, GatedRegistry]]]:
        """So many images, for each computer in turn."""
        with ExitStack() as stack:
            computers = [self.computers[number % len(self.computers)] for number in range(count)]
            yield [(computer, stack.enter_context(self.image(computer))) for computer in computers]

    def functions(self, *, hands_over: bool = True) -> AbstractContextManager[ShortFunctions]:
        return short_functions(self.config, self.cloud, hands_over=hands_over)

    def launch(self, hub: Wiring, computer: Computer, registry: GatedRegistry) -> Pull:
        """What the web function does, for a visitor with a key of their own."""
        session = new_session(
            owner=sha256(registry.image.encode()).hexdigest(),
            name="lessons",
            endpoint=computer.offered.url,
            image=registry.image,
            limits=Limits(),
            now=CLOCK(),
            lifetime=3600.0,
            request="request",
            label=launch_label(registry.image),
        )
        hub.credentials.put(session.sid, session.generation, session.owner, computer.credentials)
        hub.sessions.save(session)
        hub.queues.enqueue(TickMessage(session.sid), lane=lane_of(session), delay=0.0)
        return Pull(hub, session.sid, registry)

    def pulling(self) -> set[str]:
        """The sessions that hold a pull's slot."""
        slots = SlotStore(self.cloud.client("dynamodb"), self.config.table, CLOCK)
        return set(slots.held(Pool.PULL))


@pytest.fixture(scope="module")
def rig(state: Path, engine: Engine) -> Iterator[Rig]:
    folder = state / "several-invocations"
    with (
        guarded_aws(folder / "aws") as cloud,
        own_engine(folder / "engine") as second,
        endpoint(folder / "endpoint-1", engine.socket) as offered_first,
        endpoint(folder / "endpoint-2", second.socket, address="127.0.0.2") as offered_second,
    ):
        config = Config.from_environ(
            dict(cloud.environ)
            | {
                "HOMEPORT_HUB_NAME": HUB,
                "HOMEPORT_FUNCTIONS": str(FUNCTIONS),
                "HOMEPORT_ENDPOINT_NETWORKS": "127.0.0.0/8",
                # Each computer alone may have more pulls than its share of this test: it is the lane that is full.
                "HOMEPORT_SHARED_NETWORKS": "127.0.0.0/8",
            }
        )
        try:
            yield Rig(cloud, config, [Computer(engine, offered_first), Computer(second, offered_second)])
        finally:
            containers.remove_all(engine.url, HUB, volumes=True)


def await_all(pulls: Sequence[Pull], condition: Callable[[Pull], bool], what: str) -> None:
    """Look at all of them until each has met the condition."""
    left = list(pulls)

    def all_have() -> bool:
        time.sleep(PAUSE)
        left[:] = [pull for pull in left if not condition(pull)]
        return not left

    wait_until(all_have, what=what, deadline=DEADLINE)


def spans_functions(pull: Pull) -> bool:
    pull.session()
    return len(pull.ticks) >= SPAN


def has_first_layer(pull: Pull) -> bool:
    """Its first layer is there, and the second one half."""
    served = pull.registry.served >= sum(map(len, pull.registry.layers)) * 0.75
    return served and pull.session().message.startswith("Pulling: 1 of 2 layers")


def is_over(pull: Pull) -> bool:
    """The image is there: a container was made of it, which cannot start, and all was removed again."""
    session = pull.session()
    if session.state is State.STOPPED:
        assert session.failure is not None
        assert session.failure.code == ImageWithoutJupyter.code, session.failure
    return session.state is State.STOPPED


def finish(pulls: Sequence[Pull]) -> None:
    for pull in pulls:
        pull.registry.open_gates()
    await_all(pulls, is_over, "the end of the launches")


def told(pulls: Sequence[Pull]) -> str:
    """The figures, for whoever runs the test."""
    return "bytes served by bytes of the image: " + ", ".join(f"{pull.served:.4f}" for pull in pulls)


def served_again(pulls: Sequence[Pull]) -> list[float]:
    """The shares that are too large."""
    return [pull.served for pull in pulls if pull.served > MOST]


def test_a_pull_that_outlives_three_functions_is_served_once(rig: Rig, report: Callable[[str], None]) -> None:
    with rig.images(1) as [(computer, registry)], rig.functions() as functions:
        pull = rig.launch(functions.hub, computer, registry)
        await_all([pull], spans_functions, "the handovers")
        finish([pull])
    report(f"one pull, {len(pull.ticks)} functions: {told([pull])}")
    assert served_again([pull]) == []


def test_at_saturation_of_the_lane_every_image_is_served_once(rig: Rig, report: Callable[[str], None]) -> None:
    most = rig.config.pull_quota.in_all or 0
    with rig.images(most + 2) as images, rig.functions() as functions:
        first = [rig.launch(functions.hub, *image) for image in images[:most]]
        await_all(first, lambda pull: pull.session().admitted, "the first launches' admission")
        waiting = [rig.launch(functions.hub, *image) for image in images[most:]]
        sentence = f"Waiting to pull the image: {most} other pulls on this hub are under way"
        await_all(waiting, lambda pull: pull.session().message == sentence, "being told to wait")
        await_all(first, lambda pull: spans_functions(pull) and has_first_layer(pull), "the handovers")
        all_functions = rig.config.functions_of(Lane.PULL)
        wait_until(lambda: functions.most[Lane.PULL] == all_functions, what="a full lane", deadline=DEADLINE)
        assert rig.pulling() == {pull.sid for pull in first}
        assert [pull.session().state for pull in waiting] == [State.PULLING] * len(waiting)
        finish([*first, *waiting])
    report(f"{most} pulls on {all_functions} functions, and {len(waiting)} after them: {told([*first, *waiting])}")
    assert served_again([*first, *waiting]) == []


def test_without_the_handover_what_was_served_is_served_again(rig: Rig, report: Callable[[str], None]) -> None:
    """The contrast: offers go nowhere, and each pull's function ends once."""
    with rig.images(rig.config.pull_quota.in_all or 0) as images, rig.functions(hands_over=False) as functions:
        pulls = [rig.launch(functions.hub, *image) for image in images]
        await_all(pulls, has_first_layer, "the first layers")
        end_functions(functions, pulls)
        finish(pulls)
    report(f"without the handover: {told(pulls)}")
    assert len(served_again(pulls)) == len(pulls)


def end_functions(functions: ShortFunctions, pulls: Sequence[Pull]) -> None:
    """Let the time of all functions end, and what they held be over, so that the schedule drives it on."""
    functions.cut.set()
    wait_until(lambda: not functions.at_work[Lane.PULL], what="the end of all functions", deadline=DEADLINE)
    await_all(pulls, lambda pull: pull.registry.hung_up[1] == 1, "the engines' letting go")
    functions.cut.clear()
    for pull in pulls:
        ended = released(pull.session())
        pull.hub.sessions.save(replace(ended, next_attempt_at=ended.created_at - REDRIVE_STEP))
    assert set(functions.hub.redrive()) >= {pull.sid for pull in pulls}
