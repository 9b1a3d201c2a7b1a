"""The version before (tests/frozen) reads what this one stores, in a process of its own: what it must leave alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from chalicelib.aws.session_items import FORMAT, NEWEST_FORMAT
from tests.rehearsal.rehearsal import unpack
from tests.unit.test_session_items import frozen

READS: Final = """
import json, sys
from chalicelib.aws.session_items import session_of
from chalicelib.session.machine import TRANSITIONS, accepts, overdue
from chalicelib.session.narration import NEWER
found = {}
for case, item in json.load(sys.stdin).items():
    session = session_of(item)
    late = [overdue(session, session.expires_at + seconds) for seconds in (-0.001, 0.0)]
    accepted = {event.__name__ for events in TRANSITIONS.values() for event in events if accepts(session, event)}
    found[case] = {
        "newer": session.newer, "told": session.message == NEWER, "owner": session.owner, "sid": session.sid,
        "generation": session.generation, "label": session.label, "hub": session.hub, "version": session.version,
        "overdue": [event and type(event).__name__ for event in late], "accepts": sorted(accepted),
    }
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("before"))


def read_by(code: Path, items: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the version before makes of items."""
    environ = {**os.environ, "PYTHONPATH": str(code)}
    command = [sys.executable, "-P", "-c", READS]
    answer = subprocess.run(command, input=json.dumps(items), capture_output=True, text=True, env=environ, check=True)
    found: dict[str, dict[str, Any]] = json.loads(answer.stdout)
    return found


def test_the_version_before_leaves_sessions_of_format_2_alone_until_they_expire_or_are_stopped(code: Path) -> None:
    items = frozen(NEWEST_FORMAT)
    found = read_by(code, items)
    assert list(found) == list(items)
    for case, item in items.items():
        read = found[case]
        assert (read["newer"], read["told"]) == (True, True), case
        assert {read["sid"], read["owner"], read["label"], read["hub"], str(read["version"])} == {
            item["pk"]["S"].removeprefix("session#"),
            item["owner"]["S"],
            item["label"]["S"],
            item.get("hub", {"S": ""})["S"],
            item["version"]["N"],
        }, case
        assert str(read["generation"]) == item["generation"]["N"], case
        assert read["overdue"][0] is None, case
        assert read["overdue"][1] in ("SessionExpired", "StopRequested"), case
        assert set(read["accepts"]) <= {"SessionExpired", "StopRequested"}, case


def test_the_version_before_reads_what_it_stored_itself(code: Path) -> None:
    assert not any(read["newer"] for read in read_by(code, frozen(FORMAT)).values())
