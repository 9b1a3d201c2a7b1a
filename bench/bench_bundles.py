"""Measure what refusing costs: processor time and memory of every bad bundle of the corpus.

`python -m bench.bench_bundles` parses each in a child of its own and prints the largest figures. Processor time is that
of one parse; memory is by how much the child's largest resident set grew over it, libraries in C included.
"""

from __future__ import annotations

import os
import pickle
import resource
import sys
import time

from chalicelib.bundle.errors import BadBundle, BadEndpoint
from chalicelib.bundle.parse import parse
from tests.bundles import Pki, carina
from tests.unit.corpus import HOST, NOW, corpus

CPU_LIMIT = 0.100  # seconds, promised
MEMORY_LIMIT = 32 * 1024  # KiB, promised


def measure(body: bytes, host: str | None) -> tuple[float, int]:
    """Parse once; give the seconds of processor time and the KiB by which the largest resident set grew."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    try:
        parse(body, host=host, now=NOW)
    except (BadBundle, BadEndpoint) as refusal:
        del refusal
    spent = time.process_time() - begin
    return spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def in_a_child(body: bytes, host: str | None) -> tuple[float, int]:
    """Measure in a fork, so that one bundle's peak does not hide the next one's."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, pickle.dumps(measure(body, host)))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        figures: tuple[float, int] = pickle.load(stream)
    os.waitpid(child, 0)
    return figures


def main() -> int:
    """Print the table; the exit status says whether the promises hold."""
    bad = corpus()
    figures = {name: in_a_child(entry.build(), entry.host) for name, entry in bad.items()}
    for kind in ("p256", "rsa2048", "rsa4096"):
        figures[f"(good: Carina, {kind})"] = in_a_child(carina(Pki.new(key=kind)), None)
    by_time = sorted(figures, key=lambda name: -figures[name][0])
    by_memory = sorted(figures, key=lambda name: -figures[name][1])
    print(f"{len(bad)} bad bundles and three good ones (host field {HOST})")
    for name in by_time[:5]:
        print(f"  {figures[name][0] * 1000:8.2f} ms   {name}")
    for name in by_memory[:5]:
        print(f"  {figures[name][1] / 1024:8.2f} MiB  {name}")
    held = all(cpu < CPU_LIMIT and memory < MEMORY_LIMIT for cpu, memory in figures.values())
    print("under 100 ms and 32 MiB each" if held else "OVER the limits of 100 ms or 32 MiB")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
