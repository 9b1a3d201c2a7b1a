"""Chromium for the tests of this tier: one browser for all, a context of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, sync_playwright

from tests.repository_rig import behind, site  # noqa: F401

PATIENCE = 120_000  # milliseconds; a launch takes about three seconds
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    if not CHROMIUM.exists():
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
    yield browser
    browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a fresh visitor. Fails the test when the browser had anything to complain of.

    That is an error in the script, anything that the Content-Security-Policy refused, or a request to another machine.
    """
    complaints: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        expected = "the server responded with a status of" in message.text  # what a refusal looks like
        if message.type in ("error", "warning") and not expected:
            complaints.append(message.text)

    def asked(url: str) -> None:
        host = url.partition("://")[2].split("/")[0].split(":")[0]
        if not (host == "localhost" or host.endswith(".localhost") or url.startswith(("data:", "about:"))):
            complaints.append(url)

    context = browser.new_context()
    page = context.new_page()
    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked(request.url))
    yield page
    context.close()
    assert complaints == []


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Page]:
    """A fresh visitor. JupyterLab has warnings of its own, so this page does not count them as the hub's."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE)
    yield context.new_page()
    context.close()
