"""The options of a launch on their way through the launcher: when the image is pulled, what the container gets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.engine.pull_progress import PullStatus
from chalicelib.session.events import ContainerCreated, CreateContainer
from chalicelib.session.values import (
    DataFolder,
    Limits,
    Options,
    Ports,
    PullPolicy,
    Session,
    State,
    container_name,
)
from tests.builders import NOW, a_session, some_credentials
from tests.unit.test_launcher import Stage

VARIABLES = {"TOKEN": "s3cret", "_B": ""}


def asking(**changes: Any) -> Stage:
    """A launch that asks for this, its variables sealed."""
    stage = Stage()
    session = a_session(**changes)
    stage.submit(session)
    stage.credentials.objects[session.sid, 1] = (session.owner, some_credentials(environment=VARIABLES))
    return stage


def with_image(stage: Stage) -> Stage:
    stage.engine.images.add(stage.session.image)
    return stage


def pulling(policy: PullPolicy) -> Stage:
    return asking(options=Options(pull=policy))


def said(session: Session) -> str:
    assert session.failure is not None
    return f"{session.failure.code}: {session.failure.message}"


def test_an_image_is_pulled_when_it_is_asked_for() -> None:
    for policy, there, pulls in (
        (PullPolicy.MISSING, True, 0),
        (PullPolicy.MISSING, False, 1),
        (PullPolicy.ALWAYS, True, 1),
        (PullPolicy.ALWAYS, False, 1),
        (PullPolicy.NEVER, True, 0),
    ):
        stage = pulling(policy)
        if there:
            with_image(stage)
        stage.run(State.READY)
        assert stage.engine.pulls == pulls, (policy, there)


def test_an_image_that_is_never_to_be_pulled_and_is_not_there_ends_the_launch_at_once() -> None:
    stage = pulling(PullPolicy.NEVER)
    stage.tick()
    assert said(stage.session).startswith("image-missing: The image is not on the endpoint, and this launch is")
    assert stage.engine.pulls == 0


def test_the_page_reads_layers_bytes_and_pace_and_of_a_pull_that_goes_on_elsewhere_no_bytes_that_would_fall() -> None:
    status = PullStatus(0.5, "Pulling: 3 of 7 layers", ", 412 of 980 MB", ", 18 MB/s, about 32 s left")
    for reached, told in (
        (None, "Pulling: 3 of 7 layers, 412 of 980 MB, 18 MB/s, about 32 s left"),
        (0.4, "Pulling: 3 of 7 layers, 18 MB/s, about 32 s left"),
    ):
        stage = asking(state=State.PULLING, admitted=True, fraction=reached, progressed_at=NOW)
        stage.engine.layers, stage.engine.says = 0, [status]
        stage.tick()
        assert told in [session.message for session in stage.store.history]


def test_the_container_has_what_was_asked_for() -> None:
    options = Options(DataFolder("/srv/data"), tuple(VARIABLES), Ports(40000, 40099))
    limits = Limits(memory=1 << 30, cpus=2.0, shm=1 << 30)
    stage = with_image(asking(options=options, limits=limits))
    stage.run(State.READY)
    spec = stage.container.specification
    assert (spec.data, spec.variables, spec.ports, spec.limits) == (options.data, VARIABLES, options.ports, limits)
    assert "s3cret" not in repr((stage.store.history, stage.container, stage.queue.sent))


def test_variables_that_the_launch_did_not_ask_for_are_not_set() -> None:
    """The credentials may be uploaded again with others."""
    stage = with_image(asking(options=Options(environment=("TOKEN",))))
    stage.run(State.READY)
    assert stage.container.specification.variables == {"TOKEN": "s3cret"}


def test_a_launch_whose_variables_are_not_stored_any_more_ends_and_says_so() -> None:
    stage = with_image(asking(options=Options(environment=("TOKEN", "LOST"))))
    stage.tick()
    assert said(stage.session).startswith("variables-missing: The value of LOST is not stored any more")
    assert not stage.engine.containers


def test_limits_above_what_the_endpoint_has_end_the_launch_before_the_image_is_pulled() -> None:
    stage = asking(limits=Limits(memory=9 << 30))
    stage.tick()
    assert said(stage.session).startswith("limits-refused")
    assert stage.engine.pulls == 0


def test_an_image_for_another_kind_of_processor_is_told_as_such() -> None:
    stage = with_image(asking())
    stage.silent = True
    stage.tick()
    stage.container.end(1, "exec /usr/bin/tini: exec format error\n")
    stage.run(State.STOPPED)
    assert said(stage.session).startswith("image-wrong-platform")


@pytest.mark.parametrize(
    "change",
    [
        {"options": Options(DataFolder("/srv/other"))},
        {"options": Options(ports=Ports(40000, 40000))},
        {"options": Options(environment=("TOKEN",))},
        {"limits": Limits(shm=1)},
    ],
)
def test_a_container_that_was_made_with_other_options_is_replaced(change: dict[str, Any]) -> None:
    stage = with_image(asking())
    effects, container = stage.effects(), container_name(stage.sid, 1)
    session = replace(stage.session, state=State.CREATING, container=container)
    made = []
    for asked in (session, session, replace(session, **change)):
        assert list(effects.perform(CreateContainer(), asked)) == [ContainerCreated()]
        made.append(stage.engine.containers[container])
    assert made[0] is made[1] is not made[2]
