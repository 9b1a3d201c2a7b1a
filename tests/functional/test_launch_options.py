"""The options of a launch as an engine is told them, and which container counts as one that has them."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.session.values import DataFolder, Limits, Options, Ports
from tests.functional.hostile_engine import LOOPBACK, HostileEngine, Pki, of_json, ping
from tests.functional.test_docker_endpoint import (
    OUR_MOUNT,
    a_specification,
    an_endpoint,
    bound,
    code_of,
    code_with,
    created_body,
    inspected,
    is_adopted,
    pki,
)

__all__ = ["pki"]

DATA = {**bound("/data"), "Source": "/srv/data", "RW": False}
ASKED: dict[str, Any] = {
    "session": {
        "options": Options(DataFolder("/srv/data"), ("A",), Ports(40000, 40099)),
        "limits": Limits(shm=1 << 30),
    },
    "variables": {"A": "s3cret", "JUPYTER_RUNTIME_DIR": "/elsewhere"},
}
FOUND: dict[str, Any] = {
    "config": {"Env": ["PATH=/bin", "A=s3cret", "JUPYTER_RUNTIME_DIR=/elsewhere"]},
    "mounts": [OUR_MOUNT, DATA],
    "host": {"ShmSize": 1 << 30, "PortBindings": {"8888/tcp": [{"HostIp": LOOPBACK, "HostPort": "40000-40099"}]}},
}


def test_the_engine_is_told_all_options_and_the_hubs_variables_win(pki: Pki) -> None:
    spec = a_specification(**ASKED)
    body = created_body(pki, spec)
    assert sorted(body["Env"]) == sorted(["A=s3cret", *(f"{name}={value}" for name, value in spec.environment.items())])
    assert body["HostConfig"]["ShmSize"] == 1 << 30
    assert body["HostConfig"]["PortBindings"] == {"8888/tcp": [{"HostIp": LOOPBACK, "HostPort": "40000-40099"}]}
    volume, data = body["HostConfig"]["Mounts"]
    assert volume["Type"] == "volume"
    assert data == {"Type": "bind", "Source": "/srv/data", "Target": "/data", "ReadOnly": True}
    assert "s3cret" not in repr(spec)
    assert not any("s3cret" in value for value in body["Labels"].values())


def test_a_data_directory_that_is_asked_for_so_is_writable(pki: Pki) -> None:
    options = Options(DataFolder("/srv/data", writable=True))
    body = created_body(pki, a_specification(session={"options": options}))
    assert body["HostConfig"]["Mounts"][1]["ReadOnly"] is False


def test_a_data_directory_on_an_engine_that_would_make_it_is_refused(pki: Pki) -> None:
    """Before API 1.30 there are binds alone, whose source is made when it is not there."""
    spec = a_specification(session={"options": Options(DataFolder("/srv/data"))})
    assert code_with(pki, {"GET /_ping": ping("1.29")}, lambda endpoint: endpoint.create(spec)) == "endpoint-too-old"


PODMANS: dict[str, Any] = {
    **FOUND,
    "host": {**FOUND["host"], "PortBindings": {"8888/tcp": [{"HostIp": LOOPBACK, "HostPort": "40007"}]}},
}
OTHERS: dict[str, dict[str, Any]] = {
    "no variable": {"config": {"Env": ["PATH=/bin"]}},
    "another value": {"config": {"Env": ["A=other", "JUPYTER_RUNTIME_DIR=/elsewhere"]}},
    "no variables": {"config": {"Env": None}},
    "strange variables": {"config": {"Env": [7]}},
    "no data": {"mounts": [OUR_MOUNT]},
    "writable data": {"mounts": [OUR_MOUNT, {**DATA, "RW": True}]},
    "other data": {"mounts": [OUR_MOUNT, {**DATA, "Source": "/"}]},
    "a volume for the data": {"mounts": [OUR_MOUNT, {**DATA, "Type": "volume", "Name": "/srv/data"}]},
    "an anonymous volume for the data": {"mounts": [OUR_MOUNT, {**DATA, "Type": "volume", "Name": "0" * 64}]},
    "data elsewhere": {"mounts": [OUR_MOUNT, {**DATA, "Destination": "/other"}]},
    "other data beside it": {"mounts": [OUR_MOUNT, DATA, bound("/host")]},
    "any port": {"host": {"ShmSize": 1 << 30}},
    "another range": {
        "host": {"ShmSize": 1 << 30, "PortBindings": {"8888/tcp": [{"HostIp": LOOPBACK, "HostPort": "1-2"}]}}
    },
    "a port beside the range": {
        "host": {"ShmSize": 1 << 30, "PortBindings": {"8888/tcp": [{"HostIp": LOOPBACK, "HostPort": "40100"}]}}
    },
    "a strange port": {
        "host": {"ShmSize": 1 << 30, "PortBindings": {"8888/tcp": [{"HostIp": LOOPBACK, "HostPort": 40000}]}}
    },
    "the engine's shared memory": {"host": {**FOUND["host"], "ShmSize": 64 << 20}},
    "shared memory left out": {"host": {"PortBindings": FOUND["host"]["PortBindings"]}},
}


@pytest.mark.parametrize("found", [FOUND, PODMANS], ids=["docker", "podman"])
def test_a_container_with_the_options_that_were_asked_for_is_adopted(pki: Pki, found: dict[str, Any]) -> None:
    assert is_adopted(pki, inspected(**found), a_specification(**ASKED))


@pytest.mark.parametrize("change", OTHERS)
def test_a_container_with_other_options_is_replaced(pki: Pki, change: str) -> None:
    assert not is_adopted(pki, inspected(**{**FOUND, **OTHERS[change]}), a_specification(**ASKED))


def test_a_container_with_a_folder_that_nobody_asked_for_is_replaced(pki: Pki) -> None:
    assert not is_adopted(pki, inspected(mounts=[OUR_MOUNT, DATA]), a_specification())


# ── what the engine has ──────────────────────────────────────────────────────────────────────────────────────────────


def info(**changes: object) -> bytes:
    has: dict[str, object] = {"NCPU": 4, "MemTotal": 8 << 30, "MemoryLimit": True, "CpuCfsQuota": True}
    return of_json(has | changes)


@pytest.mark.parametrize(
    ("limits", "said", "code"),
    [
        (Limits(memory=9 << 30), {}, "limits-refused"),
        (Limits(cpus=4.5), {}, "limits-refused"),
        (Limits(memory=1 << 30), {"MemoryLimit": False}, "limits-unsupported"),
        (Limits(cpus=1.0), {"CpuCfsQuota": False}, "limits-unsupported"),
    ],
)
def test_limits_that_the_engine_cannot_keep_are_refused(
    pki: Pki, limits: Limits, said: dict[str, object], code: str
) -> None:
    assert code_with(pki, {"GET /info": info(**said)}, lambda endpoint: endpoint.check_limits(limits)) == code


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(memory=8 << 30, cpus=4.0), {}),
        (Limits(memory=1 << 30), {"CpuCfsQuota": False}),
        (Limits(cpus=1.0), {"MemoryLimit": False}),
        (Limits(memory=9 << 30, cpus=9.0), {"MemTotal": 0, "NCPU": None}),
        (Limits(memory=9 << 30, cpus=9.0), {"MemTotal": "much", "NCPU": -1, "MemoryLimit": None}),
    ],
)
def test_limits_that_the_engine_can_keep_or_says_nothing_of_are_not_refused(
    pki: Pki, limits: Limits, said: dict[str, object]
) -> None:
    with HostileEngine(pki, {"GET /info": info(**said)}) as engine, an_endpoint(engine) as endpoint:
        endpoint.check_limits(limits)


def test_an_engine_is_not_asked_what_it_has_when_no_limit_is_asked_for(pki: Pki) -> None:
    with HostileEngine(pki) as engine, an_endpoint(engine) as endpoint:
        endpoint.check_limits(Limits(gpus=1, shm=1 << 30))
        assert engine.heard == []


def test_junk_about_what_the_engine_has_is_told_as_such(pki: Pki) -> None:
    with HostileEngine(pki, {"GET /info": of_json([])}) as engine:
        code = code_of(an_endpoint(engine), lambda endpoint: endpoint.check_limits(Limits(cpus=1.0)))
        assert code == "not-a-docker-engine"
