"""Say what a hub costs, and write docs/cost.md: `python -m bench.bench_cost [--write]`.

What visitors cost is counted: hub and launcher run on moto, and each call to AWS is priced (costs.py). What their
browsers load is what `make bench PART=traffic` has counted last. What a month costs without visitors is added up from
the templates of infra/, what the schedule does in a minute, and the list prices below. Nothing was billed by AWS.
tests/functional/test_cost.py compares the page with what is counted, and that with the aims.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Generator, Iterator, Mapping
from typing import Any, Final

from bench import results
from bench.bench_scale import (
    LEAVE_SECONDS,
    LOOK_SECONDS,
    MONTH,
    WARM_SECONDS,
    a_warm_launch,
    be_ready,
    counted,
    launching,
    looking,
    looking_into_the_dark,
    of_functions,
    paragraph,
    table,
)
from bench.bench_traffic import FIRST, LOADS, PART, PLAIN, RELOAD, TAB
from bench.costs import HOUR, MEMORY, PRICES, PRICES_OF, Usage, Visit, rounded_up
from chalicelib.engine.pull_progress import PullStatus
from chalicelib.environment import variables
from chalicelib.metrics import OF_A_LANE, Metric
from chalicelib.session.lanes import Lane
from chalicelib.session.values import State
from local.settings import ROOT
from proxy.settings import Settings
from tests.functional.hub_rig import hub_rig
from tests.launcher_twins import Clock, EngineTwin
from tests.policies import template

PAGE: Final = ROOT / "docs" / "cost.md"
SCRIPT: Final = ROOT / "chalicelib" / "web" / "pages" / "page.js"
PULL_SECONDS: Final = 120.0
DARK_HOURS: Final = 72.0
RUNNING_HOURS: Final = 3.0

LAUNCH: Final = "a launch whose image is there: its pages, entering, stopping"
PULL: Final = f"more with a pull of {PULL_SECONDS / 60:.0f} minutes that is watched"
RUNNING: Final = f"more for {RUNNING_HOURS:.0f} hours of running, its page closed"
IN_SIGHT: Final = f"more for {RUNNING_HOURS:.0f} hours with its page in sight"
DARK: Final = f"more for {DARK_HOURS:.0f} hours with its endpoint dark"
AIMS: Final[Mapping[str, float]] = {LAUNCH: 0.15, PULL: 0.5, RUNNING: 0.05}  # dollars for a thousand, at most

MONTHLY: Final[Mapping[str, float]] = {  # dollars a month; list prices of us-east-1
    "KMS key": 1.0,
    "alarm's metric": 0.10,
    "custom metric": 0.30,
    "dashboard": 3.0,
    "hosted zone": 0.50,
    "million of SQS requests": 0.40,
    "Fargate vCPU, ARM": 0.03238 * 730,
    "Fargate GB, ARM": 0.00356 * 730,
    "public IPv4 address": 0.005 * 730,
    "NAT gateway": 0.045 * 730,
    "network load balancer": 0.0225 * 730,
    "NLCU, lowest use": 0.006 * 730 * 0.1,
    "small virtual machine": 5.0,
    "virtual machine of 2 vCPUs and 4 GB": 0.0336 * 730,
    "virtual machine of 4 vCPUs and 16 GB": 0.1344 * 730,
    "volume of 30 GB": 0.08 * 30,
}
GIGABYTE: Final = 0.09  # dollars, out of AWS
POLLERS: Final = 5  # of an event source that has nothing to do; each asks its queue every 20 seconds
PROXY_VCPU, PROXY_GB, SUBNETS = 0.25, 1.0, 2
OF_A_POLICY: Final = 2  # alarms that AWS makes for a target-tracking scaling policy by itself, of one metric each


# ── a visitor ────────────────────────────────────────────────────────────────────────────────────────────────────────


def of_the_page(constant: str) -> Any:
    """A constant of the pages' script."""
    [value] = re.findall(rf"const {constant} = (.+?);", SCRIPT.read_text())
    return json.loads(value)


def seconds_of_the_page(pause: str) -> list[float]:
    """How long a pause of the pages' script is at first, and at most."""
    return [milliseconds / 1000 for milliseconds in of_the_page(pause)]


def polls(seconds: float, pause: str = "POLL") -> int:
    """How often a page that is looked at asks while a session is in one state for so long; `pause` is the script's."""
    least, most = seconds_of_the_page(pause)
    asked, at, share = 0, 0.0, of_the_page("POLL_SHARE")
    while (at := at + min(least + share * at, most)) < seconds:
        asked += 1
    return asked


def asks(visit: Visit, sid: str, times: int = 1) -> None:
    """What the session's page asks so often."""
    for _ in range(times):
        visit.request(lambda: visit.hub.ask("GET", f"/sessions/{sid}/events?after=9", token=visit.token))


def a_whole_visit(visit: Visit, _: str) -> None:
    """The first page, the upload, the session's page until it is ready, entering, and a stop until its end."""
    visit.request(lambda: visit.hub.ask("GET", "/", html=True))
    sid = visit.launch()
    visit.request(lambda: visit.hub.ask("GET", f"/sessions/{sid}", token=visit.token, html=True))
    be_ready(visit, sid)
    asks(visit, sid, polls(WARM_SECONDS) + 1)
    visit.request(lambda: visit.hub.press(f"/sessions/{sid}/enter", token=visit.token))
    visit.look(sid, LOOK_SECONDS)  # who enters asks for one
    visit.request(lambda: visit.hub.press(f"/sessions/{sid}/stop", token=visit.token))
    visit.drive(sid, lambda session: session.state is State.STOPPED)
    asks(visit, sid, polls(LEAVE_SECONDS) + 1)


class PullingEngine(EngineTwin):
    """An engine that pulls for PULL_SECONDS and tells of it each second."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def pull(self, image: str, *, answer_within: float = 0.0) -> Generator[PullStatus, None, None]:
        for second in range(round(PULL_SECONDS)):
            self._clock.now += 1
            yield PullStatus(second / PULL_SECONDS, f"Pulling: {second} of {PULL_SECONDS:.0f} layers")
        self.images.add(image)


def a_cold_launch(visit: Visit, _: str) -> None:
    """A launch whose image is pulled first."""
    visit.engine = PullingEngine(visit.clock)
    visit.probe = lambda *_, **__: None
    sid = visit.launch()
    visit.drive(sid, lambda session: session.state is State.READY)


def of_visitors() -> dict[str, float]:
    """Dollars for a thousand of each."""
    whole = counted(lambda visit: "", a_whole_visit)
    # No engine takes time where it is counted.
    at_work = PRICES["GB-second"] * (MEMORY[Lane.LAUNCH] * WARM_SECONDS + MEMORY[Lane.LEAVE] * LEAVE_SECONDS)
    ask = counted(a_warm_launch, asks).dollars
    found = {
        LAUNCH: whole.dollars + at_work,
        PULL: counted(lambda visit: "", a_cold_launch).dollars - launching().dollars + polls(PULL_SECONDS) * ask,
        RUNNING: looking().during(RUNNING_HOURS),
        IN_SIGHT: polls(RUNNING_HOURS * HOUR, "POLL_AT_REST") * ask,
        DARK: looking_into_the_dark().during(DARK_HOURS),
    }
    return {name: 1000 * dollars for name, dollars in found.items()}


def of_traffic() -> tuple[str, dict[str, float]]:
    """When it was counted, and the kB that each kind of page load takes out of AWS."""
    counted_last = results.kept(PART)
    assert counted_last is not None
    [rows] = [table.rows for table in counted_last.tables if table.title == LOADS]
    return counted_last.date[:10], {name: statistics.median(sizes) for name, sizes in rows.items()}


def of_a_thousand(kilobytes: float) -> float:
    """Dollars for a thousand times so much."""
    return GIGABYTE * kilobytes / 1000


# ── a month without visitors ─────────────────────────────────────────────────────────────────────────────────────────


def of_a_hub() -> dict[str, float]:
    """Dollars of a month of a hub that nobody uses, without its proxy."""
    alarms = sum(map(_metrics_of, _alarms("resources.yaml")))
    metrics = len(Metric) - len(OF_A_LANE) + len(OF_A_LANE) * len(Lane)
    polled = len(Lane) * POLLERS * MONTH / 20 / 1e6
    minutes = MONTH / 60
    return {
        f"{alarms} metrics that alarms look at": alarms * MONTHLY["alarm's metric"],
        f"{metrics} metrics of its own": metrics * MONTHLY["custom metric"],
        "the KMS key; $1 more after each of its first two rotations": MONTHLY["KMS key"],
        "the dashboard; an account's first three cost nothing": MONTHLY["dashboard"],
        f"the lanes' queues, asked {polled:.1f} million times": polled * MONTHLY["million of SQS requests"],
        f"the schedule, {minutes:,.0f} times": minutes * a_minute().dollars,
    }


def a_minute() -> Usage:
    """What the schedule does in each if there is nothing to do."""
    with hub_rig() as hub:
        visit = Visit(hub)
        with visit.counted():
            sent = list(hub.parts.redrive())
        visit.usage.function(0.0, "redrive")
    assert not sent
    return visit.usage


def of_a_feed() -> float:
    """Dollars of a month in which a proxy asks for what has changed, and nothing has."""
    [poll] = [float(one.default) for one in variables(Settings) if one.name == "HOMEPORT_PROXY_POLL"]
    return MONTH / poll * PRICES["read unit"] / 2  # an index is not read consistently


def alarms_of_the_proxy() -> tuple[int, int]:
    """How many metrics the stack's alarms look at, and how many those that AWS makes for its scaling policies."""
    policies = _properties("proxy.yaml", "AWS::ApplicationAutoScaling::ScalingPolicy")
    assert {policy["PolicyType"] for policy in policies} == {"TargetTrackingScaling"}
    return sum(map(_metrics_of, _alarms("proxy.yaml"))), OF_A_POLICY * len(policies)


def of_proxies() -> dict[str, float]:
    """Dollars of a month of each form of the proxy."""
    task = PROXY_VCPU * MONTHLY["Fargate vCPU, ARM"] + PROXY_GB * MONTHLY["Fargate GB, ARM"] + of_a_feed()
    door = MONTHLY["network load balancer"] + MONTHLY["NLCU, lowest use"]
    alarms = sum(alarms_of_the_proxy()) * MONTHLY["alarm's metric"]

    def fargate(tasks: int) -> float:
        return (
            tasks * (task + MONTHLY["public IPv4 address"]) + SUBNETS * MONTHLY["public IPv4 address"] + door + alarms
        )

    size = f"{PROXY_VCPU:g} vCPU and {PROXY_GB:g} GB"
    return {
        f"two Fargate tasks of {size}, ARM, behind a load balancer in {SUBNETS} subnets": fargate(2),
        "the same with one task": fargate(1),
        "the same image on a small virtual machine with a certificate of its own": MONTHLY["small virtual machine"]
        + of_a_feed(),
    }


def of_hubs_with_machines() -> dict[str, float]:
    """Dollars of a month of a JupyterHub whose notebooks run on its own machine."""
    disk = MONTHLY["volume of 30 GB"] + MONTHLY["public IPv4 address"]
    return {
        "2 vCPUs and 4 GB, for a handful of small notebooks": MONTHLY["virtual machine of 2 vCPUs and 4 GB"] + disk,
        "4 vCPUs and 16 GB, for a dozen": MONTHLY["virtual machine of 4 vCPUs and 16 GB"] + disk,
    }


def _alarms(name: str) -> list[Mapping[str, Any]]:
    return _properties(name, "AWS::CloudWatch::Alarm")


def _properties(name: str, kind: str) -> list[Mapping[str, Any]]:
    """What a template of infra/ says of all its resources of a type."""
    return [one["Properties"] for one in template(name)["Resources"].values() if one["Type"] == kind]


def _metrics_of(alarm: Mapping[str, Any]) -> int:
    return sum("MetricStat" in metric for metric in alarm.get("Metrics", [])) or 1


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def page(visitors: Mapping[str, float]) -> Iterator[str]:
    """The parts of the page, one after the other; `visitors` is what `of_visitors` gives."""
    yield "# What a hub costs"
    yield paragraph(
        f"Written by `python -m bench.bench_cost --write`, which also says what is counted. Prices are list prices of "
        f"us-east-1, {PRICES_OF}, without free tiers. No figure here was billed by AWS."
    )
    yield "## A thousand visitors"
    yield table(
        "a thousand times | dollars | aim",
        [f"{name} | {rounded_up(dollars)} | {_aim(name, dollars)}" for name, dollars in visitors.items()],
    )
    (first, last), (_, at_rest) = seconds_of_the_page("POLL"), seconds_of_the_page("POLL_AT_REST")
    yield paragraph(
        "Rounded up. Visitors' computers do the computing, so a notebook that runs costs the looks at it; they are "
        "sent in batches of ten, as they are when some hundred notebooks run. A page that is watched asks every "
        f"{first:g} s at first, and less often the longer its session is in one state: every {last:g} s at last, every "
        f"{at_rest:g} s if it is ready; one in a hidden tab more seldom. {of_functions()}"
    )
    date, loads = of_traffic()
    yield "## What their browsers load"
    yield table(
        "JupyterLab's page | kB | kB if nothing were compressed | dollars for a thousand | dollars then",
        [
            f"{name} | {loads[name]:,.0f} | {loads[name + PLAIN]:,.0f} | {of_a_thousand(loads[name]):.2f} | "
            f"{of_a_thousand(loads[name + PLAIN]):.2f}"
            for name in (FIRST, RELOAD, TAB)
        ],
    )
    yield paragraph(
        f"Counted in Chromium by `make bench PART=traffic` on {date}, without TLS, TCP and websockets. Traffic out of "
        f"AWS is ${GIGABYTE:.2f} a GB above the first 100; into AWS it costs nothing. Each launch is an origin of its "
        "own, so its first page loads all of JupyterLab; after that the browser has the scripts (docs/adr/0026). Files "
        "and outputs that visitors load come on top. Elsewhere traffic is often part of a machine's price."
    )
    yield "## A month without visitors"
    hub = of_a_hub()
    yield table("the hub | dollars a month", _with_sum(hub))
    yield table("the proxy, one of | dollars a month", [f"{name} | {cost:.2f}" for name, cost in of_proxies().items()])
    ours, of_aws = alarms_of_the_proxy()
    yield paragraph(
        f"On Fargate alarms look at {ours + of_aws} metrics: those of the stack at {ours}, and {OF_A_POLICY} for each "
        "of its scaling policies, which AWS makes by itself. What a proxy reads to learn of changes is "
        f"${of_a_feed():.2f} of its month, and as much for each more of `HOMEPORT_FEED_SHARDS`."
    )
    yield paragraph(
        "Each fixed address that the hub connects from (`HOMEPORT_FIXED_ADDRESSES`) is "
        f"${MONTHLY['NAT gateway'] + MONTHLY['public IPv4 address']:.2f} a month more, and $0.045 for each gigabyte "
        "that passes it."
    )
    yield paragraph(
        "The table, the bucket, logs, parameters and the proxy's image cost cents. A hosted zone of Route 53 for the "
        f"domains is ${MONTHLY['hosted zone']:.2f}, if they are in one."
    )
    yield "## Beside a JupyterHub on a machine that is always on"
    yield table(
        "its machine and disk | dollars a month",
        [f"{name} | {cost:.2f}" for name, cost in of_hubs_with_machines().items()],
    )
    fargate, _, small = of_proxies().values()
    visits, traffic = visitors[LAUNCH] + visitors[RUNNING], of_a_thousand(loads[FIRST])
    virtual, on_fargate = sum(hub.values()) + small + visits, sum(hub.values()) + fargate + visits + traffic
    yield paragraph(
        "There the notebooks run on the operator's machine, and its size is how many there can be. Here a month with a "
        f"thousand visitors, each for three hours, costs ${virtual:.2f} with the proxy on a small virtual machine, if "
        f"its price includes their traffic, and ${on_fargate:.2f} with it on Fargate, ${traffic:.2f} of which is their "
        f"traffic; nine thousand more cost ${9 * visits:.2f} and ${9 * (visits + traffic):.2f}."
    )


def _aim(name: str, dollars: float) -> str:
    if name not in AIMS:
        return ""
    return f"≤ {AIMS[name]:.3f}{'' if dollars <= AIMS[name] else ', not reached'}"


def _with_sum(costs: Mapping[str, float]) -> list[str]:
    rows = [f"{name} | {cost:.2f}" for name, cost in costs.items()]
    return [*rows, f"**together** | **{sum(costs.values()):.2f}**"]


def as_text(visitors: Mapping[str, float]) -> str:
    """The whole page."""
    return "\n\n".join(page(visitors)) + "\n"


def main(arguments: list[str]) -> int:
    """Print the page, or write it."""
    text = as_text(of_visitors())
    print(text)
    if "--write" in arguments:
        PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
