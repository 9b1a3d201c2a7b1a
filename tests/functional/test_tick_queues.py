"""The lanes' queues on SQS, as moto has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import boto3
import pytest
from moto import mock_aws

from chalicelib.aws.errors import StoreUnavailable
from chalicelib.aws.queues import Enqueue, TickMessage, TickQueues
from chalicelib.session.lanes import Lane, queue_of
from tests.contract.queue import QueueContract

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


@pytest.fixture
def sqs() -> Iterator[SQSClient]:
    with mock_aws():
        client = boto3.client("sqs", region_name="eu-west-1", aws_access_key_id="test", aws_secret_access_key="test")
        yield client
        client.close()


class TestTickQueues(QueueContract):
    @pytest.fixture
    def enqueue(self, sqs: SQSClient) -> Enqueue:
        urls = [sqs.create_queue(QueueName=queue_of("homeport-test", lane))["QueueUrl"] for lane in Lane]
        self._sqs, self._urls = sqs, urls[0].removesuffix(f"-{Lane.LAUNCH}")
        return TickQueues(sqs, self._urls).enqueue

    def received(self, lane: Lane) -> Sequence[TickMessage]:
        answer = self._sqs.receive_message(QueueUrl=queue_of(self._urls, lane), MaxNumberOfMessages=10)
        return [TickMessage.from_body(message["Body"]) for message in answer["Messages"]]


def test_a_queue_that_is_not_there_is_unavailable(sqs: SQSClient) -> None:
    queues = TickQueues(sqs, "https://sqs.eu-west-1.amazonaws.com/111122223333/no-such-queue")
    with pytest.raises(StoreUnavailable):
        queues.enqueue(TickMessage("sid"), lane=Lane.LAUNCH, delay=0.0)
