"""The web function in this process: Chalice's test client over moto, and what a visitor would send."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from chalice.test import Client
from moto import mock_aws
from urllib3.filepost import encode_multipart_formdata

from chalicelib.wiring import Wiring, wiring
from tests.certificates import Authority, shared_key
from tests.table import TABLE, create_table

BUCKET, QUEUE = "homeport-test", "homeport-test-tick"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "HOMEPORT_TABLE": TABLE,
    "HOMEPORT_BUCKET": BUCKET,
    "HOMEPORT_KEY": "alias/homeport-test",
    "HOMEPORT_TICK_QUEUE": QUEUE,
    "HOMEPORT_HUB_ORIGIN": "https://hub.example.org",
    "HOMEPORT_NOTEBOOK_URL": "https://*.notebooks.example.net",
}
AUTHORITY = Authority.new()


def a_bundle(number: int = 0, *, host: str | None = "tcp://docker.example.org:2376", **issued: Any) -> bytes:
    """A Carina bundle of the `number`-th visitor: same number, same key."""
    leaf = AUTHORITY.issue(f"visitor-{number}", client=True, key=shared_key("p256", number), **issued)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("mycluster/ca.pem", AUTHORITY.certificate)
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
    """What a visitor and a test can do to the hub."""

    client: Client
    parts: Wiring
    aws: dict[str, Any] = field(default_factory=dict)

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
        return self.parts.client(service)

    def messages(self) -> list[dict[str, str]]:
        queue = self.parts.config.tick_queue_url
        received = self.client_of("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10)
        return [json.loads(message["Body"]) for message in received.get("Messages", [])]

    def objects(self) -> list[str]:
        listed = self.client_of("s3").list_objects_v2(Bucket=BUCKET)
        return [entry["Key"] for entry in listed.get("Contents", [])]

    def everything_stored(self) -> str:
        """All that is in table and queue, and the raw objects, as text."""
        items = self.client_of("dynamodb").scan(TableName=TABLE)["Items"]
        s3 = self.client_of("s3")
        stored = [s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in self.objects()]
        return repr(items) + repr(self.messages()) + repr(stored)


@contextmanager
def hub_rig(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Iterator[HubRig]:
    """A hub of its own, from nothing."""
    for name, value in {**ENVIRONMENT, **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        monkeypatch.setenv("HOMEPORT_TICK_QUEUE_URL", _made_resources())
        wiring.cache_clear()
        from app import app

        with Client(app) as client:
            yield HubRig(client, wiring())
        wiring.cache_clear()


def _made_resources() -> str:
    kms = boto3.client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.create_alias(AliasName="alias/homeport-test", TargetKeyId=key)
    location = {"LocationConstraint": "eu-west-1"}
    boto3.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration=location)  # type: ignore[arg-type]
    create_table(boto3.client("dynamodb"))
    return str(boto3.client("sqs").create_queue(QueueName=QUEUE)["QueueUrl"])
