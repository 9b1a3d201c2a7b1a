"""The pump feeds an application's functions as Lambda's event sources would."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from chalice.app import Chalice, CloudWatchEvent, Cron, Rate, SQSEvent
from moto import mock_aws

from local import pump
from local.processes import StackError, wait_until
from local.pump import FunctionContext, Pump

PLACES = 3


@pytest.fixture
def sqs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        yield boto3.client("sqs", region_name="us-east-1")


@pytest.fixture
def queue(sqs: Any) -> str:
    return str(sqs.create_queue(QueueName="ticks", Attributes={"VisibilityTimeout": "1"})["QueueUrl"])


@contextmanager
def pumping(handle: Callable[[SQSEvent], None], sqs: Any) -> Iterator[None]:
    app = Chalice(app_name="sample")
    app.on_sqs_message(queue="ticks", batch_size=1, maximum_concurrency=PLACES, name="tick")(handle)
    stopped = threading.Event()
    threads = Pump(app, sqs, timeouts={"tick": 120}, stopped=stopped, wait_seconds=1).start()
    try:
        yield
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def in_queue(sqs: Any, queue: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
    return sum(int(found[name]) for name in names)


def test_a_handled_message_is_deleted(sqs: Any, queue: str) -> None:
    seen: list[str] = []
    with pumping(lambda event: seen.extend(record.body for record in event), sqs):
        sqs.send_message(QueueUrl=queue, MessageBody="first")
        wait_until(lambda: seen == ["first"] and in_queue(sqs, queue) == 0, what="the deletion", deadline=20)


def test_a_message_whose_handler_raises_comes_again(sqs: Any, queue: str) -> None:
    attempts: list[int] = []

    def fail_once(event: SQSEvent) -> None:
        for _record in event:
            attempts.append(1)
            if len(attempts) == 1:
                raise RuntimeError("the table did not answer")

    with pumping(fail_once, sqs):
        sqs.send_message(QueueUrl=queue, MessageBody="again")
        wait_until(lambda: len(attempts) == 2 and in_queue(sqs, queue) == 0, what="the second try", deadline=20)


def test_handlers_run_side_by_side_and_never_more_than_there_are_places(sqs: Any, queue: str) -> None:
    at_once: list[int] = []
    release, lock = threading.Event(), threading.Lock()

    def hold(event: SQSEvent) -> None:
        with lock:
            at_once.append(1)
        release.wait(20)

    for number in range(PLACES + 2):
        sqs.send_message(QueueUrl=queue, MessageBody=str(number))
    with pumping(hold, sqs):
        wait_until(lambda: len(at_once) == PLACES, what="all places taken", deadline=20)
        release.set()
        wait_until(lambda: in_queue(sqs, queue) == 0, what="the rest", deadline=20)


def test_a_queue_that_is_not_there_stops_the_pump(sqs: Any) -> None:
    app = Chalice(app_name="sample")
    app.on_sqs_message(queue="no-such-queue", batch_size=1, name="tick")(lambda event: None)
    stopped = threading.Event()
    running = Pump(app, sqs, timeouts={}, stopped=stopped, wait_seconds=1)
    (thread,) = running.start()
    assert stopped.wait(20)
    thread.join()
    assert isinstance(running.failure, ClientError)


def test_what_fails_beside_a_function_stops_the_pump_and_is_logged(
    sqs: Any, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = Chalice(app_name="sample")
    app.on_sqs_message(queue="ticks", batch_size=1, name="tick")(lambda event: None)
    app.handler_map.clear()  # so that the pump finds no function for the message
    stopped = threading.Event()
    running = Pump(app, sqs, timeouts={}, stopped=stopped, wait_seconds=1)
    (thread,) = running.start()
    sqs.send_message(QueueUrl=queue, MessageBody="x")
    assert stopped.wait(20)
    thread.join()
    assert isinstance(running.failure, KeyError)
    assert "the pump stops" in caplog.text
    assert in_queue(sqs, queue) == 1


def test_the_context_has_the_functions_time(sqs: Any, queue: str) -> None:
    left: list[int] = []

    def look(event: SQSEvent) -> None:
        context: Any = event.context
        left.append(context.get_remaining_time_in_millis())

    with pumping(look, sqs):
        sqs.send_message(QueueUrl=queue, MessageBody="x")
        wait_until(lambda: bool(left), what="the call", deadline=20)
    assert 0 < left[0] <= 120_000


def test_time_that_is_over_is_zero() -> None:
    assert FunctionContext(deadline=0.0).get_remaining_time_in_millis() == 0


def test_a_schedule_calls_its_function_with_eventbridges_event(sqs: Any) -> None:
    app = Chalice(app_name="sample")
    events: list[CloudWatchEvent] = []
    app.schedule("rate(1 minute)", name="redrive")(events.append)
    Pump(app, sqs, timeouts={}, stopped=threading.Event()).run_schedule("redrive", datetime(2030, 1, 2, tzinfo=UTC))
    assert [event.source for event in events] == ["aws.events"]
    assert events[0].to_dict()["time"] == "2030-01-02T00:00:00Z"


def test_an_event_source_that_nobody_runs_here_is_refused(sqs: Any) -> None:
    app = Chalice(app_name="sample")
    app.on_sns_message(topic="news", name="news")(lambda event: None)
    with pytest.raises(StackError, match="news"):
        Pump(app, sqs, timeouts={}, stopped=threading.Event()).start()


@pytest.mark.parametrize(
    ("expression", "seconds"),
    [("rate(1 minute)", 60), ("rate(5 minutes)", 300), (Rate(2, unit=Rate.HOURS), 7200), ("rate(1 day)", 86400)],
)
def test_rates_are_seconds(expression: Any, seconds: float) -> None:
    assert pump.rate_seconds(expression) == seconds


def test_a_calendars_schedule_is_refused() -> None:
    with pytest.raises(StackError, match="cron"):
        pump.rate_seconds(Cron(0, 12, "*", "*", "?", "*"))


def test_timeouts_are_those_of_the_deployment() -> None:
    timeouts = pump.function_timeouts(Path(__file__).parent.parent.parent)
    assert timeouts.keys() >= {"launch", "pull", "leave", "watch", "redrive"}
