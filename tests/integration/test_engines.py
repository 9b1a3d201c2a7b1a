"""The whole path on every kind of engine, with one hub and its proxy: launched, used, stopped, swept, launched again.

What each engine must do besides is in test_engine_contract.py; docs/engines.md has the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from chalicelib.session.values import container_name, volume_name
from local import demo, image
from local.demo import HubClient
from local.endpoint import endpoint, write_bundle
from local.engine import Engine
from local.run import Stack
from tests import engines
from tests.real_parts import KEPT_IMAGES


@dataclass(frozen=True)
class Place:
    """An engine with the notebook image, the bundle that opens it, and docker-py on the engine behind it."""

    called: str
    bundle: Path
    behind: docker.APIClient

    def of(self, sid: str) -> list[str]:
        """The names of the session's containers, running or not."""
        found = self.behind.containers(all=True, filters={"label": f"homeport.session={sid}"})
        return sorted(name.removeprefix("/") for container in found for name in container["Names"])


CALLED = {"rootless": "Docker 20", "podman": "Podman 4", "swarm": "Docker swarm/1.2.9", "api-1.24": "Docker 20"}


@pytest.fixture(scope="module", params=CALLED)
def place(
    request: pytest.FixtureRequest,
    engine: Engine,
    notebook_image: str,
    report: Callable[[str], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    kind = request.param
    if lacking := engines.missing_for(kind):
        pytest.skip(lacking)
    folder = tmp_path_factory.mktemp(kind)
    with engines.of_kind(kind, folder, engine) as running, endpoint(folder / "endpoint", running.socket) as offered:
        behind = engine if kind in ("swarm", "api-1.24") else running
        assert image.provide_local(behind.url, KEPT_IMAGES, report) == notebook_image
        with closing(docker.APIClient(behind.url, timeout=60)) as client:
            yield Place(CALLED[kind], write_bundle(folder / "bundle.zip", offered), client)


@contextmanager
def launched(hub: HubClient, place: Place) -> Iterator[dict[str, Any]]:
    session = hub.launch(place.bundle, "engines")
    try:
        yield demo.follow(hub, session["id"], "ready")
    finally:
        hub.stop(session["id"])
        demo.follow(hub, session["id"], "stopped")


def test_a_notebooks_life_on_this_engine(place: Place, stack: Stack) -> None:
    def run(session: dict[str, Any], code: str) -> str:
        return demo.run_cell(demo.enter(stack.hub_url, hub.enter(session["id"]), stack.proxy_port), code).strip()

    with closing(HubClient(stack.hub_address)) as hub:
        with launched(hub, place) as session:
            assert any(line.startswith(f"Connected to {place.called}") for line in hub.log(session["id"]))
            assert run(session, "open('kept.txt', 'w').write('still here'); print(6 * 7)") == "42"
            first = place.behind.inspect_container(session["container"])
        sid = session["id"]
        assert place.of(sid) == []

        labels = first["Config"]["Labels"]
        place.behind.create_container(first["Config"]["Image"], "true", name=container_name(sid, 1), labels=labels)
        with launched(hub, place) as session:
            assert place.of(sid) == [container_name(sid, 2)]
            assert run(session, "print(open('kept.txt').read())") == "still here"
        assert place.of(sid) == []

        somebodys = place.behind.create_container(first["Config"]["Image"], "true", name=container_name(sid, 3))
        try:
            hub.launch(place.bundle, "engines")
            failed = demo.follow(hub, sid, "stopped")
            assert failed["error"]["code"] == "container-conflict"
            assert place.behind.inspect_container(container_name(sid, 3))["Id"] == somebodys["Id"]
        finally:
            place.behind.remove_container(somebodys["Id"], force=True)
            place.behind.remove_volume(volume_name(sid))
