"""What every queue of ticks must do: inherited by the tests of the twin and of SQS."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from chalicelib.aws.queues import Enqueue, Handover, TickMessage


class QueueContract(ABC):
    """`enqueue` is a fixture of the inheriting class."""

    @abstractmethod
    def received(self) -> Sequence[TickMessage]:
        """What can be received by now, in any order."""

    def test_what_was_sent_is_received(self, enqueue: Enqueue) -> None:
        messages = {TickMessage("one"), TickMessage("two"), TickMessage("one", Handover("tick-1"))}
        for message in messages:
            enqueue(message, delay=0.0)
        assert set(self.received()) == messages

    def test_a_message_with_a_delay_is_not_received_at_once(self, enqueue: Enqueue) -> None:
        enqueue(TickMessage("later"), delay=600.0)
        enqueue(TickMessage("now"), delay=0.0)
        assert list(self.received()) == [TickMessage("now")]
