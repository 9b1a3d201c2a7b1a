"""Homeport's entry for Chalice: the web function's addresses, the launcher's four lanes, and the schedule.

Only bindings live here. Chalice deploys functions with triggers from this file alone, so that they import it. The web
is handed the configuration and the hub that `wiring` makes; a tick is `wiring`'s, which makes a launcher for it.
In Lambda the parts that the function needs are made at once (docs/adr/0022); elsewhere importing this makes nothing.
"""

import logging
from pathlib import Path
from typing import Any

from chalice.app import Chalice, CloudWatchEvent, Rate, SQSEvent

from chalicelib.config import Config, lambda_handler
from chalicelib.session.lanes import Lane, queue_of
from chalicelib.web.routes import attach
from chalicelib.wiring import wiring

if (Path(__file__).parent / "infra" / "plain.py").is_file():  # not on Lambda: Chalice may be deploying this
    from infra.plain import stop_or_say

    stop_or_say(Path(__file__).parent)

app = Chalice(app_name="homeport")
app.log.setLevel(logging.INFO)  # Chalice's default for the loggers below "homeport" is ERROR
attach(
    app,
    config=lambda: wiring().config,
    hub=lambda: wiring().hub,
    metrics=lambda: wiring().metrics,
    tracer=lambda: wiring().tracer,
)


def _queue(lane: Lane) -> dict[str, Any]:
    """The event source of a lane. Its limit keeps a burst of one kind from taking the functions of the others."""
    config = Config.from_environ()
    queue = queue_of(config.queues, lane)
    return {"queue": queue, "name": lane.value, "batch_size": 1, "maximum_concurrency": config.functions_of(lane)}


def _drive(lane: Lane, event: SQSEvent) -> None:
    """Drive on the sessions that the messages name."""
    context: Any = event.context
    for record in event:
        wiring().tick(lane, record.body, time_left=lambda: context.get_remaining_time_in_millis() / 1000)


@app.on_sqs_message(**_queue(Lane.LAUNCH))
def launch(event: SQSEvent) -> None:
    """Launch: somebody waits."""
    _drive(Lane.LAUNCH, event)


@app.on_sqs_message(**_queue(Lane.PULL))
def pull(event: SQSEvent) -> None:
    """Pull images, for as long as it takes."""
    _drive(Lane.PULL, event)


@app.on_sqs_message(**_queue(Lane.LEAVE))
def leave(event: SQSEvent) -> None:
    """Take routes, containers and credentials away."""
    _drive(Lane.LEAVE, event)


@app.on_sqs_message(**_queue(Lane.WATCH))
def watch(event: SQSEvent) -> None:
    """Look at ready notebooks."""
    _drive(Lane.WATCH, event)


@app.schedule(Rate(1, unit=Rate.MINUTES), name="redrive")
def redrive(event: CloudWatchEvent) -> dict[str, int]:
    """Enqueue what is due and nobody is at work on."""
    return {"enqueued": sum(1 for _ in wiring().redrive())}


if handler := lambda_handler():
    wiring().warm_up(handler.removeprefix("app."))
