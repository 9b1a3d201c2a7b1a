"""Say what a hub costs, and write docs/cost.md: `python -m bench.bench_cost [--write]`.

What visitors cost is counted: hub and launcher run on moto, and each call to AWS is priced (costs.py). What their
browsers load is what `make bench PART=traffic` has counted last. What a month costs without visitors is added up from
the templates of infra/ and the list prices below. Nothing was billed by AWS.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from bench import results
from bench.bench_scale import (
    DARK_SECONDS,
    LOOK_SECONDS,
    MONTH,
    a_warm_launch,
    counted,
    looking,
    looking_into_the_dark,
    paragraph,
    pulling,
    table,
    waiting,
)
from bench.bench_traffic import FIRST, LOADS, PART, PLAIN, RELOAD, TAB
from bench.costs import BUSY_MEMORY, BUSY_SECONDS, HOUR, MEMORY, PRICES, PRICES_OF, Visit
from chalicelib.metrics import OF_A_LANE, Metric
from chalicelib.session.lanes import Lane
from chalicelib.session.looks import OFTEN, SELDOM
from chalicelib.session.machine import STEADY_SECONDS
from chalicelib.session.values import State
from tests.policies import template

PAGE: Final = Path(__file__).parent.parent / "docs" / "cost.md"
WARM_SECONDS: Final = 2.6  # from upload to ready, and from Stop to purged (docs/scale.md)
LEAVE_SECONDS: Final = 1.3
PULL_SECONDS: Final = 120.0
DARK_HOURS: Final = 72.0
RUNNING_HOURS: Final = 3.0
POLL, POLL_AT_REST, POLL_SHARE = (1.0, 6.0), (15.0, 60.0), 0.1  # seconds; chalicelib/web/pages/page.js

MONTHLY: Final[Mapping[str, float]] = {  # dollars a month; list prices of us-east-1
    "KMS key": 1.0,
    "alarm's metric": 0.10,
    "custom metric": 0.30,
    "dashboard": 3.0,
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


# ── a visitor ────────────────────────────────────────────────────────────────────────────────────────────────────────


def polls(seconds: float, pause: tuple[float, float] = POLL) -> int:
    """How often a page that is looked at asks while a session is in one state for so long."""
    asked, at, (least, most) = 0, 0.0, pause
    while (at := at + min(least + POLL_SHARE * at, most)) < seconds:
        asked += 1
    return asked


def asks(visit: Visit, sid: str, times: int = 1) -> None:
    """What the session's page asks so often."""
    for _ in range(times):
        visit.request(lambda: visit.hub.ask("GET", f"/sessions/{sid}/events?after=9", token=visit.token))


def a_whole_visit(visit: Visit, _: str) -> None:
    """The first page, the upload, the session's page until it is ready, entering, and a stop until its end."""
    visit.request(lambda: visit.hub.ask("GET", "/", html=True))
    sid = a_warm_launch(visit)
    visit.request(lambda: visit.hub.ask("GET", f"/sessions/{sid}", token=visit.token, html=True))
    asks(visit, sid, polls(WARM_SECONDS) + 1)
    visit.request(lambda: visit.hub.press(f"/sessions/{sid}/enter", token=visit.token))
    visit.request(lambda: visit.hub.press(f"/sessions/{sid}/stop", token=visit.token))
    visit.drive(sid, lambda session: session.state is State.STOPPED)
    asks(visit, sid, polls(LEAVE_SECONDS) + 1)


def of_visitors() -> dict[str, float]:
    """Dollars for a thousand of each."""
    whole = counted(lambda visit: "", a_whole_visit)
    # No engine takes time where it is counted.
    at_work = PRICES["GB-second"] * (MEMORY[Lane.LAUNCH] * WARM_SECONDS + MEMORY[Lane.LEAVE] * LEAVE_SECONDS)
    ask = counted(a_warm_launch, asks).dollars
    look, dark = (
        waiting(looking(), LOOK_SECONDS, Lane.WATCH),
        waiting(looking_into_the_dark(), DARK_SECONDS, Lane.WATCH),
    )
    running = RUNNING_HOURS * HOUR
    looks = STEADY_SECONDS / (60 * OFTEN) + (running - STEADY_SECONDS) / (60 * SELDOM)
    found = {
        "a launch whose image is there: its pages, entering, stopping": whole.dollars + at_work,
        f"more with a pull of {PULL_SECONDS / 60:.0f} minutes that is watched": PULL_SECONDS * pulling().dollars
        + polls(PULL_SECONDS) * ask,
        f"more for {RUNNING_HOURS:.0f} hours of running, its page closed": looks * look,
        f"more for {RUNNING_HOURS:.0f} hours with its page in sight": polls(running, POLL_AT_REST) * ask,
        f"more for {DARK_HOURS:.0f} hours with its endpoint dark": DARK_HOURS * HOUR / (60 * SELDOM) * dark,
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
    schedule = PRICES["invocation"] + PRICES["GB-second"] * BUSY_MEMORY * BUSY_SECONDS + 26 * PRICES["read unit"]
    return {
        f"{alarms} metrics that alarms look at": alarms * MONTHLY["alarm's metric"],
        f"{metrics} metrics of its own": metrics * MONTHLY["custom metric"],
        "the KMS key; $1 more after each of its first two rotations": MONTHLY["KMS key"],
        "the dashboard; an account's first three cost nothing": MONTHLY["dashboard"],
        f"the lanes' queues, asked {polled:.1f} million times": polled * MONTHLY["million of SQS requests"],
        f"the schedule, {minutes:,.0f} times": minutes * schedule,
    }


def of_proxies() -> dict[str, float]:
    """Dollars of a month of each form of the proxy."""
    task = PROXY_VCPU * MONTHLY["Fargate vCPU, ARM"] + PROXY_GB * MONTHLY["Fargate GB, ARM"]
    door = MONTHLY["network load balancer"] + MONTHLY["NLCU, lowest use"]
    alarms = sum(map(_metrics_of, _alarms("proxy.yaml"))) * MONTHLY["alarm's metric"]

    def fargate(tasks: int) -> float:
        return (
            tasks * (task + MONTHLY["public IPv4 address"]) + SUBNETS * MONTHLY["public IPv4 address"] + door + alarms
        )

    size = f"{PROXY_VCPU:g} vCPU and {PROXY_GB:g} GB"
    return {
        f"two Fargate tasks of {size}, ARM, behind a load balancer in {SUBNETS} subnets": fargate(2),
        "the same with one task": fargate(1),
        "the same image on a small virtual machine with a certificate of its own": MONTHLY["small virtual machine"],
    }


def of_hubs_with_machines() -> dict[str, float]:
    """Dollars of a month of a JupyterHub whose notebooks run on its own machine."""
    disk = MONTHLY["volume of 30 GB"] + MONTHLY["public IPv4 address"]
    return {
        "2 vCPUs and 4 GB, for a handful of small notebooks": MONTHLY["virtual machine of 2 vCPUs and 4 GB"] + disk,
        "4 vCPUs and 16 GB, for a dozen": MONTHLY["virtual machine of 4 vCPUs and 16 GB"] + disk,
    }


def _alarms(name: str) -> list[Mapping[str, Any]]:
    resources = template(name)["Resources"].values()
    return [one["Properties"] for one in resources if one["Type"] == "AWS::CloudWatch::Alarm"]


def _metrics_of(alarm: Mapping[str, Any]) -> int:
    return sum("MetricStat" in metric for metric in alarm.get("Metrics", [])) or 1


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def page() -> Iterator[str]:
    """The parts of the page, one after the other."""
    yield "# What a hub costs"
    yield paragraph(
        f"Written by `python -m bench.bench_cost --write`, which also says what is counted. Prices are list prices of "
        f"us-east-1, {PRICES_OF}, without free tiers. No figure here was billed by AWS."
    )
    yield "## A thousand visitors"
    visitors = of_visitors()
    yield table("a thousand times | dollars", [f"{name} | {dollars:.2f}" for name, dollars in visitors.items()])
    yield paragraph(
        "Visitors' computers do the computing, so a notebook that runs costs the looks at it. A page that is watched "
        "asks once a second at first, and less often the longer its session is in one state: every 6 seconds at last, "
        "every minute if it is ready; one in a hidden tab more seldom. A function has 512 MB, one that "
        "launches 544, leaves or watches 256, pulls 192."
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
    yield paragraph(
        "Each fixed address that the hub connects from (`HOMEPORT_FIXED_ADDRESSES`) is "
        f"${MONTHLY['NAT gateway'] + MONTHLY['public IPv4 address']:.2f} a month more, and $0.045 for each gigabyte "
        "that passes it."
    )
    yield paragraph("The table, the bucket, logs and parameters cost cents.")
    yield "## Beside a JupyterHub on a machine that is always on"
    yield table(
        "its machine and disk | dollars a month",
        [f"{name} | {cost:.2f}" for name, cost in of_hubs_with_machines().items()],
    )
    warm, _, running, *_ = visitors.values()
    small, fargate = MONTHLY["small virtual machine"], next(iter(of_proxies().values()))
    visits, traffic = warm + running, of_a_thousand(loads[FIRST])
    virtual, on_fargate = sum(hub.values()) + small + visits, sum(hub.values()) + fargate + visits + traffic
    yield paragraph(
        "There the notebooks run on the operator's machine, and its size is how many there can be. Here a month with a "
        f"thousand visitors, each for three hours, costs ${virtual:.2f} with the proxy on a small virtual machine, if "
        f"its price includes their traffic, and ${on_fargate:.2f} with it on Fargate, ${traffic:.2f} of which is their "
        f"traffic; nine thousand more cost ${9 * visits:.2f} and ${9 * (visits + traffic):.2f}."
    )


def _with_sum(costs: Mapping[str, float]) -> list[str]:
    rows = [f"{name} | {cost:.2f}" for name, cost in costs.items()]
    return [*rows, f"**together** | **{sum(costs.values()):.2f}**"]


def main(arguments: list[str]) -> int:
    """Print the page, or write it."""
    text = "\n\n".join(page()) + "\n"
    print(text)
    if "--write" in arguments:
        PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
