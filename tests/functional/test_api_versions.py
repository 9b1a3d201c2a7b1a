"""A notebook's life against engines of other ages: each as its API version answers, and asked for what it knows alone.

The answers are emulated after the Engine API's changelog (https://docs.docker.com/reference/api/engine/version-history/).
Real engines that speak 1.24, 1.41 and 1.44 are in tests/integration/test_engine_contract.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from chalicelib.engine.endpoint import DockerEndpoint
from chalicelib.engine.errors import EndpointError
from chalicelib.session.values import Limits, Target
from tests.builders import a_session
from tests.functional import test_docker_endpoint as parts
from tests.functional.hostile_engine import (
    LOOPBACK,
    NOT_FOUND,
    Answer,
    HostileEngine,
    Pki,
    http,
    of_json,
    ping,
    refusal,
)

NAME: Final = parts.a_specification().name
LOG: Final = b"\1\0\0\0\0\0\0\5hello"  # one frame

# Everything a creation may name, and the API version that brought it.
SINCE: Final = {
    **dict.fromkeys(
        ("AttachStderr", "AttachStdin", "AttachStdout", "Cmd", "Env", "ExposedPorts", "HostConfig", "Image", "Labels",
         "NetworkDisabled", "OpenStdin", "StdinOnce", "Tty", "WorkingDir", "HostConfig.Binds", "HostConfig.CpuPeriod",
         "HostConfig.CpuQuota", "HostConfig.LogConfig", "HostConfig.Memory", "HostConfig.NetworkMode",
         "HostConfig.PortBindings", "HostConfig.RestartPolicy", "Healthcheck"),
        24,
    ),
    "HostConfig.Mounts": 25,
    "HostConfig.DeviceRequests": 40,
}  # fmt: skip


@dataclass(frozen=True)
class Age:
    """How an engine of an API version answers: newest and oldest version it speaks, and the words of its time."""

    newest: str
    oldest: str | None
    says_so_in_ping: bool = True
    host: Mapping[str, object] = field(default_factory=dict)
    mount: Mapping[str, object] = field(default_factory=dict)
    image: Mapping[str, object] = field(default_factory=dict)


AGES: Final = {
    "Docker 1.12": Age("1.24", None, says_so_in_ping=False, host=parts.OLD_DOCKERS_HOST, mount={"Type": None}),
    "Docker 17.06": Age("1.30", "1.12", host={"DeviceRequests": None, "Mounts": None}),
    "Docker 20.10": Age("1.41", "1.12"),
    "Docker 25": Age("1.44", "1.24", host={"NetworkMode": "bridge"}),
    "Docker 29": Age("1.52", "1.44", host={"NetworkMode": "bridge", "CapAdd": []}, image={"Volumes": None}),
}


def answers_of(age: Age) -> dict[str, Answer]:
    """A container that was created by an attempt before, and is started and removed."""
    versions = {"Version": "x", "ApiVersion": age.newest, "Os": "linux"}
    mount = {key: value for key, value in {**parts.OUR_MOUNT, **age.mount}.items() if value is not None}
    image = {key: value for key, value in {**parts.OF_IMAGE, **age.image}.items() if value is not None}
    found = parts.inspected(host=age.host, mounts=[mount], **parts.ports({"HostIp": LOOPBACK, "HostPort": "32768"}))
    return {
        "GET /_ping": http(b"OK", headers=[("Api-Version", age.newest)] if age.says_so_in_ping else ()),
        "GET /version": of_json(versions | ({"MinAPIVersion": age.oldest} if age.oldest else {})),
        f"GET /images/{parts.IMAGE}/json": of_json({"Id": parts.IMAGE_ID, "Config": image}),
        "POST /containers/create": refusal(409, f'Conflict. The container name "/{NAME}" is already in use'),
        f"GET /containers/{NAME}/json": found,
        f"PUT /containers/{NAME}/archive": http(),
        f"POST /containers/{NAME}/start": http(status=204),
        f"GET /containers/{NAME}/logs": http(LOG),
        "GET /containers/json": of_json([parts.listed()]),
        f"POST /containers/{parts.CONTAINER_ID}/stop": http(status=204),
        f"DELETE /containers/{parts.CONTAINER_ID}": http(status=204),
        f"GET /containers/{parts.CONTAINER_ID}/json": NOT_FOUND,
    }


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki.new()


@pytest.mark.parametrize("name", AGES)
def test_a_notebooks_life_with_an_engine_of_this_age(pki: Pki, name: str) -> None:
    age, spec = AGES[name], parts.a_specification()
    with HostileEngine(pki, answers_of(age)) as engine:
        with parts.an_endpoint(engine) as endpoint:
            endpoint.verify()
        with parts.an_endpoint(engine) as endpoint:
            assert endpoint.image_config(spec.image).workdir == "/home/jovyan"
            endpoint.create(spec)
            endpoint.put_files(spec.name, b"a tar")
            endpoint.start(spec.name)
            assert endpoint.inspect(spec.name).running
            assert endpoint.published(spec.name) == Target(LOOPBACK, 32768)
            assert endpoint.log_tail(spec.name) == "hello"
            assert [launch.sid for launch in endpoint.launches(a_session().owner)] == [a_session().sid]
            assert endpoint.remove(spec.name)
        spoken = min(age.newest, "1.45")
        asked = [request.path for request in engine.heard if not request.path.endswith(("/_ping", "/version"))]
    assert asked
    assert all(path.startswith(f"/v{spoken}/") for path in asked)


def paths_in(body: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in body.items():
        yield prefix + key
        if key == "HostConfig":
            yield from paths_in(value, "HostConfig.")


@pytest.mark.parametrize("minor", [24, 25, 29, 30, 39, 40, 41, 45])
@pytest.mark.parametrize("limits", [Limits(), Limits(memory=1 << 30, cpus=1.5), Limits(gpus=1)])
def test_a_creation_names_nothing_that_the_version_does_not_know(pki: Pki, minor: int, limits: Limits) -> None:
    spec = parts.a_specification(session={"limits": limits})
    if limits.gpus and minor < SINCE["HostConfig.DeviceRequests"]:
        answers: dict[str, Answer] = {"GET /_ping": ping(f"1.{minor}")}
        assert parts.code_with(pki, answers, lambda endpoint: endpoint.create(spec)) == "endpoint-too-old"
        return
    body = parts.created_body(pki, spec, api=f"1.{minor}")
    assert {path for path in paths_in(body) if SINCE[path] > minor} == set()
    volume = "Mounts" if minor >= 30 else "Binds"
    assert volume in body["HostConfig"]


@pytest.mark.parametrize(
    ("newest", "oldest", "code", "words"),
    [
        ("1.22", None, "endpoint-too-old", "speaks API 1.22; at least 1.24 is needed"),
        ("1.23", "1.12", "endpoint-too-old", "speaks API 1.23; at least 1.24 is needed"),
        ("1.60", "1.46", "endpoint-too-new", "wants API 1.46 or newer, and this hub knows 1.45"),
    ],
)
def test_an_engine_that_shares_no_version_with_the_hub_is_told_so(
    pki: Pki, newest: str, oldest: str | None, code: str, words: str
) -> None:
    answers = answers_of(Age(newest, oldest))
    with HostileEngine(pki, answers) as engine, parts.an_endpoint(engine) as endpoint:
        with pytest.raises(EndpointError, match=re.escape(words)) as caught:
            endpoint.verify()
        assert caught.value.code == code


def test_an_engine_that_has_become_too_new_says_so_itself(pki: Pki) -> None:
    """It was updated during the session: a ping names the newest version alone."""
    message = "client version 1.45 is too old. Minimum supported API version is 1.60, please upgrade your client"
    answers: dict[str, Answer] = {
        "GET /_ping": http(b"OK", headers=[("Api-Version", "1.70")]),
        f"GET /containers/{NAME}/json": http(json.dumps({"message": message}).encode(), status=400),
    }
    inspect = lambda endpoint: DockerEndpoint.inspect(endpoint, NAME)  # noqa: E731
    assert parts.code_with(pki, answers, inspect) == "endpoint-too-new"
