"""A hub is upgraded, and rolled back, with sessions in every state: the version before and this one, as processes.

The version before is an artefact (tests/frozen). All states are rehearsed on an engine in memory, some of them on a
real one. tests/rehearsal says how.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest

from chalicelib.engine.saving import SAVED
from chalicelib.session.values import PHASES, Phase, State, container_name
from local.aws import Aws
from local.engine import Engine
from tests.chaos.rig import Rig, recorded_aws, rig_of
from tests.rehearsal.cases import (
    HALFWAY,
    LIVES_ON,
    MEANWHILE,
    NEWER,
    WISHES,
    Case,
    cases_of,
    states_without_a_case,
)
from tests.rehearsal.engine import memory_engine
from tests.rehearsal.rehearsal import (
    NEW_CODE,
    Life,
    Owners,
    Rehearsal,
    Seen,
    Version,
    rollback,
    running,
    unpack,
    upgrade,
)

pytestmark = pytest.mark.skipif(not shutil.which("haproxy"), reason="run after: apt-get install haproxy")

on_a_real_engine = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("dockerd"), reason="run as root after: apt-get install docker.io iptables"
)
UPGRADED_REALLY: Final = ("creating, done", "ready", "removing", "ready, then restarted")
ROLLED_BACK_REALLY: Final = (
    "creating, done",
    "republishing",
    "saving, done",
    "ready, sealed before, then stopped",
)


@dataclass(frozen=True)
class Hub:
    """One AWS and two versions of the code."""

    folder: Path
    cloud: Aws
    before: Version
    new: Version


@pytest.fixture(scope="module")
def hub(state: Path) -> Iterator[Hub]:
    folder = state / "rehearsal"
    folder.mkdir()
    with (
        recorded_aws(folder) as cloud,
        running(cloud, folder, "before", unpack(folder / "before")) as before,
        running(cloud, folder, "new", NEW_CODE) as new,
    ):
        yield Hub(folder, cloud, before, new)


@contextmanager
def rehearsed(hub: Hub, engine: Engine) -> Iterator[Rehearsal]:
    with TemporaryDirectory(dir=hub.folder) as folder:
        owners = Owners(Path(folder))
        with rig_of(Path(folder), engine, hub.cloud) as rig:
            yield Rehearsal(rig, owners)


@contextmanager
def rehearsed_in_memory(hub: Hub) -> Iterator[Rehearsal]:
    with (
        TemporaryDirectory(dir=hub.folder) as folder,
        memory_engine(Path(folder)) as (memory, engine),
        rehearsed(hub, engine) as rehearsal,
    ):
        rehearsal.gate = memory.pulls_go_on
        yield rehearsal


def test_every_state_of_both_versions_is_rehearsed(hub: Hub) -> None:
    assert hub.new.states == {str(state) for state in State}
    assert states_without_a_case(hub.before.states) == set()
    assert states_without_a_case(hub.new.states) == set(), "tests/rehearsal/cases.py brings no session into these"


def test_an_upgrade_with_sessions_in_every_state(hub: Hub) -> None:
    cases = [*cases_of(hub.before.states), HALFWAY, *LIVES_ON]
    with rehearsed_in_memory(hub) as rehearsal:
        lives = upgrade(rehearsal, hub.before, hub.new, cases)
    assert problems(lives, check_upgrade) == {}


def test_a_rollback_with_sessions_in_every_state_and_the_next_upgrade(hub: Hub) -> None:
    cases = [*cases_of(hub.new.states), HALFWAY, *NEWER, *WISHES, *MEANWHILE]
    with rehearsed_in_memory(hub) as rehearsal:
        lives = rollback(rehearsal, hub.new, hub.before, cases)
    assert problems(lives, check_rollback) == {}


@on_a_real_engine
def test_an_upgrade_on_a_real_engine(hub: Hub, engine: Engine) -> None:
    cases = named([*cases_of(hub.before.states), *LIVES_ON], UPGRADED_REALLY)
    with rehearsed(hub, engine) as rehearsal:
        lives = upgrade(rehearsal, hub.before, hub.new, cases)
        clear(rehearsal.rig, lives)
    assert problems(lives, check_upgrade) == {}


@on_a_real_engine
def test_a_rollback_on_a_real_engine(hub: Hub, engine: Engine) -> None:
    cases = named([*cases_of(hub.new.states), *NEWER, *MEANWHILE], ROLLED_BACK_REALLY)
    with rehearsed(hub, engine) as rehearsal:
        lives = rollback(rehearsal, hub.new, hub.before, cases)
        clear(rehearsal.rig, lives)
    assert problems(lives, check_rollback) == {}


def named(cases: list[Case], names: tuple[str, ...]) -> list[Case]:
    by_name = {case.name: case for case in cases}
    return [by_name[name] for name in names]


def clear(rig: Rig, lives: list[Life]) -> None:
    """Remove what is left on the engine: volumes, and images that notebooks were saved as."""
    for life in lives:
        rig.clear(life.sid)
        for image in rig.behind.images(filters={"label": f"{SAVED}={life.sid}"}):
            rig.behind.remove_image(image["Id"], force=True)


# ── what must have become of them ────────────────────────────────────────────────────────────────────────────────────


def problems(lives: list[Life], check: Callable[[Life], None]) -> dict[str, str]:
    """What is wrong, by case."""
    found = {}
    for life in lives:
        try:
            assert life.wrong == []
            check(life)
        except AssertionError as error:
            found[life.case.name] = str(error)
    return found


def check_upgrade(life: Life) -> None:
    left, then, back, ended = seen_of(life)
    assert left.session.state is life.case.state
    assert_goes_on(left, then, leads_to(life.case.state))
    assert_is_whole(back, life.case.ends or leads_to(life.case.state))
    assert_nothing_is_left(ended)


def check_rollback(life: Life) -> None:
    left, then, back, ended = seen_of(life)
    assert left.session.state is life.case.state
    if left.is_newer:
        assert (then.content, then.containers) == (left.content, left.containers)
        assert (then.published, then.stored, then.answers) == (left.published, left.stored, left.answers)
    else:
        assert_goes_on(left, then, leads_to(life.case.state))
    if left.session.sealed_in and life.case.meanwhile:  # docs/adr/0017: the version before finds no credentials
        assert (back.session.state, back.published, back.stored) == (State.STOPPED, (), ())
        assert f"docker rm -f {container_name(life.sid, left.session.generation)}" in back.session.message
    else:
        assert_is_whole(back, life.case.ends or leads_to(life.case.state))
    if not life.case.meanwhile and not life.case.afterwards:
        assert_nothing_that_ran_was_ended(left, back)
    assert_nothing_is_left(ended)


def seen_of(life: Life) -> tuple[Seen, Seen, Seen, Seen]:
    assert life.left
    assert life.then
    assert life.back
    assert life.ended
    return life.left, life.then, life.back, life.ended


def leads_to(state: State) -> State:
    """Where a state leads by itself."""
    if state in PHASES[Phase.LEAVING]:
        return State.STOPPED
    return state if state in PHASES[Phase.STOPPED] else State.READY


def assert_goes_on(left: Seen, then: Seen, state: State) -> None:
    """It has come to where its state leads, as the same launch."""
    assert_is_whole(then, state)
    assert then.session.failure is None
    assert (then.session.generation, then.session.host) == (left.session.generation, left.session.host)
    assert then.has_volume >= left.has_volume
    assert_nothing_that_ran_was_ended(left, then)


def assert_nothing_that_ran_was_ended(left: Seen, then: Seen) -> None:
    if left.session.phase in (Phase.LAUNCHING, Phase.READY):
        assert set(left.runs) <= set(then.runs)


def assert_is_whole(seen: Seen, state: State) -> None:
    """It is in that state, and has what belongs to it: container, route and credentials."""
    session = seen.session
    assert session.state is state, session.message
    assert not session.newer
    assert session.failure is None, session.message
    if state is State.READY:
        assert len(seen.runs) == len(seen.containers) == 1
        assert seen.published == (session.host,)
        assert seen.answers
        assert seen.has_volume
    else:
        assert (seen.containers, seen.published) == ((), ())
    has_credentials = session.credentials_held and state in (State.READY, State.KEPT)
    assert seen.stored == ((session.credentials_of,) if has_credentials else ())
    assert seen.has_volume is not session.summary.deleted


def assert_nothing_is_left(seen: Seen) -> None:
    assert seen.session.state is State.STOPPED, seen.session.message
    assert (seen.containers, seen.published, seen.stored) == ((), (), ())
