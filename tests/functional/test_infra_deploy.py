"""`make deploy` and `make destroy` against moto's server: what is there afterwards, and that both may be repeated."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterator
from typing import Any
from zipfile import ZipFile

import pytest
from botocore.exceptions import ClientError
from moto.awslambda.models import lambda_backends

from chalicelib.errors import BadConfiguration
from chalicelib.session.lanes import Lane
from infra.api import ANSWERS, finish_api, responses
from infra.project import POLICIES, TRACE, function_name, role_name
from infra.request import FROM_OUTPUTS, read_request
from tests.deployment import CARGO, ON_LAMBDA, OPTIONS, Rig, forked, rig
from tests.operator_calls import not_allowed
from tests.policies import REGION, ROOT, operator_policy, template
from tests.wheels import write_wheel

FUNCTIONS = {function_name("test", function) for function in POLICIES}
KINDS = ["stacks", "functions", "apis", "roles", "rules", "parameters", "logs", "buckets", "queues", "tables", "alarms"]
NOTHING: dict[str, list[str]] = {kind: [] for kind in (*KINDS, "event sources")}

pytestmark = [
    pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning"),  # alarms and TLS-only policies: moto skips them
]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """The stage "test", deployed by one command; `said` is what that printed."""
    with rig(tmp_path_factory.mktemp("deployed")) as started, forked(started, "deploy", "destroy"):
        done = started.deploy()
        assert done.returncode == 0, done.stdout + done.stderr
        started.said = done.stdout
        yield started


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """An account in which nothing is deployed, and nothing may be left."""
    with rig(tmp_path_factory.mktemp("empty")) as started, forked(started, "deploy", "destroy"):
        yield started


def test_one_command_deploys_everything_and_says_where_the_hub_is(hub: Rig) -> None:
    (api,) = hub.apis()
    assert hub.said.splitlines()[-1].startswith(f"The hub: https://{api['id']}.execute-api.{REGION}.")
    functions = hub.functions()
    assert {name: found["Timeout"] for name, found in functions.items()} == {
        "homeport-test": 30,
        "homeport-test-launch": 120,
        "homeport-test-pull": 900,
        "homeport-test-leave": 120,
        "homeport-test-watch": 60,
        "homeport-test-redrive": 60,
    }
    made = hub.outputs()
    assert {(found["EventSourceArn"], found["FunctionArn"].rpartition(":")[2]) for found in hub.mappings()} == {
        (made[f"{lane.capitalize()}QueueArn"], f"homeport-test-{lane}") for lane in Lane
    }
    (rule,) = hub.client("events").list_rules()["Rules"]
    assert rule["ScheduleExpression"] == "rate(1 minute)"


def test_the_functions_run_on_python_3_13_whatever_deployed_them(hub: Rig) -> None:
    assert {found["Runtime"] for found in hub.functions().values()} == {"python3.13"}
    assert {tuple(found["Architectures"]) for found in hub.functions().values()} == {("arm64",)}


def test_the_functions_are_given_the_locked_package_for_their_platform(hub: Rig) -> None:
    account = hub.client("sts").get_caller_identity()["Account"]
    for function in FUNCTIONS:
        code = lambda_backends[account][REGION].get_function(function).code_bytes
        with ZipFile(io.BytesIO(code)) as archive:
            assert ON_LAMBDA in archive.read("cargo-1.0.dist-info/WHEEL").decode()


def test_each_function_has_a_role_of_its_own_with_its_own_policy(hub: Rig) -> None:
    iam = hub.client("iam")
    for function, policy in POLICIES.items():
        role = role_name("test", function)
        assert hub.functions()[function_name("test", function)]["Role"].endswith(f":role/{role}")
        assert iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] == []
        (inline,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
        document = iam.get_role_policy(RoleName=role, PolicyName=inline)["PolicyDocument"]
        text = (ROOT / "infra" / "policies" / f"{policy}.json").read_text()
        for output, value in hub.outputs().items():
            text = text.replace(f"${{{output}}}", value)
        assert document == json.loads(text)
        assert "${" not in json.dumps(document)


def test_the_functions_are_told_what_the_stack_made_and_what_the_operator_chose(hub: Rig) -> None:
    made = hub.outputs()
    (api,) = hub.apis()
    expected = {
        **OPTIONS,
        "HOMEPORT_HUB_ORIGIN": f"https://{api['id']}.execute-api.{REGION}.amazonaws.com",
        "HOMEPORT_HUB_NAME": "homeport-test",
        "HOMEPORT_TABLE": made["Table"],
        "HOMEPORT_BUCKET": made["Bucket"],
        "HOMEPORT_KEY": made["Key"],
        "HOMEPORT_QUEUES": "homeport-test",
        "HOMEPORT_QUEUE_URLS": made["QueueUrls"],
        "HOMEPORT_STAGE": "test",
        "HOMEPORT_CERTIFICATES": "/homeport/test",
    }
    for function in FUNCTIONS:
        assert hub.variables(function) == expected


def test_functions_are_reserved_for_the_lane_that_leaves_alone(hub: Rig) -> None:
    asked = {name: hub.client("lambda").get_function_concurrency(FunctionName=name) for name in FUNCTIONS}
    reserved = {name: answer.get("ReservedConcurrentExecutions") for name, answer in asked.items()}
    assert reserved == {**dict.fromkeys(FUNCTIONS), "homeport-test-leave": 20}


def test_what_api_gateway_answers_itself_has_the_form_of_our_errors(hub: Rig) -> None:
    (api,) = hub.apis()
    answers = hub.client("apigateway").get_gateway_responses(restApiId=api["id"])["items"]
    assert {answer["responseType"] for answer in answers} == set(ANSWERS)
    for answer in answers:
        assert answer["responseTemplates"] == responses("")[answer["responseType"]]["responseTemplates"]
        problem = json.loads(answer["responseTemplates"]["application/json"])
        assert str(problem.get("status", "")) == str(answer.get("statusCode") or "")
    by_kind = {answer["responseType"]: answer for answer in answers}
    assert by_kind["MISSING_AUTHENTICATION_TOKEN"]["statusCode"] == "404"  # how API Gateway calls an unknown address
    assert by_kind["THROTTLED"]["responseParameters"]["gatewayresponse.header.Retry-After"] == "'5'"


def test_the_stage_of_the_api_has_limits_and_a_log_without_what_visitors_send(hub: Rig) -> None:
    (api,) = hub.apis()
    (stage,) = hub.client("apigateway").get_stages(restApiId=api["id"])["item"]
    limits = stage["methodSettings"]["*/*"]
    assert (limits["throttlingRateLimit"], limits["throttlingBurstLimit"]) == (500, 1000)
    assert stage["accessLogSettings"]["destinationArn"].endswith(":log-group:/homeport/test/access")
    logged = re.findall(r"\$context\.([\w.]+)", stage["accessLogSettings"]["format"])
    assert not {name for name in logged if re.match(r"identity|path$|requestOverride|authorizer|domain", name)}
    role = hub.client("apigateway").get_account()["cloudwatchRoleArn"]
    assert role == hub.outputs()["GatewayLogsRole"]
    patches = [found for found in hub.gateway.bodies("PATCH /restapis/[^/]+") if "minimumCompressionSize" in found]
    assert patches
    assert all('"1024"' in patch for patch in patches)


def test_deploying_again_changes_nothing_doubles_nothing_and_removes_what_was_left_over(hub: Rig) -> None:
    before = (hub.everything(), hub.outputs(), hub.certificates(), hub.variables("homeport-test"))
    ids = {found["UUID"] for found in hub.mappings()}
    leave, name = hub.outputs()["LeaveQueueArn"], "homeport-test"
    hub.client("cloudformation").update_termination_protection(StackName=name, EnableTerminationProtection=False)
    hub.client("lambda").create_event_source_mapping(EventSourceArn=leave, FunctionName="homeport-test-leave")
    shutil.rmtree(hub.project / ".chalice" / "deployed")  # as on another machine
    hub.gateway.calls.clear()
    done = hub.deploy()
    assert done.returncode == 0, done.stdout + done.stderr
    assert not_allowed(hub.gateway.calls) == set()
    assert (hub.everything(), hub.outputs(), hub.certificates(), hub.variables("homeport-test")) == before
    assert {found["UUID"] for found in hub.mappings()} == ids
    assert "The hub's certificates: all there" in done.stdout
    with pytest.raises(ClientError, match="TerminationProtection is enabled"):  # as after the first deployment
        hub.client("cloudformation").delete_stack(StackName=name)
    assert hub.everything() == before[0]


def test_functions_are_traced_from_when_their_roles_allow_it_until_before_they_do_not(hub: Rig) -> None:
    """Lambda refuses to trace a function whose role may not tell X-Ray. The API, which tells whole URLs, never is."""
    for option, mode in (("on", "Active"), ("off", "PassThrough")):
        hub.gateway.calls.clear()
        done = hub.deploy(HOMEPORT_TRACING=option)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not_allowed(hub.gateway.calls) == set()
        assert {found["TracingConfig"]["Mode"] for found in hub.functions().values()} == {mode}
        statements = [statement for role in POLICIES for statement in _statements(hub, role_name("test", role))]
        assert statements.count(dict(TRACE)) == (len(POLICIES) if option == "on" else 0)
        roles = [place for place, call in enumerate(hub.gateway.calls) if call.name == "PutRolePolicy"]
        changes = [place for place, call in enumerate(hub.gateway.calls) if b'"TracingConfig"' in call.body]
        assert len(changes) == len(POLICIES)
        assert min(changes) > max(roles) if option == "on" else max(changes) < min(roles)
        assert all('"tracingEnabled": true' not in body for body in hub.gateway.bodies("POST /restapis/.*/deployments"))
        assert "the tracing of" not in done.stdout, "doctor finds it as it should be"


def _statements(hub: Rig, role: str) -> list[dict[str, Any]]:
    document = hub.client("iam").get_role_policy(RoleName=role, PolicyName=role)["PolicyDocument"]
    return list(document["Statement"])


OPERATIONS = (
    ("door", "--close", "Back at noon"),
    ("door",),
    ("rotate", "--ca", "client", "--step", "begin"),
    ("rotate", "--ca", "client", "--step", "switch", "--force"),
    ("rotate", "--ca", "client", "--step", "end", "--force"),
)


@pytest.mark.parametrize("command", OPERATIONS, ids=" ".join)
def test_whoever_runs_the_hub_needs_the_policy_for_that_besides(hub: Rig, command: tuple[str, ...]) -> None:
    hub.gateway.calls.clear()
    done = hub.make(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not_allowed(hub.gateway.calls, operator_policy("operations")) == set()
    assert not_allowed(hub.gateway.calls) != set()


def test_a_second_stage_shares_nothing_and_is_taken_away_again(hub: Rig) -> None:
    first, made = hub.everything(), hub.outputs()
    domain = hub.client("apigateway")
    origin = {"HOMEPORT_HUB_ORIGIN": "https://hub.example.com", "HOMEPORT_STATE_DIR": "/elsewhere"}
    hub.gateway.calls.clear()
    assert hub.deploy(stage="prod", **origin).returncode == 0
    assert not_allowed(hub.gateway.calls) == set()
    assert hub.variables("homeport-prod")["HOMEPORT_HUB_ORIGIN"] == "https://hub.example.com"
    assert not set(made.values()) & set(hub.outputs("prod").values()) - SHARED
    both = hub.everything()
    assert {kind: len(names) for kind, names in both.items()} == {kind: 2 * len(first[kind]) for kind in first}
    (api,) = [found for found in hub.apis() if found["tags"] == {"homeport": "prod"}]
    assert api["disableExecuteApiEndpoint"] is False
    domain.create_domain_name(domainName="hub.example.com")
    assert not finish_api(domain, api["id"], log_group="", rate=7, domain="other.example.com")
    domain.create_base_path_mapping(domainName="hub.example.com", restApiId=api["id"], stage="api")
    assert finish_api(domain, api["id"], log_group="", rate=7, domain="hub.example.com")
    assert domain.get_rest_api(restApiId=api["id"])["disableExecuteApiEndpoint"] is True
    unasked = hub.make("destroy", stage="prod", CONFIRM="test")
    assert (unasked.returncode, hub.everything()) == (1, both)
    assert "nothing was deleted" in unasked.stderr
    hub.gateway.calls.clear()
    done = hub.make("destroy", stage="prod", CONFIRM="prod")
    assert done.returncode == 0, done.stderr
    assert not_allowed(hub.gateway.calls) == set()
    assert hub.everything() == first
    assert hub.outputs() == made
    assert not (hub.project / ".chalice" / "deployed" / "prod.json").exists()
    assert hub.make("destroy", stage="prod", CONFIRM="prod").returncode == 0, "nothing is there, which is well"


SHARED = {f"{service}.{REGION}.amazonaws.com" for service in ("execute-api", "s3", "ssm")}


def test_a_refusal_before_anything_is_made_is_said(empty: Rig) -> None:
    """Whatever is refused later: tests/functional/test_infra_deploy_proxy.py."""
    empty.gateway.refused = "GetCallerIdentity"
    refused = empty.deploy()
    empty.gateway.refused = ""
    assert (refused.returncode, empty.everything()) == (1, NOTHING)
    assert "Run the same command again" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_package_that_was_replaced_stops_the_deployment_before_anything_is_changed(empty: Rig) -> None:
    """Only the wheel for Lambda was: the one for this machine, which Chalice looks at first, is as it was locked."""
    wheel = empty.wheels / f"cargo-1.0-{ON_LAMBDA}.whl"
    locked = wheel.read_bytes()
    write_wheel(empty.wheels, *CARGO, ON_LAMBDA, code="print('hostile')")
    refused = empty.deploy()
    wheel.write_bytes(locked)
    assert refused.returncode == 1
    assert "A package is not the file that requirements-lambda.txt locks" in refused.stderr
    assert "cargo==1.0" in refused.stderr
    assert "Nothing was changed in AWS" in refused.stderr
    assert "pip cache purge" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert empty.everything() == NOTHING


def test_a_package_that_is_not_to_be_had_stops_the_deployment_before_anything_is_changed(empty: Rig) -> None:
    wheel = empty.wheels / f"cargo-1.0-{ON_LAMBDA}.whl"
    away = wheel.rename(empty.wheels / "away")
    refused = empty.deploy()
    away.rename(wheel)
    assert refused.returncode == 1
    assert "pip could not fetch what requirements-lambda.txt locks" in refused.stderr
    assert "No matching distribution found for cargo==1.0" in refused.stderr
    assert empty.everything() == NOTHING


def test_a_package_without_a_hash_is_not_deployed(empty: Rig) -> None:
    lock = empty.project / "requirements-lambda.txt"
    locked = lock.read_text()
    lock.write_text("cargo==1.0\n")
    refused = empty.deploy()
    lock.write_text(locked)
    assert refused.returncode == 1
    assert "Hashes are required" in refused.stderr
    assert empty.everything() == NOTHING


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"AWS_DEFAULT_REGION": ""}, "No AWS region"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "No AWS credentials"),
        ({"HOMEPORT_NOTEBOOK_URL": ""}, "HOMEPORT_NOTEBOOK_URL is needed"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_made(change: dict[str, str], says: str, empty: Rig) -> None:
    refused = empty.deploy(**change)
    assert refused.returncode == 1
    assert says in refused.stderr
    assert "Traceback" not in refused.stderr
    assert empty.everything() == NOTHING


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"HOMEPORT_NOTEBOOK_URL": "http://*.notebooks.example.org"}, "https origin"),
        ({"HOMEPORT_NOTEBOOK_URL": "https://notebooks.example.org"}, "HOMEPORT_NOTEBOOK_URL"),
        ({"HOMEPORT_HUB_ORIGIN": "http://hub.example.com"}, "HOMEPORT_HUB_ORIGIN"),
        ({"HOMEPORT_SESSION_HOURS": "soon"}, "HOMEPORT_SESSION_HOURS"),
        ({"HOMEPORT_SESSION_HOURS": "169"}, "at most 168"),
        ({"HOMEPORT_ENDPOINT_NETWORKS": "10.0.0.1/8"}, "HOMEPORT_ENDPOINT_NETWORKS"),
        ({"HOMEPORT_TABLE": "mine"}, "HOMEPORT_TABLE"),
        ({"HOMEPORT_IMGAE": "typo"}, "HOMEPORT_IMGAE"),
        ({"HOMEPORT_REQUEST_RATE": "0"}, "HOMEPORT_REQUEST_RATE"),
        ({"HOMEPORT_FUNCTIONS": "7"}, "from 8 to 2500"),
    ],
)
def test_a_wrong_option_is_refused_by_name(change: dict[str, str], says: str) -> None:
    with pytest.raises(BadConfiguration, match=re.escape(says)):
        read_request("test", {**OPTIONS, **change})


@pytest.mark.parametrize("stage", ["", "Prod", "a" * 17, "1st", "a_b", "../x", "try-launch"])
def test_a_stage_that_cannot_be_part_of_a_name_is_refused(stage: str) -> None:
    with pytest.raises(BadConfiguration, match="stage"):
        read_request(stage, OPTIONS)


def test_what_the_other_programs_read_is_ignored_and_never_refused() -> None:
    others = {"HOMEPORT_STATE_DIR": "/elsewhere", "HOMEPORT_HUB_PORT": "1", "HOMEPORT_PROXY_CLIENT": "x"}
    assert read_request("test", {**OPTIONS, **others}).options == read_request("test", OPTIONS).options


def test_every_output_that_a_variable_comes_from_is_one_of_the_stack() -> None:
    assert set(FROM_OUTPUTS.values()) <= template("resources.yaml")["Outputs"].keys()
