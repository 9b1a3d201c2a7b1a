"""The lanes' queues: "advance session X", and which tick hands its pull over, if any.

A message is JSON: `{"session": sid}`, with `"handover": tick` or `"idle": true` if need be. It holds no secret and says
nothing of what is to be done: the session's item does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.aws.errors import StoreUnavailable
from chalicelib.session.lanes import Lane, queue_of

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


BATCH: Final = 10  # messages in one request; SQS takes no more
T = TypeVar("T")
_NO_ANSWER: Final = "The hub's queue did not answer; try again in a moment"


@dataclass(frozen=True, slots=True)
class Handover:
    """A pull that a tick, which is still at it, offers to another; `tick` is its name."""

    tick: str


@dataclass(frozen=True, slots=True)
class TickMessage:
    """One message of a queue; `idle`: a look at a notebook has arranged it for when that is to end."""

    sid: str
    handover: Handover | None = None
    idle: bool = False

    def to_body(self) -> str:
        """Write the message's body."""
        body: dict[str, Any] = {"session": self.sid}
        if self.handover:
            body["handover"] = self.handover.tick
        if self.idle:
            body["idle"] = True
        return json.dumps(body)

    @classmethod
    def from_body(cls, body: str) -> Self:
        """Read a message's body; unknown entries are passed over. Raises KeyError, ValueError for another queue's."""
        values = json.loads(body)
        if not isinstance(values, dict):
            raise ValueError("a tick's message is a JSON object")
        tick = values.get("handover")
        return cls(str(values["session"]), Handover(str(tick)) if tick else None, values.get("idle") is True)


def batches(items: Iterable[T]) -> Iterator[list[T]]:
    """As many at a time as one request takes."""
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        yield batch


class Enqueue(Protocol):
    """Puts a message on a lane's queue, to be received after `delay` seconds; raises StoreUnavailable."""

    def __call__(self, message: TickMessage, *, lane: Lane, delay: float) -> None: ...


class TickQueues:
    """The lanes' queues, whose addresses begin with `prefix`."""

    def __init__(self, sqs: SQSClient, prefix: str) -> None:
        self._sqs = sqs
        self._prefix = prefix

    def enqueue(self, message: TickMessage, *, lane: Lane, delay: float) -> None:
        """Send the message; SQS counts whole seconds, so the delay is rounded up. Raises StoreUnavailable."""
        try:
            self._sqs.send_message(
                QueueUrl=queue_of(self._prefix, lane), MessageBody=message.to_body(), DelaySeconds=math.ceil(delay)
            )
        except (BotoCoreError, ClientError) as error:
            raise StoreUnavailable(_NO_ANSWER) from error

    def waiting(self, lane: Lane) -> int:
        """About how many messages wait in a lane; raises StoreUnavailable."""
        name: Final = "ApproximateNumberOfMessages"
        try:
            answer = self._sqs.get_queue_attributes(QueueUrl=queue_of(self._prefix, lane), AttributeNames=[name])
        except (BotoCoreError, ClientError) as error:
            raise StoreUnavailable(_NO_ANSWER) from error
        return int(answer["Attributes"][name])

    def enqueue_all(self, sids: list[str], *, lane: Lane) -> list[str]:
        """Send at most BATCH sessions to a lane, in one request, and give them back.

        Raises StoreUnavailable if any was not taken.
        """
        entries: list[Any] = [
            {"Id": str(number), "MessageBody": TickMessage(sid).to_body()} for number, sid in enumerate(sids)
        ]
        try:
            answer = self._sqs.send_message_batch(QueueUrl=queue_of(self._prefix, lane), Entries=entries)
        except (BotoCoreError, ClientError) as error:
            raise StoreUnavailable(_NO_ANSWER) from error
        if answer.get("Failed"):
            raise StoreUnavailable(_NO_ANSWER)
        return sids
