"""Homeport's entry for Chalice: the web function's addresses, the launcher's queue, and the schedule.

Only bindings live here. Chalice deploys functions with triggers from this file alone, so that they import it. The web
is handed the configuration and the hub that `wiring` makes; a tick is `wiring`'s, which makes a launcher for it.
"""

import logging
from typing import Any

from chalice.app import Chalice, CloudWatchEvent, Rate, SQSEvent

from chalicelib.config import Config
from chalicelib.web.routes import attach
from chalicelib.wiring import wiring

app = Chalice(app_name="homeport")
app.log.setLevel(logging.INFO)  # Chalice's default for the loggers below "homeport" is ERROR
attach(app, config=lambda: wiring().config, hub=lambda: wiring().hub)


@app.on_sqs_message(
    queue=Config.from_environ().tick_queue_name,
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
