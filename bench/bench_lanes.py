"""Measure what another visitor notices of an attack: 200 launches of one bundle on an engine that holds functions.

`python -m bench.bench_lanes` runs the whole stack in a folder of its own, with as many functions as `make run` has (20
in all lanes), and launches and stops notebooks on its real engine, one after the other. Rows: without an attack, and
during each of these:

    pulls    the engine has no image, and its pulls never end, with a new status every second
    silence  the engine takes the connection and never answers
    creation the engine answers at once, but never says that the container is created
    notebook the engine says that all went well, and no notebook ever answers

For each: upload → ready, and Stop → no stored credentials: median, 99th percentile (of 20: the longest), maximum.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from chalicelib.aws.credentials import object_key
from chalicelib.notebook.container import NOTEBOOK_PORT
from local import demo, processes, run
from local.demo import HubClient
from local.processes import LOOPBACK
from local.run import Stack
from local.settings import ROOT, Settings
from tests.functional.hostile_engine import Answer, Connection, HostileEngine, Pki, chunk, http, of_json, refusal

ELSEWHERE: Final = "127.0.0.2"  # where the attackers come from, and their engine is
LAUNCHES: Final = 200
ROUNDS: Final = 20
PAUSE: Final = 0.05
CONTAINER: Final = "a1" * 32
HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


def endless_pull(connection: Connection) -> None:
    """Report a layer that grows a little every second."""
    connection.send(HEAD)
    size = 1 << 40
    for second in range(1 << 20):
        status = {"id": "0123456789ab", "status": "Downloading", "progressDetail": {"current": second, "total": size}}
        connection.send(chunk(json.dumps(status).encode() + b"\r\n"))
        if connection.engine.stopping.wait(1.0):
            return


class ByName(dict[str, Answer]):
    """Answers by path, in which NAME stands for every container's name."""

    def get(self, path: str, default: Any = None) -> Any:
        """The answer to a path."""
        return super().get(re.sub(r"homeport-[0-9a-z]+-[0-9]+", "NAME", path), default)


def running_at(port: int) -> dict[str, Answer]:
    """An engine on which every container runs, its notebook published at a port that never answers."""
    state = {"Status": "running", "Running": True, "ExitCode": 0}
    ports = {f"{NOTEBOOK_PORT}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}
    return {
        "GET /images/hostile:latest/json": of_json({"Config": {}}),
        "POST /containers/create": of_json({"Id": CONTAINER}, status=201),
        "POST /containers/NAME/start": http(status=204),
        "GET /containers/NAME/json": of_json({"Id": CONTAINER, "State": state, "NetworkSettings": {"Ports": ports}}),
    }


@contextmanager
def attack(stack: Stack, name: str, folder: Path) -> Iterator[HostileEngine]:
    """Launch LAUNCHES notebooks of one bundle on a hostile engine, for as long as the block lasts."""
    with socket.create_server((LOOPBACK, 0), backlog=1024) as silent:
        answers: dict[str, dict[str, Answer]] = {
            "pulls": {"POST /images/create": endless_pull},
            "silence": {"GET /version": Connection.wait},
            "creation": {
                "GET /images/hostile:latest/json": of_json({"Config": {}}),
                "POST /containers/create": Connection.wait,
            },
            "notebook": running_at(silent.getsockname()[1]),
        }
        pki = Pki.new(lambda ca: ca.issue("engine", sans=(ELSEWHERE,), server=True))
        with HostileEngine(pki, host=ELSEWHERE) as engine:
            missing = refusal(404, "no such image")
            engine.answers = ByName(engine.answers | {"GET /images/hostile:latest/json": missing} | answers[name])
            bundle = folder / f"{name}.zip"
            write_bundle(bundle, engine)

            def upload(number: int) -> tuple[HubClient, str]:
                hub = HubClient(stack.hub_address, source=ELSEWHERE)
                return hub, str(hub.launch(bundle, f"{name}-{number}", "hostile:latest")["id"])

            with ThreadPoolExecutor(8) as uploads:
                launched = list(uploads.map(upload, range(LAUNCHES)))
            yield engine
            for hub, sid in launched:
                hub.stop(sid)
                hub.close()
            wait_for_no_credentials(stack)


def wait_for_no_credentials(stack: Stack) -> None:
    """Wait until every session has left."""
    s3 = stack.cloud.client("s3")
    while s3.list_objects_v2(Bucket=stack.bucket, MaxKeys=1).get("Contents"):
        time.sleep(1)


def write_bundle(path: Path, engine: HostileEngine) -> None:
    """Write the hostile engine's bundle."""
    credentials = engine.credentials
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ca.pem", credentials.ca)
        archive.writestr("cert.pem", credentials.certificate)
        archive.writestr("key.pem", credentials.key)
        archive.writestr("docker.env", f"export DOCKER_HOST=tcp://{ELSEWHERE}:{engine.port}\n")


def launch_and_stop(stack: Stack) -> tuple[float, float]:
    """Launch a notebook on the real engine and stop it; gives the seconds to ready, and from Stop to no credentials."""
    hub, s3 = HubClient(stack.hub_address), stack.cloud.client("s3")
    try:
        begun = time.perf_counter()
        session = hub.launch(Path(stack.bundle), f"bench-{secrets.token_hex(3)}")
        demo.follow(hub, session["id"], "ready", pause=PAUSE)
        ready = time.perf_counter() - begun
        begun = time.perf_counter()
        hub.stop(session["id"])
        while s3.list_objects_v2(Bucket=stack.bucket, Prefix=object_key(session["id"], "")).get("Contents"):
            time.sleep(PAUSE)
        return ready, time.perf_counter() - begun
    finally:
        hub.close()


def row(name: str, seconds: list[float]) -> str:
    """One line of the table."""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    median = statistics.median(ordered)
    return f"{name:<44} median {median:6.2f} s   p99 {p99:6.2f}   max {ordered[-1]:6.2f}   n={len(seconds)}"


def measure(report: Callable[[str], None]) -> None:
    """Print every row."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HOMEPORT_")}
    with tempfile.TemporaryDirectory(prefix="homeport-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        kept = ROOT / ".homeport" / "image"
        if kept.exists():
            shutil.copytree(kept, folder / "state" / "image")
        hub, proxy, endpoint = (processes.free_port() for _ in range(3))
        settings = Settings(state=folder / "state", hub_port=hub, proxy_port=proxy, endpoint_port=endpoint)
        with run.stack(settings, environ, lambda _step: None) as running:
            stack = running.stack
            _report(report, "no attack", stack)
            for attacked in ("pulls", "silence", "creation", "notebook"):
                with attack(stack, attacked, folder) as engine:
                    _report(report, f"{LAUNCHES} × {attacked}", stack)
                    pulls = sum(path.startswith("/images/create") for path in engine.asked("POST"))
                    report(
                        f"{'':<44} the hostile engine was connected to {engine.connections} times, for {pulls} pulls"
                    )


def _report(report: Callable[[str], None], name: str, stack: Stack) -> None:
    launch_and_stop(stack)
    figures = [launch_and_stop(stack) for _ in range(ROUNDS)]
    report(row(f"{name}: upload → ready", [ready for ready, _ in figures]))
    report(row(f"{name}: Stop → no credentials", [gone for _, gone in figures]))


def main() -> int:
    """Print the table."""
    measure(lambda line: print(line, flush=True))
    return 0


if __name__ == "__main__":
    run.forget_foreign_environ()
    sys.exit(main())
