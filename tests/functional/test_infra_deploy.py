"""`make deploy` against moto's server: what is there afterwards, and that it may be repeated, also after a failure.

One of moto's gaps is filled for the tests alone: it reads OpenAPI 3 only, where Chalice (as API Gateway does) speaks
Swagger 2. Templates and deployer are those of a real deployment.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen
from zipfile import ZipFile

import boto3
import pytest
from botocore.stub import Stubber
from moto.awslambda.models import lambda_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug import Response
from werkzeug.serving import make_server

from chalicelib.errors import BadConfiguration
from chalicelib.session.lanes import Lane
from infra.deploy import FROM_OUTPUTS, _reserved, read_request
from tests.policies import template
from tests.wheels import write_wheel

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

ROOT = Path(__file__).resolve().parents[2]
REGION = "eu-west-1"
PROJECT = ("app.py", "chalicelib", "infra", "local", "proxy", ".chalice")
OPTIONS = {
    "HOMEPORT_NOTEBOOK_URL": "https://*.notebooks.example.org",
    "HOMEPORT_IMAGE": "quay.io/jupyter/scipy-notebook:2026-11-02",
}
ROLES = {"api_handler": "web", **{lane.value: lane.value for lane in Lane}, "redrive": "redrive"}
FUNCTIONS = {"homeport-test", *(f"homeport-test-{lane}" for lane in Lane), "homeport-test-redrive"}

pytestmark = [
    pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning"),  # alarms and TLS-only policies: moto skips them
]

Deploy = Callable[..., subprocess.CompletedProcess[str]]


class Gateway:
    """moto's application, with Swagger 2 made OpenAPI 3 on the way in, and `refused` (method and path) refused."""

    def __init__(self) -> None:
        self.refused = ""
        self._moto = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        call = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        if self.refused and re.fullmatch(self.refused, call):
            return Response(json.dumps({"message": "not today"}), 400)(environ, start_response)
        if re.fullmatch("(POST|PUT) /restapis(/[^/]+)?", call):
            swagger = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            info = {"description": "", **swagger["info"]}
            body = json.dumps({"openapi": "3.0.1", "info": info, "paths": swagger["paths"]}).encode()
            environ |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        answer: Iterable[bytes] = self._moto(environ, start_response)
        return answer


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def endpoint(gateway: Gateway) -> Iterator[str]:
    """A moto server of its own, behind the gateway."""
    server = make_server("127.0.0.1", 0, gateway, threaded=True, request_handler=MotoRequestHandler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    urlopen(Request(f"http://127.0.0.1:{server.server_port}/moto-api/reset", method="POST")).close()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(endpoint: str) -> Callable[[str], Any]:
    return lambda service: boto3.client(  # type: ignore[call-overload]  # the name is a variable
        service, REGION, endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="test"
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project, its lock naming a single package: what the real ones weigh and hold is test_package's."""
    ignore = shutil.ignore_patterns("__pycache__", "deployed", "deployments")
    (tmp_path / "project").mkdir()
    for name in PROJECT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / "project" / name, ignore=ignore)
        else:
            shutil.copyfile(ROOT / name, tmp_path / "project" / name)
    (tmp_path / "wheels").mkdir()
    hashes = [f"--hash=sha256:{write_wheel(tmp_path / 'wheels', *CARGO, tag)}" for tag in (ELSEWHERE, ON_LAMBDA)]
    (tmp_path / "project" / "requirements.txt").write_text(f"{'=='.join(CARGO)} {' '.join(hashes)}\n")
    return tmp_path / "project"


CARGO = ("cargo", "1.0")
ON_LAMBDA = "py3-none-manylinux2014_aarch64"
ELSEWHERE = "py3-none-manylinux2014_x86_64"


@pytest.fixture
def wheels(project: Path) -> Path:
    """The only place where pip looks for packages: the locked package for Lambda and for other machines."""
    return project.with_name("wheels")


@pytest.fixture
def deploy(endpoint: str, project: Path, wheels: Path) -> Deploy:
    def run(stage: str = "test", **environ: str) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "HOMEPORT_"))}
        pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
        wanted = {**inherited, **aws_environment(endpoint), **pip, **OPTIONS, **environ}
        return subprocess.run(
            [sys.executable, "-m", "infra.deploy", "--stage", stage],
            cwd=project,
            env={name: value for name, value in wanted.items() if value},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def aws_environment(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def outputs(client: Callable[[str], Any], stage: str = "test") -> dict[str, str]:
    stack = client("cloudformation").describe_stacks(StackName=f"homeport-{stage}")["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def mappings(client: Callable[[str], Any]) -> list[dict[str, Any]]:
    return list(client("lambda").list_event_source_mappings()["EventSourceMappings"])


def mapping_ids(client: Callable[[str], Any]) -> set[str]:
    return {str(found["UUID"]) for found in mappings(client)}


def apis(client: Callable[[str], Any]) -> list[dict[str, Any]]:
    return list(client("apigateway").get_rest_apis()["items"])


def variables(client: Callable[[str], Any], function: str) -> Mapping[str, str]:
    answer = client("lambda").get_function_configuration(FunctionName=function)
    return dict(answer["Environment"]["Variables"])


def test_one_command_deploys_everything_and_says_where_the_hub_is(deploy: Deploy, client: Callable[[str], Any]) -> None:
    done = deploy()
    assert done.returncode == 0, done.stdout + done.stderr
    (api,) = apis(client)
    assert done.stdout.splitlines()[-1].startswith(f"The hub: https://{api['id']}.execute-api.{REGION}.")
    functions = {found["FunctionName"]: found for found in client("lambda").list_functions()["Functions"]}
    assert set(functions) == FUNCTIONS
    assert {name: found["Timeout"] for name, found in functions.items()} == {
        "homeport-test": 30,
        "homeport-test-launch": 120,
        "homeport-test-pull": 900,
        "homeport-test-leave": 120,
        "homeport-test-watch": 60,
        "homeport-test-redrive": 60,
    }
    made = outputs(client)
    assert {(found["EventSourceArn"], found["FunctionArn"].rpartition(":")[2]) for found in mappings(client)} == {
        (made[f"{lane.capitalize()}QueueArn"], f"homeport-test-{lane}") for lane in Lane
    }
    (rule,) = client("events").list_rules()["Rules"]
    assert rule["ScheduleExpression"] == "rate(1 minute)"


def test_each_function_has_a_role_of_its_own_with_its_own_policy(deploy: Deploy, client: Callable[[str], Any]) -> None:
    assert deploy().returncode == 0
    filled = outputs(client)
    iam = client("iam")
    for function, policy in ROLES.items():
        role = f"homeport-test-{function}"
        name = "homeport-test" if function == "api_handler" else role
        assert client("lambda").get_function_configuration(FunctionName=name)["Role"].endswith(f":role/{role}")
        assert iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] == []
        (inline,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
        document = iam.get_role_policy(RoleName=role, PolicyName=inline)["PolicyDocument"]
        text = (ROOT / ".chalice" / f"policy-{policy}.json").read_text()
        for output, value in filled.items():
            text = text.replace(f"${{{output}}}", value)
        assert document == json.loads(text)
        assert "${" not in json.dumps(document)


def test_the_functions_are_told_what_the_stack_made_and_what_the_operator_chose(
    deploy: Deploy, client: Callable[[str], Any]
) -> None:
    assert deploy(HOMEPORT_HUB_ORIGIN="https://hub.example.com", HOMEPORT_STATE_DIR="/elsewhere").returncode == 0
    made = outputs(client)
    expected = {
        **OPTIONS,
        "HOMEPORT_HUB_ORIGIN": "https://hub.example.com",
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
        assert variables(client, function) == expected


def test_without_a_domain_of_its_own_the_hubs_origin_is_the_apis(deploy: Deploy, client: Callable[[str], Any]) -> None:
    done = deploy()
    assert done.returncode == 0, done.stdout + done.stderr
    origin = variables(client, "homeport-test")["HOMEPORT_HUB_ORIGIN"]
    assert f"{origin}/api/" == done.stdout.splitlines()[-1].removeprefix("The hub: ")
    assert deploy().returncode == 0
    assert variables(client, "homeport-test")["HOMEPORT_HUB_ORIGIN"] == origin


def test_deploying_twice_changes_nothing_and_doubles_nothing(
    deploy: Deploy, client: Callable[[str], Any], project: Path
) -> None:
    first = deploy()
    before = (outputs(client), mapping_ids(client), apis(client)[0]["id"], certificates(client))
    shutil.rmtree(project / ".chalice" / "deployed")  # as on another machine
    second = deploy()
    assert (first.returncode, second.returncode) == (0, 0), second.stdout + second.stderr
    assert (outputs(client), mapping_ids(client), apis(client)[0]["id"], certificates(client)) == before
    assert (len(mappings(client)), len(apis(client))) == (4, 1)
    assert len(client("events").list_rules()["Rules"]) == 1
    assert "The hub's certificates: all there" in second.stdout


def certificates(client: Callable[[str], Any]) -> dict[str, str]:
    answer = client("ssm").get_parameters_by_path(Path="/homeport/test", WithDecryption=True)
    return {found["Name"]: found["Value"] for found in answer["Parameters"]}


def test_chalices_own_delete_finds_all_that_was_deployed(
    deploy: Deploy, client: Callable[[str], Any], endpoint: str, project: Path
) -> None:
    assert deploy().returncode == 0
    deleted = subprocess.run(
        [Path(sys.executable).with_name("chalice"), "delete", "--stage", "test"],
        cwd=project,
        env={**os.environ, **aws_environment(endpoint)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert deleted.returncode == 0, deleted.stdout + deleted.stderr
    assert (mappings(client), apis(client)) == ([], [])
    assert client("lambda").list_functions()["Functions"] == []
    assert client("iam").list_roles()["Roles"] == []
    assert client("events").list_rules()["Rules"] == []


def test_the_functions_are_given_the_locked_package_for_their_platform(
    deploy: Deploy, client: Callable[[str], Any]
) -> None:
    assert deploy().returncode == 0
    account = client("sts").get_caller_identity()["Account"]
    for function in FUNCTIONS:
        code = lambda_backends[account][REGION].get_function(function).code_bytes
        with ZipFile(io.BytesIO(code)) as archive:
            assert ON_LAMBDA in archive.read("cargo-1.0.dist-info/WHEEL").decode()


def test_a_package_that_was_replaced_stops_the_deployment_before_anything_is_changed(
    deploy: Deploy, client: Callable[[str], Any], wheels: Path
) -> None:
    """Only the wheel for Lambda was: the one for this machine, which Chalice looks at first, is as it was locked."""
    write_wheel(wheels, *CARGO, ON_LAMBDA, code="print('hostile')")
    refused = deploy()
    assert refused.returncode == 1
    assert "A package is not the file that requirements.txt locks" in refused.stderr
    assert "cargo==1.0" in refused.stderr
    assert "Nothing was changed in AWS" in refused.stderr
    assert "pip cache purge" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert_nothing_is_there(client)


def test_a_package_that_is_not_to_be_had_stops_the_deployment_before_anything_is_changed(
    deploy: Deploy, client: Callable[[str], Any], wheels: Path
) -> None:
    (wheels / f"cargo-1.0-{ON_LAMBDA}.whl").unlink()
    refused = deploy()
    assert refused.returncode == 1
    assert "pip could not fetch what requirements.txt locks" in refused.stderr
    assert "No matching distribution found for cargo==1.0" in refused.stderr
    assert_nothing_is_there(client)


def test_a_package_without_a_hash_is_not_deployed(deploy: Deploy, client: Callable[[str], Any], project: Path) -> None:
    (project / "requirements.txt").write_text("cargo==1.0\n")
    refused = deploy()
    assert refused.returncode == 1
    assert "Hashes are required" in refused.stderr
    assert_nothing_is_there(client)


def assert_nothing_is_there(client: Callable[[str], Any]) -> None:
    assert client("cloudformation").list_stacks()["StackSummaries"] == []
    assert client("lambda").list_functions()["Functions"] == []
    assert client("ssm").describe_parameters()["Parameters"] == []
    assert apis(client) == []


@pytest.mark.parametrize("broken", ["POST /restapis", "POST /restapis/[^/]+/deployments"])
def test_a_run_that_failed_half_way_is_repeated_without_doubling_anything(
    broken: str, gateway: Gateway, deploy: Deploy, client: Callable[[str], Any]
) -> None:
    gateway.refused = broken
    failed = deploy()
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert "Run the same command again" in failed.stderr
    assert len(mappings(client)) == 4
    gateway.refused = ""
    done = deploy()
    assert done.returncode == 0, done.stdout + done.stderr
    assert (len(mappings(client)), len(apis(client))) == (4, 1)


def test_a_left_over_mapping_on_the_queue_is_removed(deploy: Deploy, client: Callable[[str], Any]) -> None:
    assert deploy().returncode == 0
    before = mapping_ids(client)
    leave = outputs(client)["LeaveQueueArn"]
    client("lambda").create_event_source_mapping(EventSourceArn=leave, FunctionName="homeport-test-leave")
    assert len(mappings(client)) == 5
    assert deploy().returncode == 0
    assert mapping_ids(client) == before


def test_two_stages_share_nothing(deploy: Deploy, client: Callable[[str], Any]) -> None:
    assert deploy("test").returncode == 0
    assert deploy("prod").returncode == 0
    assert not set(outputs(client, "test").values()) & set(outputs(client, "prod").values()) - SHARED
    assert {found["EventSourceArn"].rpartition(":")[2] for found in mappings(client)} == {
        f"homeport-{stage}-{lane}" for stage in ("test", "prod") for lane in Lane
    }
    assert len(apis(client)) == 2


SHARED = {f"{service}.{REGION}.amazonaws.com" for service in ("execute-api", "s3", "ssm")}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"AWS_DEFAULT_REGION": ""}, "No AWS region"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "No AWS credentials"),
        ({"HOMEPORT_NOTEBOOK_URL": ""}, "HOMEPORT_NOTEBOOK_URL is needed"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_made(
    change: dict[str, str], says: str, deploy: Deploy, client: Callable[[str], Any]
) -> None:
    refused = deploy(**change)
    assert refused.returncode == 1
    assert says in refused.stderr
    assert "Traceback" not in refused.stderr
    assert_nothing_is_there(client)


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
    ],
)
def test_a_wrong_option_is_refused_by_name(change: dict[str, str], says: str) -> None:
    with pytest.raises(BadConfiguration, match=re.escape(says)):
        read_request("test", {**OPTIONS, **change})


@pytest.mark.parametrize("stage", ["", "Prod", "a" * 17, "1st", "a_b", "../x"])
def test_a_stage_that_cannot_be_part_of_a_name_is_refused(stage: str) -> None:
    with pytest.raises(BadConfiguration, match="stage"):
        read_request(stage, OPTIONS)


def test_what_the_other_programs_read_is_ignored_and_never_refused() -> None:
    others = {"HOMEPORT_STATE_DIR": "/elsewhere", "HOMEPORT_HUB_PORT": "1", "HOMEPORT_PROXY_CLIENT": "x"}
    assert read_request("test", {**OPTIONS, **others}).options == read_request("test", OPTIONS).options


@pytest.fixture
def account() -> Iterator[Callable[[int, int | None], Any]]:
    """Lambda clients of accounts: so many functions unreserved, and reserved for the stage (None: it is not there)."""
    with ExitStack() as stubbers:

        def account_with(unreserved: int, reserved: int | None) -> Any:
            lambda_ = boto3.client("lambda", REGION, aws_access_key_id="test", aws_secret_access_key="test")
            stubber = stubbers.enter_context(Stubber(lambda_))
            limits = {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": unreserved}
            stubber.add_response("get_account_settings", {"AccountLimit": limits})
            asked = {"FunctionName": "homeport-test-leave"}
            if reserved is None:
                stubber.add_client_error("get_function_concurrency", "ResourceNotFoundException", expected_params=asked)
            else:
                answer = {"ReservedConcurrentExecutions": reserved} if reserved else {}
                stubber.add_response("get_function_concurrency", answer, asked)
            return lambda_

        yield account_with


@pytest.mark.parametrize(
    ("unreserved", "reserved", "given"),
    [
        (1000, None, 20),  # an account with nothing else in it
        (120, None, 20),
        (119, None, 0),  # others have reserved the rest of its thousand
        (119, 0, 0),
        (100, 20, 20),  # a run before reserved them
        (99, 20, 0),
        (110, 10, 20),  # HOMEPORT_FUNCTIONS was raised since
        (10, None, 0),  # a new account
    ],
)
def test_functions_are_reserved_only_of_those_that_others_leave(
    unreserved: int,
    reserved: int | None,
    given: int,
    account: Callable[[int, int | None], Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _reserved(account(unreserved, reserved), "test", 20) == given
    said = capsys.readouterr().out
    assert said == "" if given else f"has {unreserved + (reserved or 0)} that are not reserved" in said


def test_an_account_whose_quota_cannot_be_read_gets_no_reservation(capsys: pytest.CaptureFixture[str]) -> None:
    lambda_ = boto3.client("lambda", REGION, aws_access_key_id="test", aws_secret_access_key="test")
    with Stubber(lambda_) as stubber:
        stubber.add_client_error("get_account_settings", "AccessDeniedException")
        assert _reserved(lambda_, "test", 20) == 0
    assert "cannot be read" in capsys.readouterr().out


def test_every_output_that_a_variable_comes_from_is_one_of_the_stack() -> None:
    assert set(FROM_OUTPUTS.values()) <= template("resources.yaml")["Outputs"].keys()
