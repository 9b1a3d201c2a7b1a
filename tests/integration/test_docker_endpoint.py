"""The Docker endpoint on real parts: dockerd behind HAProxy with mutual TLS, and a registry whose layers can wait."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import docker
import pytest
from docker.errors import NotFound

from chalicelib.bundle.address import Endpoint
from chalicelib.bundle.credentials import Credentials
from chalicelib.engine import errors
from chalicelib.engine.client import Client
from chalicelib.engine.creation import container_config
from chalicelib.engine.endpoint import MISSING, DockerEndpoint
from chalicelib.engine.pull_progress import PullStatus
from chalicelib.notebook.certificates import Leaf
from chalicelib.notebook.container import ImageConfig, Specification, injected_files, specification
from chalicelib.session.machine import new_session
from chalicelib.session.values import Limits
from local.endpoint import LocalEndpoint, endpoint
from local.engine import Engine
from tests.builders import LABEL, NOW, OWNER, a_session
from tests.certificates import Ca
from tests.integration.gated_registry import GatedRegistry, a_tar

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("dockerd") or not shutil.which("haproxy"),
    reason="run as root after: apt-get install docker.io iptables haproxy",
)

HUB = "endpoint-tests"
READY = "ready"
WAITING = ("sh", "-c", f"trap 'exit 0' TERM; echo {READY}; sleep 1000 & wait")  # ends at once when it is stopped
LEAF = Leaf(b"a certificate\n", b"its key\n")


def the_files(*, user: str = "1000") -> bytes:
    return injected_files(
        a_session(), workdir="/work/work", user=user, leaf=LEAF, client_ca=b"a CA\n", idle_lifetime=60
    )


@dataclass(frozen=True)
class Rig:
    """An engine, its TLS endpoint, and docker-py on its socket for looking behind it."""

    engine: Engine
    offered: LocalEndpoint
    behind: docker.APIClient
    image: str
    loopback: str = "127.0.0.1"  # what the engine calls this machine's

    def open(self, **changes: Any) -> DockerEndpoint:
        arguments: dict[str, Any] = {"deadline": 30.0, "hub_name": HUB} | changes
        return DockerEndpoint(self.credentials(), address="127.0.0.1", **arguments)

    def credentials(self, **changes: Any) -> Credentials:
        pki = self.offered.pki
        made = Credentials(
            Endpoint("127.0.0.1", self.offered.port), pki.ca.encode(), pki.certificate.encode(), pki.key.encode()
        )
        return replace(made, **changes)

    def specification(self, name: str, **changes: Any) -> Specification:
        limits = changes.pop("limits", Limits())
        session = new_session(
            owner=OWNER, name=name, endpoint="tcp://x:2376", image=self.image, limits=limits,
            now=NOW, lifetime=3600, request="request", label=LABEL,
        )  # fmt: skip
        spec = specification(
            session, hub_name=HUB, image_workdir="/work", publish_address="127.0.0.1", idle_lifetime=60
        )
        return replace(spec, **({"command": WAITING} | changes))


@contextmanager
def a_rig(engine: Engine, folder: Path, loopback: str = "127.0.0.1") -> Iterator[Rig]:
    with endpoint(folder, engine.socket) as offered, closing(docker.APIClient(engine.url, timeout=60)) as behind:
        image = "homeport-endpoint-test:latest"
        try:
            _import_shell(behind, image)
            yield Rig(engine, offered, behind, image, loopback)
        finally:
            _leave_nothing(behind, image)


@pytest.fixture(scope="module")
def rig(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with a_rig(engine, tmp_path_factory.mktemp("endpoint")) as made:
        yield made


def _import_shell(behind: docker.APIClient, image: str, programs_of_ours: Mapping[str, bytes] | None = None) -> None:
    """An image of this machine's shell and a few tools, with the libraries they name, and programs by their paths."""
    programs = [shutil.which(name, path="/usr/bin:/bin") or "" for name in ("sh", "sleep", "cat", "id")]
    named = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    libraries = set(re.findall(r"(/\S+) \(0x", named))
    files = {path.lstrip("/"): Path(path).read_bytes() for path in {*programs, *libraries}}
    files["etc/passwd"] = b"root:x:0:0::/:/bin/sh\njovyan:x:1000:1000::/work:/bin/sh\n"
    changes = ["WORKDIR /work", "USER 1000", "ENV PATH=/usr/bin:/bin"]
    tar = a_tar(files | dict(programs_of_ours or {}), mode=0o755, home="work")
    behind.import_image_from_data(tar, repository=image.split(":")[0], tag="latest", changes=changes)


def _leave_nothing(behind: docker.APIClient, image: str) -> None:
    label = {"label": f"homeport.hub={HUB}"}
    for container in behind.containers(all=True, filters=label):
        behind.remove_container(container["Id"], force=True)
    for volume in behind.volumes(filters=label)["Volumes"] or []:
        behind.remove_volume(volume["Name"])
    behind.remove_image(image, force=True)


@pytest.fixture
def fresh(rig: Rig, request: pytest.FixtureRequest) -> Iterator[Specification]:
    """A specification nobody has used, whose container is gone afterwards."""
    spec = rig.specification(request.node.name)
    yield spec
    try:
        rig.behind.remove_container(spec.name, force=True)
    except NotFound:
        return


def until(condition: Callable[[], object], deadline: float = 30.0) -> None:
    """Poll until it holds."""
    ends_at = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < ends_at, "it did not happen in time"
        time.sleep(0.02)


def of(endpoint: DockerEndpoint, spec: Specification) -> tuple[str, bool]:
    status = endpoint.inspect(spec.name)
    return status.status, status.running


def has_exited(endpoint: DockerEndpoint, spec: Specification) -> bool:
    return of(endpoint, spec) == ("exited", False)


def saying(words: str) -> tuple[str, ...]:
    return ("sh", "-c", words)


# ── the engine ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_real_engine_behind_a_real_proxy_is_verified(rig: Rig) -> None:
    with rig.open() as docker_endpoint:
        version, note = docker_endpoint.verify()
        assert version == rig.engine.version
        assert note == ""


def test_haproxy_that_does_not_accept_the_certificate_is_told_so(rig: Rig) -> None:
    stranger = Ca.new("Another").issue("visitor", client=True)
    credentials = rig.credentials(certificate=stranger.certificate, key=stranger.key)
    with (
        DockerEndpoint(credentials, address="127.0.0.1", deadline=20, hub_name=HUB) as docker_endpoint,
        pytest.raises(errors.ClientCertificateRejected),
    ):
        docker_endpoint.verify()


def test_the_image_and_its_work_folder_are_found(rig: Rig) -> None:
    with rig.open() as docker_endpoint:
        assert docker_endpoint.image_present(rig.image)
        assert not docker_endpoint.image_present("homeport-nothing-of-that-name")
        assert docker_endpoint.image_config(rig.image) == ImageConfig("/work", "1000")


# ── a container's life ───────────────────────────────────────────────────────────────────────────────────────────


def test_everything_in_a_containers_life_may_happen_twice(rig: Rig, fresh: Specification) -> None:
    tar = the_files()
    with rig.open() as docker_endpoint:
        docker_endpoint.create(fresh)
        docker_endpoint.create(fresh)
        assert of(docker_endpoint, fresh) == ("created", False)
        for _ in range(2):
            docker_endpoint.put_files(fresh.name, tar)
        docker_endpoint.start(fresh.name)
        docker_endpoint.start(fresh.name)
        assert of(docker_endpoint, fresh) == ("running", True)
        assert docker_endpoint.published(fresh.name) == docker_endpoint.published(fresh.name)
        assert docker_endpoint.published(fresh.name).port >= 1024
        docker_endpoint.remove(fresh.name)
        docker_endpoint.remove(fresh.name)
        assert of(docker_endpoint, fresh) == ("missing", False)
        assert rig.behind.inspect_volume(fresh.volume)["Labels"]["homeport.session"] == fresh.labels["homeport.session"]


def test_the_containers_user_can_read_the_files_and_not_change_them(rig: Rig) -> None:
    words = "exec 2>&1; cd /opt/homeport; id -u; cat notebook.pem client-ca.pem; echo x > notebook.pem"
    spec = rig.specification("files", command=saying(words))
    with rig.open() as docker_endpoint:
        docker_endpoint.create(spec)
        docker_endpoint.put_files(spec.name, the_files())
        docker_endpoint.start(spec.name)
        until(lambda: of(docker_endpoint, spec) == ("exited", False))
        log = docker_endpoint.log_tail(spec.name)
        docker_endpoint.remove(spec.name)
    assert log.splitlines()[:4] == ["1000", "a certificate", "its key", "a CA"]
    assert "Permission denied" in log


@pytest.mark.parametrize(("user", "owns"), [("1000", "its own"), ("1000:100", "its own"), ("jovyan", "writable")])
def test_the_containers_user_can_write_to_a_work_folder_that_the_image_does_not_have(
    rig: Rig, request: pytest.FixtureRequest, user: str, owns: str
) -> None:
    words = "cd work && echo mine > file && if [ -O . ]; then echo its own; else echo writable; fi"
    spec = rig.specification(request.node.name, command=saying(words))
    with rig.open() as docker_endpoint:
        docker_endpoint.create(spec)
        for _ in range(2):
            docker_endpoint.put_files(spec.name, the_files(user=user))
        docker_endpoint.start(spec.name)
        until(partial(has_exited, docker_endpoint, spec))
        assert docker_endpoint.log_tail(spec.name) == owns
        docker_endpoint.remove(spec.name)


def test_work_is_there_again_in_the_next_launch(rig: Rig) -> None:
    first = rig.specification("work", command=saying("echo mine > work/file"))
    name = first.name.removesuffix("-1") + "-2"
    labels = dict(first.labels) | {"homeport.generation": "2"}
    second = replace(first, name=name, labels=labels, command=saying("cat work/file"))
    with rig.open() as docker_endpoint:
        for spec in (first, second):
            docker_endpoint.create(spec)
            docker_endpoint.put_files(spec.name, the_files())
            docker_endpoint.start(spec.name)
            until(partial(has_exited, docker_endpoint, spec))
        assert docker_endpoint.log_tail(second.name) == "mine"
        for spec in (first, second):
            docker_endpoint.remove(spec.name)


def test_a_container_of_a_lost_launch_is_replaced_and_its_work_stays(rig: Rig) -> None:
    """Its session's item is gone, so launches are counted from 1 again: same name, another label."""
    lost = rig.specification("lost", command=saying("echo mine > work/file"))
    lost = replace(lost, labels={**lost.labels, "homeport.label": "zzzzzzzzzz"})
    spec = rig.specification("lost", command=saying("cat work/file"))
    assert spec.name == lost.name
    with rig.open() as docker_endpoint:
        docker_endpoint.create(lost)
        docker_endpoint.put_files(lost.name, the_files())
        docker_endpoint.start(lost.name)
        until(partial(has_exited, docker_endpoint, lost))
        old = rig.behind.inspect_container(lost.name)
        docker_endpoint.create(spec)
        new = rig.behind.inspect_container(spec.name)
        assert new["Id"] != old["Id"]
        assert new["Config"]["Labels"]["homeport.label"] == spec.labels["homeport.label"]
        docker_endpoint.start(spec.name)
        until(partial(has_exited, docker_endpoint, spec))
        assert docker_endpoint.log_tail(spec.name) == "mine"
        docker_endpoint.remove(spec.name)


@pytest.mark.parametrize("labels", [{}, {"homeport.hub": "another"}, {"homeport.session": "another"}])
def test_a_strangers_container_of_that_name_is_neither_replaced_nor_removed(
    rig: Rig, fresh: Specification, labels: dict[str, str]
) -> None:
    theirs = {**fresh.labels, "homeport.label": "zzzzzzzzzz", **labels} if labels else {}
    made = rig.behind.create_container(rig.image, name=fresh.name, command=["sleep", "1000"], labels=theirs)
    with rig.open() as docker_endpoint:
        with pytest.raises(errors.ContainerConflict):
            docker_endpoint.create(fresh)
        with pytest.raises(errors.ContainerConflict):
            docker_endpoint.remove(fresh.name)
    assert rig.behind.inspect_container(fresh.name)["Id"] == made["Id"]


def test_a_container_that_ended_tells_how_and_why(rig: Rig, fresh: Specification) -> None:
    with rig.open() as docker_endpoint:
        docker_endpoint.create(replace(fresh, command=saying("echo boom; exit 3")))
        docker_endpoint.start(fresh.name)
        until(lambda: of(docker_endpoint, fresh) == ("exited", False))
        assert docker_endpoint.inspect(fresh.name).exit_code == 3
        assert docker_endpoint.log_tail(fresh.name) == "boom"


def test_a_container_that_took_too_much_memory_tells_so(rig: Rig) -> None:
    hungry = saying("x=aaaaaaaa; while :; do x=$x$x; done")
    spec = rig.specification("memory", limits=Limits(memory=32 << 20, cpus=0.5), command=hungry)
    with rig.open() as docker_endpoint:
        docker_endpoint.create(spec)
        docker_endpoint.start(spec.name)
        until(lambda: of(docker_endpoint, spec) == ("exited", False))
        assert docker_endpoint.inspect(spec.name).oom
        docker_endpoint.remove(spec.name)


def test_eight_creations_at_once_make_one_container(rig: Rig, fresh: Specification) -> None:
    def create(_: int) -> None:
        with rig.open() as docker_endpoint:
            docker_endpoint.create(fresh)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(create, range(8))) == [None] * 8
    named = rig.behind.containers(all=True, filters={"name": fresh.name})
    assert len(named) == 1


def test_four_removals_at_once_leave_nothing(rig: Rig, fresh: Specification) -> None:
    with rig.open() as docker_endpoint:
        docker_endpoint.create(fresh)
        docker_endpoint.start(fresh.name)

    def remove(_: int) -> None:
        with rig.open() as docker_endpoint:
            docker_endpoint.remove(fresh.name)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(remove, range(4))) == [None] * 4
    assert rig.behind.containers(all=True, filters={"name": fresh.name}) == []


def test_somebody_elses_container_of_the_name_is_neither_adopted_nor_removed(rig: Rig, fresh: Specification) -> None:
    rig.behind.create_container(rig.image, command=["sleep", "1"], name=fresh.name, labels={"homeport.hub": "other"})
    with rig.open() as docker_endpoint:
        with pytest.raises(errors.ContainerConflict):
            docker_endpoint.create(fresh)
        with pytest.raises(errors.ContainerConflict):
            docker_endpoint.remove(fresh.name)
        assert docker_endpoint.inspect(fresh.name) != MISSING


def made_behind(rig: Rig, spec: Specification, **host: object) -> str:
    """Have a container made as the hub would, but for changes of its HostConfig; gives its id."""
    config = container_config(cast("Client", rig.behind), spec)
    config["HostConfig"] = {**config["HostConfig"], **host}
    made = rig.behind.create_container_from_config(config, spec.name)  # type: ignore[no-untyped-call]
    return str(made["Id"])


@pytest.mark.parametrize(
    ("host", "adopted"),
    [
        ({}, True),
        ({"Privileged": True}, False),
        ({"CapAdd": ["SYS_ADMIN"]}, False),
        ({"Binds": ["/:/host"]}, False),
        ({"Mounts": [{"Type": "bind", "Source": "/", "Target": "/work/work"}]}, False),
        ({"Tmpfs": {"/work/work": ""}, "Mounts": []}, False),
        ({"NetworkMode": "host", "PortBindings": {}}, False),
        ({"NetworkMode": "none"}, False),
        ({"PidMode": "host"}, False),
        ({"IpcMode": "host"}, False),
        ({"UTSMode": "host"}, False),
        ({"SecurityOpt": ["seccomp=unconfined"]}, False),
        ({"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}]}, False),
        ({"RestartPolicy": {"Name": "always"}}, False),
        ({"PublishAllPorts": True}, False),
        ({"PortBindings": {}}, False),
        ({"NanoCpus": 500_000_000}, False),
        ({"Memory": 64 << 20}, False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_what_copies_our_labels_is_adopted_only_if_it_is_what_was_asked_for(
    rig: Rig, fresh: Specification, host: dict[str, object], adopted: bool
) -> None:
    made = made_behind(rig, fresh, **host)
    with rig.open() as docker_endpoint:
        docker_endpoint.create(fresh)
    assert (rig.behind.inspect_container(fresh.name)["Id"] == made) is adopted


@pytest.mark.parametrize("limits", [Limits(memory=64 << 20), Limits(cpus=0.5), Limits(memory=64 << 20, cpus=0.015)])
def test_a_container_with_limits_is_adopted(rig: Rig, fresh: Specification, limits: Limits) -> None:
    limited = replace(fresh, limits=limits)
    made = made_behind(rig, limited)
    with rig.open() as docker_endpoint:
        docker_endpoint.create(limited)
    assert rig.behind.inspect_container(fresh.name)["Id"] == made


def test_a_container_of_an_image_with_a_volume_of_its_own_is_adopted(rig: Rig, fresh: Specification) -> None:
    image = "homeport-endpoint-test:volume"
    container = rig.behind.create_container(rig.image, command=["sleep", "1"])
    try:
        repository, tag = image.split(":")
        rig.behind.commit(container["Id"], repository, tag, changes=["VOLUME /data", 'ENTRYPOINT ["sh", "-c"]'])
        spec = replace(fresh, image=image)
        made = made_behind(rig, spec)
        with rig.open() as docker_endpoint:
            docker_endpoint.create(spec)
        assert rig.behind.inspect_container(spec.name)["Id"] == made
    finally:
        rig.behind.remove_container(container["Id"])
        rig.behind.remove_container(fresh.name, v=True, force=True)
        rig.behind.remove_image(image)


def test_an_image_without_jupyter_is_told_as_such(rig: Rig, fresh: Specification) -> None:
    with rig.open() as docker_endpoint:
        docker_endpoint.create(replace(fresh, command=("jupyter", "lab", "--no-browser")))
        with pytest.raises(errors.ImageWithoutJupyter):
            docker_endpoint.start(fresh.name)
        docker_endpoint.remove(fresh.name)


def test_limits_that_the_engine_refuses_are_told_as_such(rig: Rig) -> None:
    spec = rig.specification("tiny", limits=Limits(memory=1 << 20))
    with rig.open() as docker_endpoint, pytest.raises(errors.LimitsRefused):
        docker_endpoint.create(spec)


def test_an_image_that_is_not_there_is_told_as_such(rig: Rig, fresh: Specification) -> None:
    with rig.open() as docker_endpoint, pytest.raises(errors.ImageNotFound):
        docker_endpoint.create(replace(fresh, image="homeport-nothing-of-that-name"))


def test_what_was_removed_meanwhile_is_missing(rig: Rig, fresh: Specification) -> None:
    with rig.open() as docker_endpoint:
        for call in (docker_endpoint.start, docker_endpoint.published):
            with pytest.raises(errors.ContainerMissing):
                call(fresh.name)
        assert docker_endpoint.log_tail(fresh.name) == ""


# ── pulls ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def registry(rig: Rig) -> Iterator[GatedRegistry]:
    with GatedRegistry(3) as served:
        yield served
        try:
            rig.behind.remove_image(served.image, force=True)
        except NotFound:
            return


def heard_until(statuses: Iterator[PullStatus], words: str) -> PullStatus:
    """Listen to a pull until its line holds these words."""
    return next(status for status in statuses if words in status.line)


def test_a_pull_tells_its_layers_and_ends_with_the_image(rig: Rig, registry: GatedRegistry) -> None:
    with rig.open() as docker_endpoint:
        assert not docker_endpoint.image_present(registry.image)
        statuses = docker_endpoint.pull(registry.image)
        fractions = []
        for number in range(2):
            registry.open_gates(number)
            fractions.append(heard_until(statuses, f"{number + 1} of 3 layers").fraction)
        registry.open_gates()
        rest = list(statuses)
        known = [fraction for fraction in fractions if fraction is not None]
        assert fractions == known == sorted(known)
        assert all(status.fraction is not None for status in rest)
        assert docker_endpoint.image_present(registry.image)


def test_a_pull_is_handed_over_to_a_second_one_and_no_layer_is_fetched_twice(rig: Rig, registry: GatedRegistry) -> None:
    with rig.open() as first, rig.open() as second:
        begun = first.pull(registry.image)
        registry.open_gates(0)
        heard_until(begun, "1 of 3 layers")
        taken_over = second.pull(registry.image)
        next(taken_over)
        begun.close()
        assert [next(taken_over).line for _ in range(2)] == ["Pulling: 1 of 3 layers"] * 2
        registry.open_gates()
        list(taken_over)
        assert second.image_present(registry.image)
    assert registry.asked == {0: 1, 1: 1, 2: 1}


def test_a_pull_that_is_closed_without_a_handover_loses_its_finished_layers(rig: Rig, registry: GatedRegistry) -> None:
    def begin_and_cut(docker_endpoint: DockerEndpoint) -> bool:
        statuses = docker_endpoint.pull(registry.image)
        next(statuses)
        statuses.close()
        return registry.asked[0] > 1

    with rig.open(deadline=60) as docker_endpoint:
        statuses = docker_endpoint.pull(registry.image)
        registry.open_gates(0)
        heard_until(statuses, "1 of 3 layers")
        statuses.close()
        until(lambda: begin_and_cut(docker_endpoint))


def test_an_image_the_registry_does_not_have_is_told_as_such(rig: Rig, registry: GatedRegistry) -> None:
    absent = registry.image.replace("gated", "absent")
    with rig.open() as docker_endpoint, pytest.raises(errors.ImageNotFound):
        list(docker_endpoint.pull(absent))


def test_a_registry_that_does_not_answer_may_do_so_later(rig: Rig) -> None:
    with GatedRegistry(1) as closed:
        image = closed.image
    with rig.open() as docker_endpoint, pytest.raises(errors.RegistryUnreachable) as caught:
        list(docker_endpoint.pull(image))
    assert caught.value.retryable
