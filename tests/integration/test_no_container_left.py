"""The launcher on a real engine that gets a call when nobody waits for its answer any more: no container is left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import docker
import pytest
from docker.errors import NotFound

from chalicelib.bundle.address import Endpoint
from chalicelib.bundle.credentials import Credentials
from chalicelib.config import Config
from chalicelib.engine.endpoint import DockerEndpoint
from chalicelib.launcher.effects import Effects
from chalicelib.session import events as e
from chalicelib.session.values import Session, State, container_name, volume_name
from local.endpoint import LocalEndpoint, endpoint
from local.engine import engine
from tests.builders import a_session
from tests.integration import test_docker_endpoint as parts
from tests.integration.held_engine import HeldEngine
from tests.launcher_twins import BuildLogTwin, ImageStoreTwin, a_trust
from tests.unit.test_launcher import Stage

pytestmark = parts.pytestmark

IMAGE = "homeport-held-test:latest"
LOOPBACK = "127.0.0.1"
GIVES_UP = 2.0  # seconds until the hub gives up a call that is held back


@dataclass(frozen=True)
class Rig:
    """An engine that holds calls back, its TLS endpoint, and docker-py on its socket for looking behind it."""

    held: HeldEngine
    offered: LocalEndpoint
    behind: docker.APIClient

    @property
    def containers(self) -> list[str]:
        """The names of the session's containers, running or not."""
        names = [name.removeprefix("/") for one in self.behind.containers(all=True) for name in one["Names"]]
        return [name for name in names if name.startswith(f"homeport-{a_session().sid}-")]

    @property
    def credentials(self) -> Credentials:
        pki = self.offered.pki
        made = (pem.encode() for pem in (pki.ca, pki.certificate, pki.key))
        return Credentials(Endpoint(LOOPBACK, self.offered.port), *made)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("held")
    with (
        engine(folder / "engine", os.environ) as running,
        HeldEngine(folder / "socket", running.socket) as held,
        endpoint(folder / "endpoint", held.socket) as offered,
    ):
        behind = docker.APIClient(base_url=running.url, timeout=60)
        shell = shutil.which("sh", path="/usr/bin:/bin")
        jupyter = f"#!{shell}\ntrap 'exit 0' TERM\nsleep 1000 &\nwait\n"
        parts._import_shell(behind, IMAGE, {"usr/bin/jupyter": jupyter.encode()})
        try:
            yield Rig(held, offered, behind)
        finally:
            for name in Rig(held, offered, behind).containers:
                behind.remove_container(name, force=True)
            with suppress(NotFound):
                behind.remove_volume(volume_name(a_session().sid))
            behind.remove_image(IMAGE, force=True)
            behind.close()


class RealStage(Stage):
    """A session on the rig's engine. In the state `impatient` the hub soon gives up what is held back."""

    impatient: State | None = None
    rig: Rig

    def effects(self, find_session: Callable[[str], Session | None] | None = None) -> Effects:
        return Effects(
            config=Config.from_environ({"HOMEPORT_ENDPOINT_NETWORKS": "127.0.0.0/8"}),
            credentials=self.credentials,
            routes=self.routes,
            slots=self.slots,
            images=ImageStoreTwin(),
            build_logs=BuildLogTwin(),
            trust=self.trust,
            find_session=find_session or self.store.find,
            clock=self.clock,
            sleep=self.clock.sleep,
            connect=self.connect,
            probe=lambda target, host, trust, *, deadline: None,
        )

    def connect(self, credentials: Credentials, *, address: str, deadline: float, hub_name: str) -> DockerEndpoint:
        stage = self

        class Held(DockerEndpoint):
            def renew(self, deadline: float) -> None:
                super().renew(stage.seconds(deadline))

        return Held(credentials, address=address, deadline=self.seconds(deadline), hub_name=hub_name)

    def seconds(self, deadline: float) -> float:
        return GIVES_UP if self.session.state is self.impatient else deadline

    def run_until_held(self) -> None:
        while not self.rig.held.held.is_set():
            self.clock.now = max(self.clock.now, self.session.next_attempt_at or 0.0, self.session.lease_expires_at)
            self.tick()


@pytest.fixture
def stage(rig: Rig) -> RealStage:
    made = RealStage(trust=a_trust)
    made.rig = rig
    made.submit(a_session(image=IMAGE, endpoint=str(rig.credentials.endpoint)))
    made.credentials.objects[made.sid, 1] = (made.session.owner, rig.credentials)
    return made


def test_a_creation_that_the_engine_carries_out_after_the_stop_leaves_nothing(stage: RealStage) -> None:
    stage.rig.held.hold("POST /containers/create")
    stage.impatient = State.CREATING
    stage.run_until_held()
    assert stage.session.state is State.CREATING
    stage.ask_for(e.StopRequested())
    waiting = stage.tick()
    assert waiting.state is State.REMOVING
    assert waiting.last_problem is not None
    assert waiting.last_problem.code == "creation-unsettled"
    assert stage.rig.containers == []
    stage.rig.held.release()
    assert stage.rig.containers == [container_name(stage.sid, 1)]
    stage.run(State.STOPPED)
    assert stage.rig.containers == []
    stage.assert_nothing_is_left()


def test_a_start_that_the_engine_is_asked_for_before_the_stop_leaves_nothing(stage: RealStage) -> None:
    stage.rig.held.hold("POST /containers/[^/]+/start")
    stage.impatient = State.STARTING
    stage.run_until_held()
    stage.ask_for(e.StopRequested())
    stage.run(State.STOPPED)
    stage.rig.held.release()
    assert stage.rig.containers == []
    stage.assert_nothing_is_left()


def test_a_removal_that_takes_longer_than_anybody_waits_is_seen_done(stage: RealStage) -> None:
    stage.run(State.READY)
    assert stage.rig.containers == [container_name(stage.sid, 1)]
    stage.ask_for(e.StopRequested())
    stage.rig.held.hold("DELETE /containers/[^/]+")
    stage.impatient = State.REMOVING
    stage.run_until_held()
    assert stage.session.state is State.REMOVING
    stage.impatient = None
    stage.rig.held.release()
    stage.run(State.STOPPED)
    assert stage.rig.containers == []
    stage.assert_nothing_is_left()


def test_the_next_launch_removes_what_was_left_when_the_credentials_were_forgotten(stage: RealStage) -> None:
    stage.run(State.READY)
    stage.ask_for(e.ForgetRequested())
    stage.tick()
    stage.ask_for(e.StopRequested())
    stage.run(State.STOPPED)
    assert stage.rig.containers == [container_name(stage.sid, 1)]
    version = stage.session.version + 1
    stage.submit(
        a_session(
            image=IMAGE, endpoint=str(stage.rig.credentials.endpoint), generation=2, version=version, label="zzzzzzzzzz"
        )
    )
    stage.credentials.objects[stage.sid, 2] = (stage.session.owner, stage.rig.credentials)
    stage.run(State.READY)
    assert stage.rig.containers == [container_name(stage.sid, 2)]
    stage.ask_for(e.StopRequested())
    stage.run(State.STOPPED)
    assert stage.rig.containers == []
