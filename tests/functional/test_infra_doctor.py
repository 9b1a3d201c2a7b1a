"""What `make doctor` says of domains, and of what visitors see, by real TLS servers on loopback."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import boto3
import pytest
from publicsuffixlist import PublicSuffixList

from chalicelib.config import VERSION
from infra import outside
from infra.api import responses
from infra.doctor import look_inside, look_outside, main
from infra.domains import domains
from infra.findings import Finding
from infra.outside import Site
from infra.request import read_request
from proxy.pages import answer
from tests.certificates import LONG_AGO, Ca, Leaf
from tests.deployment import aws_environment

SUFFIXES = PublicSuffixList()


def found(hub: str, notebooks: str) -> tuple[bool | None, bool | None]:
    """How good the sites, and the notebooks' own domain, are found."""
    sites, suffix = domains(hub, notebooks, SUFFIXES)
    for finding in (sites, suffix):
        assert bool(finding.mend) == (finding.good is not True)
    return sites.good, suffix.good


@pytest.mark.parametrize(
    ("hub", "notebooks", "expected"),
    [
        ("hub.example.com", "notebooks.example.org", (True, None)),
        ("", "notebooks.example.org", (True, None)),
        ("hub.example.org", "notebooks.example.org", (False, None)),
        ("example.org", "notebooks.example.org", (False, None)),
        ("hub.notebooks.example.org", "notebooks.example.org", (False, None)),
        ("hub.example.co.uk", "notebooks.other.co.uk", (True, None)),
        ("hub.example.com", "github.io", (True, True)),
        ("hub.example.com", "mine.github.io", (True, None)),
        ("hub.github.io", "github.io", (False, True)),
    ],
)
def test_the_hubs_and_the_notebooks_domains_are_judged_as_browsers_do(
    hub: str, notebooks: str, expected: tuple[bool | None, bool | None]
) -> None:
    assert found(hub, notebooks) == expected


def test_what_holds_without_a_public_suffix_is_said() -> None:
    *_, suffix = domains("", "notebooks.example.org", SUFFIXES)
    assert "is not a public suffix" in suffix.what
    assert "set cookies for the others" in suffix.what
    assert "docs/operations.md" in suffix.mend


@pytest.mark.parametrize(
    ("environ", "status", "says"),
    [
        ({"HOMEPORT_NOTEBOOK_URL": "https://*.notebooks.example.org"}, 0, "for want of AWS credentials"),
        (
            {"HOMEPORT_NOTEBOOK_URL": "https://*.n.example.org", "HOMEPORT_HUB_ORIGIN": "https://hub.example.org"},
            1,
            "WRONG: the hub and the notebooks are both of example.org",
        ),
        ({}, 2, "Not looked at. HOMEPORT_NOTEBOOK_URL is needed"),
    ],
)
def test_the_command_says_what_is_wrong_and_its_status_too(
    environ: dict[str, str],
    status: int,
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name, value in aws_environment("http://127.0.0.1:9").items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert main(["--stage", "prod", "--where", "inside"], environ) == status
    printed = capsys.readouterr()
    assert says in printed.out + printed.err


def test_a_finding_is_one_line_and_how_to_mend_it() -> None:
    assert str(Finding(True, "all is well")) == "ok: all is well"
    assert str(Finding(False, "it is not", "Do this.")) == "WRONG: it is not\n    Do this."


# ── outside ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Server:
    """A TLS server on loopback, and the requests that it had."""

    port: int
    requests: list[tuple[str, str]]


@contextmanager
def serving(
    leaf: Leaf, folder: Path, respond: Callable[[str], bytes], refuse: Callable[[str], bytes] | None = None
) -> Iterator[Server]:
    """Serve what `respond` says, a whole response for a path, under a certificate.

    `refuse` has the response for a method that nobody may use, by what is accepted; without it the server hangs up.
    """
    requests: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append((self.headers["Host"], self.path))
            self.wfile.write(respond(self.path))
            self.close_connection = True

        def do_PUT(self) -> None:
            self.wfile.write(refuse(self.headers["Accept"]) if refuse else b"")
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*leaf.write(folder, "server"))
    server = Quiet(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield Server(server.server_port, requests)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Quiet(HTTPServer):
    """A server that does not print the handshakes that clients break off."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


CA = Ca.new("A public CA")
HUB, NOTEBOOKS = "hub.example.com", "notebooks.example.org"
NOTEBOOK = f"doctor-0.{NOTEBOOKS}"


def trusting() -> ssl.SSLContext:
    return outside.as_browsers(CA.certificate.decode())


def site(name: str, port: int) -> Site:
    return Site(name, trusting(), ("127.0.0.1", port))


def reply(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def healthy(version: str = VERSION, at: float | None = None) -> bytes:
    said = json.dumps({"status": "ok", "version": version}).encode()
    return reply("200 OK", said, f"Date: {formatdate(time.time() if at is None else at, usegmt=True)}")


SOON = time.time() + 10.5 * 86400


@pytest.mark.parametrize(
    ("name", "leaf", "good", "says"),
    [
        (HUB, CA.issue(sans=[HUB], server=True), True, "is good for"),
        (NOTEBOOK, CA.issue(sans=[f"*.{NOTEBOOKS}"], server=True), True, "is good for"),
        (HUB, CA.issue(sans=[HUB], server=True, not_after=SOON), None, "ends in 10 days"),
        (HUB, CA.issue(sans=["other.example.com"], server=True), False, "is for other.example.com"),
        (NOTEBOOK, CA.issue(sans=[NOTEBOOKS], server=True), False, f"is for {NOTEBOOKS}"),
        (HUB, CA.issue(sans=[HUB], server=True, not_before=LONG_AGO[0], not_after=LONG_AGO[1]), False, "on 2016-01-01"),
        (HUB, CA.issue(sans=[HUB], server=True, not_before=SOON), False, "is valid from"),
        (HUB, Ca.new("Nobody").issue(sans=[HUB], server=True), False, "do not trust"),
        (HUB, CA.issue(HUB, server=True), False, "is for no host"),
    ],
)
def test_a_certificate_is_judged_by_a_real_handshake(
    name: str, leaf: Leaf, good: bool | None, says: str, tmp_path: Path
) -> None:
    with serving(leaf, tmp_path, lambda _: healthy()) as server:
        found = outside.certificate(site(name, server.port), now=time.time())
    assert (found.good, bool(found.mend)) == (good, good is not True)
    assert says in found.what
    assert name in found.what


def hang_up(listener: socket.socket) -> None:
    listener.accept()[0].close()


def test_what_does_not_answer_or_speaks_no_tls_is_wrong() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = Thread(target=hang_up, args=(listener,))
        thread.start()
        cut = outside.certificate(site(HUB, port), now=0.0)
        thread.join()
    closed = outside.certificate(site(HUB, port), now=0.0)
    for found in (cut, closed):
        assert found.good is False
        assert "does not answer" in found.what
    assert "refused" in closed.what
    (answered,) = outside.hub(site(HUB, port), "/health", VERSION, time.time)
    assert (answered.good, outside.proxy(site(NOTEBOOK, port)).good) == (False, False)


@pytest.mark.parametrize(
    ("response", "good", "says"),
    [
        (healthy(), True, "of this version"),
        (healthy("0.0.9"), None, f"runs version 0.0.9, and this checkout is {VERSION}"),
        (reply("200 OK", b"<h1>Welcome</h1>"), False, "answers 200, and not as the hub does"),
        (reply("200 OK", b"[]"), False, "not as the hub does"),
        (reply("502 Bad Gateway", b'{"status": "ok", "version": "x"}'), False, "answers 502"),
        (b"SSH-2.0-x\r\n\r\n", False, "does not answer"),
    ],
)
def test_the_hubs_answer_is_looked_at(response: bytes, good: bool | None, says: str, tmp_path: Path) -> None:
    with serving(CA.issue(sans=[HUB], server=True), tmp_path, lambda _: response) as server:
        first, *_ = outside.hub(site(HUB, server.port), "/health", VERSION, time.time)
    assert first.good is good
    assert says in first.what
    assert server.requests == [(HUB, "/health")]


@pytest.mark.parametrize(
    ("off", "good"), [(0, True), (-30, True), (31, None), (300, None), (301, False), (-9e4, False)]
)
def test_the_hubs_clock_is_compared_with_this_machines(off: float, good: bool | None, tmp_path: Path) -> None:
    now = 1_800_000_000.0
    with serving(CA.issue(sans=[HUB], server=True), tmp_path, lambda _: healthy(at=now + off)) as server:
        *_, found = outside.hub(site(HUB, server.port), "/health", VERSION, lambda: now)
    assert found.good is good
    assert f"differ by {abs(off):.0f} seconds" in found.what


UNSUPPORTED = responses("")["MISSING_AUTHENTICATION_TOKEN"]["responseTemplates"]
DOCUMENT = reply("404 Not Found", UNSUPPORTED["application/json"].encode(), "Content-Type: application/json")
PAGE = reply("404 Not Found", UNSUPPORTED["text/html"].encode(), "Content-Type: text/html")


def by_accept(accept: str) -> bytes:
    """Answer as API Gateway should: with the template of what is accepted first."""
    return PAGE if accept.startswith("text/html") else DOCUMENT


@pytest.mark.parametrize(
    ("refuse", "good", "says"),
    [
        (by_accept, True, "a page for browsers and a problem document for programs"),
        (lambda _: DOCUMENT, None, "own answers as application/json, not as a page"),
        (lambda _: PAGE, False, "is answered 404, and not in the form"),
        (lambda _: reply("403 Forbidden", b'{"message": "Missing Authentication Token"}'), False, "is answered 403"),
        (lambda _: reply("404 Not Found", b"[]"), False, "not in the form"),
        (None, None, "is not answered"),
    ],
)
def test_the_form_of_api_gateways_own_answers_is_looked_at(
    refuse: Callable[[str], bytes] | None, good: bool | None, says: str, tmp_path: Path
) -> None:
    with serving(CA.issue(sans=[HUB], server=True), tmp_path, lambda _: healthy(), refuse) as server:
        found = outside.own_answers(site(HUB, server.port), "/api/health")
    assert (found.good, bool(found.mend)) == (good, good is not True)
    assert says in found.what


def test_a_date_that_is_none_is_no_clock() -> None:
    assert outside.clocks("yesterday", 0.0).good is None


@pytest.mark.parametrize(
    ("response", "good", "says"),
    [
        (answer(404, f"https://{HUB}"), True, "knows no notebook"),
        (answer(503, f"https://{HUB}"), False, "no proxy is ready"),
        (reply("404 Not Found", b"nginx"), False, "not with the proxy's page"),
        (reply("200 OK", b"parked"), False, "answers 200"),
    ],
)
def test_a_name_without_a_route_gets_the_proxys_own_page(
    response: bytes, good: bool, says: str, tmp_path: Path
) -> None:
    with serving(CA.issue(sans=[f"*.{NOTEBOOKS}"], server=True), tmp_path, lambda _: response) as server:
        found = outside.proxy(site(NOTEBOOK, server.port))
    assert found.good is good
    assert says in found.what
    assert server.requests == [(NOTEBOOK, "/")]


RECORDS = {"target": {"192.0.2.1", "192.0.2.2"}, "right": {"192.0.2.2"}, "other": {"198.51.100.1"}}


@pytest.mark.parametrize(
    ("name", "target", "fixed", "good"),
    [
        ("right", "target", True, True),
        ("right", "", True, True),
        ("right", "unknown", True, True),
        ("other", "target", True, False),
        ("other", "target", False, None),
        ("nowhere", "target", False, False),
    ],
)
def test_a_name_leads_where_aws_says(name: str, target: str, fixed: bool, good: bool | None) -> None:
    found = outside.addresses(
        name, target, lambda asked: frozenset(RECORDS.get(asked, ())), fixed=fixed, mend="See there."
    )
    assert found.good is good
    assert name in found.what


def test_the_resolver_is_this_machines() -> None:
    assert outside.resolve("localhost") & {"127.0.0.1", "::1"}
    assert outside.resolve(f"{'a' * 64}.example.org") == frozenset()  # no name: nobody is asked


def test_each_notebook_that_is_asked_for_is_another_one() -> None:
    first, second = (outside.a_notebook(NOTEBOOKS) for _ in range(2))
    assert first != second
    assert first.partition(".")[2] == NOTEBOOKS


@pytest.fixture
def without_aws(monkeypatch: pytest.MonkeyPatch) -> boto3.Session:
    """A session of somebody who has no credentials."""
    for name, value in aws_environment("http://127.0.0.1:9").items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    return boto3.Session()


def test_all_that_visitors_see_is_looked_at(tmp_path: Path, without_aws: boto3.Session) -> None:
    """The hub is localhost, whose address is on this machine; no notebook's host is to be resolved here."""
    options = {"HOMEPORT_NOTEBOOK_URL": f"https://*.{'n' * 64}.org", "HOMEPORT_HUB_ORIGIN": "https://localhost"}
    leaf = CA.issue(sans=["localhost"], server=True)
    with serving(leaf, tmp_path, lambda _: healthy(), by_accept) as server:
        request = read_request("test", options)
        found = list(look_outside(request, without_aws, lambda name: site(name, server.port)))
    assert [one.good for one in found] == [True, True, True, True, True, False]
    assert [one.what.split(" ")[0] for one in found[:2]] == ["localhost", "the"]
    assert "has no address in DNS" in found[-1].what


def test_api_gateways_address_is_not_looked_at_without_credentials(without_aws: boto3.Session) -> None:
    request = read_request("test", {"HOMEPORT_NOTEBOOK_URL": f"https://*.{'n' * 64}.org"})
    first, _ = look_outside(request, without_aws)
    assert first.good is None
    assert "not looked at" in first.what


def test_a_profile_that_is_not_there_is_said(
    without_aws: boto3.Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert main(["--stage", "prod"], {"HOMEPORT_NOTEBOOK_URL": "https://*.notebooks.example.org"}) == 2
    assert "nobody" in capsys.readouterr().err


def test_without_credentials_what_is_not_looked_at_is_named(without_aws: boto3.Session) -> None:
    request = read_request("test", {"HOMEPORT_NOTEBOOK_URL": "https://*.notebooks.example.org"})
    (found,) = look_inside(request, without_aws, now=0.0)
    assert found.good is None
    for part in ("bucket", "key", "lanes", "functions", "alarms"):
        assert part in found.what
