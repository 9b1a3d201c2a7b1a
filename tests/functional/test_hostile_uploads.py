"""What no browser sends: through the web function itself, and through a real HTTP server over real sockets.

Whatever comes, the answer is no 5xx, nothing is stored for what was refused, and the next visitor is served.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import socket
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from urllib3.filepost import encode_multipart_formdata

from chalicelib.session import events as e
from chalicelib.session.machine import advance
from chalicelib.session.values import State
from local import processes
from local.aws import Aws, aws, own_environ
from local.hub import hub as running_hub
from local.settings import NO_RATES
from tests.functional.hub_rig import HubRig, a_bundle, hub_rig
from tests.functional.test_web import BROWSER, made_ready
from tests.unit.naughty import ACCEPTED_NAMES, REFUSED_NAMES, TYPED_NAMES

NOBODY = "0123456789abcdefghij"  # the form of a session's id, and nobody's
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def hub() -> Iterator[HubRig]:
    with hub_rig() as rig:
        yield rig


def a_form(bundle: bytes, **fields: str) -> tuple[bytes, str]:
    return encode_multipart_formdata({"credentials": ("c.zip", bundle), **fields}, boundary="----a-boundary")


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_names_in_every_script_launch_sessions_and_are_shown_as_typed(hub: HubRig) -> None:
    cookie: dict[str, str] = {}
    ids = set()
    for name in (*TYPED_NAMES[::4], *ACCEPTED_NAMES[::8]):
        answer = hub.upload(a_bundle(), name=name, headers={**BROWSER, **cookie})
        assert (answer.status, answer.json["name"]) == (201, unicodedata.normalize("NFC", name)), ascii(name)
        assert re.fullmatch("[0-9a-v]{20}", answer.json["id"])
        ids.add(answer.json["id"])
        cookie = {"Cookie": answer.headers["set-cookie"].split(";")[0]}
        page = hub.ask("GET", f"/sessions/{answer.json['id']}", html=True, headers=cookie)
        assert html.escape(answer.json["name"]).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in page.text
    assert len(ids) == len((*TYPED_NAMES[::4], *ACCEPTED_NAMES[::8]))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_another_spelling_of_the_same_name_rejoins_the_session(hub: HubRig, form: Any) -> None:
    first = hub.upload(a_bundle(), name="été ᾂ 한글").json
    again = hub.upload(a_bundle(), name=unicodedata.normalize(form, "été ᾂ 한글"))
    assert (again.status, again.json["id"]) == (200, first["id"])


def test_refused_names_store_nothing_and_come_back_in_no_answer(hub: HubRig) -> None:
    for name in REFUSED_NAMES[::3]:
        if any("\ud800" <= c <= "\udfff" for c in name):
            continue  # cannot be sent: it is no UTF-8
        answer = hub.upload(a_bundle(), name=name)
        assert (answer.status, answer.json["code"]) == (400, "bad-name"), ascii(name)
        assert name not in answer.text
    assert hub.objects() == []
    assert hub.messages() == []


def test_the_name_in_the_first_pages_address_is_escaped(hub: HubRig) -> None:
    for name in (*ACCEPTED_NAMES, "\x00\x1b[31m\u202e", '"><script>alert(1)</script>', "x" * 7000):
        answer = hub.client.http.get(f"/?name={quote(name)}", headers={"Accept": "text/html"})
        assert answer.status_code == 200, ascii(name)
        text = answer.body.decode()
        assert text.count("<script>") == 1
        value = re.search(r'<input type="text" id="name" name="name" value="([^"<>]*)"', text)
        assert value is not None, ascii(name)
        assert html.unescape(value[1]).rstrip() in (html.unescape(name).rstrip(), name.rstrip(), "my-notebook")


# ── what a request carries besides its form ──────────────────────────────────────────────────────────────────────────

PATHS = (
    "x",
    "..",
    "%2e%2e",
    "%2e%2e%2f%2e%2e",
    "a%00b",
    "%ff",
    "%0d%0aSet-Cookie:%20a=b",
    "session%23x",
    NOBODY.upper(),
    NOBODY + "0",
    "é",
    "{sid}",
    "*",
    "%25",
    "a" * 3000,
    "'",
    "<script>",
    NOBODY + "%0a",
    "\u202e",
)


def test_no_path_of_a_session_does_anything_but_be_not_found(hub: HubRig) -> None:
    session = hub.upload(a_bundle(), name="one").json
    token = session["owner_token"]
    for sid in (NOBODY, session["id"] + "0", session["id"].upper() + "x", *PATHS):
        for method, rest in (("GET", ""), ("GET", "/events"), ("DELETE", "")):
            answer = hub.ask(method, f"/sessions/{sid}{rest}", token=token)
            assert (answer.status, answer.json["code"]) == (404, "session-not-found"), (method, sid[:40], answer.text)
        for action in ("enter", "stop", "forget"):
            answer = hub.press(f"/sessions/{sid}/{action}", token=token, html=True)
            assert answer.status == 404, (action, sid[:40])
    assert hub.parts.sessions.load(session["id"]).state is State.VERIFYING


AFTERS = (
    "",
    "-1",
    "1.5",
    "1e3",
    "0x1",
    "９",
    "²",
    "1" * 10,
    "9" * 5000,
    "NaN",
    "'",
    "%00",
    "%ff",
    "1%0a",
    "null",
    "[]",
)


def test_after_is_a_number_or_refused(hub: HubRig) -> None:
    session = hub.upload(a_bundle(), name="one").json
    headers = {"Authorization": f"Bearer {session['owner_token']}", "Accept": "application/json"}
    for after in AFTERS:
        answer = hub.client.http.get(
            f"/sessions/{session['id']}/events?after={quote(after, safe='%')}", headers=headers
        )
        assert answer.status_code == 400
        assert answer.json_body["code"] == "bad-field"


def test_after_may_be_sent_twice_and_the_last_counts(hub: HubRig) -> None:
    session = hub.upload(a_bundle(), name="one").json
    headers = {"Authorization": f"Bearer {session['owner_token']}", "Accept": "application/json"}
    answer = hub.client.http.get(f"/sessions/{session['id']}/events?after=x&after=0&other=1", headers=headers)
    assert (answer.status_code, len(answer.json_body["events"])) == (200, 1)


AUTHORIZATIONS = (
    "",
    " ",
    "Bearer",
    "Bearer ",
    "Bearer  ",
    "Basic dXNlcjpwYXNz",
    "bearer x y",
    "Bearer \x00",
    "Bearer é",
    "Bearer \ud800",
    "Bearer " + "x" * 100_000,
    "Bearer token#x",
    "Bearer ' OR 1=1 --",
    "Bearer null",
    "Negotiate",
    ", Bearer x",
    "\x7f",
)


def test_junk_in_authorization_is_nobody(hub: HubRig) -> None:
    for value in AUTHORIZATIONS:
        for path in ("/sessions", f"/sessions/{NOBODY}", f"/sessions/{NOBODY}/events"):
            answer = hub.ask("GET", path, headers={"Authorization": value})
            assert (answer.status, answer.json["code"]) == (401, "not-authenticated")
        assert hub.upload(a_bundle(), name="one", headers={"Authorization": value}).status in (200, 201)


COOKIES = (
    "",
    ";",
    "=",
    ";;==;",
    "__Host-homeport-owner",
    "__Host-homeport-owner=",
    '__Host-homeport-owner="',
    "a=b; " * 5000,
    "__Host-homeport-owner=\x00",
    "__Host-homeport-owner=é",
    "__Host-homeport-owner=\ud800",
    "__Host-homeport-owner=" + "x" * 60_000,
    '__Host-homeport-owner="' + "\\" * 60_000 + '"',
    "[bad]=(name); __Host-homeport-owner=x",
    "$Version=1; $Path=/",
    "\r\n",
)


def test_malformed_cookies_are_nobodys(hub: HubRig) -> None:
    for cookie in COOKIES:
        answer = hub.ask("GET", f"/sessions/{NOBODY}", headers={"Cookie": cookie})
        assert (answer.status, answer.json["code"]) == (401, "not-authenticated")
        assert hub.ask("GET", "/", html=True, headers={"Cookie": cookie}).status == 200


def test_a_visitors_cookie_counts_beside_malformed_ones_and_not_beside_another_of_its_name(hub: HubRig) -> None:
    mine = hub.upload(a_bundle(0), name="one", headers=BROWSER)
    theirs = hub.upload(a_bundle(1), name="two", headers=BROWSER)
    own, other = (answer.headers["set-cookie"].split(";")[0] for answer in (mine, theirs))
    path = f"/sessions/{mine.json['id']}"
    for cookie in (f"bad[]={{(; {own}", f"{own}; =;;", f'x="unclosed; {own}', f" {own} ", f"{own}; {own}"):
        assert hub.ask("GET", path, headers={"Cookie": cookie}).status == 200, cookie
    for cookie in (f"{own}; {other}", f"{other}; {own}", f"{own}; __Host-homeport-owner="):
        assert hub.ask("GET", path, headers={"Cookie": cookie}).status == 401, cookie
    for cookie in (own.lower().replace("__host", "__HOST"), own.replace("-owner", ""), f"x{own}"):
        assert hub.ask("GET", path, headers={"Cookie": cookie}).status == 401, cookie


ACCEPTS = (
    ("application/json", "application/json"),
    ("text/html, application/json;q=0.5", "application/json"),
    ("", "text/html; charset=utf-8"),
    ("*/*", "text/html; charset=utf-8"),
    ("multipart/form-data", "text/html; charset=utf-8"),
    ("image/png, ;;;,q=", "text/html; charset=utf-8"),
    ("\x00\xff", "text/html; charset=utf-8"),
    ("a" * 50_000, "text/html; charset=utf-8"),
)


def test_every_accept_gets_a_page_or_json(hub: HubRig) -> None:
    for accept, kind in ACCEPTS:
        for path, status in (("/sessions/x", 401), ("/bundles", 405)):
            answer = hub.ask("GET", path, headers={"Accept": accept})
            assert answer.status == status
            assert answer.headers["content-type"] == kind.replace("application/json", "application/problem+json")
        assert hub.ask("GET", "/", headers={"Accept": accept}).status == 200


def test_huge_and_odd_headers_change_nothing(hub: HubRig) -> None:
    odd = {
        "X-Forwarded-For": "x" * 100_000,
        "X-Forwarded-Host": "evil.example",
        "Sec-Fetch-Mode": "\x00",
        "Range": "bytes=-1",
    }
    answer = hub.ask("GET", "/", html=True, headers=odd)
    assert answer.status == 200
    assert "evil.example" not in answer.text


ORIGINS = (
    "null",
    "https://hub.example.org.evil.example",
    "http://hub.example.org",
    "",
    "https://hub.example.org:444",
)


def test_an_origin_that_only_looks_like_the_hubs_is_refused(hub: HubRig) -> None:
    for origin in ORIGINS:
        answer = hub.upload(a_bundle(), name="one", headers={"Origin": origin})
        assert (answer.status, answer.json["code"]) == (403, "cross-site-request")
        assert hub.objects() == []


def test_tokens_and_tickets_are_256_random_bits_and_a_ticket_lasts_a_minute(hub: HubRig) -> None:
    session = hub.upload(a_bundle(), name="one").json
    made_ready(hub, session["id"])
    before = time.time()
    tickets = [hub.press(f"/sessions/{session['id']}/enter", token=session["owner_token"]).json for _ in range(3)]
    secrets = {session["owner_token"], *(entry["ticket"] for entry in tickets)}
    assert len(secrets) == 4
    assert all(len(base64.urlsafe_b64decode(secret + "=")) == 32 for secret in secrets)
    items = hub.client_of("dynamodb").scan(TableName="homeport-test")["Items"]
    lasting = [int(item["ttl"]["N"]) - before for item in items if item["sk"]["S"] == "ticket"]
    assert len(lasting) == 3
    assert all(0 < seconds <= 60 + (time.time() - before) for seconds in lasting)


def test_buttons_take_any_body_and_read_none(hub: HubRig) -> None:
    session = hub.upload(a_bundle(), name="one").json
    made_ready(hub, session["id"])
    for body in (b"", b"\xff\x00", b"{" * 5000, b"path=//evil.example&ticket=mine"):
        for kind in (FORM, "application/json"):
            answer = hub.press(
                f"/sessions/{session['id']}/enter",
                token=session["owner_token"],
                headers={"Content-Type": kind},
                body=body,
            )
            assert (answer.status, answer.json["path"]) == (200, "/lab")


def test_answers_over_https_say_to_come_back_by_https_alone(hub: HubRig) -> None:
    for path in ("/", "/health", "/sessions"):
        assert hub.ask("GET", path).headers["strict-transport-security"] == "max-age=31536000"


def test_a_hub_without_tls_does_not_speak_of_it() -> None:
    with hub_rig(HOMEPORT_HUB_ORIGIN="http://localhost:8000") as plain:
        assert "strict-transport-security" not in plain.ask("GET", "/health").headers


def test_no_page_may_be_framed_cached_sniffed_or_run_a_foreign_script(hub: HubRig) -> None:
    for path, status in (("/", 200), ("/sessions", 200), ("/sessions/x", 401), ("/bundles", 405)):
        answer = hub.ask("GET", path, html=True)
        assert answer.status == status
        policy = answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "'unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


# ── what one key may bring to another's notebook ─────────────────────────────────────────────────────────────────────


def test_credentials_for_another_endpoint_are_not_put_under_a_running_notebook(hub: HubRig) -> None:
    """Else a later stop would look for the container on the wrong machine, find none, and call it removed."""
    session = hub.upload(a_bundle(), name="one").json
    made_ready(hub, session["id"])
    store = hub.parts.sessions
    for event in (e.ForgetRequested(), e.CredentialsPurged()):
        store.save(advance(store.load(session["id"]), event, 0.0))
    before = hub.objects()
    answer = hub.upload(a_bundle(host="tcp://docker2.example.org:2376"), name="one")
    assert (answer.status, answer.json["code"]) == (400, "endpoints-disagree")
    assert "docker.example.org" in answer.json["detail"]
    assert "docker2.example.org" in answer.json["detail"]
    assert store.load(session["id"]).credentials_held is False
    assert hub.objects() == before


# ── over a real HTTP server ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Server:
    """app.py behind a socket, and the AWS it stores in."""

    port: int
    aws: Aws

    def send(self, sent: bytes) -> bytes:
        """Send, say that nothing more will come, and read until the server hangs up; b"" if it did so at once."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            try:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
                received = b""
                while more := connection.recv(65536):
                    received += more
            except (BrokenPipeError, ConnectionResetError):
                return b""
            return received

    def post(self, body: bytes, *headers: str, path: str = "/sessions", length: str | None = None) -> bytes:
        lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Accept: application/json", *headers]
        lines += [f"Content-Length: {length}"] if length is not None else []
        return self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def stored(self) -> tuple[int, int]:
        items = self.aws.client("dynamodb").scan(TableName=self.aws.environ["HOMEPORT_TABLE"])["Count"]
        objects = self.aws.client("s3").list_objects_v2(Bucket=self.aws.environ["HOMEPORT_BUCKET"])["KeyCount"]
        return items, objects


def status_of(received: bytes) -> int:
    """The first answer's status; 0 when the server hung up without a word."""
    match = re.match(rb"HTTP/1\.[01] (\d{3}) ", received)
    return int(match[1]) if match else 0


def problem_of(received: bytes) -> dict[str, Any]:
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    assert length is not None
    return dict(json.loads(body[: int(length[1])]))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with aws(tmp_path_factory.mktemp("aws")) as embedded:
        port = processes.free_port()
        environ = own_environ(os.environ) | dict(embedded.environ) | dict(NO_RATES)
        with running_hub(tmp_path_factory.mktemp("hub"), port=port, environ=environ):
            yield Server(port, embedded)


@pytest.fixture(autouse=True)
def nothing_is_stored_and_the_next_visitor_is_served(request: pytest.FixtureRequest) -> Iterator[None]:
    if "server" not in request.fixturenames:
        yield
        return
    server: Server = request.getfixturevalue("server")
    before = server.stored()
    yield
    assert server.stored() == before
    assert status_of(server.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")) == 200
    body, kind = a_form(a_bundle())
    checked = server.post(body, f"Content-Type: {kind}", path="/bundles", length=str(len(body)))
    assert status_of(checked) == 200


def chunked(body: bytes, size: int = 1000) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def test_a_chunked_form_is_refused_with_what_to_do(server: Server) -> None:
    body, kind = a_form(a_bundle(), name="one")
    received = server.post(chunked(body), f"Content-Type: {kind}", "Transfer-Encoding: chunked")
    assert (status_of(received), problem_of(received)["code"]) == (400, "bad-form")
    assert "Content-Length" in problem_of(received)["detail"]


@pytest.mark.parametrize("encoding", ["chunked", "gzip", "chunked, identity", "xchunked", " "])
def test_no_transfer_encoding_gets_a_form_in(server: Server, encoding: str) -> None:
    body, kind = a_form(a_bundle(), name="one")
    received = server.post(chunked(body), f"Content-Type: {kind}", f"Transfer-Encoding: {encoding}")
    assert status_of(received) == 400


def test_a_form_that_is_cut_off_is_refused(server: Server) -> None:
    body, kind = a_form(a_bundle(), name="one")
    for cut in (0, 1, 60, len(body) // 2, len(body) - 5):
        received = server.post(body[:cut], f"Content-Type: {kind}", length=str(len(body)))
        assert (status_of(received), problem_of(received)["code"]) == (400, "bad-form")


def test_a_visitor_who_hangs_up_in_the_middle_leaves_nothing(server: Server) -> None:
    body, kind = a_form(a_bundle(), name="one")
    about = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    head = b"POST /sessions HTTP/1.1\r\nHost: localhost\r\n" + about
    for part in (head[:30], head[:-2], head, head + body[: len(body) // 2]):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(part)


@pytest.mark.parametrize(
    "length", ["0", "1", "-1", "abc", "", "1e3", "0x10", "99999999999999999999", "1, 2", "٣", "+5 5"]
)
def test_a_length_that_lies_gets_nothing_in(server: Server, length: str) -> None:
    """Chalice's local server hangs up on a length that is no number; API Gateway refuses it before the function."""
    body, kind = a_form(a_bundle(), name="one")
    received = server.post(body, f"Content-Type: {kind}", length=length)
    assert status_of(received) in (0, 400)


def test_two_lengths_and_length_beside_chunks_get_nothing_in(server: Server) -> None:
    body, kind = a_form(a_bundle(), name="one")
    twice = server.post(body, f"Content-Type: {kind}", "Content-Length: 5", f"Content-Length: {len(body)}")
    assert status_of(twice) == 400
    both = server.post(chunked(body), f"Content-Type: {kind}", "Transfer-Encoding: chunked", length="10")
    assert status_of(both) == 400


def test_ten_megabytes_are_refused(server: Server) -> None:
    body, kind = a_form(b"x" * (10 * 2**20), name="one")
    received = server.post(body, f"Content-Type: {kind}", length=str(len(body)))
    assert (status_of(received), problem_of(received)["code"]) == (413, "body-too-large")


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("", 415),
        ("text/plain", 415),
        ("application/json", 415),
        ("multipart/mixed; boundary=----a-boundary", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ("multipart/form-data; boundary=other", 400),
        ("text/plain; multipart/form-data; boundary=----a-boundary", 400),
        ("*/*", 400),
        ("multipart/form-data; boundary=\xff", 400),
    ],
)
def test_another_content_type_is_refused(server: Server, kind: str, status: int) -> None:
    body, _ = a_form(a_bundle(), name="one")
    assert status_of(server.post(body, f"Content-Type: {kind}", length=str(len(body)))) == status


def test_doubled_and_unknown_fields_are_refused(server: Server) -> None:
    body, kind = a_form(a_bundle(), name="one")
    for more in (b'name="name"\r\n\r\ntwo', b'name="data"\r\n\r\n/', b'name="credentials"; filename="d.zip"\r\n\r\nPK'):
        sent = body.replace(
            b"------a-boundary--",
            b"------a-boundary\r\nContent-Disposition: form-data; " + more + b"\r\n------a-boundary--",
        )
        received = server.post(sent, f"Content-Type: {kind}", length=str(len(sent)))
        assert (status_of(received), problem_of(received)["code"]) == (400, "bad-field")


@pytest.mark.parametrize(
    "line",
    [
        b"GET /sessions/%ff%00 HTTP/1.1",
        b"GET /\xff\xfe HTTP/1.1",
        b"GET //[ HTTP/1.1",
        b"GET http://evil.example/ HTTP/1.1",
        b"GET * HTTP/1.1",
        b"TRACE / HTTP/1.1",
        b"get / HTTP/1.1",
        b"GET /",
        b"GET / HTTP/9.9",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1",
        b"HEAD /sessions HTTP/1.1",
        b"OPTIONS /sessions HTTP/1.1",
        b"PUT /sessions HTTP/1.1",
        b"GET /sessions/../../etc/passwd HTTP/1.1",
    ],
    ids=lambda line: ascii(line[:40]),
)
def test_an_odd_request_line_breaks_nothing(server: Server, line: bytes) -> None:
    """501 is the server's own word for a method nobody knows, and 505 for an unknown version; API Gateway says 403."""
    status = status_of(server.send(line + b"\r\nHost: localhost\r\n\r\n"))
    assert (
        status < 500
        or (status == 501 and line[:3] in (b"TRA", b"get", b"\x16\x03\x01"))
        or (status == 505 and b"9.9" in line)
    )


def test_too_many_or_too_long_headers_are_refused(server: Server) -> None:
    many = b"".join(b"X-%d: y\r\n" % number for number in range(150))
    long = b"X-Long: " + b"y" * 70_000 + b"\r\n"
    for headers in (many, long):
        assert status_of(server.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n")) in (0, 431)
    cookie = b'Cookie: __Host-homeport-owner="' + b"\\" * 60_000 + b'"\r\n'
    assert (
        status_of(
            server.send(b"GET /sessions HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n" + cookie + b"\r\n")
        )
        == 401
    )
