"""`make chaos SEEDS=1000`: kills launchers on a real engine, one life for each seed, and says which seeds fail.

`make chaos SEED=17` lives one seed, with all that happens. Each life leaves nothing behind, and so does this program.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from local.engine import engine
from tests.chaos.rig import chaos_rig
from tests.chaos.seeds import LIFE, live

WORKERS = 4


def main() -> int:
    """Live the seeds; the exit status is 1 when one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, help=f"how many; {LIFE} if none is named, else 1")
    parser.add_argument("--seed", type=int, help="the first one")
    asked = parser.parse_args()
    first, count = asked.seed or 0, asked.seeds or (LIFE if asked.seed is None else 1)
    begun = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="homeport-chaos-", ignore_cleanup_errors=True) as folder,
        engine(Path(folder) / "engine", os.environ) as running,
        chaos_rig(Path(folder), running) as rig,
    ):
        killed, failed = live(rig, range(first, first + count), WORKERS, print)
    for instruction, times in sorted(killed.items()):
        print(f"{times:6d} killed {instruction}")
    print(f"{count} seeds from {first} in {time.monotonic() - begun:.0f} s, {killed.total()} processes killed")
    print(f"Failed: {', '.join(map(str, failed))}" if failed else "None failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
