"""Cookies that a hostile notebook's script sets for its neighbours, in Chromium, over TLS, on real HAProxy.

The names of the notebooks lead to this machine (`--host-resolver-rules`). Below a domain that browsers do not know as a
public suffix the neighbour's notebook opens, keeps its grant and works; below one that they know nothing reaches it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import BrowserContext, Page, Playwright, expect

from local.endpoint import LocalEndpoint
from local.engine import Engine
from tests.browser.conftest import CHROMIUM, FLAGS
from tests.browser.stand_in_hub import a_hub, enter
from tests.lab_rig import jupyterlab
from tests.proxy_rig import NotebookServer, Rig, eventually, new_host, rig, web_certificate

pytestmark = pytest.mark.skipif(
    not shutil.which("haproxy", path="/usr/sbin:/usr/bin"), reason="apt-get install haproxy"
)

UNLISTED: Final = "notebooks.example.org"
LISTED: Final = "github.io"  # in the private section of the public suffix list that Chromium brings along
PATIENCE: Final = 120_000  # milliseconds
PAGE: Final = "<!doctype html><title>notebook</title><p>{}</p>"

# How a hostile page plants cookies, [name, value, path] each, for all notebooks of `domain`.
PLANT: Final = """([domain, cookies]) => {
    for (const [name, value, path] of cookies)
        document.cookie = `${name}=${value}; domain=${domain}; path=${path}; max-age=31536000; secure`;
    return document.cookie;
}"""
LARGE: Final = [(f"large{number}", "x" * 4000, "/") for number in range(6)]
SMALL: Final = [
    (f"small{number}", "x", path)
    for path, count in (("/", 70), ("/lab", 10), ("/api", 10), ("/.homeport", 10))
    for number in range(count)
]
OURS: Final = [("__Host-homeport", "theirs", "/"), ("__Host-homeport", "theirs", "/lab")]  # which Chromium refuses
XSRF: Final = [("_xsrf", value, path) for value, path in (("evil", "/"), ("2|00000000|evil|1", "/lab"), (",", "/api"))]
EVERYTHING: Final = [*LARGE, *SMALL, *XSRF]
COMMA: Final = [("_xsrf", ",", "/")]  # JupyterLab's script finds no such token, and Jupyter sets no other
WIDE: Final = [("_xsrf", "漢", "/lab")]  # and this one it finds and cannot send
HIDING: Final = [("q", "1,__Host-homeport=2", "/")]  # as HAProxy alone reads it, that is two grants
PARTITIONED: Final = [(f"large{number}", "x" * 4000, "/; partitioned; samesite=none") for number in range(2)]


@dataclass(frozen=True)
class Visitor:
    """A browser with a hub and a proxy whose notebooks are below `domain`."""

    domain: str
    hub: str
    door: Rig
    context: BrowserContext

    def launch(self, words: str) -> tuple[str, NotebookServer]:
        """Start and publish a stand-in notebook whose page says this; gives its host."""
        host = new_host()
        notebook = self.door.notebook(host)
        notebook.pages = {"/lab": ({"Content-Type": "text/html", "Cache-Control": "no-store"}, PAGE.format(words))}
        self.door.publish(host, notebook.port)
        return host, notebook

    def enter(self, host: str) -> Page:
        """Enter the notebook from the hub's page, in a tab of its own."""
        page = self.context.new_page()
        enter(page, self.hub, self.door, host)
        return page

    def cookies(self, host: str, path: str = "/lab") -> list[str]:
        """The names of the cookies that the browser sends there."""
        return sorted(cookie.get("name", "") for cookie in self.context.cookies(self.door.origin(host) + path))


@contextmanager
def a_visitor(playwright: Playwright, domain: str, **context: Any) -> Iterator[Visitor]:
    """A fresh browser; it finds this machine under the names below `domain`, and no other machine at all."""
    rules = f"MAP *.{domain} 127.0.0.1,MAP * ~NOTFOUND,EXCLUDE localhost,EXCLUDE 127.0.0.1"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hub = stack.enter_context(a_hub())
        environ = {"HOMEPORT_PROXY_CERTIFICATE": web_certificate(folder)}
        door = stack.enter_context(rig(hub=hub, origins=f"https://*.{domain}", environ=environ))
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=[*FLAGS, f"--host-resolver-rules={rules}"]
        )
        stack.callback(browser.close)
        made = browser.new_context(ignore_https_errors=True, **context)  # its certificate names nothing
        made.set_default_timeout(PATIENCE)
        yield Visitor(domain, hub, door, made)


@pytest.fixture
def visitor(playwright: Playwright) -> Iterator[Visitor]:
    """A browser that does not know the notebooks' domain as a public suffix."""
    with a_visitor(playwright, UNLISTED) as made:
        yield made


def plant(page: Page, domain: str, cookies: list[tuple[str, str, str]]) -> str:
    """Plant the cookies from this page; gives what it sees itself afterwards."""
    seen: str = page.evaluate(PLANT, [domain, cookies])
    return seen


def shows(page: Page, words: str) -> None:
    """Wait until the page shows this."""
    expect(page.get_by_text(words)).to_be_visible(timeout=PATIENCE)


@pytest.mark.parametrize(
    "planted",
    [LARGE, SMALL, XSRF, EVERYTHING, COMMA, WIDE, HIDING, PARTITIONED],
    ids=["large", "small", "_xsrf", "all", "_xsrf of a comma", "_xsrf no header can hold", "hiding", "partitioned"],
)
def test_planted_cookies_are_deleted_when_the_neighbour_opens_and_its_grant_stays(
    visitor: Visitor, planted: list[tuple[str, str, str]]
) -> None:
    (hostile, _), (neighbour, notebook) = visitor.launch("hostile"), visitor.launch("neighbour")
    attacker = visitor.enter(hostile)
    seen = plant(attacker, UNLISTED, planted).split("; ")
    assert len(seen) == sum(path.partition(";")[0] in ("/", "/lab") for *_, path in planted)
    page = visitor.enter(neighbour)
    shows(page, "neighbour")
    assert page.evaluate("document.cookie") == ""
    assert visitor.cookies(neighbour) == visitor.cookies(hostile) == ["__Host-homeport"]
    assert notebook.cookies == []


def test_no_script_sets_a_grant(visitor: Visitor) -> None:
    (hostile, _), (neighbour, _) = visitor.launch("hostile"), visitor.launch("neighbour")
    assert plant(visitor.enter(hostile), UNLISTED, OURS) == ""
    shows(visitor.enter(neighbour), "neighbour")


def test_the_page_that_deletes_cookies_comes_back_to_its_own_origin_whatever_the_path(visitor: Visitor) -> None:
    (hostile, _), (neighbour, _) = visitor.launch("hostile"), visitor.launch("neighbour")
    attacker, page = visitor.enter(hostile), visitor.enter(neighbour)
    shows(page, "neighbour")
    plant(attacker, UNLISTED, LARGE)
    address = f"{visitor.door.origin(neighbour)}//elsewhere.example/lab"
    page.goto(address)
    shows(page, f'"notebook": "{neighbour}"')  # the stand-in shows what it was asked
    assert page.url == address
    assert page.evaluate("document.cookie") == ""


def test_planted_cookies_keep_no_request_of_an_open_neighbour_from_its_notebook(visitor: Visitor) -> None:
    (hostile, _), (neighbour, _) = visitor.launch("hostile"), visitor.launch("neighbour")
    attacker, page = visitor.enter(hostile), visitor.enter(neighbour)
    shows(page, "neighbour")
    seen = """async method => {
        const headers = method == 'POST' ? {'X-XSRFToken': 'as read by the page'} : {};
        const answer = await (await fetch('/api/contents', {method, headers})).json();
        return answer.headers.filter(([name]) => name == 'cookie').map(([, value]) => value);
    }"""
    plant(attacker, UNLISTED, XSRF)
    assert page.evaluate(seen, "GET") == ["_xsrf=,; _xsrf=evil"]
    assert page.evaluate(seen, "POST") == ["_xsrf=,; _xsrf=evil; _xsrf=as read by the page"]
    plant(attacker, UNLISTED, EVERYTHING)
    assert page.evaluate(seen, "GET") == []
    assert page.evaluate(seen, "POST") == ["_xsrf=as read by the page"]


def test_cookies_for_the_domain_above_the_notebooks_are_deleted_too(visitor: Visitor) -> None:
    (hostile, _), (neighbour, _) = visitor.launch("hostile"), visitor.launch("neighbour")
    attacker = visitor.enter(hostile)
    assert "large0" in plant(attacker, UNLISTED.partition(".")[2], LARGE)
    shows(visitor.enter(neighbour), "neighbour")
    assert visitor.cookies(neighbour) == ["__Host-homeport"]


def test_a_quotation_mark_in_a_planted_cookie_hides_no_grant(visitor: Visitor) -> None:
    (hostile, _), (neighbour, notebook) = visitor.launch("hostile"), visitor.launch("neighbour")
    attacker = visitor.enter(hostile)
    assert plant(attacker, UNLISTED, [("q", '"', "/"), ("q", '"', "/lab")]) == 'q="; q="'
    page = visitor.enter(neighbour)
    shows(page, "neighbour")
    assert notebook.cookies[0] == 'q="; q="'  # few and short: they are the notebook's to judge


def test_cookies_that_come_back_within_ten_seconds_leave_a_page_that_says_what_to_do(visitor: Visitor) -> None:
    (hostile, _), (neighbour, _) = visitor.launch("hostile"), visitor.launch("neighbour")
    attacker, page = visitor.enter(hostile), visitor.enter(neighbour)
    for second, shown in ((0, "neighbour"), (10, "Too many cookies"), (21, "neighbour")):
        page.clock.set_fixed_time(datetime(2030, 1, 1, 12, 0, second, tzinfo=UTC))
        plant(attacker, UNLISTED, LARGE)
        page.goto(f"{visitor.door.origin(neighbour)}/lab?at={second}#a-fragment")
        shows(page, shown)
        assert visitor.cookies(neighbour) == ["__Host-homeport"]
        if shown != "neighbour":
            assert page.get_by_role("link").get_attribute("href") == f"{visitor.hub}/"


def test_a_browser_without_scripts_is_told_to_delete_the_cookies(playwright: Playwright) -> None:
    with a_visitor(playwright, UNLISTED, java_script_enabled=False) as visitor:
        host, _notebook = visitor.launch("mine")
        page = visitor.context.new_page()
        planted = [
            {"name": name, "value": value, "domain": f".{UNLISTED}", "path": path} for name, value, path in LARGE
        ]
        visitor.context.add_cookies(planted)  # type: ignore[arg-type]
        answer = page.goto(f"{visitor.door.origin(host)}/lab")
        assert answer is not None
        assert answer.status == 431
        shows(page, "Delete this site’s cookies")


def test_below_a_public_suffix_nothing_is_planted_at_all(playwright: Playwright) -> None:
    with a_visitor(playwright, LISTED) as visitor:
        (hostile, _), (neighbour, notebook) = visitor.launch("hostile"), visitor.launch("neighbour")
        attacker = visitor.enter(hostile)
        assert plant(attacker, LISTED, EVERYTHING) == ""
        page = visitor.enter(neighbour)
        shows(page, "neighbour")
        for path in ("/lab", "/api", "/.homeport"):
            assert visitor.cookies(neighbour, path) == ["__Host-homeport"]
        assert notebook.cookies == []


# ── a real JupyterLab as the neighbour ───────────────────────────────────────────────────────────────────────────


def run_a_cell(page: Page, code: str, output: str) -> None:
    """Open a new notebook from the launcher and run a cell in it."""
    page.locator(".jp-LauncherCard").first.click()
    panel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")  # the others are hidden by the launcher
    cell = panel.locator(".jp-CodeCell .cm-content").first
    cell.click()
    page.keyboard.type(code)
    expect(cell).to_have_text(code, timeout=PATIENCE)

    def printed() -> bool:
        page.keyboard.press("Control+Enter")  # JupyterLab does nothing at it before the kernel's first answer
        try:
            expect(panel.locator(".jp-OutputArea-output").first).to_have_text(output, timeout=5000)
        except AssertionError:
            return False
        return True

    eventually(printed, output, deadline=PATIENCE / 1000)


def test_jupyterlab_works_after_and_while_a_neighbour_plants_cookies(
    visitor: Visitor, endpoint: LocalEndpoint, engine: Engine, notebook_image: str
) -> None:
    hostile, _notebook = visitor.launch("hostile")
    with jupyterlab(visitor.door, endpoint, engine, notebook_image) as neighbour:
        attacker = visitor.enter(hostile)
        plant(attacker, UNLISTED, EVERYTHING)
        page = visitor.enter(neighbour)
        run_a_cell(page, "6 * 7", "42")
        assert "__Host-homeport" in visitor.cookies(neighbour)
        assert not [name for name in visitor.cookies(neighbour) if name.startswith(("large", "small"))]
        for planted in (XSRF, EVERYTHING):
            plant(attacker, UNLISTED, planted)
            page.get_by_title("New Launcher", exact=True).click()
            run_a_cell(page, "6 * 8", "48")
        another_tab = visitor.enter(neighbour)  # one that has deleted nothing in the last ten seconds
        another_tab.locator("#jp-main-dock-panel").wait_for()
        assert not [name for name in visitor.cookies(neighbour) if name.startswith(("large", "small"))]
