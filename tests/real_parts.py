"""Fixtures of real parts for the integration and browser tiers: engine, endpoint, notebook image, whole stack.

Each is started once. What they need is imported by the fixtures: the unit tier has no time for it.

All of it listens on free ports of 127.0.0.1, keeps its state in a temporary folder, and is gone afterwards. The built
notebook image alone is kept, in `.homeport/image` of the checkout, where `make run` finds it too.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from local.endpoint import LocalEndpoint
    from local.engine import Engine
    from local.run import Running, Stack

BUILDER_IMAGE = "homeport-builder-test:latest"  # of the stack; who launches a repository sees that it is there
KEPT_IMAGES = Path(__file__).parent.parent / ".homeport" / "image"


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print a step to the terminal at once: some take a minute."""
    plugins = request.config.pluginmanager
    terminal, capture = plugins.getplugin("terminalreporter"), plugins.getplugin("capturemanager")

    def show(step: str) -> None:
        with capture.global_and_fixture_disabled():
            terminal.write_line(f"  {step}")

    return show


@pytest.fixture(scope="session")
def state() -> Iterator[Path]:
    """A folder for what real parts keep; not pytest's, which keeps three runs' worth of engine data."""
    with tempfile.TemporaryDirectory(prefix="homeport-test-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def engine(state: Path) -> Iterator[Engine]:
    """A Docker engine: the one that runs on this machine, else our own."""
    from local import engine as local_engine

    running = local_engine.running_engine(os.environ)
    if running is None and (os.geteuid() != 0 or shutil.which("dockerd") is None):
        pytest.skip("needs a Docker engine, or root and `apt-get install docker.io iptables iproute2`")
    with local_engine.engine(state / "engine", os.environ) as started:
        yield started


@pytest.fixture(scope="session")
def endpoint(state: Path, engine: Engine) -> Iterator[LocalEndpoint]:
    """The engine behind mutual TLS on 127.0.0.1."""
    from local import endpoint as local_endpoint

    _need_haproxy()
    with local_endpoint.endpoint(state / "endpoint", engine.socket) as offered:
        yield offered


@pytest.fixture(scope="session")
def notebook_image(engine: Engine, report: Callable[[str], None]) -> str:
    """The default notebook image, built without a registry, in the engine."""
    from local import image

    tools = os.geteuid() == 0 and shutil.which("mmdebstrap") is not None
    if not tools and not image.built(KEPT_IMAGES):
        pytest.skip("needs root and `apt-get install mmdebstrap` to build the notebook image")
    return image.provide_local(engine.url, KEPT_IMAGES, report)


@pytest.fixture(scope="session")
def running_stack(state: Path, engine: Engine, notebook_image: str, report: Callable[[str], None]) -> Iterator[Running]:
    """What `make run` runs, on free ports: the stack and its children."""
    from local import containers, processes, run
    from local.settings import Settings

    _need_haproxy()
    settings = Settings(state=state / "stack", hub_port=processes.free_port(), proxy_port=processes.free_port())
    environ = os.environ | {
        "DOCKER_HOST": engine.url,
        "HOMEPORT_IMAGE": notebook_image,
        "HOMEPORT_BUILDER_IMAGE": BUILDER_IMAGE,
        "HOMEPORT_ENDPOINT_PORT": str(processes.free_port()),
    }
    try:
        with run.stack(settings, environ, lambda _step: None) as running:
            yield running
    finally:
        containers.remove_all(engine.url, settings.hub_name, volumes=True)


@pytest.fixture(scope="session")
def stack(running_stack: Running) -> Stack:
    """Where the whole stack is: ports, bundle, engine, embedded AWS."""
    return running_stack.stack


def _need_haproxy() -> None:
    if shutil.which("haproxy") is None:
        pytest.skip("needs `apt-get install haproxy`")
