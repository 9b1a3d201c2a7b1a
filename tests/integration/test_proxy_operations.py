"""What an operator counts on: connections that stay, a renewed certificate, figures. Real HAProxy, the real agent."""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from chalicelib.aws.dynamodb import digest_of
from chalicelib.aws.routes import Grant
from chalicelib.metrics import NAMESPACE, Metric
from chalicelib.notebook.certificates import Ca, issue_notebook, new_ca
from proxy.agent.renewal import PERIOD
from proxy.agent.table import Map
from tests.builders import SIGN_IN
from tests.proxy_rig import DAY, Rig, eventually, lives, new_host, open_session, rig

pytestmark = pytest.mark.skipif(
    not shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin"), reason="apt-get install haproxy"
)


@pytest.fixture
def counted() -> Iterator[Rig]:
    with rig(environ={"HOMEPORT_STAGE": "test"}) as running:
        yield running


def timers(*which: str) -> list[float]:
    """The seconds until the kernel's next keepalive probe, of each connection that ss finds for these words."""
    listed = subprocess.run(
        ["ss", "-H", "-t", "-n", "-o", "state", "established", *which], capture_output=True, text=True, check=True
    ).stdout
    found = [re.search(r"timer:\(keepalive,(?:(\d+)min)?(?:([\d.]+)(ms|sec)?)?", line) for line in listed.splitlines()]
    return [60 * int(one[1] or 0) + float(one[2] or 0) * (0.001 if one[3] == "ms" else 1) for one in found if one]


def test_the_kernel_probes_silent_visitors_and_notebooks_each_minute(counted: Rig) -> None:
    """A load balancer of AWS forgets what was silent for 350 seconds."""
    host = new_host()
    notebook = counted.notebook(host)
    counted.publish(host, notebook.port)
    cookie = counted.cookie(host)
    with counted.websocket(host, cookie=cookie, origin=counted.origin(host)) as (status, connection):
        assert status == 101
        assert lives(connection)
        for which in (("sport", "=", f":{counted.port}"), ("dport", "=", f":{notebook.port}")):
            eventually(partial(timers, *which), "what was sent being acknowledged")
            assert all(0 < seconds <= 60 for seconds in timers(*which))


def test_the_proxy_reports_its_visitors_connections_as_a_metric(counted: Rig) -> None:
    host, cookie = open_session(counted)
    agent = counted.agent
    assert agent is not None
    with ExitStack() as stack:
        for _ in range(3):
            opened = counted.websocket(host, cookie=cookie, origin=counted.origin(host))
            status, _connection = stack.enter_context(opened)
            assert status == 101

        def reported() -> int:
            agent.agent.figures.report()
            line = json.loads(counted.figures[-1])
            (directive,) = line["_aws"]["CloudWatchMetrics"]
            assert (directive["Namespace"], directive["Dimensions"]) == (NAMESPACE, [["Stage"]])
            assert (directive["Metrics"], line["Stage"]) == (
                [{"Name": Metric.PROXY_CONNECTIONS, "Unit": "Count"}],
                "test",
            )
            return int(line[Metric.PROXY_CONNECTIONS])

        eventually(lambda: reported() == 3, "three connections counted")  # those of the entry end by themselves
    eventually(lambda: reported() == 0, "none counted")


def test_a_proxy_that_is_not_there_reports_nothing(counted: Rig) -> None:
    agent = counted.agent
    assert agent is not None
    counted.proxy.stop()
    agent.agent.figures.report()
    assert counted.figures == []


# ── the certificate ──────────────────────────────────────────────────────────────────────────────────────────────

NAME = "web.notebook.internal"  # what the test's own CA certifies


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def write_certificate(file: Path, ca: Ca) -> None:
    """A new certificate of this CA in the place of the one before, as ACME clients put it there."""
    leaf = issue_notebook(ca, "web", now=time.time(), lifetime=DAY)
    new = file.with_suffix(".new")
    new.write_bytes(leaf.certificate + b"\n" + leaf.key)
    new.replace(file)


def handshake(door: Rig, ca: Ca) -> ssl.SSLSocket | None:
    """A connection whose certificate is of this CA; None if it is of another one."""
    context = ssl.create_default_context(cadata=ca.certificate.decode())
    raw = socket.create_connection(("127.0.0.1", door.port), 20)
    try:
        return context.wrap_socket(raw, server_hostname=NAME)
    except ssl.SSLCertVerificationError:
        raw.close()
        return None


def is_served(door: Rig, ca: Ca) -> bool:
    connection = handshake(door, ca)
    if connection is not None:
        connection.close()
    return connection is not None


@pytest.fixture
def encrypted(folder: Path) -> Iterator[tuple[Rig, Ca, Path]]:
    """A proxy that serves TLS with a certificate of the CA, in the file."""
    ca, file = new_ca("first", now=time.time(), lifetime=DAY), folder / "notebooks.pem"
    write_certificate(file, ca)
    with rig(environ={"HOMEPORT_PROXY_CERTIFICATE": str(file)}, origins="https://*.localhost") as running:
        yield running, ca, file


def open_websocket(door: Rig, ca: Ca) -> ssl.SSLSocket:
    """A websocket to a notebook, over TLS."""
    host, cookie = new_host(), "c" * 43
    door.publish(host, door.notebook(host).port)
    digest = digest_of(cookie)
    door.store.put(Grant(digest, host, False, door.store.now_ms(), int(time.time()) + 3600, SIGN_IN))
    eventually(lambda: digest in door.table(Map.GRANTS), "the grant in HAProxy")
    connection = handshake(door, ca)
    assert connection is not None
    lines = ["GET /api/kernels/1/channels HTTP/1.1", f"Host: {door.address(host)}", f"Origin: {door.origin(host)}"]
    lines += ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", f"Cookie: __Host-homeport={cookie}", "", ""]
    connection.sendall("\r\n".join(lines).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        part = connection.recv(1)
        assert part, head
        head += part
    assert head.split()[1] == b"101"
    return connection


def test_a_renewed_certificate_is_served_within_a_minute_and_no_websocket_is_dropped(
    encrypted: tuple[Rig, Ca, Path],
) -> None:
    door, first, file = encrypted
    connection = open_websocket(door, first)
    assert lives(connection)
    second = new_ca("second", now=time.time(), lifetime=DAY)
    write_certificate(file, second)
    eventually(lambda: is_served(door, second), "the new certificate", deadline=60)
    assert not is_served(door, first)
    assert lives(connection)
    connection.close()
    assert PERIOD < 30


def test_a_file_that_is_no_certificate_changes_nothing_and_is_said_once(
    encrypted: tuple[Rig, Ca, Path], caplog: pytest.LogCaptureFixture
) -> None:
    door, first, file = encrypted
    agent = door.agent
    assert agent is not None
    whole = file.read_bytes()
    other = issue_notebook(first, "web", now=time.time(), lifetime=DAY)
    for broken in (whole[:900], b"", whole.partition(b"-----BEGIN PRIV")[0] + other.key, b"\xff\xfe", None):
        caplog.clear()
        if broken is None:
            file.unlink()
        else:
            file.write_bytes(broken)
        for _ in range(2):
            agent.agent.renewal.look()
        assert is_served(door, first)
        said = [record.getMessage() for record in caplog.records if "PROXY_CERTIFICATE" in record.getMessage()]
        assert len(said) == 1, broken
        assert "BEGIN" not in caplog.text
    second = new_ca("second", now=time.time(), lifetime=DAY)
    write_certificate(file, second)
    agent.agent.renewal.look()
    assert is_served(door, second)


def test_a_haproxy_that_starts_again_serves_what_the_file_holds(encrypted: tuple[Rig, Ca, Path]) -> None:
    door, first, file = encrypted
    door.proxy.stop()
    second = new_ca("second", now=time.time(), lifetime=DAY)
    door.proxy.start_haproxy()
    write_certificate(file, second)
    assert is_served(door, first)
    agent = door.agent
    assert agent is not None
    agent.agent.renewal.look()
    assert is_served(door, second)
