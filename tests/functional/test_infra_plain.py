"""The `chalice` command by itself: what it says before `make resources`, and that it works for the stage after it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chalicelib.config import Config
from chalicelib.session.lanes import Lane
from infra.api import ANSWERS
from infra.plain import check, difference, record_packages, this_python
from infra.project import POLICIES, configure_stage, forget_stage, function_name, record_deployed, role_name
from tests.deployment import COMMANDS, Rig, rig
from tests.operator_calls import not_allowed
from tests.policies import OUTPUTS, ROOT

TIMES = {"api_handler": 30, "launch": 120, "pull": 900, "leave": 120, "watch": 60, "redrive": 60}

pytestmark = [pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")]


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """An account in which nothing is deployed yet."""
    with rig(tmp_path_factory.mktemp("plain")) as started:
        yield started


@pytest.mark.parametrize("command", [("deploy",), ("package", "out")])
def test_before_its_resources_are_there_a_stage_is_refused_in_one_sentence(
    command: tuple[str, ...], account: Rig
) -> None:
    before = account.everything()
    refused = account.chalice(*command, stage="dev")
    assert refused.returncode == 1
    assert refused.stderr.startswith("Run `make resources STAGE=…` for this stage first: ")
    assert len(refused.stderr.splitlines()) == 1
    assert account.everything() == before


@pytest.fixture(scope="module")
def resources(account: Rig) -> Rig:
    """The same with `make resources` run for the stage "test"."""
    done = account.deploy("--resources")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "Now `chalice deploy --stage test` and `chalice package --stage test` work"
    assert account.functions() == {}
    return account


@pytest.fixture(scope="module")
def deployed(resources: Rig) -> Rig:
    """The same with `chalice deploy` run, which failed in the middle at first."""
    resources.gateway.refused = "POST /restapis/[^/]+/deployments"
    assert resources.chalice("deploy").returncode == 2
    resources.gateway.refused = ""
    resources.gateway.calls.clear()
    assert resources.deploy("--resources").returncode == 0
    done = resources.chalice("deploy")
    assert done.returncode == 0, done.stderr
    assert not_allowed(resources.gateway.calls) == set()
    assert (difference(this_python()) or "") in done.stderr
    return resources


def test_plain_chalice_deploys_the_stage_and_what_failed_is_not_made_twice(deployed: Rig) -> None:
    found = deployed.everything()
    assert found["functions"] == sorted(function_name("test", function) for function in POLICIES)
    assert found["event sources"] == sorted(f"homeport-test-{lane} homeport-test-{lane}" for lane in Lane)
    assert found["apis"] == ["homeport test"]
    (api,) = deployed.apis()
    origin = deployed.variables("homeport-test")["HOMEPORT_HUB_ORIGIN"]
    assert origin == f"https://{api['id']}.execute-api.eu-west-1.amazonaws.com"


def test_what_chalice_leaves_out_of_the_api_is_set_after_it(deployed: Rig) -> None:
    (api,) = deployed.apis()
    gateway = deployed.client("apigateway")
    assert gateway.get_gateway_responses(restApiId=api["id"])["items"] == []
    assert {found["TracingConfig"]["Mode"] for found in deployed.functions().values()} == {"PassThrough"}
    deployed.gateway.calls.clear()
    done = deployed.deploy("--api", HOMEPORT_TRACING="on")
    assert done.returncode == 0, done.stderr
    assert not_allowed(deployed.gateway.calls) == set()
    assert {found["TracingConfig"]["Mode"] for found in deployed.functions().values()} == {"Active"}
    kinds = {answer["responseType"] for answer in gateway.get_gateway_responses(restApiId=api["id"])["items"]}
    assert kinds == set(ANSWERS)
    (stage,) = gateway.get_stages(restApiId=api["id"])["item"]
    assert stage["methodSettings"]["*/*"]["throttlingRateLimit"] == 500
    refused = deployed.deploy("--api", stage="dev")
    assert refused.returncode == 1
    assert "Run `make resources STAGE=dev` first" in refused.stderr


def test_each_setting_of_a_function_arrives_with_plain_chalice(deployed: Rig) -> None:
    iam, functions = deployed.client("iam"), deployed.functions()
    settings = json.loads((ROOT / ".chalice" / "config.json").read_text())["lambda_functions"]
    for function in POLICIES:
        name, role = function_name("test", function), role_name("test", function)
        found = functions[name]
        assert (found["Timeout"], found["MemorySize"]) == (TIMES[function], settings[function]["lambda_memory_size"])
        assert found["Runtime"] == f"python{this_python()}"
        assert found["Environment"]["Variables"]["HOMEPORT_QUEUES"] == "homeport-test"
        policy = iam.get_role_policy(RoleName=role, PolicyName=role)["PolicyDocument"]
        assert "${" not in json.dumps(policy)
    for mapping in deployed.mappings():
        lane = Lane(mapping["FunctionArn"].rpartition("-")[2])
        assert mapping["ScalingConfig"] == {"MaximumConcurrency": Config.from_environ({}).functions_of(lane)}
    reserved = deployed.client("lambda").get_function_concurrency(FunctionName="homeport-test-leave")
    assert reserved["ReservedConcurrentExecutions"] == 20


def test_plain_chalice_packages_a_template_that_cfn_lint_passes(resources: Rig) -> None:
    done = resources.chalice("package", "out")
    assert done.returncode == 0, done.stderr
    out = resources.project / "out"
    linted = subprocess.run([COMMANDS / "cfn-lint", out / "sam.json"], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    text = (out / "sam.json").read_text()
    assert "homeport-test-launch" in text
    functions = [one["Properties"] for one in _resources(out) if one["Type"] == "AWS::Serverless::Function"]
    assert sorted(function["Timeout"] for function in functions) == sorted(TIMES.values())


def _resources(out: Path) -> list[dict[str, Any]]:
    return list(json.loads((out / "sam.json").read_text())["Resources"].values())


def test_packages_of_another_lock_or_another_python_are_not_deployed(resources: Rig, tmp_path: Path) -> None:
    python, environ = this_python(), {"HOMEPORT_STAGE": "test"}
    project = tmp_path / "project"
    shutil.copytree(resources.project / ".chalice", project / ".chalice")
    shutil.copyfile(resources.project / "requirements-lambda.txt", project / "requirements-lambda.txt")
    assert "vendor/" in (check(project, environ, python=python) or "")  # it is not there
    (project / "vendor").mkdir()
    assert check(project, environ, python=python) is None
    other = "3.12" if python != "3.12" else "3.13"
    assert f"with Python {other}" in (check(project, environ, python=other) or "")
    with (project / "requirements-lambda.txt").open("a") as lock:
        lock.write("# another one\n")
    assert "not those that requirements-lambda.txt locks" in (check(project, environ, python=python) or "")
    record_packages(project, python)
    assert check(project, environ, python=python) is None
    assert "3.11 to 3.13" in (check(project, environ, python="3.14") or "")


def test_what_differs_with_an_older_python_is_said() -> None:
    assert "Amazon Linux 2 (glibc 2.26), which has no memfd" in (difference("3.11") or "")
    assert "support in June 2027" in (difference("3.11") or "")
    assert "Amazon Linux 2023" in (difference("3.12") or "")
    assert difference("3.13") is None


def test_a_stage_that_is_taken_away_leaves_the_project_as_it_was(tmp_path: Path) -> None:
    config = tmp_path / ".chalice" / "config.json"
    config.parent.mkdir()
    shutil.copyfile(ROOT / ".chalice" / "config.json", config)
    before = config.read_bytes()
    for stage in ("test", "prod"):
        configure_stage(ROOT, tmp_path, outputs={**OUTPUTS, "Stage": stage}, environment={"A": "b"})
        record_deployed(tmp_path, stage, [])
    assert json.loads(config.read_text())["stages"].keys() >= {"test", "prod"}
    forget_stage(tmp_path, "test")
    assert not (config.parent / "test").exists()
    assert (config.parent / "prod" / "policy-web.json").exists()
    forget_stage(tmp_path, "prod")
    forget_stage(tmp_path, "never")
    assert config.read_bytes() == before
    assert [path.name for path in (config.parent / "deployed").iterdir()] == []
