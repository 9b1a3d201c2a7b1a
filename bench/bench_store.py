"""Measure what sessions cost to store, and how fast they are read.

`python -m bench.bench_store` prints three tables:

    sizes      bytes of a session's item in each state of a usual life
    writes     write units of a launch with its stop (one that finds its image, one that pulls it), from upload to
               deletion; and of an hour of pulling: a usual pull, and one whose engine says something new every other
               second, with what 72 hours of it cost at PRICE. By table and index, counted where the clients make their
               calls (tests/write_units.py)
    requests   requests a second of one hub under Chalice's local server on the embedded AWS: a session, its events, and
               the list of owners with 10, 100 and 1,000 past sessions; and the milliseconds of processor time that hub
               and AWS take for one, which tell more where others use the machine
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import boto3
from moto import mock_aws

from bench import load
from bench.costs import Visit
from chalicelib.aws.session_items import item_of
from chalicelib.aws.sessions import SessionStore
from chalicelib.notebook.certificates import HubTrust
from chalicelib.session.values import Session, State, Target, session_id
from local import aws, hub, processes
from local.demo import HubClient
from tests.bundles import Pki, carina
from tests.functional.hub_rig import hub_rig
from tests.pull_rig import PullRig
from tests.table import create_table
from tests.unit.test_session_items import a_life
from tests.write_units import WriteUnits, size_of, write_units

PRICE: Final = 0.625 / 1e6  # dollars per write unit, on demand, us-east-1
HOUR: Final = 3600.0
PAST: Final = (10, 100, 1000)
CONNECTIONS: Final = 4
SECONDS: Final = 3  # of each row of requests
ROUNDS: Final = 3


def sizes(report: Callable[[str], None]) -> None:
    """Print the size of a session's item in each state."""
    for case, session, now in a_life():
        report(f"{case:<34} {size_of(item_of(session, now)):6d} bytes")


@contextmanager
def table() -> Iterator[Any]:
    """A client of a table of its own, in this process."""
    with mock_aws():
        client = boto3.client("dynamodb", "eu-west-1", aws_access_key_id="bench", aws_secret_access_key="bench")
        create_table(client)
        yield client


def writes(report: Callable[[str], None]) -> None:
    """Print the write units of launches, and of an hour of pulling."""
    for name, pulls in (("a launch and its stop", False), ("a launch that pulls, and its stop", True)):
        with hub_rig() as rig:
            visit = Visit(rig)
            visit.probe = _answers
            with visit.counted():
                _launch_and_stop(visit, pulls)
            report(_spent(name, visit.usage.writes))
    for name, fails in (
        ("an hour of pulling", lambda second: False),
        ("an hour of ever new failures", lambda second: second % 2 == 0),
    ):
        with table() as dynamodb, write_units(dynamodb) as units:
            PullRig(dynamodb, fails).pull_for(HOUR)
            report(f"{_spent(name, units)}   72 hours: ${72 * units.spent.total() * PRICE:.2f}")


def _launch_and_stop(visit: Visit, pulls: bool) -> None:
    sid = visit.launch()
    if not pulls:
        visit.engine.images.add(visit.session(sid).image)
    visit.drive(sid, lambda session: session.state is State.READY)
    visit.hub.hub.stop(visit.session(sid))
    visit.drive(sid, lambda session: session.state is State.STOPPED)


def _answers(target: Target, host: str, trust: HubTrust, *, deadline: float) -> None:
    """A notebook that is there."""


def _spent(name: str, units: WriteUnits) -> str:
    where = ", ".join(f"{index or 'table'} {spent}" for index, spent in sorted(units.spent.items()))
    largest = max(itertools.chain(*units.sizes.values()))
    return f"{name:<34} {units.spent.total():6d} units   ({where}; largest item {largest} bytes)"


def requests(report: Callable[[str], None]) -> None:
    """Print how many requests a second a hub answers."""
    with tempfile.TemporaryDirectory(prefix="homeport-bench-", ignore_cleanup_errors=True) as folder:
        port = processes.free_port()
        with aws.aws(Path(folder)) as cloud:
            environ = aws.own_environ(os.environ) | dict(cloud.environ)
            store = SessionStore(cloud.client("dynamodb"), cloud.environ["HOMEPORT_TABLE"], time.time)
            with hub.hub(Path(folder), port=port, environ=environ) as web:
                parts = [child.pid for child in (web, cloud.child) if child]
                for past in PAST:
                    sid, token = launched(Path(folder), port)
                    with_past(store, store.load(sid), past)
                    paths = {f"list with {past} past sessions": "/sessions"}
                    if past == PAST[0]:
                        paths |= {"session": f"/sessions/{sid}", "session and events": f"/sessions/{sid}/events"}
                    for name, path in sorted(paths.items(), reverse=True):
                        before, begun = list(map(processor_seconds, parts)), time.perf_counter()
                        figures = [per_second(port, path, token) for _ in range(ROUNDS)]
                        count = statistics.mean(figures) * (time.perf_counter() - begun)
                        spent = [processor_seconds(pid) - was for pid, was in zip(parts, before, strict=True)]
                        spread = f"min {min(figures):.0f}, max {max(figures):.0f}, n={ROUNDS}"
                        took = " + ".join(f"{1000 * seconds / count:.1f}" for seconds in spent)
                        report(f"{name:<34} {statistics.median(figures):6.0f} requests/s   ({spread}; {took} ms)")


def processor_seconds(pid: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def launched(folder: Path, port: int) -> tuple[str, str]:
    """Launch a notebook of a new owner; gives the session's id and the owner's token."""
    bundle = folder / "bundle.zip"
    bundle.write_bytes(carina(Pki.new(), "tcp://docker.example.org:2376"))
    client = HubClient(f"http://127.0.0.1:{port}")
    try:
        session = client.launch(bundle, "present")
        return session["id"], session["owner_token"]
    finally:
        client.close()


def with_past(store: SessionStore, present: Session, count: int) -> None:
    """Store `count` stopped sessions of the same owner, older than this one."""
    stopped = replace(present, state=State.STOPPED, next_attempt_at=None, credentials_held=False, version=1)
    for number in range(count):
        name = f"past {number}"
        sid = session_id(present.owner, name)
        store.save(replace(stopped, sid=sid, name=name, created_at=present.created_at - 1 - number))


def per_second(port: int, path: str, token: str) -> float:
    """The requests a second to a path of the hub's, from CONNECTIONS connections."""
    headers = {"Accept": "application/json", "Authorization": f"Bearer {token}"}
    return load.per_second(f"http://127.0.0.1:{port}{path}", headers, connections=CONNECTIONS, seconds=SECONDS)


def main() -> int:
    """Print the tables."""
    for measure in (sizes, writes, requests):
        measure(lambda line: print(line, flush=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
