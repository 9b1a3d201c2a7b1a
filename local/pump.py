"""Feeds app.py's functions on one machine: its queues' messages and its schedule, as Lambda's event sources would.

1. A message is deleted when its handler returned, and only then; after one that raised it becomes visible again when
   its visibility timeout is over, and its queue's own policy sends it to the dead-letter queue in the end.
2. A queue has as many handlers as its event source allows, and never more messages are received than are free, so that
   none waits while its visibility runs out.
3. Handlers get a context whose remaining time runs, as on Lambda; it is not enforced.
4. What a function raises is logged, as an invocation that failed. Anything else that is raised in a thread ends the
   pump with its traceback in the log: a lane that nobody feeds must not look like one without messages.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.config import Config as ClientConfig
from botocore.exceptions import BotoCoreError, ClientError
from chalice.app import Chalice, ScheduledEventConfig, SQSEventConfig

from local import processes
from local.processes import Child, StackError

ROOT: Final = Path(__file__).parent.parent
UNLIMITED: Final = 8  # invocations at once of a queue without a limit
WAIT_SECONDS: Final = 20  # SQS's longest poll
PAUSE: Final = 1.0  # seconds to the next attempt when a queue cannot be read
_UNITS: Final[Mapping[str, int]] = {"minute": 60, "hour": 3600, "day": 86400}
_ACCOUNT: Final = "123456789012"

log = logging.getLogger("homeport.pump")
Handler = Callable[[dict[str, Any], Any], Any]


@dataclass(frozen=True, slots=True)
class FunctionContext:
    """What Lambda hands a function beside its event, as far as anybody here asks for it."""

    deadline: float

    def get_remaining_time_in_millis(self) -> int:
        """Give the milliseconds left of the function's timeout."""
        return max(0, int((self.deadline - time.monotonic()) * 1000))


@contextmanager
def pump(folder: Path, *, environ: Mapping[str, str]) -> Iterator[Child]:
    """Run app.py's functions for as long as the block lasts; `environ` is the whole environment."""
    ready = folder / "pump.ready"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "local.pump", str(ready.absolute())]
    with processes.running("pump", command, folder=folder, environ=environ, cwd=ROOT) as child:
        processes.wait_until(ready.exists, what="the pump's start", deadline=60, child=child)
        yield child


class Pump:
    """Runs the functions of `app` until `stopped` is set, by whoever runs it or by itself: `failure` says why.

    `timeouts` are the functions' seconds, by name; `wait_seconds` is how long one look at a queue may last.
    """

    def __init__(
        self,
        app: Chalice,
        sqs: Any,
        *,
        timeouts: Mapping[str, int],
        stopped: threading.Event,
        wait_seconds: int = WAIT_SECONDS,
    ) -> None:
        self._app = app
        self._sqs = sqs
        self._timeouts = timeouts
        self._stopped = stopped
        self._wait_seconds = wait_seconds
        self.failure: BaseException | None = None

    def start(self) -> list[threading.Thread]:
        """Start a thread per event source; raises StackError for a kind that nobody runs here."""
        threads = [
            threading.Thread(target=self._guard, args=(self._loop_for(source),), name=source.name, daemon=True)
            for source in self._app.event_sources
        ]
        for thread in threads:
            thread.start()
        return threads

    def _guard(self, act: Callable[..., None], *arguments: Any) -> None:
        """Do in a thread what must not fail: whatever it raises stops the pump, as nobody waits for its outcome."""
        try:
            act(*arguments)
        except BaseException as error:
            log.critical("the pump stops", exc_info=True)
            self.failure = self.failure or error
            self._stopped.set()

    def _loop_for(self, source: Any) -> Callable[[], None]:
        if isinstance(source, SQSEventConfig):
            return lambda: self._follow_queue(source)
        if isinstance(source, ScheduledEventConfig):
            seconds = rate_seconds(source.schedule_expression)
            return lambda: self._follow_schedule(source, seconds)
        raise StackError(f"app.py's function {source.name} has an event source that does not run on one machine")

    def _follow_queue(self, source: SQSEventConfig) -> None:
        url = self._sqs.get_queue_url(QueueName=source.queue)["QueueUrl"]
        free = threading.BoundedSemaphore(places_of(source))
        with ThreadPoolExecutor(places_of(source), thread_name_prefix=source.name) as handlers:
            while not self._stopped.is_set():
                free.acquire()
                messages = self._receive(url, source.batch_size)
                if not messages:
                    free.release()
                    continue
                handlers.submit(self._guard, self._handle, source.name, url, messages, free)

    def _receive(self, url: str, count: int) -> list[dict[str, Any]]:
        try:
            answer = self._sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=min(count, 10),
                WaitTimeSeconds=self._wait_seconds,
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
        except (BotoCoreError, ClientError) as error:
            log.warning("the queue %s cannot be read: %s", url, error)
            self._stopped.wait(PAUSE)
            return []
        found: list[dict[str, Any]] = answer.get("Messages", [])
        return found

    def _handle(self, name: str, url: str, messages: list[dict[str, Any]], free: threading.Semaphore) -> None:
        try:
            if self._invoke(name, sqs_event(messages)):
                for message in messages:
                    self._sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        except (BotoCoreError, ClientError) as error:
            log.warning("a handled message cannot be deleted and will come again: %s", error)
        finally:
            free.release()

    def _follow_schedule(self, source: ScheduledEventConfig, seconds: float) -> None:
        while not self._stopped.wait(seconds):
            self.run_schedule(source.name, datetime.now(UTC))

    def run_schedule(self, name: str, now: datetime) -> None:
        """Run a scheduled function once."""
        self._invoke(name, schedule_event(name, now))

    def _invoke(self, name: str, event: dict[str, Any]) -> bool:
        """Run a function; False when it raised, as Lambda would report it."""
        context = FunctionContext(time.monotonic() + self._timeouts.get(name, 60))
        handler: Handler = self._app.handler_map[name]
        try:
            handler(event, context)
        except Exception:  # the edge of Lambda: whatever a function raises is its invocation's failure
            log.exception("function %s failed", name)
            return False
        return True


def sqs_event(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Give messages the form in which Lambda hands them over.

    https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html
    """
    return {
        "Records": [
            {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": message.get("Attributes", {}),
                "messageAttributes": message.get("MessageAttributes", {}),
                "md5OfBody": message.get("MD5OfBody", ""),
                "eventSource": "aws:sqs",
                "eventSourceARN": "",
                "awsRegion": "",
            }
            for message in messages
        ]
    }


def schedule_event(name: str, now: datetime) -> dict[str, Any]:
    """Give the event of a schedule that is due, as EventBridge sends it.

    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-run-lambda-schedule.html
    """
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": _ACCOUNT,
        "time": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": "",
        "resources": [name],
        "detail": {},
    }


def places_of(source: SQSEventConfig) -> int:
    """How many invocations of the source's function there are at once."""
    return source.maximum_concurrency or UNLIMITED


def rate_seconds(expression: Any) -> float:
    """Give the seconds between two runs of a rate expression; raises StackError for any other expression."""
    text = expression if isinstance(expression, str) else expression.to_string()
    found = re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", text)
    if found is None:
        raise StackError(f"only rate(…) schedules run on one machine, not {text}")
    return float(int(found[1]) * _UNITS[found[2]])


def function_timeouts(project: Path) -> dict[str, int]:
    """Read each function's timeout, in seconds, from Chalice's configuration."""
    functions = json.loads((project / ".chalice" / "config.json").read_text()).get("lambda_functions", {})
    return {name: settings["lambda_timeout"] for name, settings in functions.items() if "lambda_timeout" in settings}


def main(ready: Path) -> None:
    """Pump until the process is told to end or the pump fails; `ready` is a file made when all sources are followed."""
    from app import app

    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s", force=True)
    app.log.setLevel(logging.INFO)  # Chalice names it like the application: the parent of every homeport.… logger
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    places = sum(places_of(source) for source in app.event_sources if isinstance(source, SQSEventConfig))
    sqs = boto3.client("sqs", config=ClientConfig(read_timeout=WAIT_SECONDS + 10, max_pool_connections=2 * places))
    running = Pump(app, sqs, timeouts=function_timeouts(ROOT), stopped=stopped)
    running.start()
    ready.touch()
    stopped.wait()
    sys.stdout.flush()
    # Handlers at work are cut, as any crash would; the next tick finds out what they did.
    os._exit(1 if running.failure else 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
