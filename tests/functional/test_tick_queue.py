"""The queue of ticks on SQS, as moto has it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import boto3
import pytest
from moto import mock_aws

from chalicelib.aws.errors import StoreUnavailable
from chalicelib.aws.queues import Enqueue, TickMessage, TickQueue
from tests.contract.queue import QueueContract

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


@pytest.fixture
def sqs() -> Iterator[SQSClient]:
    with mock_aws():
        client = boto3.client("sqs", region_name="eu-west-1", aws_access_key_id="test", aws_secret_access_key="test")
        yield client
        client.close()


class TestTickQueue(QueueContract):
    @pytest.fixture
    def enqueue(self, sqs: SQSClient) -> Enqueue:
        self._sqs, self._url = sqs, sqs.create_queue(QueueName="homeport-test-tick")["QueueUrl"]
        return TickQueue(sqs, self._url).enqueue

    def received(self) -> Sequence[TickMessage]:
        answer = self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10)
        return [TickMessage.from_body(message["Body"]) for message in answer["Messages"]]


def test_a_queue_that_is_not_there_is_unavailable(sqs: SQSClient) -> None:
    queue = TickQueue(sqs, "https://sqs.eu-west-1.amazonaws.com/111122223333/no-such-queue")
    with pytest.raises(StoreUnavailable):
        queue.enqueue(TickMessage("sid"), delay=0.0)
