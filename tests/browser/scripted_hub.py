"""A hub that says what a test tells it to, with the real pages, script and policy.

Served below a stage prefix, as API Gateway does, so that an absolute link would lead nowhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from chalicelib.errors import HomeportError
from chalicelib.repository.badge import badge_svg
from chalicelib.session.options import Allowance
from chalicelib.session.values import Limits
from chalicelib.web import pages
from chalicelib.web.forms import LINK_FIELDS, Wanted, parse_wanted
from chalicelib.web.json import Badge, Built, Check, Found, Line, Session, badge_json, found_json, problem_json
from tests.documents import SID, a_session_document

STAGE = "/stage"
CHECK: Check = {
    "format": "Docker context",
    "endpoint": "tcp://203.0.113.7:2376",
    "subject": "CN=ada",
    "fingerprint": "3f9a0c51d27e84b6" * 4,
    "expires_at": "2099-03-01T12:00:00Z",
    "dropped": ["ca-key.pem"],
    "warnings": ["The certificate names no host"],
    "owner": "cd" * 32,
}


def a_problem(code: str, detail: str, status: int = 400) -> tuple[int, dict[str, Any]]:
    return status, {"type": f"urn:homeport:{code}", "title": "X", "status": status, "code": code, "detail": detail}


@dataclass(slots=True)
class Script:
    """What the hub answers: `bundles` and `launches` one after the other, the last one for ever.

    Every look at the session shows `state`, with one line more than the look before. `seen` is what was asked.
    """

    bundles: list[tuple[int, Any]] = field(default_factory=lambda: [(200, CHECK)])
    launches: list[tuple[int, Any]] = field(default_factory=lambda: [(201, a_session_document())])
    state: Session = field(default_factory=a_session_document)
    built: list[Built] = field(default_factory=list)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    lines: int = 1

    def asked(self, method: str, path: str) -> list[dict[str, str]]:
        return [fields for said, where, fields in self.seen if (said, where) == (method, path)]


def following(answers: list[Any]) -> Any:
    return answers.pop(0) if len(answers) > 1 else answers[0]


@contextmanager
def scripted_hub(script: Script) -> Iterator[str]:
    """Serve `script` on a free port of the loopback; yields the address of the first page."""

    class Handler(_Handler):
        the_script = script

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}{STAGE}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    the_script: Script

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        path = address.path.removeprefix(STAGE)
        self.the_script.seen.append(("GET", path, {}))
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        script = self.the_script
        if not address.path.startswith(STAGE):
            self._page(
                pages.ErrorPage(
                    root="", status=404, title="Not found", code="not-found", message="Outside of the stage"
                ),
                404,
            )
        elif path == "/":
            self._page(a_home(parse_wanted(query)))
        elif path == "/repository":
            self._answer(lambda: found_of(parse_wanted(query)))
        elif path == "/badge" and "application/json" in self.headers["Accept"]:
            self._answer(lambda: badge_of(query))
        elif path == "/badge":
            typed = {name: query.get(name, "") for name in LINK_FIELDS}
            made = badge_of(query) if query else None
            page = pages.BadgePage(root="", repositories=True, typed=typed, made=made)
            self._page(page, policy=pages.content_security_policy(images=True))
        elif path == "/badge.svg":
            self._send(200, "image/svg+xml", badge_svg())
        elif path == f"/sessions/{SID}":
            self._page(pages.SessionPage(root="../", session=script.state, log=[a_line(1)], built=script.built))
        elif path == f"/sessions/{SID}/events":
            script.lines += 1
            lines = [a_line(number) for number in range(int(query["after"]) + 1, script.lines + 1)]
            self._json(200, {"session": script.state, "events": lines})
        else:
            self._page(
                pages.ErrorPage(
                    root=pages.root_of(path), status=404, title="Not found", code="not-found", message="No"
                ),
                404,
            )

    def do_POST(self) -> None:
        path = urlsplit(self.path).path.removeprefix(STAGE)
        fields = self._fields()
        if not self.path.startswith((STAGE, "/.homeport/")):
            self._json(*a_problem("not-found", "Outside of the stage", 404))
            return
        script = self.the_script
        script.seen.append(("POST", path, fields))
        if path == "/bundles":
            self._json(*following(script.bundles))
        elif path == "/sessions":
            self._json(*following(script.launches))
        elif path == f"/sessions/{SID}/enter":
            assert isinstance(self.server, ThreadingHTTPServer)
            origin = f"http://{SID}.localhost:{self.server.server_port}"
            page = pages.EnterPage(root="../../", name="thesis", action=f"{origin}/.homeport/enter", ticket="t-1")
            self._page(page, policy=pages.content_security_policy(origin))
        elif path == "/.homeport/enter":
            self._send(200, "text/html", f"<title>lab</title><p>{self.headers['Origin']}</p>")
        else:
            self.send_response(303)
            self.send_header("Location", f"../{SID}")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _fields(self) -> dict[str, str]:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        kind = self.headers.get("Content-Type", "")
        if not kind.startswith("multipart/"):
            return {name: values[0] for name, values in parse_qs(body.decode()).items()}
        message: Message = BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
        parts = [part for part in message.walk() if not part.is_multipart()]
        return {str(p.get_param("name", header="Content-Disposition")): _text(p) for p in parts}

    def _page(self, page: pages.Page, status: int = 200, policy: str | None = None) -> None:
        self._send(status, "text/html; charset=utf-8", page.html(), policy)

    def _answer(self, make: Callable[[], Any]) -> None:
        """What is made, or why it cannot be."""
        try:
            self._json(200, make())
        except HomeportError as error:
            self._json(error.status, problem_json(error))

    def _json(self, status: int, value: Any) -> None:
        self._send(status, "application/json" if status < 400 else "application/problem+json", json.dumps(value))

    def _send(self, status: int, kind: str, text: str, policy: str | None = None) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", policy or pages.content_security_policy())
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)


def _text(part: Message) -> str:
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode()


def a_home(wanted: Wanted) -> pages.HomePage:
    repository, content, open_path = wanted.repository, wanted.content, wanted.open_path
    return pages.HomePage(
        root="",
        suggested_name="my-notebook",
        default_image="quay.io/jupyter/minimal-notebook",
        session_hours=72.0,
        idle_minutes=120.0,
        remembered_days=90.0,
        allowance=Allowance(default=Limits(shm=2**30)),
        repository=found_json(repository, "" if content else open_path) if repository else None,
        content=found_json(content, open_path) if content else None,
        image=wanted.image,
        open=open_path,
        name=wanted.name,
    )


def badge_of(query: dict[str, str]) -> Badge:
    parse_wanted(query)
    return badge_json(f"https://hub.example.org/?{urlencode(query)}", "https://hub.example.org/badge.svg")


def found_of(wanted: Wanted) -> Found:
    source = wanted.repository or wanted.content
    assert source
    return found_json(source, wanted.open_path)


def a_line(number: int) -> Line:
    return {"number": number, "at": "2026-11-23T01:02:03Z", "text": f"Line {number}", "progress": False}
