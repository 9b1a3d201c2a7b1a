"""A deployment of the hub against moto's server: the server, what of it is asked for, and the commands run on it.

moto's gaps are filled on the way in: it reads OpenAPI 3 only, where Chalice (as API Gateway does) speaks Swagger 2, and
it knows neither Lambda's account settings nor its quota's increase, nor IAM's simulation, and passes over a change of
tracing. Templates, deployer and the
`chalice` command are those of a real deployment. Each rig is an account of its own.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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

from tests.moto_gaps import let_stacks_change_indexes, remember_defaults, set_tracing, write_key_policies
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

    `refused` is a call that is refused, by its name; the first `spared` of them are not. `calls` are all that were
    made. `quota` is how many functions the account may have at work; None: it may not ask. `denied` are the actions
    that the caller's policies do not allow, as far as IAM's simulation says; `conditional` those that depend on what it
    does not know.
    """

    def __init__(self, account: str) -> None:
        self.account = account
        self.refused = ""
        self.spared = 0
        self.calls: list[Call] = []
        self.quota: int | None = 1000
        self.denied: set[str] = set()
        self.conditional: set[str] = set()
        self._moto = DomainDispatcherApplication(create_backend_app)
        let_stacks_change_indexes()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        call = _name(environ, body)
        self.calls.append(Call(call, body, _signed_for(environ), environ.get("QUERY_STRING", "")))
        if self._is_refused(call):
            return _refusal(environ)(environ, start_response)
        if call == "GET /2016-08-19/account-settings":
            return self._account()(environ, start_response)
        if call == "RequestServiceQuotaIncrease":
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


def _refusal(environ: WSGIEnvironment) -> Response:
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        error = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>not today</Message></Error></ErrorResponse>"
        return Response(error, 403, content_type="text/xml")
    return _json(400, {"message": "not today", "__type": "AccessDeniedException"}, "AccessDeniedException")


def _json(status: int, value: Any, error: str | None = None) -> Response:
    headers = {} if error is None else {"x-amzn-ErrorType": error}
    return Response(json.dumps(value), status, headers, content_type="application/json")


@dataclass
class Rig:
    """A moto server, a copy of the project whose lock names one package, and what is run there.

    `said` is what the first deployment printed.
    """

    endpoint: str
    gateway: Gateway
    project: Path
    wheels: Path
    said: str = ""

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
        command = [sys.executable, "-m", f"infra.{module}", "--stage", stage, *arguments]
        return self._run(command, self.environ(**OPTIONS, **environ))

    def deploy(self, *arguments: str, stage: str = "test", **environ: str) -> Done:
        """Run `make deploy`."""
        command = [sys.executable, "-m", "infra.deploy", "--stage", stage, *arguments]
        return self._run(command, self.environ(**{**OPTIONS, **environ}))

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
