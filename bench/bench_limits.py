"""Measure what another visitor notices while somebody takes all the proxy's connections that they can get.

`python -m bench.bench_limits` runs a real HAProxy with the agent and answering notebooks, with the limits that it has
by default. Rows, each with requests of another visitor (another address and launch, a connection each) and with
requests for health: median, 99th percentile, maximum, and how many of all were answered with 200:

    nothing       nobody attacks
    silence       an address opens connections without sending anything, TIMES its limit
    websockets    a launch opens websockets, TIMES its limit
"""

from __future__ import annotations

import http.client
import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Final

from tests.integration.test_proxy_limits import silent
from tests.proxy_rig import Rig, open_session, rig

REQUESTS: Final = 500
TIMES: Final = 2
FILES: Final = 16_384
OTHER: Final = "127.0.0.9"


def request(door: Rig, host: str, cookie: str) -> int:
    """A request of another visitor; gives the status, 0 if there was no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", door.port, 20, source_address=(OTHER, 0))
    try:
        connection.request(
            "GET", "/api/status", headers={"Host": door.address(host), "Cookie": f"__Host-homeport={cookie}"}
        )
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def row(name: str, ask: Callable[[], int]) -> str:
    """One line of the table."""
    seconds, answered = [], 0
    for _ in range(REQUESTS):
        begun = time.perf_counter()
        answered += ask() == 200
        seconds.append(1000 * (time.perf_counter() - begun))
    ordered = sorted(seconds)
    median, p99 = statistics.median(ordered), ordered[int(0.99 * REQUESTS)]
    times = f"median {median:7.2f} ms   p99 {p99:7.2f}   max {ordered[-1]:7.2f}"
    return f"{name:<46} {times}   200: {answered} of {REQUESTS}"


def measure(report: Callable[[str], None]) -> None:
    """Print every row."""
    with rig() as door:
        victim, cookie = open_session(door)
        attacker, theirs = open_session(door)

        def rows(name: str) -> None:
            report(row(f"{name}: another visitor", lambda: request(door, victim, cookie)))
            report(row(f"{name}: health", lambda: door.proxy.health(timeout=5)))

        rows("nothing")
        settings = door.proxy.settings
        with ExitStack() as stack:
            for _ in range(TIMES * settings.source_maxconn):
                with suppress(OSError):
                    stack.enter_context(silent(door, source="127.0.0.1"))
            rows(f"{TIMES * settings.source_maxconn} silent connections")
        with ExitStack() as stack:
            opened = 0
            for _ in range(TIMES * settings.launch_maxconn):
                asked = door.websocket(attacker, cookie=theirs, origin=door.origin(attacker))
                status, _ = stack.enter_context(asked)
                opened += status == 101
            rows(f"{opened} websockets of one launch")


def main() -> int:
    """Print the table."""
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(files, min(FILES, most)), most))
    measure(lambda line: print(line, flush=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
