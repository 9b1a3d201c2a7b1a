"""`make bench`: every benchmark, one after the other, or those that PART names; then docs/benchmarks.md."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Final, TextIO

from bench import (
    bench_agent,
    bench_at_once,
    bench_bundles,
    bench_cold,
    bench_hostile_cost,
    bench_hostile_engines,
    bench_lanes,
    bench_launch,
    bench_limits,
    bench_proxy,
    bench_store,
    bench_traffic,
    page,
)
from bench.results import Result
from local import run
from local.processes import StackError

COMPARED: Final[Mapping[str, Callable[[Result], None]]] = {
    "proxy": bench_proxy.measure,
    "cold": bench_cold.measure,
    "traffic": bench_traffic.measure,
    "launch": bench_launch.measure,
    "at_once": bench_at_once.measure,
    "at_once_plain": bench_at_once.measure_plain,
}
PRINTED: Final[Mapping[str, Callable[[], int]]] = {
    "bundles": bench_bundles.main,
    "agent": bench_agent.main,
    "limits": bench_limits.main,
    "store": bench_store.main,
    "hostile_cost": bench_hostile_cost.main,
    "hostile_engines": bench_hostile_engines.main,
    "lanes": bench_lanes.main,
}


class Tee(io.StringIO):
    """Keeps what is printed, and prints it."""

    def __init__(self, output: TextIO) -> None:
        super().__init__()
        self._output = output

    def write(self, text: str) -> int:
        """Keep and print."""
        self._output.write(text)
        self._output.flush()
        return super().write(text)


def measure(part: str) -> int:
    """Measure a part and keep its result; gives its exit status."""
    print(f"\n── {page.PARTS[part]}", flush=True)
    result, status = Result.begun(part), 0
    if part in COMPARED:
        COMPARED[part](result)
    else:
        result.await_quiet()
        with redirect_stdout(Tee(sys.stdout)) as printed:
            status = PRINTED[part]()
        result.text = printed.getvalue()
    result.keep()
    return status


def main(parts: Sequence[str]) -> int:
    """Measure these parts, or all; gives the first exit status that is not 0."""
    unknown = sorted(set(parts) - page.PARTS.keys())
    if unknown:
        print(f"No part is called {', '.join(unknown)}; there are {', '.join(page.PARTS)}", file=sys.stderr)
        return 2
    run.forget_foreign_environ()
    run.stop_on_signal()
    try:
        statuses = [measure(part) for part in parts or (*PRINTED, *COMPARED)]
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except StackError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    page.write()
    return next(filter(None, statuses), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
