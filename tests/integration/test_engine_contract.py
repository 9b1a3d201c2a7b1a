"""Real engines behind a real mutual TLS endpoint keep the contract that their twin keeps: each kind and version."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from docker.errors import NotFound

from chalicelib.engine.endpoint import DockerEndpoint
from chalicelib.engine.errors import NotebookSilent, NotebookUnreachable
from chalicelib.engine.probe import probe
from chalicelib.launcher.outside import Engine
from chalicelib.notebook.container import Specification
from chalicelib.notebook.helpers import HelperSpecification
from local.engine import Engine as LocalEngine
from tests import engines
from tests.builders import LABEL
from tests.contract.engine import EngineContract, a_helper
from tests.integration import test_docker_endpoint as parts
from tests.integration.gated_registry import GatedRegistry
from tests.integration.test_docker_endpoint import Rig
from tests.launcher_twins import a_trust

pytestmark = parts.pytestmark


@pytest.fixture(scope="module", params=["docker", "rootless", "podman", "swarm", "api-1.24", "api-1.44"])
def rig(request: pytest.FixtureRequest, engine: LocalEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    kind = request.param
    if lacking := engines.missing_for(kind):
        pytest.skip(lacking)
    folder = tmp_path_factory.mktemp(kind)
    loopback = engines.HOST if kind == "rootless" else engines.LOOPBACK
    with engines.of_kind(kind, folder, engine) as running, parts.a_rig(running, folder / "endpoint", loopback) as made:
        yield made


class Patient(DockerEndpoint):
    """It starts a container and waits until its shell is ready to be stopped; before, a stop takes ten seconds."""

    def start(self, container: str) -> None:
        super().start(container)
        parts.until(lambda: parts.READY in self.log_tail(container) or not self.inspect(container).running)


class TestDockerEndpoint(EngineContract):
    @pytest.fixture
    def opened(self, rig: Rig) -> Iterator[DockerEndpoint]:
        with Patient(rig.credentials(), address="127.0.0.1", deadline=60, hub_name=parts.HUB) as opened:
            yield opened

    @pytest.fixture
    def spec(self, rig: Rig, request: pytest.FixtureRequest) -> Iterator[Specification]:
        """Container and volume are gone afterwards, whatever their labels are."""
        spec = rig.specification(request.node.name)
        yield spec
        with suppress(NotFound):
            rig.behind.remove_container(spec.name, force=True)
        with suppress(NotFound):
            rig.behind.remove_volume(spec.volume)

    @pytest.fixture
    def helper(self, rig: Rig, spec: Specification) -> Iterator[HelperSpecification]:
        helper = a_helper(spec)
        yield helper
        with suppress(NotFound):
            rig.behind.remove_container(helper.name, force=True)

    @pytest.fixture
    def keeps_limits(self, rig: Rig) -> bool:
        return bool(rig.behind.info()["MemoryLimit"])

    @pytest.fixture
    def saved_as(self, rig: Rig) -> Iterator[str]:
        name = "localhost/homeport-saved:latest"
        yield name
        with suppress(NotFound):
            rig.behind.remove_image(name, force=True)

    @pytest.fixture
    def built_as(self, rig: Rig) -> Iterator[str]:
        name = f"localhost/homeport-built:{40 * 'c'}"
        yield name
        with suppress(NotFound):
            rig.behind.remove_image(name, force=True)

    @pytest.fixture
    def pullable(self, rig: Rig) -> Iterator[str]:
        with GatedRegistry(3, host=rig.loopback) as registry:
            registry.open_gates()
            yield registry.image
        with suppress(NotFound):
            rig.behind.remove_image(registry.image, force=True)

    def test_a_users_number_is_what_the_image_has_for_its_name(self, opened: Engine, spec: Specification) -> None:
        opened.create(spec)
        assert opened.user_number(spec.name, "jovyan:users") == "1000"

    def test_the_containers_user_reads_the_files_and_writes_to_the_volume(
        self, opened: Engine, spec: Specification
    ) -> None:
        """In an image that has neither the folder of the files nor the one above it."""
        words = "exec 2>&1; cat /opt/homeport/client-ca.pem && echo mine > work/file && cat work/file"
        opened.create(replace(spec, command=parts.saying(words)))
        opened.put_files(spec.name, parts.the_files())
        opened.start(spec.name)
        parts.until(lambda: not opened.inspect(spec.name).running)
        assert opened.log_tail(spec.name) == "a CA\nmine"

    def test_a_port_that_cannot_be_reached_is_told_with_what_to_open(self, opened: Engine, spec: Specification) -> None:
        """The port is published at one address; at another one the machine answers as it does behind a firewall."""
        opened.create(spec)
        opened.put_files(spec.name, parts.the_files())
        opened.start(spec.name)
        target = opened.published(spec.name)
        with pytest.raises(
            NotebookSilent
        ):  # nothing listens in the container: an engine may refuse, or accept and close
            probe(target, LABEL, a_trust(), deadline=5)
        with pytest.raises(NotebookUnreachable, match=f"port {target.port} of 127.0.0.2 .* open the ports"):
            probe(replace(target, address="127.0.0.2"), LABEL, a_trust(), deadline=5)

    def test_a_port_that_is_published_on_every_address_is_adopted(self, rig: Rig, spec: Specification) -> None:
        everywhere = replace(spec, publish_address="")
        with rig.open() as opened:
            opened.create(everywhere)
            made = rig.behind.inspect_container(spec.name)["Id"]
            opened.create(everywhere)
        assert rig.behind.inspect_container(spec.name)["Id"] == made

    def let_it_end(self, opened: Engine, spec: Specification, exit_code: int, line: str) -> None:
        opened.create(replace(spec, command=parts.saying(f"echo {line}; exit {exit_code}")))
        opened.start(spec.name)
        parts.until(lambda: not opened.inspect(spec.name).running)
