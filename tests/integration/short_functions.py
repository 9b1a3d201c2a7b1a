"""The hub's functions on real queues, as many at once as its configuration says, with little time for a pull.

What app.py binds is bound here to a hub with a configuration of its own, and fed by local/pump.py. A function of the
pull lane has so little time that it offers its pull at the first progress, as one of 15 minutes does after 14. It is
not ended when its time is over, however busy the machine is, but when `cut` is set: then in the middle, as Lambda ends
one. Each lane's functions sign with a key of their own (tests/roles.py).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

from chalice.app import Chalice, SQSEvent

from chalicelib.aws.queues import TickMessage, TickQueues
from chalicelib.config import Config
from chalicelib.launcher.tick import HANDOVER_SECONDS
from chalicelib.session.lanes import Lane, queue_of
from chalicelib.wiring import Wiring
from local.aws import Aws
from local.pump import ROOT, Pump, function_timeouts
from tests.launcher_twins import Killed
from tests.roles import environ_of

SECONDS: Final = function_timeouts(ROOT) | {Lane.PULL: int(HANDOVER_SECONDS) - 1}


class _NoOffers(TickQueues):
    """Queues in which no pull is offered to anybody."""

    def enqueue(self, message: TickMessage, *, lane: Lane, delay: float) -> None:
        if message.handover is None:
            super().enqueue(message, lane=lane, delay=delay)


class ShortFunctions:
    """See the module; `at_work` counts each lane's invocations, and `most` how many there were at once."""

    def __init__(self, hub: Wiring, lanes: Mapping[Lane, Wiring]) -> None:
        self.hub = hub
        self.lanes = lanes
        self.at_work: Counter[Lane] = Counter()
        self.most: Counter[Lane] = Counter()
        self.cut = threading.Event()
        self._lock = threading.Lock()

    def function(self, lane: Lane) -> Callable[[SQSEvent], None]:
        """A lane's function, as app.py has it."""

        def drive(event: SQSEvent) -> None:
            context: Any = event.context

            def time_left() -> float:
                if self.cut.is_set():
                    raise Killed
                return float(context.get_remaining_time_in_millis() / 1000)

            with self._counted(lane):
                for record in event:
                    try:
                        self.lanes[lane].tick(lane, record.body, time_left)
                    except Killed:
                        raise TimeoutError("Task timed out") from None

        return drive

    @contextmanager
    def _counted(self, lane: Lane) -> Iterator[None]:
        with self._lock:
            self.at_work[lane] += 1
            self.most[lane] = max(self.most[lane], self.at_work[lane])
        try:
            yield
        finally:
            with self._lock:
                self.at_work[lane] -= 1


class _Hub(Wiring):
    """A hub whose pulls are handed over, or not."""

    def __init__(self, config: Config, client: Callable[[str], Any], *, hands_over: bool) -> None:
        super().__init__(config, client)
        self._hands_over = hands_over

    @cached_property
    def queues(self) -> TickQueues:
        kind = TickQueues if self._hands_over else _NoOffers
        return kind(self.client("sqs"), self.config.queue_urls)


@contextmanager
def short_functions(config: Config, cloud: Aws, *, hands_over: bool = True) -> Iterator[ShortFunctions]:
    """Run them for as long as the block lasts; what is then at work is cut."""
    clients = {lane: replace(cloud, environ=environ_of(lane, cloud.environ)).client for lane in Lane}
    lanes = {lane: _Hub(config, clients[lane], hands_over=hands_over) for lane in Lane}
    made = ShortFunctions(Wiring(config, cloud.client), lanes)
    app = Chalice(app_name="short-functions")
    for lane in Lane:
        queue, most = queue_of(config.queues, lane), config.functions_of(lane)
        app.on_sqs_message(queue=queue, name=lane.value, batch_size=1, maximum_concurrency=most)(made.function(lane))
    stopped = threading.Event()
    pump = Pump(app, cloud.client("sqs"), timeouts=SECONDS, stopped=stopped, wait_seconds=1)
    threads = pump.start()
    try:
        yield made
    finally:
        made.cut.set()
        stopped.set()
        for thread in threads:
            thread.join()
        assert pump.failure is None
