"""`make close` and `make open`, against moto, and what visitors see of it."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

from infra import door
from infra.stack import deploy_stack
from tests.policies import OUTPUTS, ROOT, allows, operator_policy

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A stage's resources."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        template = (ROOT / "infra" / "resources.yaml").read_text()
        client = boto3.client("cloudformation")
        deploy_stack(client, name="homeport-test", template=template, parameters={"Stage": "test"})
        yield "test"


def test_a_door_is_closed_with_a_message_and_opened(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert door.main(["--stage", stage, "--close", " Back at noon. "]) == 0
    assert capsys.readouterr().out == "homeport-test launches no notebooks, and says: Back at noon.\n"
    assert door.main(["--stage", stage]) == 0
    assert capsys.readouterr().out == "homeport-test launches notebooks\n"


def test_an_operator_may_close_and_open_the_door_and_write_nothing_else() -> None:
    policy = operator_policy("operations")
    table = OUTPUTS["TableArn"]
    for action in ("dynamodb:PutItem", "dynamodb:DeleteItem"):
        assert allows(policy, action, table, {"dynamodb:LeadingKeys": ["hub"]})
        assert not allows(policy, action, table, {"dynamodb:LeadingKeys": ["session#one"]})
        assert not allows(policy, action, table)


@pytest.mark.parametrize("message", ["", " ", "a\nb", "x" * 301])
def test_who_closes_it_says_why(stage: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert door.main(["--stage", stage, "--close", message]) == 1
    assert "Say in MESSAGE" in capsys.readouterr().err


def test_a_stage_that_is_not_there_has_no_door(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert door.main(["--stage", "prod"]) == 1
    assert capsys.readouterr().err == "There is no stage prod in this account and region\n"
