"""A bundle may lead the hub to somebody else's HTTPS server: nothing that server answers is repeated anywhere.

The attack: a bundle whose ca.pem holds the CA of a server that is no Docker Engine, so that the hub trusts it and asks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType

import pytest

from chalicelib.engine.endpoint import DockerEndpoint
from chalicelib.engine.errors import EndpointError
from chalicelib.session import events as e
from chalicelib.session.machine import advance
from chalicelib.session.values import Failure
from tests.builders import NOW, a_session
from tests.functional.hostile_engine import LOOPBACK, HostileEngine, Pki

SECRET = "internal-token-51f0c2"
BODIES = (
    f'{{"message": "{SECRET}"}}',
    f"<html><title>{SECRET}</title></html>",
    f'{{"message": "no such image client version too old {SECRET}"}}',
    f'{{"Version": "{SECRET}", "Os": "{SECRET}"}}',
    f'{{"Version": "{SECRET}", "ApiVersion": "{SECRET}"}}',
    f'["{SECRET}"]',
    SECRET,
)
CALLS: Mapping[str, Callable[[DockerEndpoint], object]] = MappingProxyType(
    {
        "verify": lambda endpoint: endpoint.verify(),
        "image_present": lambda endpoint: endpoint.image_present("jupyter/minimal-notebook"),
        "pull": lambda endpoint: list(endpoint.pull("jupyter/minimal-notebook")),
        "put_files": lambda endpoint: endpoint.put_files("homeport-x-1", b""),
        "start": lambda endpoint: endpoint.start("homeport-x-1"),
        "log_tail": lambda endpoint: endpoint.log_tail("homeport-x-1"),
        "remove": lambda endpoint: endpoint.remove("homeport-x-1"),
    }
)


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki.new()


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [200, 301, 401, 403, 404, 418, 503])
def test_no_byte_of_a_strangers_answer_reaches_page_log_or_item(
    pki: Pki, status: int, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "homeport")
    for body in BODIES:
        fields = f"Server: {SECRET}\r\nApi-Version: {SECRET}\r\nLocation: https://{SECRET}/"
        answer = f"HTTP/1.1 {status} {SECRET}\r\n{fields}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        with HostileEngine(pki, {"GET /_ping": answer, "HEAD /_ping": answer, "GET /version": answer}) as stranger:
            endpoint = DockerEndpoint(stranger.credentials, address=LOOPBACK, deadline=5.0, hub_name="hub")
            with endpoint, pytest.raises(EndpointError) as caught:
                CALLS[call](endpoint)
        assert {request.path.rpartition("/")[2] for request in stranger.heard} <= {"_ping", "version"}
        error = caught.value
        failure = Failure(error.code, error.message)
        sessions = [advance(a_session(), event, NOW) for event in (e.EffectFailed(failure), e.EffectDelayed(failure))]
        assert SECRET not in f"{error!r} {error} {error.message} {sessions!r} {error.__cause__!r} {caplog.text}"
