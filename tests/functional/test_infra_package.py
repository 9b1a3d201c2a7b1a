"""`make package`: the template as CloudFormation gets it, and that each name in it is one that exists."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from chalicelib.config import Config
from chalicelib.session.lanes import Lane
from infra.api import responses
from infra.package import merge_template
from infra.project import POLICIES, TRACE, function_name, role_name
from infra.request import read_request
from tests.deployment import COMMANDS, OPTIONS, Rig, rig
from tests.iam_requests import refused
from tests.locks import LOCKS
from tests.policies import REGION, ROOT, operator_policy, template
from tests.stack_requests import Stack

pytestmark = [
    pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:samtranslator"),
]


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """An account with the stage's resources."""
    with rig(tmp_path_factory.mktemp("packaged")) as started:
        refused = started.make("package", "--out", "out")
        assert refused.returncode == 1
        assert "Run `make resources STAGE=test` first" in refused.stderr
        done = started.deploy("--resources")
        assert done.returncode == 0, done.stderr
        yield started


@pytest.fixture(scope="module")
def out(account: Rig) -> Path:
    """The folder that `make package` wrote."""
    done = account.make("package", "--out", "out", HOMEPORT_TRACING="on")
    assert done.returncode == 0, done.stderr
    (deploy,) = [line for line in done.stdout.splitlines() if "aws cloudformation deploy" in line]
    assert "--stack-name homeport-test-functions" in deploy
    assert "--s3-bucket" in deploy, "a template of this size is not taken in the request itself"
    assert "HubOrigin=https://" in done.stdout
    return account.project / "out"


@pytest.fixture(scope="module")
def expanded(out: Path) -> dict[str, Any]:
    """The resources of the template, SAM's own expanded by its translator, as CloudFormation would."""
    sam = json.loads((out / "sam.json").read_text())
    for resource in sam["Resources"].values():  # where `aws cloudformation package` puts the zip
        if "CodeUri" in resource["Properties"]:
            resource["Properties"]["CodeUri"] = "s3://bucket/deployment.zip"
    translator = Translator({}, Parser(), boto_session=boto3.Session(region_name=REGION))
    translated = translator.translate(sam, {})
    return dict(translated["Resources"])


@pytest.fixture(scope="module")
def expanded_file(out: Path, expanded: dict[str, Any]) -> Path:
    """The template with those resources."""
    sam = json.loads((out / "sam.json").read_text())
    rest = {part: sam[part] for part in ("Parameters", "Conditions", "Outputs")}
    (out / "expanded.json").write_text(json.dumps({**rest, "Resources": expanded}))
    return out / "expanded.json"


def of_type(expanded: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [resource["Properties"] for resource in expanded.values() if resource["Type"] == kind]


def test_the_template_and_what_it_expands_to_pass_cfn_lint(out: Path, expanded_file: Path) -> None:
    for file in (out / "sam.json", expanded_file):
        linted = subprocess.run([COMMANDS / "cfn-lint", file], capture_output=True, text=True)
        assert linted.returncode == 0, linted.stdout + linted.stderr


def test_whoever_deploys_it_may_do_all_that_aws_does_for_each_of_its_resources(expanded: dict[str, Any]) -> None:
    stack = Stack("homeport-test-functions", expanded)
    asked = [one for logical in expanded for one in stack.requests(logical)]
    transform = f"arn:aws:cloudformation:{REGION}:aws:transform/Serverless-2016-10-31"
    asked.append(("cloudformation:CreateChangeSet", transform, {}))
    assert list(refused(asked, operator_policy(), operator_policy("operations"))) == []


# Its part for CloudFormation: its command imports the parts for all else, too, which takes longer than to look.
CHECKOV = """
import json, sys
from checkov.cloudformation.runner import Runner
from checkov.runner_filter import RunnerFilter
report = Runner().run(root_folder=None, files=sys.argv[1:], runner_filter=RunnerFilter(framework=["cloudformation"]))
failed = [[check.file_path, check.check_id, check.resource] for check in report.failed_checks]
print(json.dumps({"failed": failed, "skipped": len(report.skipped_checks), "unread": report.parsing_errors}))
"""


@pytest.fixture(scope="module")
def checkov(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with what tests/requirements-checkov.txt locks."""
    environment = tmp_path_factory.mktemp("checkov") / "venv"
    python = environment / "bin" / "python"
    uv, lock = COMMANDS / "uv", ROOT / LOCKS["checkov"]
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    hashed = ("--require-hashes", "--only-binary=:all:")
    subprocess.run([uv, "pip", "install", "--quiet", *hashed, "--python", python, "-r", lock], check=True)
    return python


def test_each_finding_of_checkov_is_answered_in_a_comment(checkov: Path, expanded_file: Path) -> None:
    """In the templates, for one resource; in infra/package.py, for what Chalice's template expands to."""
    templates = sorted((ROOT / "infra").glob("*.yaml"))
    looked = subprocess.run(
        [checkov, "-c", CHECKOV, *templates, expanded_file],
        env={"LOG_LEVEL": "ERROR", "HOME": str(expanded_file.parent)},
        capture_output=True,
        text=True,
    )
    assert looked.returncode == 0, looked.stderr
    found = json.loads(looked.stdout.splitlines()[-1])
    ours = [one for one in found["failed"] if not one[0].endswith(expanded_file.name)]
    assert (ours, found["unread"]) == ([], [])
    answers = "".join(template.read_text() for template in templates).count("# checkov:skip=")
    assert found["skipped"] == answers, "an answer to nothing that is found"
    answered = re.findall(r"^# (CKV2?_AWS_\d+) ", (ROOT / "infra" / "package.py").read_text(), re.MULTILINE)
    assert {check for _, check, _ in found["failed"]} == set(answered), found["failed"]


def test_the_functions_have_the_names_runtime_and_roles_that_make_deploy_gives_them(expanded: dict[str, Any]) -> None:
    functions = of_type(expanded, "AWS::Lambda::Function")
    assert {found["FunctionName"] for found in functions} == {function_name("test", one) for one in POLICIES}
    assert {found["Runtime"] for found in functions} == {"python3.13"}
    roles = of_type(expanded, "AWS::IAM::Role")
    assert {role["RoleName"] for role in roles} == {role_name("test", one) for one in POLICIES}
    for found in functions:
        assert found["Environment"]["Variables"]["HOMEPORT_HUB_ORIGIN"] == {"Ref": "HubOrigin"}
        assert found["Environment"]["Variables"]["HOMEPORT_STAGE"] == "test"
    reserved = {found["FunctionName"]: found.get("ReservedConcurrentExecutions") for found in functions}
    assert reserved == {**dict.fromkeys(reserved), "homeport-test-leave": 20}


def test_each_lane_is_limited_and_driven_by_its_own_queue(expanded: dict[str, Any], account: Rig) -> None:
    sources = of_type(expanded, "AWS::Lambda::EventSourceMapping")
    queues = {found["EventSourceArn"]["Fn::Sub"].rpartition(":")[2]: found for found in sources}
    assert set(queues) == {f"homeport-test-{lane}" for lane in Lane} <= set(account.everything()["queues"])
    for lane in Lane:
        found = queues[f"homeport-test-{lane}"]
        limit = Config.from_environ({}).functions_of(lane)
        assert found["ScalingConfig"] == {"MaximumConcurrency": limit}
        assert expanded[found["FunctionName"]["Ref"]]["Properties"]["FunctionName"] == f"homeport-test-{lane}"
    (rule,) = of_type(expanded, "AWS::Events::Rule")
    assert (rule["Name"], rule["ScheduleExpression"]) == ("homeport-test-redrive-event", "rate(1 minute)")


def test_the_template_is_one_that_cloudformation_takes_from_a_bucket(out: Path) -> None:
    assert 51_200 < (out / "sam.json").stat().st_size < 1_000_000


def test_every_permission_is_for_a_function_that_exists(expanded: dict[str, Any]) -> None:
    permissions = of_type(expanded, "AWS::Lambda::Permission")
    callers = {}
    for found in permissions:
        function = expanded[found["FunctionName"]["Ref"]]
        callers[function["Properties"]["FunctionName"]] = found["Principal"]
    assert callers == {"homeport-test": "apigateway.amazonaws.com", "homeport-test-redrive": "events.amazonaws.com"}


def test_every_log_group_alarm_and_policy_names_a_function_that_exists(expanded: dict[str, Any]) -> None:
    names = {found["FunctionName"] for found in of_type(expanded, "AWS::Lambda::Function")}
    resources = template("resources.yaml")["Resources"]
    groups = [one["Properties"]["LogGroupName"] for one in resources.values() if one["Type"] == "AWS::Logs::LogGroup"]
    logged = {_filled(group).removeprefix("/aws/lambda/") for group in groups if "/aws/lambda/" in group["Fn::Sub"]}
    assert logged == names
    alarms = json.dumps([one for one in resources.values() if one["Type"] == "AWS::CloudWatch::Alarm"])
    watched = set(re.findall(r'\{"Name": "FunctionName", "Value": \{"Fn::Sub": "([^"]+)"\}\}', alarms))
    assert watched
    assert {name.replace("${Stage}", "test") for name in watched} == names
    queues = set(re.findall(r'"Name": "QueueName", "Value": \{"Fn::GetAtt": "(\w+)\.QueueName"', alarms))
    assert queues == {f"{lane.capitalize()}Queue" for lane in Lane} | {"DeadLetterQueue"} <= resources.keys()
    for role in of_type(expanded, "AWS::IAM::Role"):
        (inline,) = role["Policies"]
        function = role["RoleName"].removeprefix("homeport-test-")
        (logs,) = [one for one in inline["PolicyDocument"]["Statement"] if one["Sid"] == "Logs"]
        assert logs["Resource"].endswith(f":log-group:/aws/lambda/{function_name('test', function)}:*")


def _filled(sub: dict[str, str]) -> str:
    return sub["Fn::Sub"].replace("${Stage}", "test")


def test_the_api_answers_limits_compresses_and_logs_as_that_of_make_deploy(expanded: dict[str, Any]) -> None:
    (api,) = of_type(expanded, "AWS::ApiGateway::RestApi")
    assert api["Body"]["x-amazon-apigateway-gateway-responses"] == responses("")
    assert (api["Name"], api["MinimumCompressionSize"]) == ("homeport-test", 1024)
    assert "DomainLeadsHere" in json.dumps(api)
    (stage,) = of_type(expanded, "AWS::ApiGateway::Stage")
    (limits,) = stage["MethodSettings"]
    assert (limits["ThrottlingRateLimit"], limits["ThrottlingBurstLimit"]) == (500, 1000)
    assert stage["AccessLogSetting"]["DestinationArn"].endswith(":log-group:/homeport/test/access")
    assert stage["StageName"] == "api"


def test_functions_are_traced_if_that_is_wanted_and_the_api_never(expanded: dict[str, Any]) -> None:
    for found in of_type(expanded, "AWS::Lambda::Function"):
        assert found["TracingConfig"] == {"Mode": "Active"}
        assert found["Environment"]["Variables"]["HOMEPORT_TRACING"] == "on"
    for role in of_type(expanded, "AWS::IAM::Role"):
        (inline,) = role["Policies"]
        assert inline["PolicyDocument"]["Statement"][-1] == dict(TRACE)
    (stage,) = of_type(expanded, "AWS::ApiGateway::Stage")
    assert not stage.get("TracingEnabled")
    untraced = merge_template(read_request("test", OPTIONS), {"AccessLogsArn": "arn"})["Resources"]
    modes = [one["Properties"]["Tracing"] for one in untraced.values() if "Tracing" in one["Properties"]]
    assert modes == ["PassThrough"] * len(POLICIES)
