"""Run the agent: `python -m proxy.agent`, with the environment of README.md's table."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import time
from functools import partial
from pathlib import Path
from threading import Event, Thread

import boto3
from botocore.config import Config as AwsConfig

from chalicelib.aws.queues import TickQueues
from chalicelib.aws.routes import ProxyStore
from chalicelib.metrics import Metrics
from proxy.agent.agent import Agent
from proxy.agent.entry import Entry
from proxy.settings import Settings

# A request waits for a look-up: give up before HAProxy does. The feed is read again half a second later anyway.
_AWS = AwsConfig(
    connect_timeout=2, read_timeout=4, retries={"mode": "standard", "max_attempts": 2}, max_pool_connections=40
)


def main() -> None:
    """Keep HAProxy's maps current and answer entries and look-ups until SIGTERM."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="agent: %(levelname)s %(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    settings = Settings.from_environ(os.environ)
    os.chdir(settings.run)  # as HAProxy does: the name of a unix socket must be short
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    store = ProxyStore(boto3.client("dynamodb", config=_AWS), settings.table, time.time, shards=settings.feed_shards)
    queues = TickQueues(boto3.client("sqs", config=_AWS), settings.queue_urls)
    agent = Agent(
        store,
        queues.enqueue,
        Path(),
        clock=time.time,
        new_cookie=lambda: secrets.token_urlsafe(32),
        metrics=Metrics(settings.stage, time.time, partial(print, flush=True)),
        certificate=settings.certificate,
    )
    with Entry(
        Path("agent.sock"), agent.lookups, agent.table, hub_origin=settings.hub_origin, hub_url=settings.hub_url
    ) as entry:
        Thread(target=entry.serve_forever, name="entry", daemon=True).start()
        agent.run(stop, poll=settings.poll, full_sync=settings.full_sync)
        entry.shutdown()


if __name__ == "__main__":
    main()
