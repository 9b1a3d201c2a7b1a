"""Measure how long a function's first event waits: its start, and the event itself.

`make bench PART=cold` runs the zip as it is deployed, as Lambda runs it (tests/lambda_rig.py), within limits of CPU
that stand for Lambda's: a whole one for the start, then the share that goes with the function's memory. Rows:

    first page   the web function: until the upload page is answered
    launcher     the launch lane's: until the visitor's endpoint has its first connection

"Nothing made at the start" is the same zip without what `Wiring.warm_up` does, as it was before (docs/adr/0022).
AWS is embedded and speaks no TLS. So the last table has what a first connection to a service of AWS would add to it.
"""

from __future__ import annotations

import json
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from botocore.httpsession import get_cert_path

from bench.results import Result, Table
from chalicelib.session.lanes import Lane
from local import aws as local_aws
from tests.aws_events import ORIGIN, Browser, sqs_event
from tests.functional.hostile_engine import LOOPBACK, HostileEngine, Pki
from tests.functional.hub_rig import zipped
from tests.lambda_rig import Function, Lambda, function, provide

ROUNDS: Final = 9
FUNCTIONS: Final = json.loads((Path(__file__).parent.parent / ".chalice" / "config.json").read_text())[
    "lambda_functions"
]
DEPLOYED: Final[Mapping[str, int]] = {  # MB
    "first page": FUNCTIONS["api_handler"]["lambda_memory_size"],
    "launcher": FUNCTIONS["launch"]["lambda_memory_size"],
}
MORE: Final = (1024, 1769)
WHOLE: Final = (
    1769  # MB with which a function has one CPU: https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
)
PERIOD: Final = 20_000  # microseconds
AIM: Final = 600.0  # milliseconds
BEFORE_THE_ENDPOINT: Final = ("dynamodb", "s3", "kms")  # what the launcher asks first
OPTIONS: Final = {
    "HOMEPORT_HUB_ORIGIN": ORIGIN,
    "HOMEPORT_NOTEBOOK_URL": "https://*.notebooks.example.net",
    "HOMEPORT_ENDPOINT_NETWORKS": "127.0.0.0/8",
    # One key launches more than a visitor may.
    "HOMEPORT_OWNER_LAUNCHES": "0",
    "HOMEPORT_OWNER_NOTEBOOKS": "0",
}
First = Callable[[Function], float]  # gives milliseconds


class CpuLimit:
    """A control group of version 1 or 2 whose processes have a share of one CPU."""

    def __init__(self) -> None:
        root = Path("/sys/fs/cgroup")
        self._old = (root / "cpu").is_dir()
        self.folder = (root / "cpu" if self._old else root) / "homeport-bench"
        self.folder.mkdir()
        # As much as there is, before what else the machine does: a function has its share to itself.
        (self.folder / ("cpu.shares" if self._old else "cpu.weight")).write_text("262144" if self._old else "10000")
        if self._old:
            (self.folder / "cpu.cfs_period_us").write_text(str(PERIOD))

    def set(self, share: float) -> None:
        """Set the share."""
        quota = round(share * PERIOD)
        if self._old:
            (self.folder / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (self.folder / "cpu.max").write_text(f"{quota} {PERIOD}")

    @property
    def command(self) -> tuple[str, ...]:
        """What starts a program in the group."""
        return ("sh", "-c", f'echo $$ > {self.folder}/cgroup.procs && exec "$@"', "sh")


@contextmanager
def cpu_limit() -> Iterator[CpuLimit]:
    """A control group that is gone afterwards."""
    limit = CpuLimit()
    try:
        yield limit
    finally:
        for _ in range(100):  # until the kernel has taken the last process out of it
            try:
                limit.folder.rmdir()
            except OSError:
                time.sleep(0.05)
            else:
                break


def first_page(web: Function) -> float:
    """Ask for the upload page."""
    begun = time.perf_counter()
    assert Browser(web, str, crumbs=False).ask("GET", "/", html=True).status == 200
    return 1000 * (time.perf_counter() - begun)


class Launches:
    """Sessions that wait for the launch lane, on an endpoint that notes when it is connected to."""

    def __init__(self, web: Function) -> None:
        self._pki = Pki.new()
        self._browser = Browser(web, str, crumbs=False)
        self._count = 0

    def first_effect(self, launcher: Function) -> float:
        """Hand a launch to the launcher; gives how long until the endpoint has a connection."""
        self._count += 1
        with HostileEngine(self._pki) as engine, ThreadPoolExecutor(1) as pool:
            bundle = zipped(self._pki.ca.certificate, self._pki.client, f"tcp://{LOOPBACK}:{engine.port}")
            form = {"credentials": ("c.zip", bundle), "name": f"cold-{self._count}"}
            launched = self._browser.ask("POST", "/sessions", multipart=form).json
            event = sqs_event(Lane.LAUNCH, json.dumps({"session": launched["id"]}))
            begun = time.perf_counter()
            done = pool.submit(launcher.invoke, event)
            while not engine.connections and not done.done():
                time.sleep(0.0005)
            milliseconds = 1000 * (time.perf_counter() - begun)
            assert done.result().json is None
            assert engine.connections
        return milliseconds


def measure_start(
    result: Result, limit: CpuLimit, on: Lambda, handler: str, first: First, *, memory: int, warms: bool = True
) -> dict[str, list[float]]:
    """Start a function ROUNDS times; gives the milliseconds of each start, of its first event, and of both."""
    environ = dict(on.environ) if warms else {**on.environ, "_HANDLER": ""}
    starts, firsts = [], []
    result.await_quiet()
    for _ in range(ROUNDS):
        limit.set(1.0)
        with function(
            replace(on, environ=environ), f"homeport-{handler}", handler, timeout=120, command=limit.command
        ) as started:
            limit.set(min(1.0, memory / WHOLE))
            starts.append(1000 * started.init_seconds)
            firsts.append(first(started))
    both = [sum(pair) for pair in zip(starts, firsts, strict=True)]
    return {"start": starts, "event": firsts, "both": both}


def tls_seconds() -> list[float]:
    """The processor time of reading the CAs that botocore brings into a TLS context, as it does for each connection."""
    taken = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(get_cert_path(True))
        taken.append(time.process_time() - begun)
    return taken


def measure(result: Result) -> None:
    """Measure both functions with each memory, and with nothing made at the start."""
    waited: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="homeport-bench-") as name, local_aws.aws(Path(name) / "aws") as aws:
        on = provide(Path(name), {**aws.environ, **OPTIONS})
        with cpu_limit() as limit, function(on, "homeport-uploads", "app.app", timeout=120) as web:
            firsts: Mapping[str, tuple[str, First]] = {
                "first page": ("app.app", first_page),
                "launcher": ("app.launch", Launches(web).first_effect),
            }
            for what, (handler, first) in firsts.items():
                rows, deployed = dict[str, list[float]](), DEPLOYED[what]
                for memory in (deployed, *MORE):
                    measured = measure_start(result, limit, on, handler, first, memory=memory)
                    rows |= {f"{memory} MB: {part}": values for part, values in measured.items()}
                cold = measure_start(result, limit, on, handler, first, memory=deployed, warms=False)
                rows[f"{deployed} MB, nothing made at the start: both"] = cold["both"]
                result.add(Table(title=f"A cold start: {what}", unit="milliseconds", rows=rows))
                waited[what] = statistics.median(rows[f"{deployed} MB: both"])
                result.judge(f"{what}, {deployed} MB: both, in ms", waited[what], aim=AIM)
    taken = tls_seconds()
    memories = (*DEPLOYED.values(), *MORE)
    rows = {f"{memory} MB": [1000 * one / min(1.0, memory / WHOLE) for one in taken] for memory in memories}
    note = "Reading the CAs, which botocore does for each new connection, in the event; without the handshake."
    result.add(
        Table(title="What TLS adds for each service of AWS", unit="milliseconds", rows=rows, note=note, plotted=False)
    )
    memory, services = DEPLOYED["launcher"], len(BEFORE_THE_ENDPOINT)
    in_all = waited["launcher"] + services * statistics.median(rows[f"{memory} MB"])
    result.judge(f"launcher, {memory} MB: both, and TLS to {services} services, in ms", in_all, aim=AIM)
