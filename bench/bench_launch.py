"""Measure a launch until the first 200 from the notebook, beside `docker run` and JupyterHub with DockerSpawner.

`make bench PART=launch` starts everything in folders of its own and on free ports: an engine, the whole of Homeport,
JupyterHub. All start the same image on the same engine, in turn, and each is asked for /api/status until that answers:

    Homeport    from the upload of a bundle, through the proxy, with a visitor's grant
    docker run  the container as somebody would start it by hand, asked directly; by the engine's API, without the
                start of the command itself
    JupyterHub  from the request to start a user's server, through configurable-http-proxy, with a token

Homeport also without JupyterLab's quick start (HOMEPORT_QUICK_START=off), for its first launch after the hub's start,
and with an image that the engine pulls from a registry on 127.0.0.1. bench_at_once.py measures many at once.
"""

from __future__ import annotations

import http.client
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Final, TypeVar

import docker

from bench import peers
from bench.results import Result, Table
from local import demo, image, private, processes, run
from local.demo import HubClient
from local.engine import Engine, own_engine
from local.run import Stack
from local.settings import Settings

ROUNDS: Final = 15
PAUSE: Final = 0.02  # seconds between two looks: the figure is to be the launch's own
REGISTRY_CONFIG: Final = """version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""

T = TypeVar("T")
# Starts the notebook of that number and waits for its first 200, looking after each pause; gives what removes it.
Start = Callable[[int, float], Callable[[], None]]


# ── what is started ──────────────────────────────────────────────────────────────────────────────────────────────


def homeport(stack: Stack, image_name: str | None = None) -> Start:
    """Launches on Homeport, each with a name of its own."""

    def start(number: int, pause: float) -> Callable[[], None]:
        hub = HubClient(stack.hub_address)
        sid = hub.launch(Path(stack.bundle), f"bench-{number}-{secrets.token_hex(3)}", image_name)["id"]
        demo.follow(hub, sid, "ready", pause=pause)
        notebook = demo.enter(stack.hub_url, hub.enter(sid), stack.proxy_port)
        status, _, _ = notebook.request("GET", "/api/status")
        assert status == 200, status

        def stop() -> None:
            hub.stop(sid)
            demo.follow(hub, sid, "stopped", pause=max(pause, 0.1))
            hub.close()

        return stop

    return start


def docker_run(engine: docker.DockerClient, image_name: str) -> Start:
    """`docker run` of the image."""
    command = ["jupyter", "lab", "--no-browser", "--ip=0.0.0.0", "--ServerApp.token=", "--ServerApp.password="]

    def start(_number: int, pause: float) -> Callable[[], None]:
        until = time.monotonic() + peers.PATIENCE
        ports = {"8888/tcp": ("127.0.0.1", 0)}  # any free one
        container = engine.containers.run(image_name, command, detach=True, ports=ports)
        container.reload()
        port = int(container.attrs["NetworkSettings"]["Ports"]["8888/tcp"][0]["HostPort"])
        while not _answers(port):
            assert time.monotonic() < until, container.logs(tail=20)
            time.sleep(pause)
        return lambda: container.remove(force=True, v=True)

    return start


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/api/status")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


# ── what is measured ─────────────────────────────────────────────────────────────────────────────────────────────


def at_once(acts: Sequence[Callable[[], T]]) -> list[T]:
    """Do all at the same moment; gives what each gave, or raises the first error.

    In threads that nobody waits for after an error or Ctrl-C: they end when what they ask is stopped.
    """
    done: SimpleQueue[tuple[int, T | Exception]] = SimpleQueue()

    def do(number: int) -> None:
        try:
            done.put((number, acts[number]()))
        except Exception as error:  # noqa: BLE001 - raised below
            done.put((number, error))

    for number in range(len(acts)):
        Thread(target=do, args=(number,), daemon=True).start()
    given: dict[int, T] = {}
    while len(given) < len(acts):
        number, one = done.get()
        if isinstance(one, Exception):
            raise one
        given[number] = one
    return [given[number] for number in range(len(acts))]


def timed(start: Start, count: int, pause: float) -> list[float]:
    """Start so many at the same moment; gives the seconds from then until each answers. All are removed."""
    begun = time.perf_counter()

    def one(number: int) -> tuple[float, Callable[[], None]]:
        stop = start(number, pause)
        return time.perf_counter() - begun, stop

    started = at_once([partial(one, number) for number in range(count)])
    at_once([stop for _, stop in started])
    return sorted(seconds for seconds, _ in started)


def in_turn(
    result: Result, starts: Mapping[str, Start], *, rounds: int, count: int = 1, pause: float = PAUSE
) -> dict[str, list[list[float]]]:
    """Measure each in turn, so many rounds; gives what `timed` gave in each round."""
    measured: dict[str, list[list[float]]] = {name: [] for name in starts}
    for _ in range(rounds):
        for name, start in starts.items():
            result.await_quiet()
            measured[name].append(timed(start, count, pause))
    return measured


def singly(result: Result, title: str, starts: Mapping[str, Start]) -> dict[str, list[float]]:
    """Add the table of single launches, the first of each left out; gives its rows."""
    for start in starts.values():
        timed(start, 1, PAUSE)
    rows = {name: [one for [one] in rounds] for name, rounds in in_turn(result, starts, rounds=ROUNDS).items()}
    result.add(Table(title=title, unit="seconds", rows=rows))
    return rows


def cold(stack: Stack, engine: docker.DockerClient, name: str, pulled: str) -> list[float]:
    """Measure a launch of an image that the engine has to pull from a registry, all layers of it."""
    engine.images.get(name).tag(pulled)
    engine.images.push(pulled)
    for tag in (pulled, name, image.LOCAL_IMAGE):  # those that share its layers
        with suppress(docker.errors.ImageNotFound):
            engine.images.remove(tag, force=True)
    seconds = timed(homeport(stack, pulled), 1, PAUSE)
    engine.images.get(pulled).tag(name)
    engine.images.remove(pulled)
    return seconds


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Run Debian's docker-registry on 127.0.0.1 for as long as the block lasts; gives its address."""
    port = processes.free_port()
    private.make_folder(folder)
    config = folder / "config.yml"
    config.write_text(REGISTRY_CONFIG.format(folder=folder / "data", port=port))
    command = ["docker-registry", "serve", str(config)]
    with processes.running("registry", command, folder=folder, environ=dict(os.environ)) as child:
        processes.wait_for_port(port, child=child, deadline=30)
        yield f"127.0.0.1:{port}"


@contextmanager
def stack(folder: Path, environ: Mapping[str, str]) -> Iterator[Stack]:
    """Run the whole of Homeport on free ports for as long as the block lasts."""
    hub, proxy, endpoint = (processes.free_port() for _ in range(3))
    settings = Settings(state=folder, hub_port=hub, proxy_port=proxy, endpoint_port=endpoint)
    with run.stack(settings, environ, lambda _step: None) as running:
        yield running.stack


@contextmanager
def clean(engine: docker.DockerClient) -> Iterator[None]:
    """Remove all containers and volumes, before and after; the engine is the benchmarks' alone."""

    def remove() -> None:
        for container in engine.containers.list(all=True, ignore_removed=True):
            container.remove(force=True, v=True)
        for volume in engine.volumes.list():
            volume.remove(force=True)

    remove()
    try:
        yield
    finally:
        remove()


@dataclass(frozen=True, slots=True)
class Bench:
    """What launches are measured with: the benchmarks' own engine, and the image that all start."""

    folder: Path
    started: Engine
    engine: docker.DockerClient
    image: str

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a Homeport that uses this engine."""
        others = {name: value for name, value in os.environ.items() if not name.startswith("HOMEPORT_")}
        return others | {"DOCKER_HOST": self.started.url, "HOMEPORT_IMAGE": self.image}

    @contextmanager
    def three(self, users: int) -> Iterator[tuple[Stack, dict[str, Start]]]:
        """Run Homeport, and JupyterHub with so many users, for as long as the block lasts; each has launched once."""
        gateway = self.engine.networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"]
        hub = peers.jupyterhub(self.folder / "jupyterhub", self.started, gateway, self.image)
        with stack(self.folder / "stack", self.environ) as running, hub as jupyterhub:
            jupyterhub.add_users(users)
            starts = {"Homeport": homeport(running), "docker run": self.plain, "JupyterHub": jupyterhub.start}
            yield running, starts

    @contextmanager
    def two(self) -> Iterator[dict[str, Start]]:
        """Run Homeport without its quick start for as long as the block lasts."""
        with stack(self.folder / "plain", self.environ | {"HOMEPORT_QUICK_START": "off"}) as running:
            yield {"Homeport without quick start": homeport(running), "docker run": self.plain}

    @property
    def plain(self) -> Start:
        """`docker run`."""
        return docker_run(self.engine, self.image)


@contextmanager
def bench(result: Result) -> Iterator[Bench]:
    """Install the peers, and run the engine for as long as the block lasts."""
    peers.environment()
    peers.chp()
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="hpb-", ignore_cleanup_errors=True)))
        started = parts.enter_context(own_engine(peers.KEPT / "engine"))
        engine = docker.DockerClient(base_url=started.url, timeout=peers.PATIENCE)
        parts.callback(engine.close)
        parts.enter_context(clean(engine))
        result.versions = f"Docker {started.version}, Python {sys.version.split()[0]}, {peers.versions()}."
        yield Bench(folder, started, engine, peers.provide_image(engine, started))


def measure(result: Result) -> None:
    """Measure everything."""
    with bench(result) as ready:
        with ready.three(users=1) as (running, starts):
            first = timed(starts["Homeport"], 1, PAUSE)
            rows = singly(result, "One launch", starts)
            result.compare("Homeport / docker run", rows["Homeport"], rows["docker run"], aim=0.75)
            result.compare("Homeport / JupyterHub", rows["Homeport"], rows["JupyterHub"], aim=0.45)
            with registry(ready.folder / "registry") as address:
                size = ready.engine.images.get(ready.image).attrs["Size"] / 1e6
                pulled = cold(running, ready.engine, ready.image, f"{address}/notebook:cold")
            others = {"the first after the hub's start": first, f"one that pulls {size:,.0f} MB": pulled}
            result.add(Table(title="Other launches of Homeport", unit="seconds", rows=others, plotted=False))
        with ready.two() as starts:
            ours, theirs = singly(result, "One launch without the quick start", starts).values()
            result.compare("Homeport without quick start / docker run", ours, theirs)
