"""AWS that holds each function to its role: moto enforces no policies, so a permission that is missing would first be
missed in production.

A request whose access key names a role (tests/roles.py) is turned into what IAM is asked for it. It is refused in the
service's own form unless the role's policy as it is deployed allows all of that, and the policies of the key and the
bucket deny none. What of the policies was used, and what was refused, is kept.

`python -m tests.role_guard DESCRIPTOR` serves as local/aws.py does, behind a guard; `guarded_aws` runs that.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Final
from urllib.request import urlopen
from xml.sax.saxutils import escape

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from moto.cloudformation.models import cloudformation_backends
from moto.core.botocore_stubber import MockRawResponse
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug import Response
from werkzeug.datastructures import EnvironHeaders
from werkzeug.serving import make_server

from infra.project import API_HANDLER, POLICIES, role_name
from local.aws import Aws, aws, serve
from local.gate import AccessKey
from tests.iam_requests import call_of, requests_of
from tests.policies import (
    Context,
    Document,
    allows,
    denied,
    function_policy,
    listed,
    proxy_policy,
    resource_policy,
    statements,
)

if TYPE_CHECKING:
    from pathlib import Path

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ROLES: Final = (*POLICIES.values(), "proxy")
GRANTED_TO_LAMBDA: Final = {"Logs", "TakeTicks", "Trace"}  # used by Lambda itself, the last by its X-Ray daemon
SPEAK_JSON: Final = {"dynamodb", "kms", "sqs", "ssm"}
SEEN: Final = "/role-guard"  # where a guard says what it has seen
KEY_OF_ROLE: Final = re.compile(r"(Credential=[^/_]+)_\w+")
SIGNED: Final = re.compile(r"Credential=[^/_]+_(?P<role>\w+)/\d+/[^/]+/(?P<service>\w+)/")
Granted = tuple[str, str, str, str]  # role, statement, action, and of the table the kind of items ("" for all else)


class RoleGuard:
    """Judges calls by the policies of a stack with these outputs.

    `used` is what of the roles' policies has allowed a call, `refused` is who was not allowed what.
    """

    def __init__(self, outputs: Mapping[str, str]) -> None:
        self.outputs = outputs
        self.used: set[Granted] = set()
        self.refused: list[str] = []
        self.policies = {role: _policy_of(role, outputs) for role in ROLES}
        self._of_resources = {
            "kms": resource_policy("Key", "KeyPolicy", outputs),
            "s3": resource_policy("BucketPolicy", "PolicyDocument", outputs),
        }

    def refusal(self, role: str, service: str, operation: str, params: dict[str, Any]) -> str:
        """Why a role may not make a call; "" if it may."""
        try:
            asked = list(requests_of(service, operation, params, self.outputs))
        except (AssertionError, LookupError, TypeError) as error:
            return self._refuse(role, f"{service}:{operation}, and nobody here knows what IAM is asked: {error!r}")
        for action, resource, context in asked:
            if not self._may(role, action, resource, context):
                return self._refuse(role, f"{action} on {resource} with {context}")
            self.used.update(_grants(role, self.policies[role], action, resource, context))
        return ""

    def refusal_of_request(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> tuple[str, str]:
        """The same for an HTTP request; and which service it was for, "" if no role has signed it."""
        signed = SIGNED.search(headers.get("authorization", ""))
        if signed is None:
            return "", ""
        try:
            operation, params = call_of(signed["service"], method, url, headers, body)
        except (LookupError, ValueError) as error:
            why = self._refuse(signed["role"], f"{method} of {signed['service']}, which is no call of ours: {error!r}")
            return why, signed["service"]
        return self.refusal(signed["role"], signed["service"], operation, params), signed["service"]

    def granted(self) -> set[Granted]:
        """All that the roles' policies grant to the hub's own code."""
        return {
            (role, statement["Sid"], action, kind)
            for role, policy in self.policies.items()
            for statement in statements(policy)
            if statement["Sid"] not in GRANTED_TO_LAMBDA
            for action in listed(statement["Action"])
            for kind in _kinds(statement)
        }

    def _may(self, role: str, action: str, resource: str, context: Context) -> bool:
        own = self._of_resources.get(action.partition(":")[0])
        return allows(self.policies[role], action, resource, context) and not (
            own and denied(own, _principal(role, self.outputs), action, resource, context)
        )

    def _refuse(self, role: str, what: str) -> str:
        self.refused.append(f"{role}: {what}")
        return f"not allowed: {what}"

    # ── in this process: for clients of moto's decorators ──

    def before_send(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
        """What botocore asks before it sends a request: gives the answer to one that is refused."""
        headers = {name.lower(): _text(value) for name, value in request.headers.items()}
        body = request.body if isinstance(request.body, bytes) else b""  # an object of S3's may be a file
        why, service = self.refusal_of_request(request.method, request.url, headers, body)
        if not why:
            return None
        answer = _denial(service, why)
        named: Any = answer.headers  # that botocore has headers of its own kind is of no matter
        return AWSResponse(request.url, answer.status_code, named, MockRawResponse(answer.get_data()))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _policy_of(role: str, outputs: Mapping[str, str]) -> Document:
    return proxy_policy("TaskRole", outputs) if role == "proxy" else function_policy(role, outputs, traced=True)


def _principal(role: str, outputs: Mapping[str, str]) -> str:
    """A role's ARN, in the stack's account."""
    partition, account = outputs["TableArn"].split(":")[1::3]
    function = API_HANDLER if role == POLICIES[API_HANDLER] else role
    name = role_name(outputs["Stage"], function) + ("-TaskRole-1A2B" if role == "proxy" else "")
    return f"arn:{partition}:iam::{account}:role/{name}"


def _grants(role: str, policy: Document, action: str, resource: str, context: Context) -> Iterator[Granted]:
    """What of the policy allows a request."""
    for statement in statements(policy):
        if allows({"Statement": [statement]}, action, resource, context):
            keys = listed(context.get("dynamodb:LeadingKeys", []))
            for kind in _kinds(statement):
                if not kind or any(key.startswith(kind.rstrip("*")) for key in keys):
                    yield role, statement["Sid"], action, kind


def _kinds(statement: Mapping[str, Any]) -> list[str]:
    """The kinds of items that a statement is about."""
    conditions = statement.get("Condition", {})
    found = [kind for keys in conditions.values() for kind in listed(keys.get("dynamodb:LeadingKeys", []))]
    return [kind for kind in found if kind not in ("true", "false")] or [""]


def _denial(service: str, why: str) -> Response:
    """Access denied, as the service says it."""
    if service in SPEAK_JSON:
        error = json.dumps({"__type": "com.amazon.coral.service#AccessDeniedException", "message": why})
        return Response(error, 400, content_type="application/x-amz-json-1.0")
    error = f"<Error><Code>AccessDenied</Code><Message>{escape(why)}</Message></Error>"
    return Response(error, 403, content_type="application/xml")


# ── in front of a server ─────────────────────────────────────────────────────────────────────────────────────────────


class GuardedApplication:
    """A guard in front of moto's application, or of local/gate.py: a WSGI application itself."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application
        self._guard: RoleGuard | None = None
        self._lock = Lock()

    @property
    def guard(self) -> RoleGuard:
        """The guard of moto's stack, which there must be by now."""
        with self._lock:
            self._guard = self._guard or RoleGuard(_outputs())
        return self._guard

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        if environ["PATH_INFO"] == SEEN:
            said = json.dumps([sorted(self.guard.used), self.guard.refused])
            return Response(said, content_type="application/json")(environ, start_response)
        if SIGNED.search(signature := environ.get("HTTP_AUTHORIZATION", "")):
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            headers = {name.lower(): value for name, value in EnvironHeaders(environ).items()}
            why, service = self.guard.refusal_of_request(
                environ["REQUEST_METHOD"], environ["REQUEST_URI"], headers, body
            )
            environ["wsgi.input"] = io.BytesIO(body)
            if why:
                return _denial(service, why)(environ, start_response)
            environ["HTTP_AUTHORIZATION"] = KEY_OF_ROLE.sub(r"\1", signature)  # a signature does not cover the key's id
        return self._application(environ, start_response)


def _outputs() -> dict[str, str]:
    """The outputs of the one stack that this process's moto has."""
    backends = [backend for of_account in cloudformation_backends.values() for backend in of_account.values()]
    (stack,) = (stack for backend in backends for stack in backend.stacks.values())
    return {output.key: output.value for output in stack.output_map.values()}


@contextmanager
def guarded_moto(host: str = "127.0.0.1") -> Iterator[tuple[str, GuardedApplication]]:
    """Serve moto in this process, behind a guard, for as long as the block lasts; gives its URL, too."""
    application = GuardedApplication(DomainDispatcherApplication(create_backend_app))
    server = make_server(host, 0, application, threaded=True, request_handler=MotoRequestHandler)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    url = f"http://{host}:{server.server_port}"
    try:
        yield url, application
    finally:
        urlopen(f"{url}/moto-api/reset", b"").close()
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def guarded_aws(folder: Path, program: str = "tests.role_guard") -> Iterator[Aws]:
    """The embedded AWS behind a guard; raises AssertionError at the end if it has refused anything, or seen no role.

    `program` serves it.
    """
    with aws(folder, program=program) as started:
        yield started
        used, refused = seen(started)
        assert not refused, refused
        assert used, "nobody has signed as a role (tests/roles.py)"


def seen(cloud: Aws) -> tuple[set[Granted], list[str]]:
    """What of the roles' policies was used so far, and what was refused."""
    with urlopen(f"{cloud.url}{SEEN}") as answer:
        used, refused = json.load(answer)
    return {tuple(one) for one in used}, refused


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), AccessKey.from_environ(os.environ), around=GuardedApplication)
