"""docs/benchmarks.md and its plots, from what bench/results keeps of each part: `python -m bench.page`."""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import Final

from bench import charts, results
from bench.charts import figure
from bench.results import Result, Table
from local.settings import ROOT

PAGE: Final = "docs/benchmarks.md"
PARTS: Final = {  # what each part measures, in the page's order
    "launch": "Launching, beside `docker run` and JupyterHub",
    "at_once": "Many launches at once, beside `docker run` and JupyterHub",
    "at_once_plain": "Many launches at once without the quick start, beside `docker run`",
    "proxy": "The proxy, beside configurable-http-proxy and a bare HAProxy",
    "traffic": "What JupyterLab's page takes from the proxy",
    "cold": "The functions' cold starts, on this processor; on AWS it is ARM's",
    "lanes": "Launching while others attack",
    "limits": "The proxy's limits",
    "agent": "A full reading of the proxy's table",
    "store": "Sessions, stored and read",
    "bundles": "Refusing bad bundles",
    "hostile_cost": "What hostile visitors cost",
    "hostile_engines": "How long hostile engines hold the launcher",
}
BEGIN: Final = """\
# Benchmarks

Written by `make bench`, from what it measured last of each part (bench/results). `make bench PART=launch` measures one
part. What is compared is measured in one run, in turn, on one machine; figures of other machines are others, ratios
less so. Tables give the median, the least and the greatest of n measurements.
"""
BUSY: Final = 0.3  # of all processor time: above it the page warns


def write(root: Path = ROOT) -> None:
    """Write page and plots; those of an earlier page go."""
    images = root / "docs" / "images"
    for old in images.glob("bench-*.svg"):
        old.unlink()
    sections = [BEGIN]
    for part, title in PARTS.items():
        result = results.kept(part, root / "bench" / "results")
        if result is not None:
            sections.append(section(title, result))
            for table in filter(lambda table: table.plotted, result.tables):
                (images / image(part, table)).write_text(charts.bars(table.title, table.unit, table.rows))
    (root / PAGE).write_text("\n".join(sections))


def section(title: str, result: Result) -> str:
    """Write one part."""
    lines = [
        f"## {title}",
        "",
        f"{result.date}, `make bench PART={result.part}`. {result.machine}. {result.versions}".strip(),
    ]
    if result.busy:
        lines += ["", quietness(result)]
    for table in result.tables:
        lines += ["", f"### {table.title}", *(["", table.note] if table.note else [])]
        lines += ["", f"| {table.unit} | median | min | max | n |", "| --- | ---: | ---: | ---: | ---: |"]
        for name, values in table.rows.items():
            shown = (statistics.median(values), min(values), max(values))
            lines.append(f"| {name} | {' | '.join(map(figure, shown))} | {len(values)} |")
        if table.plotted:
            lines += ["", f"![{table.title}](images/{image(result.part, table)})"]
    if result.judged:
        lines += ["", "### Aims", "", "| | found | aim |", "| --- | ---: | --- |"]
    lines += [f"| {one.name} | {figure(one.value)} | {one} |" for one in result.judged]
    if result.text:
        lines += ["", "```text", result.text.rstrip(), "```"]
    return "\n".join(lines) + "\n"


def quietness(result: Result) -> str:
    """Say what else the machine did."""
    median, most = statistics.median(result.busy), max(result.busy)
    said = (
        f"In the second before each round the processors were {median:.0%} busy (median; at most {most:.0%}); "
        f"the load average was {min(result.load):g} to {max(result.load):g}."
    )
    return said + (" **The machine had other work meanwhile.**" if median > BUSY else "")


def image(part: str, table: Table) -> str:
    """The name of a table's plot."""
    return f"bench-{part}-{re.sub('[^a-z0-9]+', '-', table.title.lower()).strip('-')}.svg"


if __name__ == "__main__":
    write()
