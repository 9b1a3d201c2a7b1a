"""What a benchmark found: kept in bench/results, one file for each part, and printed as it comes.

The machine may have other work. So a measured round waits for a quiet moment, for QUIET_PATIENCE at most, and the
result says what the processors were doing just before each.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.charts import figure
from local.settings import ROOT

FOLDER: Final = ROOT / "bench" / "results"
QUIET: Final = 0.15  # of all processor time, in a second
QUIET_PATIENCE: Final = 10.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of one unit, each with all that was measured; `plotted` draws them too."""

    title: str
    unit: str
    rows: Mapping[str, Sequence[float]]
    note: str = ""
    plotted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A figure and what it should be; `at_most` says on which side."""

    name: str
    value: float
    aim: float | None
    at_most: bool

    def __str__(self) -> str:
        """The aim, and that it is not reached if so."""
        if self.aim is None:
            return ""
        reached = self.value <= self.aim if self.at_most else self.value >= self.aim
        return f"{'≤' if self.at_most else '≥'} {self.aim:g}{'' if reached else ', not reached'}"


@dataclass(kw_only=True)
class Result:
    """One part's result; `busy` are shares of all processor time, `load` the load averages of one minute."""

    part: str
    date: str
    machine: str
    versions: str = ""
    busy: list[float] = field(default_factory=list)
    load: list[float] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    text: str = ""

    @classmethod
    def begun(cls, part: str) -> Result:
        """A result that has nothing yet."""
        return cls(part=part, date=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), machine=machine())

    def await_quiet(self) -> None:
        """Wait until little else runs, for QUIET_PATIENCE at most, and note what does."""
        until = time.monotonic() + QUIET_PATIENCE
        while (busy := busy_share(1.0)) > QUIET and time.monotonic() < until:
            pass
        self.busy.append(round(busy, 3))
        self.load.append(round(os.getloadavg()[0], 2))

    def add(self, table: Table) -> None:
        """Add a table, and print it."""
        self.tables.append(table)
        print(f"{table.title} ({table.unit})")
        for name, values in table.rows.items():
            print(f"  {name:<44} {spread(values)}", flush=True)

    def compare(
        self,
        name: str,
        values: Sequence[float],
        others: Sequence[float],
        *,
        aim: float | None = None,
        at_most: bool = True,
    ) -> None:
        """Add the ratio of two rows' medians, and print it."""
        self.judge(name, statistics.median(values) / statistics.median(others), aim=aim, at_most=at_most)

    def judge(self, name: str, value: float, *, aim: float | None = None, at_most: bool = True) -> None:
        """Add a figure that has an aim, and print it."""
        judged = Judged(name=name, value=round(value, 3), aim=aim, at_most=at_most)
        self.judged.append(judged)
        print(f"  {name:<44} {figure(value):>9}   {judged}", flush=True)

    def keep(self, folder: Path = FOLDER) -> None:
        """Write it where `kept` finds it."""
        folder.mkdir(exist_ok=True)
        (folder / f"{self.part}.json").write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")


def kept(part: str, folder: Path = FOLDER) -> Result | None:
    """Read the last result of a part, if there is one."""
    file = folder / f"{part}.json"
    if not file.exists():
        return None
    read: dict[str, Any] = json.loads(file.read_text())
    tables = [Table(**table) for table in read.pop("tables")]
    judged = [Judged(**one) for one in read.pop("judged")]
    return Result(**read, tables=tables, judged=judged)


def spread(values: Sequence[float]) -> str:
    """Write a row's figures: the median, and the least and greatest if there are several."""
    if len(values) == 1:
        return f"{figure(values[0]):>9}"
    ends = f"min {figure(min(values))}, max {figure(max(values))}, n={len(values)}"
    return f"{figure(statistics.median(values)):>9}   ({ends})"


def busy_share(seconds: float) -> float:
    """Measure what share of all processor time was not idle."""
    before = processor_times(Path("/proc/stat").read_text())
    time.sleep(seconds)
    after = processor_times(Path("/proc/stat").read_text())
    return share(before, after)


def processor_times(stat: str) -> tuple[int, int]:
    """Read busy and all ticks of all processors together (proc_stat(5), the first line)."""
    ticks = [int(word) for word in stat.splitlines()[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)  # but idle and iowait


def share(before: tuple[int, int], after: tuple[int, int]) -> float:
    """What share of the ticks between two looks was busy."""
    whole = after[1] - before[1]
    return (after[0] - before[0]) / whole if whole else 0.0


def machine() -> str:
    """Say what runs this: processors, memory, systems."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = models[0].partition(": ")[2] if models else platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return f"{os.cpu_count()} CPUs ({model}), {memory:.0f} GiB, {system}, Linux {platform.release()}"
