"""The web function in this process: Chalice's test client over moto, and what a visitor would send.

A request is answered as the web function, which may do no more than its policy says (tests/role_guard.py); what a test
does besides may be anything.

Failures come in at AWS's door: `on_call` has something happen right before a call, and `losing_an_answer` has a call
done twice, as botocore does it when the answer to the first is lost.
"""

from __future__ import annotations

import io
import json
import secrets
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import boto3
from botocore import xform_name
from botocore.exceptions import EndpointConnectionError
from chalice.app import Chalice
from chalice.test import Client
from moto import mock_aws
from urllib3.filepost import encode_multipart_formdata

from chalicelib.aws.tokens import TokenStore
from chalicelib.config import Config
from chalicelib.session.lanes import Lane, queue_of
from chalicelib.web.hub import Hub
from chalicelib.web.routes import attach
from chalicelib.wiring import Wiring
from local.settings import NO_RATES
from tests.certificates import Ca, Leaf, shared_key
from tests.policies import OUTPUTS
from tests.role_guard import RoleGuard
from tests.roles import acting_as
from tests.table import TABLE, create_table

BUCKET, QUEUES, KEY = "homeport-test", "homeport-test", "alias/homeport-test"
ENVIRONMENT = {
    "HOMEPORT_TABLE": TABLE,
    "HOMEPORT_BUCKET": BUCKET,
    "HOMEPORT_KEY": KEY,
    "HOMEPORT_QUEUES": QUEUES,
    "HOMEPORT_HUB_ORIGIN": "https://hub.example.org",
    "HOMEPORT_NOTEBOOK_URL": "https://*.notebooks.example.net",
}
CA = Ca.new()
AWS = boto3.Session("test", "test", region_name="eu-west-1")  # of moto, with nothing of the environment
GUARD = RoleGuard({**OUTPUTS, "Table": TABLE, "Bucket": BUCKET, "Key": KEY, "Queues": QUEUES})
AWS.events.register_first("before-send", GUARD.before_send)  # type: ignore[arg-type]  # what it returns is the answer


def a_bundle(number: int = 0, *, host: str | None = "tcp://docker.example.org:2376", **issued: Any) -> bytes:
    """A Carina bundle of the `number`-th visitor: same number, same key."""
    leaf = CA.issue(f"visitor-{number}", client=True, key=shared_key("p256", number), **issued)
    return zipped(CA.certificate, leaf, host)


def zipped(ca: bytes, leaf: Leaf, host: str | None) -> bytes:
    """A Carina bundle of these certificates."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("mycluster/ca.pem", ca)
        archive.writestr("mycluster/cert.pem", leaf.certificate)
        archive.writestr("mycluster/key.pem", leaf.key)
        if host:
            archive.writestr("mycluster/docker.env", f"export DOCKER_HOST={host}\nexport DOCKER_TLS_VERIFY=1\n")
    return buffer.getvalue()


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class HubRig:
    """What a visitor and a test can do to the hub. `client` is served by `hub`, which a test may exchange."""

    client: Client
    parts: Wiring
    hub: Hub

    def ask(
        self,
        method: str,
        path: str,
        *,
        token: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        html: bool = False,
    ) -> Answer:
        sent = {"Accept": "text/html" if html else "application/json", "Host": "hub.example.org", **(headers or {})}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        with acting_as("web", AWS):
            answer = self.client.http.request(method, path, headers=sent, body=body)
        lowered = {name.lower(): value for name, value in answer.headers.items()}
        return Answer(answer.status_code, lowered, answer.body)

    def upload(self, bundle: bytes, path: str = "/sessions", *, html: bool = False, **fields: Any) -> Answer:
        headers = fields.pop("headers", {})
        token = fields.pop("token", "")
        form: dict[str, Any] = {"credentials": ("credentials.zip", bundle), **fields}
        body, content_type = encode_multipart_formdata(form, boundary="----a-boundary")
        sent = {"Content-Type": content_type, **headers}
        return self.ask("POST", path, token=token, headers=sent, body=body, html=html)

    def press(self, path: str, **options: Any) -> Answer:
        headers = {"Content-Type": "application/x-www-form-urlencoded", **options.pop("headers", {})}
        return self.ask("POST", path, headers=headers, **options)

    def client_of(self, service: str) -> Any:
        """The client that the hub itself uses."""
        return self.parts.client(service)

    @contextmanager
    def on_call(self, service: str, operation: str, act: Callable[[], object]) -> Iterator[None]:
        """Have something happen right before every call of an operation; what it raises, the call raises."""

        def handler(**_: Any) -> None:
            with acting_as("", AWS):
                act()

        events, event = self.client_of(service).meta.events, f"before-call.{service}.{operation}"
        events.register(event, handler)
        try:
            yield
        finally:
            events.unregister(event, handler)

    @contextmanager
    def losing_an_answer(self, service: str, operation: str) -> Iterator[list[Any]]:
        """Have the next call of an operation done, its answer lost, and the call repeated; gives what was lost."""
        lost: list[Any] = []

        def handler(params: Mapping[str, Any], **_: Any) -> None:
            if not lost:
                lost.append(getattr(aws_client(service), xform_name(operation))(**params))

        events, event = self.client_of(service).meta.events, f"provide-client-params.{service}.{operation}"
        events.register(event, handler)
        try:
            yield lost
        finally:
            events.unregister(event, handler)

    def messages(self, *lanes: Lane) -> list[dict[str, str]]:
        """Take what is in the queues of these lanes; of all, if none is named."""
        urls = [queue_of(self.parts.config.queue_urls, lane) for lane in lanes or Lane]
        received = [self.client_of("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10) for url in urls]
        return [json.loads(message["Body"]) for answer in received for message in answer.get("Messages", [])]

    def objects(self) -> list[str]:
        listed = self.client_of("s3").list_objects_v2(Bucket=BUCKET)
        return [entry["Key"] for entry in listed.get("Contents", [])]

    def everything_stored(self) -> str:
        """All that is in table and queue, and the raw objects, as text."""
        items = self.client_of("dynamodb").scan(TableName=TABLE)["Items"]
        s3 = self.client_of("s3")
        stored = [s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in self.objects()]
        return repr(items) + repr(self.messages()) + repr(stored)


def once(act: Callable[[], object]) -> Callable[[], None]:
    """What does something the first time it is called."""
    left = [act]

    def first() -> None:
        if left:
            left.pop()()

    return first


def away() -> NoReturn:
    """What botocore raises when a service cannot be reached."""
    raise EndpointConnectionError(endpoint_url="https://aws.example.org")


def aws_client(service: str) -> Any:
    """A client of moto's AWS of its own."""
    return AWS.client(service)  # type: ignore[call-overload]  # the name is a variable


def a_hub(parts: Wiring, *, clock: Callable[[], float]) -> Hub:
    """The hub of these parts, with a clock of the test's."""
    return Hub(
        config=parts.config,
        sessions=parts.sessions,
        tokens=TokenStore(parts.client("dynamodb"), parts.config.table, clock, lifetime=parts.config.session_lifetime),
        credentials=parts.credentials,
        images=parts.images,
        build_logs=parts.build_logs,
        door=parts.door,
        enqueue=parts.queues.enqueue,
        clock=clock,
        secret=lambda: secrets.token_urlsafe(32),
    )


@contextmanager
def hub_rig(**environment: str) -> Iterator[HubRig]:
    """A hub of its own, from nothing; raises AssertionError at the end if it asked for what it may not."""
    GUARD.refused.clear()
    with mock_aws():
        environ = {**ENVIRONMENT, **NO_RATES, "HOMEPORT_QUEUE_URLS": made_resources(), **environment}
        parts = Wiring(Config.from_environ(environ), aws_client)
        app = Chalice(app_name="homeport", configure_logs=False)
        attach(app, config=lambda: parts.config, hub=lambda: rig.hub, metrics=lambda: parts.metrics)
        with Client(app) as client:
            rig = HubRig(client, parts, parts.hub)
            yield rig
            assert not GUARD.refused, GUARD.refused


def made_resources() -> str:
    """Make key, bucket, table and queues; gives what the queues' addresses begin with."""
    kms = aws_client("kms")
    kms.create_alias(AliasName=KEY, TargetKeyId=kms.create_key()["KeyMetadata"]["KeyId"])
    location = {"LocationConstraint": "eu-west-1"}
    aws_client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration=location)
    create_table(aws_client("dynamodb"))
    urls = [str(aws_client("sqs").create_queue(QueueName=queue_of(QUEUES, lane))["QueueUrl"]) for lane in Lane]
    return urls[0].removesuffix(f"-{Lane.LAUNCH}")
