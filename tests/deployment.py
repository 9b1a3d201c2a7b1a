"""A deployment of the hub against moto's server: the server, what of it is asked for, and the commands run on it.

moto's gaps are filled on the way in: it reads OpenAPI 3 only, where Chalice (as API Gateway does) speaks Swagger 2, and
it knows neither Lambda's account settings nor its quota's increase, nor IAM's simulation, nor how stacks are protected
from deletion, and passes over a change of tracing. Templates, deployer and the `chalice` command are those of a real
deployment. Each rig is an account of its own.
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
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from urllib.request import Request, urlopen

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug import Response
from werkzeug.serving import make_server

from tests.moto_gaps import (
    let_stacks_be_protected,
    let_stacks_change_indexes,
    remember_defaults,
    set_tracing,
    write_key_policies,
)
from tests.policies import REGION, ROOT
from tests.wheels import write_wheel

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PROJECT = ("app.py", "chalicelib", "infra", "local", "proxy")
OPTIONS = {
    "HOMEPORT_NOTEBOOK_URL": "https://*.notebooks.example.org",
    "HOMEPORT_IMAGE": "quay.io/jupyter/scipy-notebook:2026-11-02",
}
CARGO = ("cargo", "1.0")
ON_LAMBDA = "cp313-none-manylinux2014_aarch64"
ON_OLDER_LAMBDA = f"cp{sys.version_info.major}{sys.version_info.minor}-none-manylinux2014_aarch64"
ELSEWHERE = "py3-none-manylinux2014_x86_64"
COMMANDS = Path(sys.executable).parent
READING = re.compile("(GET|HEAD) |(Describe|Get|List|Simulate|BatchGet)[A-Z]")  # calls that change nothing


@dataclass(frozen=True, slots=True)
class Call:
    """One request of AWS.

    `name` is its action, or its method and path where the service has no actions in its requests. `service` is who it
    was signed for, "" if nobody signed it.
    """

    name: str
    body: bytes
    service: str
    query: str


class Gateway:
    """moto's application, its gaps filled.

    `refused` is a call that is refused, by its name; the first `spared` of them are not. `changes`, unless it is None:
    a call that changes something, and is not among them yet, is refused, and added. `calls` are all that were made.
    `quota` is how many functions the account may have at work; None: it may not ask. `denied` are the actions that the
    caller's policies do not allow, as far as IAM's simulation says; `conditional` those that depend on what it does not
    know.
    """

    def __init__(self, account: str) -> None:
        self.account = account
        self.refused = ""
        self.spared = 0
        self.changes: list[str] | None = None
        self.calls: list[Call] = []
        self.quota: int | None = 1000
        self.denied: set[str] = set()
        self.conditional: set[str] = set()
        self._moto = DomainDispatcherApplication(create_backend_app)
        let_stacks_change_indexes()
        let_stacks_be_protected()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        call = _name(environ, body)
        self.calls.append(Call(call, body, _signed_for(environ), environ.get("QUERY_STRING", "")))
        if self._is_refused(call) or self._is_new(call, body):
            return _refusal(environ, body)(environ, start_response)
        if call == "GET /2016-08-19/account-settings":
            return self._account()(environ, start_response)
        if call == "RequestServiceQuotaIncrease":
            return _json(200, {})(environ, start_response)
        if call == "POST /docker/build":  # by tests/docker_command.py
            return _json(200, {})(environ, start_response)
        if call == "SimulatePrincipalPolicy":
            return self._simulated(parse_qs(body.decode()))(environ, start_response)
        if re.fullmatch("(POST|PUT) /restapis(/[^/]+)?", call) and b'"swagger"' in body:
            swagger = json.loads(body)
            info = {"description": "", **swagger["info"]}
            body = json.dumps({"openapi": "3.0.1", "info": info, "paths": swagger["paths"]}).encode()
        if configured := re.fullmatch("PUT /2015-03-31/functions/([^/]+)/configuration", call):
            set_tracing(self.account, configured[1], json.loads(body))
        environ |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = self.account
        answer: Iterable[bytes] = self._moto(environ, start_response)
        if call == "CreateStack":
            write_key_policies(self.account)
            remember_defaults(self.account)
        return answer

    def _is_refused(self, call: str) -> bool:
        if not self.refused or not re.fullmatch(self.refused, call):
            return False
        self.spared -= 1
        return self.spared < 0

    def _is_new(self, call: str, body: bytes) -> bool:
        change = _change(call, body)
        if self.changes is None or READING.match(call) or change in self.changes:
            return False
        self.changes.append(change)
        return True

    def bodies(self, call: str) -> list[str]:
        """What was sent with each of these calls so far."""
        return [made.body.decode() for made in self.calls if re.fullmatch(call, made.name)]

    def _account(self) -> Response:
        if self.quota is None:
            return _json(403, {"message": "not allowed"}, "AccessDeniedException")
        limits = {"ConcurrentExecutions": self.quota, "UnreservedConcurrentExecutions": self.quota}
        return _json(200, {"AccountLimit": limits, "AccountUsage": {}})

    def _simulated(self, asked: Mapping[str, list[str]]) -> Response:
        actions = [value for name, (value,) in asked.items() if name.startswith("ActionNames.member.")]
        missing = "<member>aws:RequestedRegion</member>"
        results = "".join(
            f"<member><EvalActionName>{action}</EvalActionName><EvalDecision>"
            f"{'implicitDeny' if action in self.denied | self.conditional else 'allowed'}</EvalDecision>"
            f"<MissingContextValues>{missing if action in self.conditional else ''}</MissingContextValues></member>"
            for action in actions
        )
        answer = f"<EvaluationResults>{results}</EvaluationResults><IsTruncated>false</IsTruncated>"
        return Response(
            f"<SimulatePrincipalPolicyResponse><SimulatePrincipalPolicyResult>{answer}</SimulatePrincipalPolicyResult>"
            "</SimulatePrincipalPolicyResponse>",
            content_type="text/xml",
        )


def _signed_for(environ: WSGIEnvironment) -> str:
    """The service in a signature's scope: …Credential=<key>/<day>/<region>/<service>/aws4_request, …"""
    found = re.search(r"Credential=[^,]*/([^/,]+)/aws4_request", environ.get("HTTP_AUTHORIZATION", ""))
    return found[1] if found else ""


def _name(environ: WSGIEnvironment, body: bytes) -> str:
    target = environ.get("HTTP_X_AMZ_TARGET")
    if target:
        return str(target.rpartition(".")[2])
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        return parse_qs(body.decode())["Action"][0]
    return f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"


def _change(call: str, body: bytes) -> str:
    """What a call changes: the same for the functions of a stage and for an API's answers, another for each stack.

    Of a stack it is another one, too, if it is to become something else.
    """
    if re.fullmatch("(Create|Update|Delete)Stack", call):
        return f"{call} {parse_qs(body.decode())['StackName'][0]} {sha256(body).hexdigest()[:8]}"
    return re.sub(r"/(functions|event-source-mappings|gatewayresponses)/[^/]+", r"/\1/x", call)


def _refusal(environ: WSGIEnvironment, body: bytes) -> Response:
    if environ["QUERY_STRING"] == "delete":  # S3 says of each object whether it is deleted
        keys = re.findall("<Key>(.*?)</Key>", body.decode())
        each = "<Error><Key>{}</Key><Code>AccessDenied</Code><Message>not today</Message></Error>"
        errors = "".join(each.format(key) for key in keys)
        return Response(f"<DeleteResult>{errors}</DeleteResult>", content_type="text/xml")
    error = "<Error><Code>AccessDenied</Code><Message>not today</Message></Error>"
    if environ["PATH_INFO"].startswith("/homeport-"):  # a bucket
        return Response(error, 403, content_type="text/xml")
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        return Response(f"<ErrorResponse>{error}</ErrorResponse>", 403, content_type="text/xml")
    return _json(400, {"message": "not today", "__type": "AccessDeniedException"}, "AccessDeniedException")


def _json(status: int, value: Any, error: str | None = None) -> Response:
    headers = {} if error is None else {"x-amzn-ErrorType": error}
    return Response(json.dumps(value), status, headers, content_type="application/json")


@dataclass
class Rig:
    """A moto server, a copy of the project whose lock names one package, and what is run there.

    `said` is what the first deployment printed; `forked`, if it is there, is what runs infra's programs.
    """

    endpoint: str
    gateway: Gateway
    project: Path
    wheels: Path
    said: str = ""
    forked: Forked | None = None

    def client(self, service: str) -> Any:
        """A client of the server."""
        return boto3.client(  # type: ignore[call-overload]  # the name is a variable
            service, REGION, endpoint_url=self.endpoint, aws_access_key_id="test", aws_secret_access_key="test"
        )

    def environ(self, **more: str) -> dict[str, str]:
        """The environment of a command: the server, the one place for packages, the options, and more; "" unsets."""
        foreign = ("AWS_", "HOMEPORT_", "MAKE", "MFLAGS")  # a `make` below another says so before its first line
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)}
        wanted = {**inherited, **aws_environment(self.endpoint), **pip, **more}
        return {name: value for name, value in wanted.items() if value}

    def make(self, module: str, *arguments: str, stage: str = "test", **environ: str) -> Done:
        """Run one of infra's programs, as `make` does."""
        given = ["--stage", stage, *arguments]
        told = self.environ(**{**OPTIONS, **environ})
        if self.forked is not None and module in self.forked.modules:
            return self.forked.run(module, given, told)
        return self._run([sys.executable, "-m", f"infra.{module}", *given], told)

    def deploy(self, *arguments: str, stage: str = "test", **environ: str) -> Done:
        """Run `make deploy`."""
        return self.make("deploy", *arguments, stage=stage, **environ)

    def repeat(self, module: str, changes: list[str], failed: Callable[[str, Done], None], **environ: str) -> Done:
        """Run one of infra's programs until nothing is refused to it: each change is that is not among `changes`.

        `failed` is told of each run to which a change was refused: which one, and how it ended.
        The gateway's `calls` are those of all runs then, and no others.
        """
        calls = self.gateway.calls
        calls.clear()
        while True:
            before, self.gateway.changes = len(changes), changes
            done = self.make(module, **environ)
            self.gateway.changes, made = None, len(calls)
            if len(changes) == before:
                return done
            (refused,) = changes[before:]  # no program goes on after one
            failed(refused, done)
            del calls[made:]

    def chalice(self, command: str, *arguments: str, stage: str = "test", **environ: str) -> Done:
        """Run the `chalice` command."""
        return self._run([str(COMMANDS / "chalice"), command, "--stage", stage, *arguments], self.environ(**environ))

    def _run(self, command: list[str], environ: Mapping[str, str]) -> Done:
        return subprocess.run(
            command,
            cwd=self.project,
            env=environ,
            capture_output=True,
            text=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
        )

    def outputs(self, stage: str = "test") -> dict[str, str]:
        """The outputs of the stage's stack."""
        stack = self.client("cloudformation").describe_stacks(StackName=f"homeport-{stage}")["Stacks"][0]
        return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}

    def templates(self) -> list[str]:
        """The templates that stacks were updated with so far."""
        return [parse_qs(body)["TemplateBody"][0] for body in self.gateway.bodies("UpdateStack")]

    def mappings(self) -> list[dict[str, Any]]:
        """All event source mappings."""
        return list(self.client("lambda").list_event_source_mappings()["EventSourceMappings"])

    def apis(self) -> list[dict[str, Any]]:
        """All APIs."""
        return list(self.client("apigateway").get_rest_apis()["items"])

    def functions(self) -> dict[str, dict[str, Any]]:
        """All functions by name."""
        found = self.client("lambda").list_functions()["Functions"]
        return {function["FunctionName"]: function for function in found}

    def variables(self, function: str) -> Mapping[str, str]:
        """A function's environment."""
        return dict(self.functions()[function]["Environment"]["Variables"])

    def certificates(self, stage: str = "test") -> dict[str, str]:
        """The stage's certificates and keys."""
        answer = self.client("ssm").get_parameters_by_path(Path=f"/homeport/{stage}", WithDecryption=True)
        return {found["Name"]: found["Value"] for found in answer["Parameters"]}

    def everything(self) -> dict[str, list[str]]:
        """What there is of all that a deployment makes, by name."""
        iam, events = self.client("iam"), self.client("events")
        stacks = self.client("cloudformation").list_stacks()["StackSummaries"]
        return {
            "stacks": sorted(one["StackName"] for one in stacks if one["StackStatus"] != "DELETE_COMPLETE"),
            "functions": sorted(self.functions()),
            "event sources": sorted(
                f"{one['EventSourceArn'].rpartition(':')[2]} {one['FunctionArn'].rpartition(':')[2]}"
                for one in self.mappings()
            ),
            "apis": sorted(f"{one['name']} {one.get('tags', {}).get('homeport')}" for one in self.apis()),
            "roles": sorted(_unsuffixed(role["RoleName"]) for role in iam.list_roles()["Roles"]),
            "rules": sorted(rule["Name"] for rule in events.list_rules()["Rules"]),
            "parameters": sorted(one["Name"] for one in self.client("ssm").describe_parameters()["Parameters"]),
            "logs": sorted(one["logGroupName"] for one in self.client("logs").describe_log_groups()["logGroups"]),
            "buckets": sorted(_unsuffixed(one["Name"]) for one in self.client("s3").list_buckets()["Buckets"]),
            "queues": sorted(url.rpartition("/")[2] for url in self.client("sqs").list_queues().get("QueueUrls", [])),
            "tables": sorted(_unsuffixed(name) for name in self.client("dynamodb").list_tables()["TableNames"]),
            "alarms": sorted(
                alarm["AlarmName"] for alarm in self.client("cloudwatch").describe_alarms()["MetricAlarms"]
            ),
        }


def _unsuffixed(name: str) -> str:
    """A name that CloudFormation made, without what it added."""
    return re.sub(r"-[A-Za-z0-9]{12,}$", "", name)


Done = subprocess.CompletedProcess[str]


class Forked:
    """Some of infra's programs, imported once (tests/forked.py)."""

    def __init__(self, server: subprocess.Popen[str], modules: tuple[str, ...]) -> None:
        self._server = server
        self.modules = modules

    def run(self, module: str, arguments: list[str], environ: Mapping[str, str]) -> Done:
        """Run one."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps([module, arguments, environ]), file=self._server.stdin, flush=True)
        return Done([module, *arguments], *json.loads(self._server.stdout.readline()))


@contextmanager
def forked(started: Rig, *modules: str) -> Iterator[None]:
    """Have these of infra's programs run in processes that need not import them."""
    command = [sys.executable, str(ROOT / "tests" / "forked.py"), *modules]
    with subprocess.Popen(
        command,
        cwd=started.project,
        env=started.environ(),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:
        started.forked = Forked(server, modules)
        yield
        started.forked = None


def aws_environment(endpoint: str) -> dict[str, str]:
    """What makes a process use the server and nothing of whoever runs it."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


_accounts = count(200_000_000_001)


@contextmanager
def rig(folder: Path) -> Iterator[Rig]:
    """A server of its own, empty, and a project in the folder."""
    project, wheels = _project(folder)
    gateway = Gateway(f"{next(_accounts):012}")
    server = make_server("127.0.0.1", 0, gateway, threaded=True, request_handler=MotoRequestHandler)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield Rig(url, gateway, project, wheels)
    finally:
        urlopen(Request(f"{url}/moto-api/reset", method="POST")).close()
        server.shutdown()
        thread.join()
        server.server_close()


def _project(folder: Path) -> tuple[Path, Path]:
    """The project, its lock naming a single package: what the real ones weigh and hold is test_package's."""
    project, wheels = folder / "project", folder / "wheels"
    project.mkdir()
    for name in PROJECT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, project / name)
    config = json.loads((ROOT / ".chalice" / "config.json").read_text())
    config.pop("stages", None)  # those of whoever runs the tests
    (project / ".chalice").mkdir()
    (project / ".chalice" / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    wheels.mkdir()
    tags = sorted({ELSEWHERE, ON_LAMBDA, ON_OLDER_LAMBDA})
    hashes = [f"--hash=sha256:{write_wheel(wheels, *CARGO, tag)}" for tag in tags]
    (project / "requirements-lambda.txt").write_text(f"{'=='.join(CARGO)} {' '.join(hashes)}\n")
    return project, wheels
