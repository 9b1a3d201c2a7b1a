"""A real engine behind a real mutual TLS endpoint keeps the contract that its twin keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from docker.errors import NotFound

from chalicelib.engine.endpoint import DockerEndpoint
from chalicelib.launcher.effects import Engine
from chalicelib.notebook.container import Specification
from tests.contract.engine import EngineContract
from tests.integration import test_docker_endpoint as parts
from tests.integration.gated_registry import GatedRegistry
from tests.integration.test_docker_endpoint import Rig, rig  # noqa: F401 - the fixture, for this module's own engine

pytestmark = parts.pytestmark


class TestDockerEndpoint(EngineContract):
    @pytest.fixture
    def opened(self, rig: Rig) -> Iterator[DockerEndpoint]:  # noqa: F811
        with rig.open() as opened:
            yield opened

    @pytest.fixture
    def spec(self, rig: Rig, request: pytest.FixtureRequest) -> Iterator[Specification]:  # noqa: F811
        """Container and volume are gone afterwards, whatever their labels are."""
        spec = rig.specification(request.node.name)
        yield spec
        with suppress(NotFound):
            rig.behind.remove_container(spec.name, force=True)
        with suppress(NotFound):
            rig.behind.remove_volume(spec.volume)

    @pytest.fixture
    def pullable(self, rig: Rig) -> Iterator[str]:  # noqa: F811
        with GatedRegistry(3) as registry:
            registry.open_gates()
            yield registry.image
        with suppress(NotFound):
            rig.behind.remove_image(registry.image, force=True)

    def let_it_end(self, opened: Engine, spec: Specification, exit_code: int, line: str) -> None:
        opened.create(replace(spec, command=parts.saying(f"echo {line}; exit {exit_code}")))
        opened.start(spec.name)
        parts.until(lambda: not opened.inspect(spec.name).running)
