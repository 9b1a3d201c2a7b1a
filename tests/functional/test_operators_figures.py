"""What the functions write for the operator's alarms, of requests, of the schedule, and of stores that refuse."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib.aws.session_items import REDRIVE_STEP
from tests.functional.hub_rig import HubRig, a_bundle, hub_rig

NAME = "a visitor's own words"


@pytest.fixture
def hub() -> Iterator[HubRig]:
    with hub_rig(HOMEPORT_STAGE="prod") as rig:
        yield rig


def reported(capsys: pytest.CaptureFixture[str]) -> list[Any]:
    """What stands in the log as lines of its own, and can be read as JSON."""
    out = capsys.readouterr().out
    assert NAME not in out
    return [json.loads(line) for line in out.splitlines()]


def refuse() -> None:
    raise ClientError({"Error": {"Code": "AccessDenied", "Message": "made up"}}, "PutObject")


def test_a_launch_is_counted_once_and_coming_back_to_it_is_none(
    hub: HubRig, capsys: pytest.CaptureFixture[str]
) -> None:
    sid = hub.upload(a_bundle(), name=NAME).json["id"]
    assert hub.upload(a_bundle(), name=NAME).status == 200
    (line,) = reported(capsys)
    assert (line["Stage"], line["Launches"], line["session"]) == ("prod", 1, sid)


def test_a_launch_whose_credentials_are_not_taken_is_a_failure_and_a_refusal(
    hub: HubRig, capsys: pytest.CaptureFixture[str]
) -> None:
    with hub.on_call("s3", "PutObject", refuse):
        assert hub.upload(a_bundle(), name=NAME).status == 500
    launched, failed, refused = reported(capsys)
    assert launched["Launches"] == failed["Failures"] == refused["StoreRefusals"] == 1
    assert failed["code"] == refused["code"] == "store-refused"
    assert failed["state"] == "verifying"


def test_a_table_that_does_not_answer_a_page_is_counted(hub: HubRig, capsys: pytest.CaptureFixture[str]) -> None:
    with hub.on_call("dynamodb", "GetItem", refuse):
        assert hub.ask("GET", f"/sessions/{'0' * 20}", token="a" * 43).status == 503
    assert hub.ask("GET", f"/sessions/{'0' * 20}").status == 401  # the visitor's own
    (line,) = reported(capsys)
    assert (line["StoreRefusals"], line["code"]) == (1, "store-unavailable")


def test_the_schedule_says_of_every_lane_what_is_due(
    hub: HubRig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.upload(a_bundle(), name=NAME)
    reported(capsys)
    monkeypatch.setattr("chalicelib.wiring.CLOCK", lambda: time.time() + REDRIVE_STEP)
    assert len(list(hub.parts.redrive())) == 1
    lines = {line["Lane"]: line for line in reported(capsys)}
    assert {lane: line["LaneDepth"] for lane, line in lines.items()} == {"launch": 1, "pull": 0, "leave": 0, "watch": 0}
    assert lines["launch"]["LaneAge"] >= 0


def test_one_machine_has_no_stage_and_nothing_in_its_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with hub_rig() as hub:
        hub.upload(a_bundle(), name=NAME)
        list(hub.parts.redrive())
    assert reported(capsys) == []
