"""What a visitor costs the operator: each call to AWS counted where the clients make it, and priced.

The hub and the launcher run on moto in this process, with engines in memory: DynamoDB's units are counted by the sizes
of the items, S3, KMS and SQS by the call, functions by the seconds that they would wait on the simulated clock, and
by their work (`busy_seconds`). Prices are list prices of us-east-1 (PRICES_OF). Not counted: what costs the same
without visitors, traffic, logs, the moment in which two functions hold a pull that is handed over, and the schedule's
part of a look, which is a thousandth of it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import boto3

from chalicelib.aws.queues import TickMessage, TickQueues
from chalicelib.aws.routes import RouteStore
from chalicelib.aws.sessions import SessionStore
from chalicelib.aws.slots import Pool, SlotStore
from chalicelib.engine.errors import NotebookSilent
from chalicelib.launcher.effects import Effects
from chalicelib.launcher.outside import Probe
from chalicelib.launcher.tick import Launcher
from chalicelib.notebook.certificates import HubTrust
from chalicelib.session.admission import Quota, Slot
from chalicelib.session.lanes import Lane, lane_of
from chalicelib.session.values import Session, Target
from tests.builders import NOW
from tests.functional.hub_rig import HubRig, a_bundle, a_hub
from tests.launcher_twins import Clock, EngineTwin, Killed, a_trust
from tests.table import TABLE
from tests.write_units import WriteUnits, size_of

CONFIG: Final = json.loads((Path(__file__).parent.parent / ".chalice" / "config.json").read_text())
PRICES_OF: Final = "November 2026"
PRICES: Final[Mapping[str, float]] = {  # dollars each
    "write unit": 0.625e-6,
    "read unit": 0.125e-6,
    "S3 put or list": 5e-6,
    "S3 get": 0.4e-6,
    "KMS request": 3e-6,
    "SQS request": 0.4e-6,
    "invocation": 0.2e-6,
    "GB-second": 13.3334e-6,
    "API request": 3.5e-6,
}
MEMORY: Final[Mapping[str, float]] = {  # GB of each function, by its lane; "" is the page's, "redrive" the schedule's
    name.removeprefix("api_handler"): function["lambda_memory_size"] / 1024
    for name, function in CONFIG["lambda_functions"].items()
}
BUSY_SECONDS: Final = 0.1  # of work in each invocation, beside what it waits, if a function has BUSY_MEMORY
BUSY_MEMORY: Final = 0.5  # GB
S3_READS: Final = ("GetObject", "HeadObject")
HOUR: Final = 3600.0


def busy_seconds(lane: str) -> float:
    """How long a function works in each invocation: the less memory it has, the less of a processor."""
    return BUSY_SECONDS * BUSY_MEMORY / MEMORY[lane]


def rounded_up(dollars: float) -> str:
    """A price to a tenth of a cent, and never less than it is: what is above an aim does not look as if it were not."""
    return f"{math.ceil(round(1000 * dollars, 6)) / 1000:.3f}"


@dataclass
class Usage:
    """What was used, by what PRICES has."""

    counted: Counter[str] = field(default_factory=Counter)
    writes: WriteUnits = field(default_factory=WriteUnits)
    seconds: float = 0.0
    waited: float = 0.0  # seconds of these
    gb_seconds: float = 0.0

    def function(self, seconds: float, lane: str = "") -> None:
        """Count an invocation that waited for so long."""
        self.counted["invocation"] += 1
        self.seconds += seconds + busy_seconds(lane)
        self.waited += seconds
        self.gb_seconds += MEMORY[lane] * seconds + BUSY_MEMORY * BUSY_SECONDS

    def call(self, service: str, operation: str, params: Mapping[str, Any]) -> None:
        """Count a call to AWS."""
        match service, operation:
            case "dynamodb", "PutItem":
                self.writes.put(params["Item"])
            case "dynamodb", "DeleteItem":
                self.counted["write unit"] += 1
            case "dynamodb", "UpdateItem":
                # An item of a kilobyte or two, and at most its key in an index; or a rate's, which is one number.
                self.counted["write unit"] += 1 if params["Key"]["pk"]["S"].startswith("rate#") else 3
            case "sqs", "SendMessageBatch":
                self.counted["SQS request"] += 1 + 2 * len(params["Entries"])
            case "sqs", "SendMessage":
                self.counted["SQS request"] += 3  # sent, received, deleted
            case "sqs", "GetQueueAttributes":
                self.counted["SQS request"] += 1
            case "s3", _:
                self.counted["S3 get" if operation in S3_READS else "S3 put or list"] += operation != "DeleteObject"
                self.counted["KMS request"] += operation in ("PutObject", "GetObject")  # what S3 asks itself
            case "kms", _:
                self.counted["KMS request"] += 1

    def read(self, params: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """Count the units of a DynamoDB answer to `params`: what is not read consistently costs half.

        A batch costs what its items cost one by one, and what is not there costs as much as the smallest item.
        """
        asked, (of_table,) = 1, list(params.get("RequestItems", {}).values()) or [params]
        if "Responses" in answer:
            asked = len(of_table["Keys"])
            reads = [[item] for items in answer["Responses"].values() for item in items]
        else:
            reads = [[answer["Item"]] if "Item" in answer else answer.get("Items", [])]
        units = sum(max(1, math.ceil(sum(map(size_of, items)) / 4096)) for items in reads) + asked - len(reads)
        self.counted["read unit"] += units if of_table.get("ConsistentRead") else units / 2  # type: ignore[assignment]

    def since(self, before: Usage) -> Usage:
        """What was used after `before`, a copy of this."""
        later = Usage(
            seconds=self.seconds - before.seconds,
            waited=self.waited - before.waited,
            gb_seconds=self.gb_seconds - before.gb_seconds,
            counted=self.counted - before.counted,
        )
        later.writes.spent = self.writes.spent - before.writes.spent
        return later

    def shared(self, among: float) -> Usage:
        """What one of so many used of it."""
        part = Usage(seconds=self.seconds / among, waited=self.waited / among, gb_seconds=self.gb_seconds / among)
        part.counted.update({name: count / among for name, count in self.counted.items()})
        part.writes.spent.update({name: count / among for name, count in self.writes.spent.items()})
        return part

    @property
    def dollars(self) -> float:
        """What it costs."""
        units = sum(self.writes.spent.values())
        whole = self.counted + Counter({"write unit": units})
        return sum(PRICES[name] * count for name, count in whole.items()) + PRICES["GB-second"] * self.gb_seconds


class Visit:
    """One visitor on a hub of their own; `engine` is their endpoint, `usage` what they have used.

    Their notebook never answers, unless `probe` says otherwise.
    """

    def __init__(self, hub: HubRig) -> None:
        self.usage = Usage()
        self.clock = Clock(NOW)
        self.engine = EngineTwin()
        self.probe: Probe = self.silent
        self.hub = hub
        self.hub.hub = a_hub(hub.parts, clock=self.clock)
        self.slots = SlotStore(hub.client_of("dynamodb"), TABLE, self.clock)
        self.sessions = SessionStore(hub.client_of("dynamodb"), TABLE, self.clock)
        region = hub.client_of("dynamodb").meta.region_name
        plain = boto3.client("dynamodb", region, aws_access_key_id="test", aws_secret_access_key="test")
        self._unseen = SessionStore(plain, TABLE, self.clock)
        sqs = boto3.client("sqs", region, aws_access_key_id="test", aws_secret_access_key="test")
        self._unseen_queues = TickQueues(sqs, hub.parts.config.queue_urls)
        self.ticks = 0
        self.token = ""

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the calls of all clients for as long as the block lasts."""

        def called(params: Mapping[str, Any], model: Any, context: dict[str, Any], **_: Any) -> None:
            self.usage.call(model.service_model.service_name, model.name, params)
            context["asked"] = params

        def answered(parsed: Mapping[str, Any], model: Any, context: Mapping[str, Any], **_: Any) -> None:
            if model.name in ("GetItem", "Query", "BatchGetItem"):
                self.usage.read(context["asked"], parsed)

        clients = [self.hub.client_of(service) for service in ("dynamodb", "s3", "kms", "sqs")]
        for client in clients:
            client.meta.events.register("provide-client-params.*", called)
        clients[0].meta.events.register("after-call.dynamodb", answered)
        try:
            yield
        finally:
            for client in clients:
                client.meta.events.unregister("provide-client-params.*", called)
            clients[0].meta.events.unregister("after-call.dynamodb", answered)

    def request(self, ask: Callable[[], Any]) -> Any:
        """What a request of a browser costs besides what the hub calls."""
        self.usage.counted["API request"] += 1
        self.usage.function(0.0)
        return ask()

    def launch(self) -> str:
        """Upload the bundle; gives the session's id."""
        launched = self.request(lambda: self.hub.upload(a_bundle(), name="hostile")).json
        self.token = str(launched["owner_token"])
        return str(launched["id"])

    def session(self, sid: str) -> Session:
        """As it is stored; read by nobody who counts."""
        return self._unseen.load(sid)

    def drive(self, sid: str, until: Callable[[Session], bool]) -> None:
        """What queues and schedule do, until it is so."""
        while not until(session := self.session(sid)):
            self.clock.now = max(self.clock.now, session.next_attempt_at or 0.0, session.lease_expires_at)
            self.tick(sid)

    def look(self, sid: str, seconds: float) -> None:
        """Take the messages of the watch lane: looks at a notebook that waits so long for its answer."""

        def answer(*_: Any, **__: Any) -> None:
            self.clock.now += seconds

        self.probe = answer
        for _ in range(self._unseen_queues.waiting(Lane.WATCH)):
            self.tick(sid)

    def tick(self, sid: str) -> None:
        """A message of the session's lane."""
        begun, lane = self.clock.now, lane_of(self.session(sid))
        self.ticks += 1
        with suppress(Killed):
            self._launcher(lane).tick(TickMessage(sid))
        self.usage.function(self.clock.now - begun, lane)

    def _launcher(self, lane: Lane) -> Launcher:
        connect: Any = self.engine.connect
        parts, begun = self.hub.parts, self.clock.now
        effects = Effects(
            config=parts.config,
            credentials=parts.credentials,
            routes=RouteStore(self.hub.client_of("dynamodb"), TABLE, self.clock),
            slots=self.slots,
            images=parts.images,
            build_logs=parts.build_logs,
            trust=a_trust,
            find_session=self.sessions.find,
            clock=self.clock,
            sleep=self.clock.sleep,
            connect=connect,
            resolve=lambda endpoint, policy: self.engine.address,
            probe=self.probe,
        )
        timeout = 900.0 if lane is Lane.PULL else 120.0
        return Launcher(
            sessions=self.sessions,
            effects=effects,
            enqueue=parts.queues.enqueue,
            lane=lane,
            pulls=parts.config.pulls,
            clock=self.clock,
            time_left=lambda: timeout - (self.clock.now - begun),
            name=f"tick-{self.ticks}",
        )

    def silent(self, target: Target, host: str, trust: HubTrust, *, deadline: float) -> None:
        self.clock.now += deadline
        raise NotebookSilent("The notebook does not answer yet")

    def others(self, pool: Pool, sid: str, quota: Quota) -> None:
        """Have as many other sessions of this owner hold slots as one owner may."""
        owner = self.session(sid).owner[:16]
        for number in range(quota.per_owner):
            self.slots.put(pool, f"other-{number}", Slot(owner, "", "", NOW + 10 * HOUR))
