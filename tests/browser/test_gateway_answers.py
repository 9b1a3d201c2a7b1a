"""API Gateway's own answers in Chromium: pages where a browser goes there, sentences where a page's script asks.

API Gateway is a stand-in. It chooses among the templates of an answer by what is accepted first, as AWS describes it
for the answers of integrations.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from playwright.sync_api import Page, expect

from chalicelib.web import pages
from chalicelib.web.forms import parse_wanted
from infra.api import ANSWERS, API_STAGE, responses
from tests.browser.scripted_hub import a_home

RESPONSES = responses("")


class _Gateway(BaseHTTPRequestHandler):
    """The first page, and at every other address the answer of the kind that its last part names."""

    def do_GET(self) -> None:
        path = self.path.removeprefix(f"/{API_STAGE}")
        if path == "/":
            policy = {"Content-Security-Policy": pages.content_security_policy()}
            self._send(200, "text/html; charset=utf-8", a_home(parse_wanted({})).html(), policy)
        else:
            self._refuse(path.rpartition("/")[2])

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._refuse("REQUEST_TOO_LARGE")

    def _refuse(self, kind: str) -> None:
        response = RESPONSES[kind]
        templates = response["responseTemplates"]
        accepted = self.headers["Accept"].partition(",")[0]
        chosen = accepted if accepted in templates else "application/json"
        headers = {
            name.removeprefix("gatewayresponse.header."): value.strip("'")
            for name, value in response["responseParameters"].items()
        }
        self._send(int(response.get("statusCode", 400)), chosen, templates[chosen], headers)

    def _send(self, status: int, kind: str, text: str, headers: dict[str, str]) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Gateway)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}/{API_STAGE}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def hub() -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_browser_has_a_page_that_leads_back(page: Page, hub: str, kind: str) -> None:
    answered = page.goto(f"{hub}sessions/{kind}")
    assert answered
    assert answered.status == (ANSWERS[kind].status or 400)
    expect(page.get_by_role("heading", level=1)).to_have_text(ANSWERS[kind].title)
    expect(page.locator("main")).to_contain_text(ANSWERS[kind].detail)
    expect(page.get_by_role("link", name="Your notebooks")).to_have_attribute("href", f"/{API_STAGE}/sessions")
    page.get_by_role("link", name="Back to the upload page").click()
    expect(page).to_have_url(hub)


def test_the_form_says_what_the_answer_is(page: Page, hub: str) -> None:
    page.goto(hub)
    page.set_input_files("#credentials", {"name": "x", "mimeType": "application/zip", "buffer": b"x"})
    expect(page.locator("#problem")).to_contain_text(ANSWERS["REQUEST_TOO_LARGE"].detail)
    expect(page.locator("#problem")).to_contain_text("request-too-large")
