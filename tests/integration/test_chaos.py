"""Launchers that are killed, and messages that come again, on a real engine: nothing is doubled, nothing is left."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from chalicelib.session.values import State, container_name
from local.engine import Engine
from tests.chaos.crowd import Crowd
from tests.chaos.launcher import WRITES
from tests.chaos.rig import Rig, chaos_rig
from tests.chaos.seeds import LIFE, live
from tests.history import Created, violations

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("dockerd") or not shutil.which("haproxy"),
    reason="run as root after: apt-get install docker.io iptables haproxy",
)

SESSIONS = 100
LIVELY = 8  # seeds whose visitors restart, keep and start again
WORKERS = 16
UNUSED = frozenset({("dynamodb", "DeleteItem"), ("dynamodb", "TransactWriteItems")})  # neither launches nor stops
EFFECTS = [
    f"engine {what}" for what in ("POST create", "PUT archive", "POST start", "POST stop", "DELETE", "DELETE volumes")
]
EFFECTS += [f"{service} {operation}" for service, operation in WRITES if (service, operation) not in UNUSED]


@pytest.fixture(scope="module")
def rig(state: Path, engine: Engine) -> Iterator[Rig]:
    with chaos_rig(state / "chaos", engine) as rig:
        yield rig


def test_killed_before_and_after_every_side_effect_a_notebook_is_whole_or_gone(rig: Rig) -> None:
    said: list[str] = []
    killed, failed = live(rig, range(LIFE + LIVELY), 4, said.append)
    for name in missed(killed):  # no two lives have the same instructions: what is slow is written down, for one
        more, wrong = live(rig, [LIFE - 1], 1, said.append, name)
        killed, failed = killed + more, failed + wrong
    assert failed == [], "\n".join(said)
    assert missed(killed) == []


def missed(killed: Counter[str]) -> list[str]:
    """The instructions at which no process was killed."""
    return [f"{when} {what}" for what in EFFECTS for when in ("before", "after") if not killed[f"{when} {what}"]]


def test_a_hundred_sessions_told_two_to_five_times_by_sixteen_workers_have_a_hundred_containers(rig: Rig) -> None:
    crowd = Crowd(rig, Random(1))
    for number in range(SESSIONS):
        crowd.upload(number)
    try:
        with rig.launchers(WORKERS) as launchers:
            crowd.run(launchers, State.READY)
        history = [rig.history(sid) for sid in crowd.sids]
        assert [wrong for one in history for wrong in violations(one)] == []
        created = [entry.fact.container for one in history for entry in one if isinstance(entry.fact, Created)]
        assert sorted(created) == sorted(container_name(sid, 1) for sid in crowd.sids)
    finally:
        for sid in crowd.sids:
            rig.clear(sid)
