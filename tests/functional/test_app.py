"""app.py itself, as Chalice loads it in a deployed function's environment: its addresses, queues and schedule."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from chalice.local import LambdaContext
from chalice.test import Client
from moto import mock_aws

from chalicelib.aws.session_items import REDRIVE_STEP
from chalicelib.session.lanes import Lane, queue_of
from chalicelib.session.values import State
from chalicelib.wiring import aws_client, wiring
from tests.functional.hub_rig import ENVIRONMENT, QUEUES, HubRig, a_bundle, made_resources
from tests.policies import ROOT


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubRig]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        for name, value in {**ENVIRONMENT, "HOMEPORT_QUEUE_URLS": made_resources()}.items():
            monkeypatch.setenv(name, value)
        wiring.cache_clear()
        from app import app

        with Client(app) as client:
            yield HubRig(client, wiring(), wiring().hub)
        wiring.cache_clear()


def test_health_and_refusals_that_need_no_store_make_no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an AWS region no client can be made."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    wiring.cache_clear()
    from app import app

    with Client(app) as client:
        assert client.http.get("/health", headers={"Accept": "application/json"}).status_code == 200
        for method, path, status in (("DELETE", "/health", 405), ("POST", "/sessions", 415)):
            headers = {"Accept": "application/json", "Content-Type": "text/plain"}
            assert client.http.request(method, path, headers=headers, body=b"x").status_code == status
    assert "hub" not in vars(wiring())
    wiring.cache_clear()


def test_one_call_of_aws_ends_before_the_web_functions_time_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    limits = aws_client("dynamodb").meta.config
    attempts = limits.retries["total_max_attempts"]
    pauses = sum(2.0**number for number in range(attempts - 1))  # the longest ones of the standard mode
    functions = json.loads((ROOT / ".chalice" / "config.json").read_text())["lambda_functions"]
    longest = attempts * (limits.connect_timeout + limits.read_timeout) + pauses
    assert longest < functions["api_handler"]["lambda_timeout"]


def redriven(client: Client) -> object:
    """What the schedule says at its first run after an upload."""
    event = client.events.generate_cw_event("aws.events", "Scheduled Event", {}, [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chalicelib.wiring.CLOCK", lambda: time.time() + REDRIVE_STEP)
        return client.lambda_.invoke("redrive", event).payload


def test_an_upload_is_driven_by_the_queue_and_the_schedule(hub: HubRig) -> None:
    from app import app

    session = hub.upload(a_bundle(), name="one").json
    assert hub.messages(Lane.LAUNCH) == [{"session": session["id"]}]
    assert hub.ask("DELETE", f"/sessions/{session['id']}", token=session["owner_token"]).status == 202
    (message,) = hub.messages(Lane.LEAVE)
    assert redriven(hub.client) == {"enqueued": 1}
    assert hub.messages(Lane.LEAVE) == [message]
    assert hub.objects()
    context = LambdaContext("leave", memory_size=256, max_runtime_ms=120_000)  # the test client's has 3 seconds
    event = hub.client.events.generate_sqs_event([json.dumps(message)], queue_of(QUEUES, Lane.LEAVE))
    app.handler_map["leave"](event, context)
    assert hub.parts.sessions.load(session["id"]).state is State.STOPPED
    assert hub.objects() == []
    assert redriven(hub.client) == {"enqueued": 0}
