"""Measure many launches at once, beside as many `docker run` and as many of JupyterHub.

`make bench PART=at_once` (and `PART=at_once_plain` without the quick start, docs/adr/0014) uses what bench_launch.py
uses: the same image, engine and question. So many are started at the same moment, and all stay until the last one
answers. Each looks PAUSE after its last look, as a page does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bench.bench_launch import Start, bench, in_turn
from bench.results import Result, Table

COUNTS: Final = (20, 50)
ROUNDS: Final = 3
PAUSE: Final = 1.0  # seconds


def together(result: Result, title: str, starts: Mapping[str, Start], count: int) -> dict[str, list[float]]:
    """Add two tables of `count` launches at once: how long the last one waits, and each; gives the former's rows."""
    measured = in_turn(result, starts, rounds=ROUNDS, count=count, pause=PAUSE)
    last = {name: [seconds[-1] for seconds in rounds] for name, rounds in measured.items()}
    every = {name: [one for seconds in rounds for one in seconds] for name, rounds in measured.items()}
    result.add(Table(title=f"{title}: until the last one answers", unit="seconds", rows=last))
    result.add(Table(title=f"{title}: each one's wait", unit="seconds", rows=every, plotted=False))
    return last


def measure(result: Result) -> None:
    """Measure Homeport and both peers."""
    with bench(result) as ready, ready.three(users=max(COUNTS)) as (_, starts):
        in_turn(result, starts, rounds=1)  # the first of each is not like the others
        for count in COUNTS:
            rows = together(result, f"{count} launches at once", starts, count)
            for other in ("docker run", "JupyterHub"):
                name = f"{count} at once: Homeport / {other}"
                result.compare(name, rows["Homeport"], rows[other], aim=1.0)


def measure_plain(result: Result) -> None:
    """Measure Homeport without the quick start beside `docker run`."""
    with bench(result) as ready, ready.two() as starts:
        in_turn(result, starts, rounds=1)
        count = COUNTS[0]
        ours, theirs = together(result, f"{count} launches at once without the quick start", starts, count).values()
        result.compare(f"{count} at once: Homeport without quick start / docker run", ours, theirs)
