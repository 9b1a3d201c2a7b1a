"""app.py itself, as Chalice loads it in a deployed function's environment: its addresses, queue and schedule."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from chalice.local import LambdaContext
from chalice.test import Client
from moto import mock_aws

from chalicelib.session.values import State
from chalicelib.wiring import wiring
from tests.functional.hub_rig import ENVIRONMENT, QUEUE, HubRig, a_bundle, made_resources


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubRig]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        for name, value in {**ENVIRONMENT, "HOMEPORT_TICK_QUEUE_URL": made_resources()}.items():
            monkeypatch.setenv(name, value)
        wiring.cache_clear()
        from app import app

        with Client(app) as client:
            yield HubRig(client, wiring(), wiring().hub)
        wiring.cache_clear()


def redriven(client: Client) -> object:
    event = client.events.generate_cw_event("aws.events", "Scheduled Event", {}, [])
    return client.lambda_.invoke("redrive", event).payload


def test_an_upload_is_driven_by_the_queue_and_the_schedule(hub: HubRig) -> None:
    from app import app

    session = hub.upload(a_bundle(), name="one").json
    assert hub.messages() == [{"session": session["id"]}]
    assert hub.ask("DELETE", f"/sessions/{session['id']}", token=session["owner_token"]).status == 202
    (message,) = hub.messages()
    assert redriven(hub.client) == {"enqueued": 1}
    assert hub.messages() == [message]
    assert hub.objects()
    context = LambdaContext("tick", memory_size=512, max_runtime_ms=120_000)  # the test client's has 3 seconds
    app.handler_map["tick"](hub.client.events.generate_sqs_event([json.dumps(message)], QUEUE), context)
    assert hub.parts.sessions.load(session["id"]).state is State.STOPPED
    assert hub.objects() == []
    assert redriven(hub.client) == {"enqueued": 0}
