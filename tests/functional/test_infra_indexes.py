"""The table's indexes are changed one at a time, by the deployment itself, around the functions (docs/adr/0027)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError

from chalicelib.errors import BadConfiguration
from infra.indexes import PATIENCE, POLL, Table, check_changes, indexes, load_template, with_indexes
from infra.project import POLICIES, TRACE, role_name
from infra.stack import deploy_stack
from tests.deployment import Rig, aws_environment, rig
from tests.operator_calls import not_allowed
from tests.policies import ROOT

TEXT = (ROOT / "infra" / "resources.yaml").read_text()
WANTED = load_template(TEXT)
FROZEN = json.loads((ROOT / "tests" / "frozen" / "indexes.json").read_text())
# What an index that no version has stands for, beside `owner`, which one had instead of `listing`.
SPARE = {
    "IndexName": "spare",
    "KeySchema": [{"AttributeName": "shelf", "KeyType": "HASH"}],
    "Projection": {"ProjectionType": "KEYS_ONLY"},
}
THEN = ("owner", "redrive", "feed", "spare")
NOW = ("listing", "redrive", "ring", "feed")

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")


def of_before() -> dict[str, Any]:
    """A template of before: without `listing` and `ring`, with `owner` and `spare`."""
    owner = {"IndexName": "owner", **FROZEN["indexes"]["owner"]}
    more = {"GlobalSecondaryIndexes": [owner, SPARE], "KeySchema": []}
    more["AttributeDefinitions"] = [{"AttributeName": "shelf", "AttributeType": "S"}]
    return dict(with_indexes(WANTED, {"Resources": {"Table": {"Properties": more}}}, THEN))


def table_alone(template: Mapping[str, Any]) -> str:
    """A template's table and nothing else: moto reads it in no time."""
    parts = {part: template[part] for part in ("AWSTemplateFormatVersion", "Parameters")}
    outputs = {name: template["Outputs"][name] for name in ("Table", "TableArn")}
    return json.dumps({**parts, "Resources": {"Table": template["Resources"]["Table"]}, "Outputs": outputs})


AFTER, BEFORE = table_alone(WANTED), table_alone(of_before())


def test_every_index_is_as_it_was_frozen_under_its_name() -> None:
    """DynamoDB cannot change one: another definition needs another name, and that goes into the frozen file, too."""
    found = {name: {key: one[key] for key in ("KeySchema", "Projection")} for name, one in indexes(WANTED).items()}
    assert found.items() <= FROZEN["indexes"].items()
    definitions = WANTED["Resources"]["Table"]["Properties"]["AttributeDefinitions"]
    assert {one["AttributeName"]: one["AttributeType"] for one in definitions}.items() <= FROZEN["attributes"].items()


def test_a_template_of_a_step_is_the_deployed_one_but_for_the_table() -> None:
    step = with_indexes(WANTED, of_before(), [*NOW, "owner", "spare"])
    assert {**step["Resources"], "Table": 0} == {**WANTED["Resources"], "Table": 0}
    assert {**step, "Resources": 0} == {**WANTED, "Resources": 0}
    assert list(indexes(step)) == [*NOW, "owner", "spare"]
    assert len(json.dumps(step)) < 51200  # CloudFormation takes no more
    assert with_indexes(step, step, NOW) == WANTED == yaml.safe_load(json.dumps(WANTED))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda table: table["GlobalSecondaryIndexes"][1]["Projection"].update(ProjectionType="ALL"), "index redrive"),
        (lambda table: table["GlobalSecondaryIndexes"][0]["KeySchema"].pop(), "index listing"),
        (lambda table: table["GlobalSecondaryIndexes"][0]["Projection"]["NonKeyAttributes"].append("x"), "listing"),
        (lambda table: table["AttributeDefinitions"][3].update(AttributeType="S"), "key created_at"),
    ],
)
def test_another_definition_under_the_same_name_is_refused(change: Callable[[Any], Any], says: str) -> None:
    changed = json.loads(json.dumps(WANTED))
    change(changed["Resources"]["Table"]["Properties"])
    with pytest.raises(BadConfiguration, match=f"Nothing was changed in AWS.*{says}.* a name of its own"):
        check_changes(WANTED, changed)
    check_changes(changed, changed)


@dataclass
class Stage:
    """A stage without functions: its stack and its roles, and what was done and said."""

    hub: Rig
    session: boto3.Session
    name: str
    said: list[str] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    @property
    def table(self) -> Table:
        return Table(self.session, self.name, self.said.append, self.slept.append)

    def indexes(self) -> set[str]:
        """The table's own."""
        found = self.hub.client("dynamodb").describe_table(TableName=self.hub.outputs(self.name)["Table"])["Table"]
        return {one["IndexName"] for one in found["GlobalSecondaryIndexes"]}

    def let_functions_read(self, *names: str) -> None:
        """Give the role of the pages these indexes, the others another, as a deployment of functions does.

        Each may also do something everywhere, which has nothing to do with tables.
        """
        for function in POLICIES:
            self._let(role_name(self.name, function), *(names if function == "api_handler" else ["feed"]))

    def _let(self, role: str, *names: str) -> None:
        iam, arn = self.hub.client("iam"), self.hub.outputs(self.name)["TableArn"]
        statement = {"Effect": "Allow", "Action": "dynamodb:Query", "Resource": [f"{arn}/index/{one}" for one in names]}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement, dict(TRACE)]})
        with suppress(iam.exceptions.EntityAlreadyExistsException):
            iam.create_role(RoleName=role, AssumeRolePolicyDocument="{}")
        iam.put_role_policy(RoleName=role, PolicyName=role, PolicyDocument=policy)

    def updates(self) -> list[set[str]]:
        """The indexes of each template that was sent since the last look."""
        sent = self.hub.templates()
        self.hub.gateway.calls.clear()
        return [set(indexes(load_template(one))) for one in sent]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """An account, nothing in it."""
    with rig(tmp_path_factory.mktemp("indexes")) as started:
        yield started


@pytest.fixture
def stage(request: pytest.FixtureRequest, hub: Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A stage of before, whose functions may read what its table has."""
    for name, value in aws_environment(hub.endpoint).items():
        monkeypatch.setenv(name, value)
    made = Stage(hub, boto3.Session(), f"s{len(hub.everything()['stacks'])}")
    made.table.deploy(BEFORE, {"Stage": made.name})
    made.let_functions_read("owner", "spare")
    assert made.indexes() == set(THEN)
    hub.gateway.calls.clear()
    yield made
    hub.gateway.refused = ""


def test_indexes_are_made_one_by_one_before_the_functions_and_removed_one_by_one_after_them(stage: Stage) -> None:
    stage.table.deploy(AFTER, {"Stage": stage.name})
    assert stage.updates() == [{*THEN, "listing"}, {*THEN, *NOW}, {*THEN, *NOW}]
    stage.table.remove_unread(AFTER)
    assert stage.updates() == []
    assert f"owner, spare. Once newer ones are deployed, `make api STAGE={stage.name}`" in stage.said[-1]
    stage.let_functions_read("listing", "spare")
    stage.table.remove_unread(AFTER)
    assert stage.updates() == [{*NOW, "spare"}]
    stage.let_functions_read("listing")
    stage.table.remove_unread(AFTER)
    assert stage.updates() == [{*NOW}]
    assert stage.indexes() == set(NOW)
    stage.table.deploy(AFTER, {"Stage": stage.name})
    stage.table.remove_unread(AFTER)
    assert stage.updates() == [set(NOW)]
    assert not_allowed(stage.hub.gateway.calls) == set()


def test_without_a_function_of_ours_it_is_not_known_what_is_read(stage: Stage) -> None:
    stage.table.deploy(AFTER, {"Stage": stage.name})
    stage.let_functions_read("listing")
    role = role_name(stage.name, "redrive")
    stage.hub.client("iam").delete_role_policy(RoleName=role, PolicyName=role)
    stage.hub.client("iam").delete_role(RoleName=role)
    stage.table.remove_unread(AFTER)
    assert stage.indexes() == {*THEN, *NOW}


def test_a_version_that_reads_a_removed_index_makes_it_again(stage: Stage) -> None:
    stage.let_functions_read("feed")
    stage.table.deploy(AFTER, {"Stage": stage.name})
    stage.table.remove_unread(AFTER)
    stage.updates()
    stage.let_functions_read("listing")
    stage.table.deploy(BEFORE, {"Stage": stage.name})
    assert stage.updates()[:2] == [{*NOW, "owner"}, {*NOW, "owner", "spare"}]
    stage.table.remove_unread(BEFORE)
    assert stage.indexes() == {*THEN, "listing"}


def test_a_run_that_fails_at_any_step_is_repeated(stage: Stage) -> None:
    gateway, then = stage.hub.gateway, set(THEN)
    for refused, spared, left in [
        ("GetTemplate", 0, then),
        ("DescribeTable", 0, then),
        ("UpdateStack", 0, then),
        ("UpdateStack", 1, then | {"listing"}),
        ("UpdateStack", 1, then | set(NOW)),  # `ring`, and then the whole template
    ]:
        gateway.refused, gateway.spared = refused, spared
        with pytest.raises(ClientError):
            stage.table.deploy(AFTER, {"Stage": stage.name})
        gateway.refused = ""
        assert stage.indexes() == left, (refused, spared)
    stage.table.deploy(AFTER, {"Stage": stage.name})
    stage.let_functions_read("listing")
    for refused, spared, left in [
        ("GetRolePolicy", 0, then | set(NOW)),
        ("UpdateStack", 0, then | set(NOW)),
        ("UpdateStack", 1, {*NOW, "spare"}),
    ]:
        gateway.refused, gateway.spared = refused, spared
        with pytest.raises(ClientError):
            stage.table.remove_unread(AFTER)
        gateway.refused = ""
        assert stage.indexes() == left, (refused, spared)
    stage.table.remove_unread(AFTER)
    assert stage.indexes() == set(NOW)


def test_cloudformation_itself_refuses_two_at_once(stage: Stage) -> None:
    with pytest.raises(ClientError, match="more than one GSI"):
        deploy_stack(
            stage.hub.client("cloudformation"),
            name=f"homeport-{stage.name}",
            template=AFTER,
            parameters={},
        )


def test_a_changed_index_and_one_that_the_stack_does_not_know_change_nothing(stage: Stage) -> None:
    changed = AFTER.replace('"ProjectionType": "ALL"', '"ProjectionType": "KEYS_ONLY"')
    with pytest.raises(BadConfiguration, match="index feed is deployed with another definition"):
        stage.table.deploy(changed, {"Stage": stage.name})
    ring = {"IndexName": "ring", **FROZEN["indexes"]["ring"]}
    stage.hub.client("dynamodb").update_table(
        TableName=stage.hub.outputs(stage.name)["Table"], GlobalSecondaryIndexUpdates=[{"Create": ring}]
    )
    with pytest.raises(BadConfiguration, match="has the index ring, which its stack does not know"):
        stage.table.deploy(AFTER, {"Stage": stage.name})
    assert stage.updates() == []


def test_an_index_is_waited_for_until_it_is_backfilled(stage: Stage) -> None:
    looks: list[list[str]] = [["ACTIVE"], ["CREATING"], ["CREATING"], ["ACTIVE"]]
    table = stage.table
    table._dynamodb = _Described(looks)
    table._wait()
    assert stage.slept == []
    table._wait()
    assert stage.slept == [POLL, POLL]
    assert stage.said == ["Waiting, which takes hours for a large table: the table's index 0 is CREATING"]
    table._dynamodb = _Described([[], *([["DELETING"]] * 5000)], "UPDATING")
    with pytest.raises(BadConfiguration, match="Run this again"):
        table._wait()
    assert sum(stage.slept) == 2 * POLL + PATIENCE


@dataclass
class _Described:
    """A client that says one status of the indexes after the other."""

    looks: list[list[str]]
    status: str = "ACTIVE"

    def describe_table(self, TableName: str) -> Any:
        """The next description."""
        found = [{"IndexName": str(number), "IndexStatus": one} for number, one in enumerate(self.looks.pop(0))]
        return {"Table": {"TableStatus": self.status, "GlobalSecondaryIndexes": found}}


def test_make_resources_makes_them_and_make_deploy_removes_them_when_its_functions_are_there(
    hub: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in aws_environment(hub.endpoint).items():
        monkeypatch.setenv(name, value)
    stage = Stage(hub, boto3.Session(), "test")
    stage.table.deploy(json.dumps(of_before()), {"Stage": "test"})
    stage.let_functions_read("owner")
    stage.updates()
    assert (done := hub.deploy("--resources")).returncode == 0, done.stdout + done.stderr
    assert "The table's index listing is being made\nThe table's index ring is being made\n" in done.stdout
    assert "the table's index owner. Once newer ones" in done.stdout  # nothing may read `spare`
    assert (done := hub.deploy()).returncode == 0, done.stdout + done.stderr
    assert "The table's index owner is being removed" in done.stdout
    calls = [call.name for call in hub.gateway.calls]
    updates = [number for number, call in enumerate(calls) if call == "UpdateStack"]
    functions = [number for number, call in enumerate(calls) if call == "POST /2015-03-31/functions"]
    assert len(functions) == len(POLICIES)
    assert updates[-2] < functions[0] < functions[-1] < updates[-1]
    assert not_allowed(hub.gateway.calls) == set()
    both = {*NOW, "owner"}
    assert stage.updates() == [{*THEN, "listing"}, {*both, "spare"}, {*both, "spare"}, both, both, set(NOW)]
