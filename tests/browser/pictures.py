"""The README's pictures of the pages, with made-up content: `python -m tests.browser.pictures`.

Nothing is served and nothing is asked: what the pages would fetch is answered in the browser itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, Route, sync_playwright

from chalicelib.web import pages
from chalicelib.web.forms import parse_wanted
from chalicelib.web.json import Line, Session
from tests.browser.conftest import CHROMIUM, FLAGS
from tests.browser.scripted_hub import CHECK, a_home, found_of
from tests.documents import SID, a_repository_document, a_session_document

IMAGES: Final = Path(__file__).resolve().parents[2] / "docs" / "images"
HUB: Final = "http://hub.localhost"
LINK: Final = {"repo": "https://github.com/jupyterlab/jupyterlab-demo/blob/main/notebooks/Lorenz.ipynb"}
ENDPOINT: Final = "tcp://docker.lab.example.org:2376"
WIDTH: Final = 1180  # pixels
STEPS: Final = [
    {"name": name, "status": status}
    for name, status in (("Resolve", "done"), ("Build", "now"), ("Create", "next"), ("Start", "next"))
]
BUILDING: Final = a_session_document(
    name="jupyterlab-demo",
    state="building",
    progress=0.46,
    steps=STEPS,
    message="[5/9] RUN mamba env update -p /srv/conda -f binder/environment.yml",
    image="localhost/homeport-built:0",
    repository=a_repository_document(),
    endpoint=ENDPOINT,
)
LOG: Final = (
    f"Launch 1 of “jupyterlab-demo” on {ENDPOINT}",
    "Connected to Docker 27.3.1 at 203.0.113.7",
    "jupyterlab/jupyterlab-demo is at 3f786850e387550fdab836ed7e6dc881de23001b",
    "[5/9] RUN mamba env update -p /srv/conda -f binder/environment.yml",
)


def log() -> list[Line]:
    return [
        {"number": number, "at": f"2026-11-23T01:02:{3 + 4 * number:02}Z", "text": text, "progress": number == len(LOG)}
        for number, text in enumerate(LOG, start=1)
    ]


def a_page(browser: Browser, scheme: Literal["light", "dark"], html: str, session: Session | None = None) -> Page:
    """A page whose hub is played by the browser: `html`, what it says of the link, the bundle and the session."""
    context = browser.new_context(viewport={"width": WIDTH, "height": 700}, color_scheme=scheme, timezone_id="UTC")
    found: dict[str, Any] = {
        "/repository": found_of(parse_wanted(LINK)),
        "/bundles": CHECK | {"endpoint": ENDPOINT, "expires_at": "2028-03-01T12:00:00Z", "warnings": []},
        f"/sessions/{SID}/events": {"session": session, "events": []},
    }

    def answer(route: Route) -> None:
        path = urlsplit(route.request.url).path
        if path in found:
            route.fulfill(body=json.dumps(found[path]), content_type="application/json")
        else:
            route.fulfill(body=html, content_type="text/html; charset=utf-8")

    context.route("**", answer)
    page = context.new_page()
    page.clock.set_fixed_time("2026-11-23T01:02:20Z")
    return page


def take(browser: Browser) -> None:
    """Take the pictures."""
    page = a_page(browser, "light", a_home(parse_wanted(LINK)).html())
    page.goto(f"{HUB}/")
    page.set_input_files("#credentials", {"name": "ada.zip", "mimeType": "application/zip", "buffer": b"bundle"})
    page.get_by_text("This file can be used").wait_for()
    page.screenshot(path=IMAGES / "check.png", full_page=True)
    session = pages.SessionPage(root="../", session=BUILDING, log=log()).html()
    page = a_page(browser, "dark", session, BUILDING)
    page.goto(f"{HUB}/sessions/{SID}")
    page.screenshot(path=IMAGES / "building-night.png", full_page=True)


if __name__ == "__main__":
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        take(chromium)
        chromium.close()
