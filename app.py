"""Homeport's entry for Chalice: the web function's routes, the launcher's queue, and the schedule.

Only bindings live here. Chalice deploys functions with triggers from this file alone, so that they import it.
"""

import logging
import os
from typing import Any

from chalice.app import Chalice, CloudWatchEvent, Rate, SQSEvent

from chalicelib.config import Config
from chalicelib.web import problems_of_chalice, routes
from chalicelib.wiring import wiring

app = Chalice(app_name="homeport")
app.api.binary_types.append("multipart/form-data")
app.log.setLevel(logging.INFO)  # Chalice's default for the loggers below "homeport" is ERROR
app.register_blueprint(routes)
app.register_middleware(problems_of_chalice, "http")


@app.on_sqs_message(
    queue=Config.from_environ(os.environ).tick_queue_name,
    batch_size=1,
    maximum_concurrency=100,  # a burst of launches must not take the account's functions from everybody else
    name="tick",
)
def tick(event: SQSEvent) -> None:
    """Drive the session that the message names."""
    context: Any = event.context
    for record in event:
        wiring().tick(record.body, time_left=lambda: context.get_remaining_time_in_millis() / 1000)


@app.schedule(Rate(1, unit=Rate.MINUTES), name="redrive")
def redrive(event: CloudWatchEvent) -> dict[str, int]:
    """Enqueue what is due and nobody is at work on."""
    return {"enqueued": sum(1 for _ in wiring().redrive())}
