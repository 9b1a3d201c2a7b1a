"""Measure a launch: upload → first 200 from the notebook through the proxy, beside `docker run` of the same image.

`python -m bench.bench_launch` runs the whole stack in a folder of its own, on free ports. Rows:

    first      the first launch of a freshly started stack, image present (clients are made, code is loaded)
    warm       the next ones, image present; median, in turn with `docker run`
    docker run `docker run` of the same image, until it answers; median
    at once    so many of each begun at the same moment: until the last one answers
    plain      the warm ones again, JupyterLab's quick start switched off (HOMEPORT_QUICK_START)
    cold       the image is not on the engine and is pulled from a registry on 127.0.0.1 (Debian's docker-registry)
"""

from __future__ import annotations

import http.client
import os
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import docker

from local import demo, processes, run
from local.demo import HubClient
from local.run import Stack
from local.settings import ROOT, Settings

ROUNDS = 15
AT_ONCE = 20
REGISTRY_CONFIG = """version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


PAUSE: Final = 0.02  # seconds between two looks: the figure is to be the launch's own
PAGE_PAUSE: Final = 1.0  # as a page asks, where many of them ask at once


def launch(stack: Stack, image: str | None = None, pause: float = PAUSE) -> dict[str, float]:
    """Launch, enter, ask, stop; give the seconds from the upload to ready, to the first 200, and of the stop."""
    hub = HubClient(stack.hub_address)
    try:
        begun = time.perf_counter()
        session = hub.launch(Path(stack.bundle), f"bench-{secrets.token_hex(3)}", image)
        demo.follow(hub, session["id"], "ready", pause=pause)
        ready = time.perf_counter() - begun
        notebook = demo.enter(stack.hub_url, hub.enter(session["id"]), stack.proxy_port)
        status, _, _ = notebook.request("GET", "/api/status")
        first = time.perf_counter() - begun
        assert status == 200, status
        begun = time.perf_counter()
        hub.stop(session["id"])
        demo.follow(hub, session["id"], "stopped", pause=pause)
        return {"ready": ready, "first 200": first, "stop": time.perf_counter() - begun}
    finally:
        hub.close()


def docker_run(engine: docker.DockerClient, image: str) -> float:
    """`docker run` the image as a visitor would by hand; give the seconds until it answers."""
    begun = time.perf_counter()
    container = engine.containers.run(
        image,
        ["jupyter", "lab", "--no-browser", "--ip=0.0.0.0", "--ServerApp.token=", "--ServerApp.password="],
        detach=True,
        ports={"8888/tcp": ("127.0.0.1", 0)},  # any free one
    )
    try:
        container.reload()
        port = int(container.attrs["NetworkSettings"]["Ports"]["8888/tcp"][0]["HostPort"])
        while not _answers(port):
            time.sleep(0.02)
        return time.perf_counter() - begun
    finally:
        container.remove(force=True, v=True)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/api/status")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Run Debian's docker-registry on 127.0.0.1 for as long as the block lasts; gives its address."""
    port = processes.free_port()
    folder.mkdir()
    config = folder / "config.yml"
    config.write_text(REGISTRY_CONFIG.format(folder=folder / "data", port=port))
    command = ["docker-registry", "serve", str(config)]
    with processes.running("registry", command, folder=folder, environ=dict(os.environ)) as child:
        processes.wait_for_port(port, child=child, deadline=30)
        yield f"127.0.0.1:{port}"


def cold(stack: Stack, engine: docker.DockerClient, folder: Path) -> dict[str, float]:
    """Launch an image that the engine has to pull first, all layers of it."""
    with registry(folder / "registry") as address:
        image = f"{address}/notebook:cold"
        engine.images.get(stack.image).tag(image)
        engine.images.push(image)
        engine.images.remove(image, force=True)
        engine.images.remove(stack.image, force=True)
        return launch(stack, image)


def at_once(act: Callable[[], object]) -> float:
    """Do it AT_ONCE times at the same moment; give the seconds until the last one has come back."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(act) for _ in range(AT_ONCE)]:
            done.result()
    return time.perf_counter() - begun


def compared(stack: Stack, engine: docker.DockerClient, report: Callable[[str], None], name: str) -> None:
    """Print the rows of warm launches, each begun after a `docker run`, and of many at once."""
    warm, plain = [], []
    for _ in range(ROUNDS):
        plain.append(docker_run(engine, stack.image))
        warm.append(launch(stack))
    report(row(f"{name}: upload → ready", [figures["ready"] for figures in warm]))
    report(row(f"{name}: upload → first 200", [figures["first 200"] for figures in warm]))
    report(row("stop → nothing left", [figures["stop"] for figures in warm]))
    report(row("docker run → answers", plain))
    ratio = statistics.median(f["first 200"] for f in warm) / statistics.median(plain)
    report(f"{f'{name} launch / docker run':<34} {ratio:6.2f}")
    together, alone = at_once(lambda: launch(stack, pause=PAGE_PAUSE)), at_once(lambda: docker_run(engine, stack.image))
    report(row(f"{name}: {AT_ONCE} at once, with their stops", [together]))
    report(row(f"{AT_ONCE} × docker run at once, with rm", [alone]))


def row(name: str, seconds: list[float]) -> str:
    """One line of the table."""
    return (
        f"{name:<34} {statistics.median(seconds):6.2f} s   "
        f"(min {min(seconds):.2f}, max {max(seconds):.2f}, n={len(seconds)})"
    )


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
        begun = time.perf_counter()
        with run.stack(settings, environ, lambda _step: None) as running:
            stack = running.stack
            report(f"stack up after {time.perf_counter() - begun:.1f} s (image built before: {kept.exists()})")
            engine = docker.DockerClient(base_url=stack.engine_url)
            first = launch(stack)
            report(row("first: upload → ready", [first["ready"]]))
            compared(stack, engine, report, "warm")
            if shutil.which("docker-registry") is None:
                report("cold: not measured; apt-get install docker-registry")
            else:
                size = engine.images.get(stack.image).attrs["Size"] / 1e6
                report(row(f"cold (pull of {size:.0f} MB): → ready", [cold(stack, engine, folder)["ready"]]))
            engine.close()
        plainly = environ | {"HOMEPORT_QUICK_START": "off"}
        with run.stack(settings, plainly, lambda _step: None) as running:
            engine = docker.DockerClient(base_url=running.stack.engine_url)
            launch(running.stack)
            compared(running.stack, engine, report, "plain")
            engine.close()


def main() -> int:
    """Print the table."""
    measure(lambda line: print(line, flush=True))
    return 0


if __name__ == "__main__":
    run.forget_foreign_environ()
    sys.exit(main())
