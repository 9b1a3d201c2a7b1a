"""The local Docker endpoint: only the bundle's holder gets to the engine's socket."""

from __future__ import annotations

import http.client
import json
import shutil
import socketserver
import ssl
import stat
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from chalicelib.bundle.parse import parse
from local.endpoint import LocalEndpoint, endpoint, write_bundle
from local.engine import engine_version, running_engine

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="apt-get install haproxy")


class FakeEngine(BaseHTTPRequestHandler):
    """Answers like an engine asked for its version."""

    def do_GET(self) -> None:
        body = json.dumps({"Version": "20.10.0"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def engine_socket() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hp-") as folder:  # short: a unix socket's path ends at 108 bytes
        path = Path(folder) / "docker.sock"
        with socketserver.ThreadingUnixStreamServer(str(path), FakeEngine) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            yield path
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def offered(engine_socket: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEndpoint]:
    with endpoint(tmp_path_factory.mktemp("endpoint"), engine_socket) as started:
        yield started


def ask(offered: LocalEndpoint, context: ssl.SSLContext) -> int:
    connection = http.client.HTTPSConnection("127.0.0.1", offered.port, context=context, timeout=10)
    try:
        connection.request("GET", "/version")
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_bundles_holder_reaches_the_engine(offered: LocalEndpoint, tmp_path: Path) -> None:
    with zipfile.ZipFile(write_bundle(tmp_path / "credentials.zip", offered)) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "local"
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    assert ask(offered, context) == 200


def test_nobody_without_a_certificate_reaches_the_engine(offered: LocalEndpoint) -> None:
    context = ssl.create_default_context(cadata=offered.pki.ca)
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        ask(offered, context)


def test_the_bundle_is_carinas_and_parses_to_the_endpoint(offered: LocalEndpoint, tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "credentials.zip", offered)
    parsed = parse(path.read_bytes(), host=None, now=time.time())
    assert "Carina" in parsed.format
    assert str(parsed.credentials.endpoint) == offered.url
    assert parsed.warnings == ()


def test_the_bundle_is_its_owners_alone(offered: LocalEndpoint, tmp_path: Path) -> None:
    path = tmp_path / "credentials.zip"
    path.touch(mode=0o644)
    write_bundle(path, offered)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_next_run_has_the_same_owner_and_the_same_port(engine_socket: Path, tmp_path: Path) -> None:
    with endpoint(tmp_path, engine_socket) as first:
        pass
    with endpoint(tmp_path, engine_socket) as second:
        assert second == first
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in tmp_path.glob("*.pem"))


def test_a_taken_port_changes_the_port_and_not_the_owner(engine_socket: Path, tmp_path: Path) -> None:
    with endpoint(tmp_path, engine_socket) as first, endpoint(tmp_path, engine_socket) as second:
        assert second.port != first.port
        assert second.pki.certificate == first.pki.certificate


def test_nothing_secret_is_in_the_endpoints_repr(offered: LocalEndpoint) -> None:
    assert "PRIVATE KEY" not in repr(offered) + repr(offered.pki)


def test_a_running_engine_is_found_through_docker_host(engine_socket: Path) -> None:
    found = running_engine({"DOCKER_HOST": f"unix://{engine_socket}"})
    assert found is not None
    assert (found.version, found.url, found.ours) == ("20.10.0", f"unix://{engine_socket}", False)


def test_a_socket_nobody_answers_on_is_no_engine(tmp_path: Path) -> None:
    assert engine_version(tmp_path / "docker.sock") is None
