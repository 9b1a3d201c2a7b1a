"""The ancestor's worst bug, as a test: fifty visitors at a workshop, all at once, each on their own endpoint."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from chalicelib.aws.credentials import CredentialsStore
from chalicelib.aws.queues import TickMessage
from chalicelib.aws.routes import RouteStore
from chalicelib.aws.sessions import SessionStore
from chalicelib.aws.slots import SlotStore
from chalicelib.bundle.credentials import Credentials
from chalicelib.config import Config
from chalicelib.launcher.effects import Effects
from chalicelib.launcher.tick import Launcher
from chalicelib.session.lanes import Lane
from chalicelib.session.machine import PullPatience
from chalicelib.session.values import State
from local import processes
from local.aws import Aws, own_environ
from local.hub import hub
from tests.certificates import shared_key
from tests.functional.hub_rig import a_bundle
from tests.launcher_twins import BuildLogTwin, EngineTwin, ImageStoreTwin, a_trust, drive
from tests.role_guard import guarded_aws
from tests.roles import environ_of

VISITORS = 50
# All come from one address, the twins all have one, and each has an image to pull.
ALL_AT_ONCE = {"HOMEPORT_SHARED_NETWORKS": "127.0.0.1/32 203.0.113.7/32", "HOMEPORT_FUNCTIONS": "1000"}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with guarded_aws(tmp_path_factory.mktemp("aws")) as running:
        yield running


@pytest.fixture(scope="module")
def hub_url(embedded: Aws, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = processes.free_port()
    environ = own_environ(os.environ) | environ_of("web", embedded.environ)
    with hub(tmp_path_factory.mktemp("hub"), port=port, environ=environ):
        yield f"http://127.0.0.1:{port}"


def _public(key: bytes) -> bytes:
    return load_pem_private_key(key, None).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class Harbour:
    """Fifty engines, one per visitor; each takes nobody's credentials but its own visitor's."""

    def __init__(self) -> None:
        self.engines = {f"docker-{number}.example.org": EngineTwin() for number in range(VISITORS)}
        self.keys = {
            f"docker-{number}.example.org": shared_key("p256", number)
            .public_key()
            .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            for number in range(VISITORS)
        }

    def connect(self, credentials: Credentials, *, address: str, deadline: float, hub_name: str) -> EngineTwin:
        host = credentials.endpoint.host
        assert address == host, "the address looked up belongs to another visitor's endpoint"
        assert _public(credentials.key) == self.keys[host], f"another visitor's key at {host}"
        return self.engines[host].connect(credentials, address=address, deadline=deadline, hub_name=hub_name)


def _upload(hub_url: str, number: int) -> dict[str, str]:
    bundle = a_bundle(number, host=f"tcp://docker-{number}.example.org:2376")
    answer = requests.post(
        f"{hub_url}/sessions",
        files={"credentials": ("credentials.zip", bundle)},
        data={"name": "workshop"},
        headers={"Accept": "application/json"},
        timeout=60,
    )
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def _drive(clients: Mapping[str, Any], config: Config, harbour: Harbour, sid: str, until: State) -> None:
    dynamodb = clients["dynamodb"]
    sessions = SessionStore(dynamodb, config.table, time.time)

    effects = Effects(
        config=config,
        credentials=CredentialsStore(clients["s3"], clients["kms"], bucket=config.bucket, key=config.key),
        routes=RouteStore(dynamodb, config.table, time.time),
        slots=SlotStore(dynamodb, config.table, time.time),
        images=ImageStoreTwin(),
        build_logs=BuildLogTwin(),
        trust=a_trust,
        find_session=sessions.find,
        clock=time.time,
        sleep=time.sleep,
        connect=harbour.connect,
        resolve=lambda endpoint, policy: endpoint.host,
        probe=lambda target, sid, trust, *, deadline: None,
    )

    def launcher(lane: Lane) -> Launcher:
        return Launcher(
            sessions=sessions,
            effects=effects,
            enqueue=lambda message, *, lane, delay: None,
            lane=lane,
            pulls=PullPatience(),
            clock=time.time,
            time_left=lambda: 1000.0,
            name=f"tick-{threading.get_ident()}-{until}-{lane}",
        )

    drive(launcher, sessions, TickMessage(sid))
    while (session := sessions.load(sid)).state is not until:  # fifty at once are many for one table in one process
        assert session.failure is None, session.message
        time.sleep(max((session.next_attempt_at or 0.0) - time.time(), 0.0))
        drive(launcher, sessions, TickMessage(sid))


def test_an_address_of_any_length_is_answered_as_behind_api_gateway(hub_url: str) -> None:
    answer = requests.get(f"{hub_url}/no/such/address", headers={"Accept": "application/json"}, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (404, "no-such-address")
    assert requests.head(f"{hub_url}/health", timeout=10).status_code == 200


def test_fifty_visitors_at_once_are_each_served_by_their_own_endpoint(
    embedded: Aws, hub_url: str, tmp_path: Path
) -> None:
    numbers = random.Random(50).sample(range(VISITORS), VISITORS)
    harbour = Harbour()
    config = Config.from_environ({**embedded.environ, **ALL_AT_ONCE})
    clients = {name: embedded.client(name) for name in ("dynamodb", "s3", "kms")}  # boto3's clients are thread-safe
    with ThreadPoolExecutor(VISITORS) as visitors:
        sessions = dict(zip(numbers, visitors.map(lambda number: _upload(hub_url, number), numbers), strict=True))
        assert len({session["id"] for session in sessions.values()}) == VISITORS
        in_any_order = random.Random(51).sample(numbers, VISITORS)
        launched = visitors.map(
            lambda number: _drive(clients, config, harbour, sessions[number]["id"], State.READY), in_any_order
        )
        list(launched)
    for number, session in sessions.items():
        engine = harbour.engines[f"docker-{number}.example.org"]
        assert engine.created == [f"homeport-{session['id']}-1"]
        assert session["endpoint"] == f"tcp://docker-{number}.example.org:2376"
