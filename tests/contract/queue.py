"""What every queue of ticks must do: inherited by the tests of the twin and of SQS."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from chalicelib.aws.queues import Enqueue, Handover, TickMessage
from chalicelib.session.lanes import Lane


class QueueContract(ABC):
    """`enqueue` is a fixture of the inheriting class."""

    @abstractmethod
    def received(self, lane: Lane) -> Sequence[TickMessage]:
        """What can be received in a lane by now, in any order."""

    def test_what_was_sent_is_received(self, enqueue: Enqueue) -> None:
        messages = {TickMessage("one"), TickMessage("two", idle=True), TickMessage("one", Handover("tick-1"))}
        for message in messages:
            enqueue(message, lane=Lane.PULL, delay=0.0)
        assert set(self.received(Lane.PULL)) == messages

    def test_a_message_with_a_delay_is_not_received_at_once(self, enqueue: Enqueue) -> None:
        enqueue(TickMessage("later"), lane=Lane.PULL, delay=600.0)
        enqueue(TickMessage("now"), lane=Lane.PULL, delay=0.0)
        assert list(self.received(Lane.PULL)) == [TickMessage("now")]

    def test_a_message_is_received_in_its_lane_alone(self, enqueue: Enqueue) -> None:
        for lane in Lane:
            enqueue(TickMessage(f"sid in {lane}"), lane=lane, delay=0.0)
        for lane in Lane:
            assert list(self.received(lane)) == [TickMessage(f"sid in {lane}")]
