"""Count what hostile visitors cost the operator, in dollars.

`python -m bench.bench_hostile_cost` has engines misbehave in many ways; costs.py says what is counted and how.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Final

from bench.costs import HOUR, PRICES_OF, Visit
from chalicelib.aws.slots import Pool
from chalicelib.engine.errors import ConnectionRefused, EndpointTimeout
from chalicelib.launcher.effects import ANSWER_SECONDS
from chalicelib.session.events import VerifyEndpoint
from chalicelib.session.lanes import Lane
from chalicelib.session.values import Session, State
from tests.builders import NOW
from tests.functional.hub_rig import hub_rig
from tests.pull_rig import EndlessEngine


def _ended(session: Session) -> bool:
    return session.state is State.STOPPED


def a_page(visit: Visit) -> None:
    visit.request(lambda: visit.hub.ask("GET", "/", html=True))


def a_look(visit: Visit) -> None:
    sid = "0" * 20
    visit.request(lambda: visit.hub.ask("GET", f"/sessions/{sid}", token="a" * 43))


def a_refused_upload(visit: Visit) -> None:
    visit.request(lambda: visit.hub.upload(b"no bundle"))


def a_closed_port(visit: Visit) -> None:
    visit.engine.refuses = ConnectionRefused("Nothing listens there")
    visit.drive(visit.launch(), _ended)


def a_silent_endpoint(visit: Visit) -> None:
    def wait(call: str) -> None:
        visit.clock.now += ANSWER_SECONDS[VerifyEndpoint]
        raise EndpointTimeout("The endpoint does not answer")

    visit.engine.during = wait
    visit.drive(visit.launch(), _ended)


def a_queued_launch(visit: Visit) -> None:
    sid = visit.launch()
    for pool in (Pool.SLOW, Pool.LAUNCH_TURN):
        visit.others(pool, sid, visit.hub.parts.config.turn_quota(Lane.LAUNCH))
    visit.drive(sid, _ended)


def a_silent_notebook(visit: Visit) -> None:
    sid = visit.launch()
    visit.engine.images.add(visit.session(sid).image)
    visit.drive(sid, _ended)


def an_hour_of_pulling(visit: Visit) -> None:
    endless = EndlessEngine(visit.clock, lambda second: False)
    endless.ends_at = NOW + HOUR
    visit.engine = endless
    visit.drive(visit.launch(), lambda session: visit.clock.now >= NOW + HOUR)


def an_hour_of_waiting_to_pull(visit: Visit) -> None:
    sid = visit.launch()
    visit.others(Pool.PULL, sid, visit.hub.parts.config.pull_quota)
    visit.drive(sid, lambda session: visit.clock.now >= NOW + HOUR)


KINDS: Final[Mapping[str, Callable[[Visit], None]]] = {
    "the first page": a_page,
    "a look at a session that is not theirs": a_look,
    "an upload that is refused": a_refused_upload,
    "a launch on a port where nothing listens, to its end": a_closed_port,
    "a launch on an endpoint that never answers, to its end": a_silent_endpoint,
    "a launch that waits behind others of those, to its end": a_queued_launch,
    "a launch whose notebook never answers, to its end": a_silent_notebook,
    "an hour of a pull that never ends": an_hour_of_pulling,
    "an hour of waiting for a turn to pull": an_hour_of_waiting_to_pull,
}


def measure(report: Callable[[str], None]) -> None:
    """Print every row."""
    report(f"List prices of us-east-1, {PRICES_OF}")
    report(f"{'1,000 times':<58} {'dollars':>9}   function s  writes   reads    KMS    SQS")
    for name, act in KINDS.items():
        with hub_rig() as hub:
            visit = Visit(hub)
            with visit.counted():
                act(visit)
            used = visit.usage
            writes = used.counted["write unit"] + sum(used.writes.spent.values())
            report(
                f"{name:<58} {1000 * used.dollars:9.4f}   {used.seconds:10.1f}  {writes:6d}  "
                f"{used.counted['read unit']:6g} {used.counted['KMS request']:6d} {used.counted['SQS request']:6d}"
            )


def main() -> int:
    """Print the table."""
    measure(lambda line: print(line, flush=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
