"""Puts the parts together for a process: which client, clock and random source each of them is given.

It stands on top of all wings and is imported by app.py alone. Nothing is created at import; each AWS client is made
when it is first needed and kept for the process, and in Lambda at the start (`Wiring.warm_up`, docs/adr/0022). Nothing
here ever holds a visitor's credentials. Left to their own defaults are the engine wing's deadlines (time.monotonic and
time.sleep) and the nonces of envelopes (secrets).
"""

from __future__ import annotations

import gc
import logging
import random
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chalicelib.aws.build_logs import BuildLogStore
from chalicelib.aws.credentials import CredentialsStore
from chalicelib.aws.door import DoorStore
from chalicelib.aws.images import ImageStore
from chalicelib.aws.queues import TickMessage, TickQueues, batches
from chalicelib.aws.routes import RouteStore
from chalicelib.aws.sessions import SessionStore
from chalicelib.aws.slots import SlotStore
from chalicelib.aws.tokens import TokenStore
from chalicelib.config import VERSION, Config, trace_daemon, trace_header
from chalicelib.metrics import Backlog, Metrics
from chalicelib.session.lanes import Lane
from chalicelib.tracing import UNTRACED, Tracer
from chalicelib.web import pages
from chalicelib.web.hub import Hub

if TYPE_CHECKING:
    from chalicelib.aws.xray import XRay
    from chalicelib.notebook.certificates import HubTrust

LOOKS_WAITING: Final = 60  # for each function of the watch lane; ten minutes if all are dark
SENDERS: Final = 8  # requests at once for looks: a million ready sessions are 6,700 requests a minute
HELPER: Final = Path(__file__).with_name("helper.py")  # the program of the helpers, which is text to the hub
SENT_SECONDS: Final = 180.0  # what the schedule sent to a lane is sent again after so long, if nothing came of it
WITH_TRUST: Final = frozenset({Lane.LAUNCH, Lane.WATCH})  # the lanes that talk to notebooks
CLOCK: Final = time.time  # noqa: TID251 - the one place: all that asks for the time of day is handed it

log = logging.getLogger("homeport.wiring")


class Wiring:
    """One process's parts. `client` makes the AWS client of a service, "dynamodb" for one."""

    def __init__(self, config: Config, client: Callable[[str], Any]) -> None:
        self.config = config
        self.client = cache(self._watched(client))

    def _watched(self, client: Callable[[str], Any]) -> Callable[[str], Any]:
        """Makes clients whose calls are traced, if anything is."""
        if (xray := self._xray) is None:
            return client

        def make(service: str) -> Any:
            made = client(service)
            xray.watch(made)
            return made

        return make

    def warm_up(self, function: str) -> None:
        """Make what the first event of a function ("app" is the web's, then the lanes and "redrive") will need.

        Nothing is sent to anybody, and no secret is read. A failure is logged and nothing else: the first event runs
        into it again, and answers for it. Garbage is not looked for meanwhile, nor ever among what is made here, since
        all of it stays.
        """
        gc.disable()
        try:
            match function:
                case "app":
                    self._make_web()
                case "redrive":
                    self._make_clients("dynamodb", "sqs")
                case _:
                    self._make_launcher(Lane(function))
        except Exception as error:  # noqa: BLE001 - whatever it is, a function that starts slowly is better than none
            log.warning("Not all was made at the start: %s", type(error).__name__)
        finally:
            gc.freeze()
            gc.enable()

    def _make_web(self) -> None:
        self._make_clients("dynamodb", "s3", "kms", "sqs")
        pages.compile_all()

    def _make_launcher(self, lane: Lane) -> None:
        import_module("chalicelib.launcher.effects")
        import_module("chalicelib.launcher.tick")
        self._make_clients("dynamodb", "s3", "kms", "sqs", *(("ssm",) if lane in WITH_TRUST else ()))

    def _make_clients(self, *services: str) -> None:
        for service in services:
            self.client(service)

    @cached_property
    def hub(self) -> Hub:
        """What the web function serves."""
        return Hub(
            config=self.config,
            sessions=self.sessions,
            tokens=self.tokens,
            credentials=self.credentials,
            images=self.images,
            build_logs=self.build_logs,
            door=self.door,
            enqueue=self._enqueue,
            clock=CLOCK,
            secret=lambda: secrets.token_urlsafe(32),
            metrics=self.metrics,
        )

    def _enqueue(self, message: TickMessage, *, lane: Lane, delay: float) -> None:
        """What the hub enqueues by: the client is made by the first request that needs it."""
        self.queues.enqueue(message, lane=lane, delay=delay)

    def tick(self, lane: Lane, message: str, time_left: Callable[[], float]) -> None:
        """Run the tick that a lane's message asks for; `time_left` says how many seconds there are for it."""
        from chalicelib.launcher.effects import Effects  # docker is imported by the launcher alone:
        from chalicelib.launcher.tick import Launcher  # half of what the web function's start would take

        effects = Effects(
            config=self.config,
            credentials=self.credentials,
            routes=RouteStore(self.client("dynamodb"), self.config.table, CLOCK, shards=self.config.feed_shards),
            slots=SlotStore(self.client("dynamodb"), self.config.table, CLOCK),
            images=self.images,
            build_logs=self.build_logs,
            trust=lambda: self.signing_trust if lane is Lane.LAUNCH else self.probing_trust,
            find_session=self.sessions.find,
            clock=CLOCK,
            sleep=time.sleep,
            program=HELPER.read_bytes(),
        )
        launcher = Launcher(
            sessions=self.sessions,
            effects=effects,
            enqueue=self.queues.enqueue,
            lane=lane,
            pulls=self.config.pulls,
            clock=CLOCK,
            time_left=time_left,
            name=secrets.token_hex(8),
            metrics=self.metrics,
            tracer=self.tracer,
        )
        launcher.tick(TickMessage.from_body(message))

    def redrive(self) -> Iterator[str]:
        """Send every session whose time has come to its lane, and yield its id; then say how many there were.

        One that was sent is not sent again for a while, however long its lane's queue is. While the watch lane is
        behind, only some of the looks are sent, by chance: what expires is in the same queue.
        """
        if self.config.sessions_limit is not None:
            self.door.count(self.sessions.count(self.config.sessions_limit))
        backlog = Backlog(now := CLOCK())
        for lane, found in groupby(self.sessions.due(now), key=lambda due: due.lane):
            for batch in batches(found):
                self.queues.enqueue_all([due.sid for due in batch], lane=lane)
                for due in batch:
                    backlog.add(lane, float(due.since))
                    self.sessions.put_off(due, CLOCK() + SENT_SECONDS)
                    yield due.sid
        for lane, figures in backlog.figures():
            self.metrics.put(figures, lane)
        looks = list(self.sessions.to_look_at(now))
        room = max(LOOKS_WAITING * self.config.functions_of(Lane.WATCH) - self.queues.waiting(Lane.WATCH), 0)
        if len(looks) > room:
            looks = random.sample(looks, room)
        with ThreadPoolExecutor(SENDERS) as senders:
            for sids in senders.map(lambda sids: self.queues.enqueue_all(sids, lane=Lane.WATCH), batches(looks)):
                yield from sids

    @cached_property
    def metrics(self) -> Metrics:
        """Where all parts report what the operator's alarms count."""
        return Metrics(self.config.stage, CLOCK, _write_line)

    @property
    def tracer(self) -> Tracer:
        """Who records how long what takes: nobody, unless the operator wants it and this is a function."""
        return self._xray or UNTRACED

    @cached_property
    def _xray(self) -> XRay | None:
        if not self.config.tracing:
            return None
        from chalicelib.aws.xray import XRay, sender

        send = sender(trace_daemon())
        return send and XRay(trace_header=trace_header, send=send, clock=CLOCK, new_id=lambda: secrets.token_hex(8))

    @cached_property
    def sessions(self) -> SessionStore:
        """The hub's sessions."""
        return SessionStore(self.client("dynamodb"), self.config.table, CLOCK)

    @cached_property
    def door(self) -> DoorStore:
        """Who may launch at the moment."""
        return DoorStore(self.client("dynamodb"), self.config.table, CLOCK)

    @cached_property
    def build_logs(self) -> BuildLogStore:
        """What builders said."""
        return BuildLogStore(self.client("dynamodb"), self.config.table, CLOCK)

    @cached_property
    def images(self) -> ImageStore:
        """The lists of the images that notebooks were saved as."""
        return ImageStore(self.client("dynamodb"), self.config.table, CLOCK)

    @cached_property
    def tokens(self) -> TokenStore:
        """The hub's tokens, tickets and sign-outs."""
        lifetime = self.config.session_lifetime
        return TokenStore(self.client("dynamodb"), self.config.table, CLOCK, lifetime=lifetime)

    @cached_property
    def credentials(self) -> CredentialsStore:
        """The sealed credentials; what may be done with them depends on the function's policy."""
        return CredentialsStore(self.client("s3"), self.client("kms"), bucket=self.config.bucket, key=self.config.key)

    @cached_property
    def queues(self) -> TickQueues:
        """The lanes' queues."""
        return TickQueues(self.client("sqs"), self.config.queue_urls)

    @cached_property
    def signing_trust(self) -> HubTrust:
        """The hub's own certificates, as the launch lane needs them."""
        return self._load_trust(signs=True)

    @cached_property
    def probing_trust(self) -> HubTrust:
        """The same for the other lanes, which sign nothing."""
        return self._load_trust(signs=False)

    def _load_trust(self, *, signs: bool) -> HubTrust:
        from chalicelib.aws.hub_certificates import load_trust

        return load_trust(self.client("ssm"), self.config.certificates, signs=signs)


def _write_line(line: str) -> None:
    """Write a line to what Lambda logs, without what a logger would put before it."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def aws_client(service: str) -> Any:
    """Make a client of boto3's that gives up early: a function that waits costs money and somebody's patience.

    Two attempts of 11 seconds and a pause of at most one: a call fails before the web function's 30 seconds are over.
    """
    import boto3
    from botocore.config import Config as ClientConfig

    # "max_attempts" would count the repetitions alone.
    # botocore makes its own name anew for each call, which takes a seventh of all that a request costs.
    limits = ClientConfig(
        connect_timeout=3,
        read_timeout=8,
        retries={"mode": "standard", "total_max_attempts": 2},
        user_agent=f"homeport/{VERSION}",
    )
    return boto3.client(service, config=limits)  # type: ignore[call-overload]  # the name is a variable


@cache
def wiring() -> Wiring:
    """The process's parts, from its environment."""
    return Wiring(Config.from_environ(), aws_client)
