"""Measure a launch until the first 200 from the notebook, beside `docker run` and JupyterHub with DockerSpawner.

`make bench PART=launch` starts everything in folders of its own and on free ports: an engine, the whole of Homeport,
JupyterHub. All start the same image on the same engine, in turn, and each is asked for /api/status until that answers:

    Homeport    from the upload of a bundle, through the proxy, with a visitor's grant
    docker run  the container as somebody would start it by hand, asked directly; by the engine's API, without the
                start of the command itself
    JupyterHub  from the request to start a user's server, through configurable-http-proxy, with a token

One at a time, and so many at the same moment; there each look is PAGE_PAUSE after the last, as a page looks, and what
is measured is how long each visitor waits. Homeport also without JupyterLab's quick start (HOMEPORT_QUICK_START=off),
for its first launch after the hub's start, and with an image that the engine pulls from a registry on 127.0.0.1.
"""

from __future__ import annotations

import http.client
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import docker

from bench import peers
from bench.results import Result, Table
from local import demo, image, private, processes, run
from local.demo import HubClient
from local.engine import Engine, own_engine
from local.run import Stack
from local.settings import Settings

ROUNDS: Final = 15  # of single launches
AT_ONCE: Final = (20, 50)
AT_ONCE_ROUNDS: Final = 3
PAUSE: Final = 0.02  # seconds between two looks: the figure is to be the launch's own
PAGE_PAUSE: Final = 1.0
PATIENCE: Final = 300.0
REGISTRY_CONFIG: Final = """version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""

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
            demo.follow(hub, sid, "stopped", pause=0.05)
            hub.close()

        return stop

    return start


def docker_run(engine: docker.DockerClient, image_name: str) -> Start:
    """`docker run` of the image."""
    command = ["jupyter", "lab", "--no-browser", "--ip=0.0.0.0", "--ServerApp.token=", "--ServerApp.password="]

    def start(_number: int, pause: float) -> Callable[[], None]:
        until = time.monotonic() + PATIENCE
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


def timed(start: Start, count: int, pause: float) -> list[float]:
    """Start so many at the same moment; gives the seconds from then until each answers. All are removed."""
    begun = time.perf_counter()

    def one(number: int) -> tuple[float, Callable[[], None]]:
        stop = start(number, pause)
        return time.perf_counter() - begun, stop

    with ThreadPoolExecutor(count) as pool:
        done = list(pool.map(one, range(count)))
        for stopped in [pool.submit(stop) for _, stop in done]:
            stopped.result()
    return sorted(seconds for seconds, _ in done)


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
    """Add the table of single launches; gives its rows."""
    rows = {name: [one for [one] in rounds] for name, rounds in in_turn(result, starts, rounds=ROUNDS).items()}
    result.add(Table(title=title, unit="seconds", rows=rows))
    return rows


def together(result: Result, title: str, starts: Mapping[str, Start], count: int) -> dict[str, list[float]]:
    """Add the tables of `count` launches at once: the last one's wait, and everybody's; gives the former's rows."""
    measured = in_turn(result, starts, rounds=AT_ONCE_ROUNDS, count=count, pause=PAGE_PAUSE)
    last = {name: [seconds[-1] for seconds in rounds] for name, rounds in measured.items()}
    every = {name: [one for seconds in rounds for one in seconds] for name, rounds in measured.items()}
    result.add(Table(title=f"{title}: until the last one answers", unit="seconds", rows=last))
    result.add(Table(title=f"{title}: each one's wait", unit="seconds", rows=every, plotted=False))
    return last


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


def measure(result: Result) -> None:
    """Measure everything."""
    peers.environment()
    peers.chp()
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="hpb-", ignore_cleanup_errors=True)))
        started = parts.enter_context(own_engine(peers.KEPT / "engine"))
        engine = docker.DockerClient(base_url=started.url, timeout=600)
        parts.callback(engine.close)
        parts.enter_context(clean(engine))
        name = peers.provide_image(engine, started)
        result.versions = f"Docker {started.version}, Python {sys.version.split()[0]}, {peers.versions()}."
        environ = {name: value for name, value in os.environ.items() if not name.startswith("HOMEPORT_")}
        environ |= {"DOCKER_HOST": started.url, "HOMEPORT_IMAGE": name}
        plain = docker_run(engine, name)
        _compared(result, folder, started, engine, environ, plain)
        with stack(folder / "plain", environ | {"HOMEPORT_QUICK_START": "off"}) as without:
            _without_quick_start(result, homeport(without), plain)


def _compared(
    result: Result,
    folder: Path,
    started: Engine,
    engine: docker.DockerClient,
    environ: Mapping[str, str],
    plain: Start,
) -> None:
    name = environ["HOMEPORT_IMAGE"]
    gateway = engine.networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"]
    with (
        stack(folder / "stack", environ) as quick,
        peers.jupyterhub(folder / "jupyterhub", started, gateway, name) as jupyterhub,
    ):
        starts = {"Homeport": homeport(quick), "docker run": plain, "JupyterHub": jupyterhub.start}
        jupyterhub.add_users(max(AT_ONCE))
        first = timed(starts["Homeport"], 1, PAUSE)
        for start in starts.values():
            timed(start, 1, PAUSE)
        rows = singly(result, "One launch", starts)
        result.compare("Homeport / docker run", rows["Homeport"], rows["docker run"], aim=0.75)
        result.compare("Homeport / JupyterHub", rows["Homeport"], rows["JupyterHub"], aim=0.45)
        for count in AT_ONCE:
            rows = together(result, f"{count} launches at once", starts, count)
            result.compare(f"{count} at once: Homeport / docker run", rows["Homeport"], rows["docker run"], aim=1.0)
            result.compare(f"{count} at once: Homeport / JupyterHub", rows["Homeport"], rows["JupyterHub"], aim=1.0)
        others = {"the first after the hub's start": first}
        with registry(folder / "registry") as address:
            size = engine.images.get(name).attrs["Size"] / 1e6
            others[f"one that pulls {size:,.0f} MB"] = cold(quick, engine, name, f"{address}/notebook:cold")
        result.add(Table(title="Other launches of Homeport", unit="seconds", rows=others, plotted=False))


def _without_quick_start(result: Result, start: Start, plain: Start) -> None:
    starts = {"Homeport without quick start": start, "docker run": plain}
    timed(start, 1, PAUSE)
    rows = singly(result, "One launch without the quick start", starts)
    ours, theirs = rows.values()
    result.compare("Without quick start: Homeport / docker run", ours, theirs)
    count = AT_ONCE[0]
    ours, theirs = together(result, f"{count} launches at once without the quick start", starts, count).values()
    result.compare(f"{count} at once without quick start: Homeport / docker run", ours, theirs)
