"""What is told of calls to AWS: by clients that a process's wiring makes, of moto and of nothing at all."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import boto3
import pytest
from botocore.config import Config as ClientConfig
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

from chalicelib.aws.xray import MOST_CALLS, XRay
from chalicelib.config import Config
from chalicelib.tracing import UNTRACED, Span
from chalicelib.wiring import Wiring
from tests.policies import REGION
from tests.xray import SAMPLED, SEGMENT, UNSAMPLED, daemon, subsegments

NOWHERE = "http://127.0.0.1:9"
BUCKET = "somebodys-bucket"


def plain_client(service: str, **more: Any) -> Any:
    return boto3.client(  # type: ignore[call-overload]  # the name is a variable
        service, REGION, aws_access_key_id="test", aws_secret_access_key="test", **more
    )


class Rig:
    """A tracer of an invocation with this header, and what it sends."""

    def __init__(self) -> None:
        self.header = SAMPLED
        self.sent: list[bytes] = []
        moments, ids = count(), count(1)
        self.tracer = XRay(
            trace_header=lambda: self.header,
            send=self.sent.append,
            clock=lambda: float(next(moments)),
            new_id=lambda: f"{next(ids):016x}",
        )

    def client(self, service: str, **more: Any) -> Any:
        made = plain_client(service, **more)
        self.tracer.watch(made)
        return made


@pytest.fixture
def rig() -> Iterator[Rig]:
    with mock_aws():
        yield Rig()


def test_a_call_is_a_part_of_what_makes_it_and_tells_nothing_of_what_it_is_about(rig: Rig) -> None:
    s3 = rig.client("s3")
    with rig.tracer.record(Span("POST /sessions")):
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_object(Bucket=BUCKET, Key="private/name", Body=b"s3cret", Metadata={"owner": "somebody"})
    made, put, page = subsegments(rig.sent)
    assert (made["name"], made["aws"]["operation"], made["http"]) == (
        "S3",
        "CreateBucket",
        {"response": {"status": 200}},
    )
    assert (put["aws"]["operation"], put["parent_id"]) == ("PutObject", page["id"])
    for word in (b"somebody", b"private", b"s3cret", b"http:", b"https:", b"amazonaws"):
        assert word not in b"".join(rig.sent)


def test_a_call_that_is_refused_is_told_by_its_code(rig: Rig) -> None:
    with pytest.raises(ClientError):
        rig.client("dynamodb").get_item(TableName="hidden", Key={"pk": {"S": "session#secret"}})
    (told,) = subsegments(rig.sent)
    assert (told["name"], told["parent_id"], told["http"]["response"]["status"]) == ("DynamoDB", SEGMENT, 400)
    assert told["annotations"] == {"code": "ResourceNotFoundException"}
    assert told["error"] is True
    assert b"hidden" not in rig.sent[0]


def test_a_call_that_nobody_answers_is_told_by_the_class_of_its_error() -> None:
    rig = Rig()
    once = ClientConfig(retries={"total_max_attempts": 1}, connect_timeout=1)
    with pytest.raises(EndpointConnectionError):
        rig.client("sqs", endpoint_url=NOWHERE, config=once).send_message(QueueUrl=f"{NOWHERE}/q", MessageBody="words")
    (told,) = subsegments(rig.sent)
    assert told["annotations"] == {"code": "EndpointConnectionError"}
    assert told["fault"] is True
    assert "http" not in told


def test_of_an_invocation_that_makes_thousands_of_calls_the_first_are_told(rig: Rig) -> None:
    sqs = rig.client("sqs")
    for _ in range(MOST_CALLS + 5):
        sqs.list_queues()
    assert len(rig.sent) == MOST_CALLS
    with rig.tracer.record(Span("VerifyEndpoint")):
        sqs.list_queues()
    assert len(rig.sent) == MOST_CALLS + 1, "a span is told all the same"
    rig.header = SAMPLED.replace(SEGMENT, "0" * 16)
    sqs.list_queues()
    assert len(rig.sent) == MOST_CALLS + 2, "the next invocation begins anew"


def test_an_invocation_that_is_not_sampled_tells_nothing(rig: Rig) -> None:
    rig.header = UNSAMPLED
    rig.client("sqs").list_queues()
    assert rig.sent == []


@pytest.mark.parametrize("environ", [{}, {"HOMEPORT_TRACING": "off"}])
def test_without_the_option_no_client_is_watched(environ: dict[str, str]) -> None:
    made = plain_client("sqs")
    before = made.meta.events
    parts = Wiring(Config.from_environ(environ), lambda _: made)
    assert parts.tracer is UNTRACED
    assert parts.client("sqs").meta.events is before


def test_the_wiring_of_a_function_watches_its_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    with mock_aws(), daemon() as x_rays:
        monkeypatch.setenv("AWS_XRAY_DAEMON_ADDRESS", x_rays.address)
        parts = Wiring(Config.from_environ({"HOMEPORT_TRACING": "on"}), plain_client)
        for header in (UNSAMPLED, SAMPLED):
            monkeypatch.setenv("_X_AMZN_TRACE_ID", header)
            with parts.tracer.record(Span("GET /")):
                parts.client("sqs").list_queues()
        call, page = subsegments(x_rays.taken())
    assert (call["aws"]["operation"], call["parent_id"], page["parent_id"]) == ("ListQueues", page["id"], SEGMENT)


def test_the_option_does_nothing_where_there_is_no_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_XRAY_DAEMON_ADDRESS", raising=False)
    assert Wiring(Config.from_environ({"HOMEPORT_TRACING": "on"}), plain_client).tracer is UNTRACED
