"""Measure how long, and with how much memory, a hostile engine or notebook holds the launcher.

`python -m bench.bench_hostile_engines` runs every case of tests/hostile_cases.py with the deadlines that the launcher
really has, WORKERS of them at a time. The servers are in one process and the launcher in a fork of its own, which
gives how much later than its deadline the effect ended (less than zero: before it), by how much its largest resident
set grew, libraries in C included, and whether it contacted anybody else.
"""

from __future__ import annotations

import os
import pickle
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from tests.builders import NOW
from tests.functional.hostile_engine import LOOPBACK, Pki
from tests.hostile_cases import CASES
from tests.hostile_rig import HostileRig, a_lasting_trust, contacts, serving
from tests.launcher_twins import Clock

SECONDS_LIMIT = 1.0  # beyond the deadline, promised
MEMORY_LIMIT = 32 * 1024  # KiB, promised
WORKERS = 4  # most cases wait


@dataclass(frozen=True, slots=True)
class Figures:
    """What one case took: seconds in all and beyond its deadline, KiB, the code shown, and who else was contacted."""

    seconds: float
    over: float
    memory: int
    code: str
    others: tuple[Any, ...]


class RealClock(Clock):
    """The hub's clock, which begins at NOW and goes on by itself."""

    def __init__(self) -> None:
        super().__init__(NOW)
        self._begun = time.monotonic()

    def __call__(self) -> float:
        return self.now + time.monotonic() - self._begun

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def measure(name: str, pki: Pki) -> Figures:
    """Run a case: the launcher in a fork that was made before the servers have threads."""
    case = CASES[name]
    with _forked(lambda ask: _launcher(name, *ask)) as (asks, answers):
        with serving(case, pki) as (engine, notebook):
            pickle.dump((engine.credentials, notebook.port, {engine.port, notebook.port}), asks)
            asks.close()
            figures: Figures = pickle.load(answers)
        return figures


def _launcher(name: str, credentials: Any, port: int, ports: set[int]) -> Figures:
    rig = HostileRig(CASES[name], credentials, port, clock=RealClock(), hurried=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.monotonic()
    with contacts() as contacted:
        outcome = rig.run()
    ended = time.monotonic()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    others = set(contacted) - {(LOOPBACK,), *((LOOPBACK, port) for port in ports)}
    limit = max(rig.limits, default=ended)
    return Figures(ended - begun, ended - limit, memory, outcome.shown.code if outcome.shown else "", tuple(others))


@contextmanager
def _forked(act: Callable[[Any], Any]) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """A fork that is asked one thing, by pickle, and gives one answer."""
    (reads_ask, asks), (reads_answer, answers) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(asks)
        with os.fdopen(reads_ask, "rb") as stream, os.fdopen(answers, "wb") as out:
            pickle.dump(act(pickle.load(stream)), out)
        os._exit(0)
    os.close(reads_ask)
    os.close(answers)
    with os.fdopen(asks, "wb") as stream, os.fdopen(reads_answer, "rb") as results:
        yield stream, results
    os.waitpid(child, 0)


def _work(names: list[str]) -> dict[str, Figures]:
    pki = Pki.new()
    a_lasting_trust()  # made once, not by each fork
    return {name: measure(name, pki) for name in names}


def main() -> int:
    """Print the table; the exit status says whether the promises hold."""
    names = list(CASES)
    figures = _all(names, WORKERS)
    print(f"{len(figures)} cases; those that held the launcher for longest, and those that took the most memory")
    print(f"{'case':<70} {'seconds':>8} {'over':>7} {'MiB':>6}  code")
    longest = sorted(names, key=lambda name: -figures[name].over)[:12]
    largest = sorted(names, key=lambda name: -figures[name].memory)[:8]
    for name in dict.fromkeys([*longest, *largest]):
        found = figures[name]
        print(f"{name:<70.70} {found.seconds:8.2f} {found.over:7.2f} {found.memory / 1024:6.1f}  {found.code or '-'}")
    wrong = [name for name in names if figures[name].code != CASES[name].code or figures[name].others]
    for name in wrong:
        print(f"NOT AS PROMISED: {name}: {figures[name].code or '-'} {figures[name].others}")
    held = all(found.over < SECONDS_LIMIT and found.memory < MEMORY_LIMIT for found in figures.values())
    print("all within a second of their deadline and 32 MiB" if held else "OVER the limits of a second or 32 MiB")
    return 0 if held and not wrong else 1


def _all(names: list[str], workers: int) -> dict[str, Figures]:
    """Have the cases measured by so many processes; each takes those of its turn."""
    figures: dict[str, Figures] = {}
    with _forked(_work) as (asks, answers):
        pickle.dump(names[workers - 1 :: workers], asks)
        asks.close()
        if workers > 1:
            figures |= _all([name for index, name in enumerate(names) if index % workers != workers - 1], workers - 1)
        figures |= pickle.load(answers)
    return figures


if __name__ == "__main__":
    sys.exit(main())
