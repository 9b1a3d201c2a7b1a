"""The lanes' queues on SQS, as moto has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import boto3
import pytest
from moto import mock_aws

from chalicelib.aws.errors import StoreUnavailable
from chalicelib.aws.queues import Enqueue, TickMessage, TickQueues, batches
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

    def test_many_are_sent_in_one_request(self, enqueue: Enqueue, sqs: SQSClient) -> None:
        requests: list[str] = []
        sqs.meta.events.register("before-call.sqs.*", lambda model, **_: requests.append(model.name))
        sids = [f"sid{number}" for number in range(23)]
        queues = TickQueues(sqs, self._urls)
        for batch in batches(sids):
            queues.enqueue_all(batch, lane=Lane.WATCH)
        assert requests == ["SendMessageBatch"] * 3
        received = [message.sid for _ in range(3) for message in self.received(Lane.WATCH)]
        assert sorted(received) == sorted(sids)

    def test_how_many_wait_is_known(self, enqueue: Enqueue, sqs: SQSClient) -> None:
        for number in range(3):
            enqueue(TickMessage(f"sid{number}"), lane=Lane.WATCH, delay=0.0)
        queues = TickQueues(sqs, self._urls)
        assert (queues.waiting(Lane.WATCH), queues.waiting(Lane.LAUNCH)) == (3, 0)


def test_a_queue_that_is_not_there_is_unavailable(sqs: SQSClient) -> None:
    queues = TickQueues(sqs, "https://sqs.eu-west-1.amazonaws.com/111122223333/no-such-queue")
    with pytest.raises(StoreUnavailable):
        queues.enqueue(TickMessage("sid"), lane=Lane.LAUNCH, delay=0.0)
    with pytest.raises(StoreUnavailable):
        queues.enqueue_all(["sid"], lane=Lane.LAUNCH)
    with pytest.raises(StoreUnavailable):
        queues.waiting(Lane.WATCH)


def test_a_batch_of_which_a_message_was_not_taken_is_unavailable() -> None:
    """SQS answers 200 for it, and names those that failed."""

    class Full:
        def send_message_batch(self, **_: object) -> dict[str, object]:
            return {"Successful": [], "Failed": [{"Id": "0", "SenderFault": False, "Code": "InternalError"}]}

    with pytest.raises(StoreUnavailable):
        TickQueues(Full(), "https://queues.example.net/homeport").enqueue_all(["sid"], lane=Lane.WATCH)  # type: ignore[arg-type]
