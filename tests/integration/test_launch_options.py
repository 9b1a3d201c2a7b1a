"""The options of a launch, and what a registry can refuse, on a real engine."""

from __future__ import annotations

import json
import random
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from docker.errors import NotFound

from chalicelib.bundle.address import Endpoint
from chalicelib.bundle.credentials import Credentials
from chalicelib.engine import errors
from chalicelib.engine.endpoint import DockerEndpoint
from chalicelib.notebook.container import Specification
from chalicelib.session.values import DataFolder, Limits, Ports
from local.endpoint import endpoint as local_endpoint
from local.engine import engine
from tests.integration.gated_registry import GatedRegistry
from tests.integration.test_docker_endpoint import (
    HUB,
    Rig,
    _import_shell,
    fresh,
    has_exited,
    made_behind,
    pytestmark,
    rig,
    saying,
    until,
)

__all__ = ["fresh", "pytestmark", "rig"]  # the fixtures, and what is needed for them

ALIEN = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00\x01\x00\x00\x00" + bytes(40)  # a program for arm64
LOOPBACK = "127.0.0.1"
SHM = "while read -r _ where _ options; do case $where in /dev/shm) echo $options;; esac; done </proc/mounts"


def free_ports() -> Ports:
    """Two ports beside each other that nobody listens on, below those that systems and engines take by themselves."""
    while True:
        port = random.randrange(20000, 32000)
        try:
            for number in (port, port + 1):
                socket.create_server((LOOPBACK, number)).close()
        except OSError:
            continue
        return Ports(port, port + 1)


def said_by(rig: Rig, spec: Specification) -> str:
    """What the container's program says, once it has ended."""
    spec = replace(spec, ports=free_ports())
    with rig.open() as endpoint:
        endpoint.create(spec)
        endpoint.start(spec.name)
        until(lambda: has_exited(endpoint, spec))
        return endpoint.log_tail(spec.name)


# ── options ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_variables_and_shared_memory_are_as_asked_for(rig: Rig, fresh: Specification) -> None:
    spec = replace(
        fresh,
        variables={"TOKEN": "a b=c “ü”\t$HOME", "JUPYTER_CONFIG_PATH": "/elsewhere"},
        limits=Limits(shm=96 << 20),
        command=saying(f'echo "$TOKEN|$JUPYTER_CONFIG_PATH"; {SHM}'),
    )
    said = said_by(rig, spec).splitlines()
    assert said[0] == "a b=c “ü” $HOME|/opt/homeport"  # the log's lines have ordinary spaces
    assert "size=98304k" in said[1]


@pytest.mark.parametrize("writable", [False, True])
def test_the_data_directory_is_mounted_read_only_unless_asked_for(
    rig: Rig, fresh: Specification, tmp_path: Path, writable: bool
) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / "here").write_text("close to the data")
    spec = replace(
        fresh,
        data=DataFolder(str(tmp_path), writable),
        command=saying("cat /data/here; echo; echo new >/data/new && cat /data/new"),
    )
    said = said_by(rig, spec).splitlines()
    assert "close to the data" in said
    assert ("new" in said, (tmp_path / "new").exists()) == (writable, writable)


def test_a_data_directory_that_is_not_there_is_refused_and_not_made(
    rig: Rig, fresh: Specification, tmp_path: Path
) -> None:
    missing = tmp_path / "missing"
    with rig.open() as endpoint, pytest.raises(errors.DataFolderMissing, match=str(missing)):
        endpoint.create(replace(fresh, data=DataFolder(str(missing))))
    assert not missing.exists()


def test_a_range_of_ports_is_used_up_before_it_is_told_that_all_are_taken(rig: Rig, fresh: Specification) -> None:
    ports = free_ports()
    others = [rig.specification(f"ports-{number}", ports=ports) for number in range(2)]
    with rig.open() as endpoint:
        for spec in others:
            endpoint.create(spec)
            endpoint.start(spec.name)
        assert {endpoint.published(spec.name).port for spec in others} == {ports.first, ports.last}
        endpoint.create(replace(fresh, ports=ports))
        with pytest.raises(errors.PortTaken, match="All ports"):
            endpoint.start(fresh.name)
        endpoint.remove(others[0].name)
        endpoint.start(fresh.name)
        assert endpoint.published(fresh.name).port in (ports.first, ports.last)
        endpoint.remove(others[1].name)


@pytest.mark.parametrize("holder", ["another container", "another program"])
def test_a_fixed_port_that_is_taken_is_named_and_used_once_it_is_free(
    rig: Rig, fresh: Specification, holder: str
) -> None:
    port = free_ports().first
    spec, other = (replace(one, ports=Ports(port, port)) for one in (fresh, rig.specification("holder")))
    with rig.open() as endpoint:
        endpoint.create(spec)
        if holder == "another program":
            with socket.create_server((LOOPBACK, port)), pytest.raises(errors.PortTaken, match=str(port)):
                endpoint.start(spec.name)
        else:
            endpoint.create(other)
            endpoint.start(other.name)
            with pytest.raises(errors.PortTaken, match=str(port)):
                endpoint.start(spec.name)
            endpoint.remove(other.name)
        endpoint.start(spec.name)
        assert endpoint.published(spec.name).port == port


def test_a_container_with_these_options_is_adopted_and_with_others_replaced(
    rig: Rig, fresh: Specification, tmp_path: Path
) -> None:
    asked = replace(
        fresh,
        variables={"A": "1"},
        data=DataFolder(str(tmp_path)),
        ports=Ports(40000, 40099),
        limits=Limits(shm=96 << 20),
    )
    changes: list[dict[str, object]] = [
        {},
        {"variables": {"A": "2"}},
        {"data": None},
        {"data": DataFolder(str(tmp_path), writable=True)},
        {"ports": Ports(40000, 40098)},
        {"ports": None},
        {"limits": Limits(shm=97 << 20)},
    ]
    with rig.open() as endpoint:
        for number, change in enumerate(changes):
            labels = {**asked.labels, "homeport.generation": f"1{number}"}
            spec = replace(asked, name=f"{asked.name}{number}", labels=labels)
            made = made_behind(rig, replace(spec, **change))  # type: ignore[arg-type]
            endpoint.create(spec)
            assert (rig.behind.inspect_container(spec.name)["Id"] == made) is (change == {}), change
            endpoint.remove(spec.name)


def test_more_than_the_engine_has_is_refused_before_anything_is_pulled(rig: Rig) -> None:
    info = rig.behind.info()
    with rig.open() as endpoint:
        endpoint.check_limits(Limits(memory=info["MemTotal"], cpus=float(info["NCPU"])))
        with pytest.raises(errors.LimitsRefused, match="of memory, and 1 TiB were asked for"):
            endpoint.check_limits(Limits(memory=1 << 40))
        with pytest.raises(errors.LimitsRefused, match=f"has {info['NCPU']} CPUs, and 999 were asked for"):
            endpoint.check_limits(Limits(cpus=999.0))


def test_gpus_that_the_engine_does_not_have_are_told_as_such(rig: Rig, fresh: Specification) -> None:
    with rig.open() as endpoint:
        endpoint.create(replace(fresh, limits=Limits(gpus=1), ports=free_ports()))
        with pytest.raises(errors.GpuUnavailable):
            endpoint.start(fresh.name)


def test_a_program_for_another_kind_of_processor_is_told_as_such(rig: Rig, fresh: Specification) -> None:
    image = "homeport-alien-test:latest"
    _import_shell(rig.behind, image, {"usr/bin/alien": ALIEN})
    try:
        spec = replace(fresh, image=image, command=("alien",))
        try:
            said = said_by(rig, spec)
        except errors.ImageWrongPlatform:  # other versions of runc say it at the start
            return
        assert "exec format error" in said
    finally:
        rig.behind.remove_container(fresh.name, force=True)
        rig.behind.remove_image(image, force=True)


# ── images and registries ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def registry(rig: Rig) -> Iterator[GatedRegistry]:
    with GatedRegistry(1) as served:
        served.open_gates()
        yield served
        try:
            rig.behind.remove_image(served.image, force=True)
        except NotFound:
            return


def test_an_image_is_pulled_by_its_digest_whatever_the_tag_says(rig: Rig, registry: GatedRegistry) -> None:
    with rig.open() as endpoint:
        list(endpoint.pull(registry.image))
        (named,) = rig.behind.inspect_image(registry.image)["RepoDigests"]  # type: ignore[no-untyped-call]
        by_digest = f"{registry.image.removesuffix(':latest')}:other@{named.partition('@')[2]}"
        rig.behind.remove_image(registry.image, force=True)
        assert not endpoint.image_present(by_digest)
        list(endpoint.pull(by_digest))
        assert endpoint.image_present(by_digest)
        rig.behind.remove_image(named, force=True)


def refusal(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (404, refusal("MANIFEST_UNKNOWN", "manifest unknown"), errors.ImageNotFound),
        (404, refusal("NAME_UNKNOWN", "repository name not known to registry"), errors.ImageNotFound),
        (403, refusal("DENIED", "requested access to the resource is denied"), errors.RegistryDenied),
        (401, refusal("UNAUTHORIZED", "authentication required"), errors.RegistryDenied),
        (429, refusal("TOOMANYREQUESTS", "You have reached your pull rate limit"), errors.RegistryLimit),
        (429, b"<h1>slow down</h1>", errors.RegistryLimit),
        (503, b"try later", errors.PullFailed),
    ],
)
def test_what_a_registry_refuses_has_its_error(
    rig: Rig, registry: GatedRegistry, status: int, body: bytes, error: type[errors.EndpointError]
) -> None:
    registry.refuses = (status, body)
    with rig.open() as endpoint, pytest.raises(error):
        list(endpoint.pull(registry.image))


def test_an_image_for_other_processors_alone_is_told_as_such(rig: Rig, registry: GatedRegistry) -> None:
    registry.serve_list("s390x")
    with rig.open() as endpoint, pytest.raises(errors.ImageWrongPlatform):
        list(endpoint.pull(registry.image))


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    """An engine of our own whose data are on a disk of 48 MiB, and an image of 64."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", disk], check=True)
    try:
        with (
            engine(disk / "engine", {"DOCKER_HOST": f"unix://{tmp_path}/none"}) as running,
            local_endpoint(tmp_path / "endpoint", running.socket) as offered,
            GatedRegistry(1, of_layer=64 << 20) as registry,
        ):
            registry.open_gates()
            pem = (text.encode() for text in (offered.pki.ca, offered.pki.certificate, offered.pki.key))
            credentials = Credentials(Endpoint(LOOPBACK, offered.port), *pem)
            with (
                DockerEndpoint(credentials, address=LOOPBACK, deadline=30.0, hub_name=HUB) as endpoint,
                pytest.raises(errors.NoSpace),
            ):
                list(endpoint.pull(registry.image))
    finally:
        subprocess.run(["umount", disk], check=True)
