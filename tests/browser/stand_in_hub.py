"""A stand-in for the hub: the one page that posts a ticket to a notebook's origin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Error, Page, Request

from tests.proxy_rig import Rig

ENTRIES = 5  # an interface comes or goes in a moment


class _HubPage(BaseHTTPRequestHandler):
    """The hub's page that posts a ticket to the notebook's origin."""

    def do_GET(self) -> None:
        asked = {name: escape(values[0]) for name, values in parse_qs(urlsplit(self.path).query).items()}
        form = '<form method="post" action="{action}"><input name="ticket" value="{ticket}"></form>'
        page = f"<!doctype html>{form.format(**asked)}<script>document.forms[0].submit()</script>" if asked else ""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def a_hub() -> Iterator[str]:
    """A stand-in hub; gives its origin."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _HubPage)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(20)
        server.server_close()


def enter(page: Page, hub: str, door: Rig, host: str) -> None:
    """Enter the notebook from the hub's page.

    Chromium gives all requests up when an interface of the machine comes or goes, as with each container that somebody
    starts (ERR_NETWORK_CHANGED). Then this enters again, with another ticket; any other error is raised.
    """
    given_up: list[str] = []

    def failed(request: Request) -> None:
        given_up.append(request.failure or "")

    page.on("requestfailed", failed)
    for _ in range(ENTRIES):
        try:
            page.goto(f"{hub}/?action={door.origin(host)}/.homeport/enter&ticket={door.ticket(host)}")
            page.wait_for_url(lambda url: url == f"{door.origin(host)}/lab" or url.startswith("chrome-error:"))
        except Error as error:
            given_up.append(str(error))
        if page.url == f"{door.origin(host)}/lab":
            page.remove_listener("requestfailed", failed)
            return
        assert given_up, page.url
        assert "ERR_NETWORK_CHANGED" in given_up[-1]
    raise AssertionError(f"not entered {ENTRIES} times: {given_up}")
