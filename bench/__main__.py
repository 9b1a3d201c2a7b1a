"""`make bench`: every benchmark, one after the other."""

from __future__ import annotations

import sys

from bench import (
    bench_agent,
    bench_bundles,
    bench_hostile_cost,
    bench_hostile_engines,
    bench_lanes,
    bench_launch,
    bench_limits,
    bench_store,
)

if __name__ == "__main__":
    print("── refusing bad bundles")
    status = bench_bundles.main()
    print("\n── a full reading of the proxy's table")
    status = bench_agent.main() or status
    print("\n── the proxy's limits")
    status = bench_limits.main() or status
    print("\n── sessions, stored and read")
    status = bench_store.main() or status
    print("\n── what hostile visitors cost")
    status = bench_hostile_cost.main() or status
    print("\n── how long hostile engines hold the launcher")
    status = bench_hostile_engines.main() or status
    print("\n── launching")
    status = bench_launch.main() or status
    print("\n── launching while others attack")
    sys.exit(bench_lanes.main() or status)
