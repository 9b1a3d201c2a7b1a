"""What the agent makes of the log lines of failed requests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chalicelib.aws.errors import StoreUnavailable
from chalicelib.session.lanes import Lane
from proxy.agent.failures import MOST, REPORT_SECONDS, Failures
from tests.builders import NOW, a_session
from tests.launcher_twins import Clock, QueueTwin

SID = a_session().sid


def a_line(
    *, backend: str = "notebooks", host: str = f"{SID}-0a1b2c3d4e", status: int = 503, method: str = "GET"
) -> bytes:
    """As haproxy.cfg's log-format has it."""
    when = "29/Nov/2026:13:11:27.611"
    return f"203.0.113.9 [{when}] {backend} {host} {method} HTTP/1.1 {status} 217 0/0/-1/-1/1002 SC\n".encode()


def failures(queue: QueueTwin, clock: Callable[[], float]) -> Failures:
    return Failures(Path("failures.sock"), queue.enqueue, clock=clock)


def reported(*lines: bytes) -> list[str]:
    queue = QueueTwin()
    found = failures(queue, Clock(NOW))
    for line in lines:
        found.take(line)
    assert {(lane, delay) for _, lane, delay in queue.sent} <= {(Lane.WATCH, 0.0)}
    return [message.sid for message, _, _ in queue.sent]


def test_a_launch_whose_notebook_does_not_answer_is_reported() -> None:
    assert reported(a_line()) == [SID]
    assert reported(a_line(host=SID)) == [SID], "a launch without a label"


@pytest.mark.parametrize(
    "line",
    [
        a_line(backend="agent"),
        a_line(backend="notebooks_in"),
        a_line(status=401),
        a_line(status=500),
        a_line(status=200),
        a_line(host="-"),
        a_line(host="short-0a1b2c3d4e"),
        a_line(host=f"{SID.upper()}-0a1b2c3d4e"),
        a_line(host=f"{SID}-0a1b2c3d4e notebooks {SID}"),
        b"",
        b"\xff\xfe",
        b"Proxy notebooks started.\n",
        a_line()[:60],
    ],
)
def test_nothing_else_is(line: bytes) -> None:
    assert reported(line) == []


def test_a_launch_is_reported_once_in_a_minute() -> None:
    queue, clock = QueueTwin(), Clock(NOW)
    found = failures(queue, clock)
    for _ in range(3):
        for _ in range(5):
            found.take(a_line())
        clock.now += REPORT_SECONDS
    assert len(queue.sent) == 3


def test_no_more_than_so_many_are_reported_in_a_minute() -> None:
    hosts = [f"{number:020d}-0a1b2c3d4e" for number in range(MOST + 10)]
    assert len(reported(*(a_line(host=host) for host in hosts))) == MOST


def test_a_queue_that_does_not_answer_ends_nothing() -> None:
    queue = QueueTwin(refuses=StoreUnavailable("The hub's queue did not answer"))
    failures(queue, Clock(NOW)).take(a_line())
    assert queue.sent == []
