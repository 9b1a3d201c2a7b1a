"""Launchers that are killed while a repository is built, on a real engine: one build, and no helper is left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from chalicelib.repository.tag import REPOSITORY
from chalicelib.session.values import State
from local.engine import Engine
from tests.chaos.launcher import WRITES
from tests.chaos.rig import Launcher, Rig, chaos_rig
from tests.chaos.seeds import Life
from tests.git_rig import GitSite, Repository
from tests.history import HelperMade

KILLS: Final = range(7, 67, 10)  # instructions of a launch, from its first tick to its container's start
WORKERS: Final = 2


@pytest.fixture(scope="module")
def rig(state: Path, engine: Engine) -> Iterator[Rig]:
    with chaos_rig(state / "chaos-repositories", engine) as rig:
        yield rig
        for image in rig.behind.images(name=REPOSITORY):
            rig.behind.remove_image(image["Id"], force=True)


class RepositoryLife(Life):
    """A launch of a repository at a commit of its own, whose first process is killed at an instruction."""

    def live(self, repository: Repository, commit: str, kill_at: int) -> list[str]:
        self.name, self.repository = f"killed at {kill_at}", f"{repository.address}"
        self.commit, self.kill_in, self.kills = commit, kill_at, iter(())
        return self.run()

    def _live(self) -> None:
        self._launch()
        self._drive(State.READY)
        self._check()
        assert self.session.state is State.READY, self.session.failure
        made = [entry.fact.name for entry in self.rig.history(self.sid) if isinstance(entry.fact, HelperMade)]
        assert len([name for name in made if name.startswith("homeport-build-")]) == 1, made
        assert len(set(made)) == 2, made
        self._end()

    def _turn(self) -> None:
        if self.session.helps:  # no clock that is ahead makes a helper faster
            time.sleep(0.3)
        self._deliver()


def test_killed_at_any_instruction_a_repository_is_built_once_and_no_helper_is_left(
    rig: Rig, site: GitSite, notebook_image: str
) -> None:
    killed: list[str] = []

    def live(launcher: Launcher, points: list[int]) -> None:
        for at in points:
            repository = site.repository(f"kills/{at}")
            repository.commit(Dockerfile=f"FROM {notebook_image}\nLABEL killed={at}\n", a_dot_txt="one")
            killed.extend(RepositoryLife(rig, launcher, at).live(repository, repository.head(), at))

    points = list(KILLS)
    with rig.launchers(WORKERS) as launchers, ThreadPoolExecutor(WORKERS) as pool:
        lives = [pool.submit(live, one, points[number::WORKERS]) for number, one in enumerate(launchers)]
        for one in lives:
            one.result()
    assert len(killed) == len(points)
    assert rig.behind.containers(all=True, filters={"label": "homeport.task"}) == []
    assert any(what.endswith("engine POST create") for what in killed), killed
    assert {what.split()[1] for what in killed} <= {"engine", *(service for service, _ in WRITES)}
