"""What a hostile notebook leaves in Chromium, and that the next launch of its session sees nothing of it.

Real HAProxy, the real agent and stand-in notebooks: the first launch's is hostile and does all that a script can do on
its origin; then it is stopped, and the same visitor launches the same session again, in the same browser.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page

from chalicelib.session.values import launch_label
from tests.browser.stand_in_hub import a_hub, enter
from tests.builders import a_session
from tests.proxy_rig import NotebookServer, Rig, rig

pytestmark = pytest.mark.skipif(
    not shutil.which("haproxy", path="/usr/sbin:/usr/bin"), reason="apt-get install haproxy"
)

FOR_EVER: Final = "public, max-age=31536000, immutable"  # as JupyterLab's own scripts, whose names have hashes
LAB: Final = '<!doctype html><title>{0}</title><script src="/static/lab/main.js"></script><p>{0}</p>'
SCRIPT: Final = "window.ran = {!r};"
WORKER: Final = "self.addEventListener('fetch', event => event.respondWith(new Response('hostile')));"

# What the hostile notebook's page does on its origin; tells what became of the service worker.
ATTACK: Final = """async () => {
    localStorage.setItem('left', 'hostile');
    sessionStorage.setItem('left', 'hostile');
    document.cookie = 'left=hostile; path=/; max-age=86400';
    document.cookie = 'left=hostile; path=/; max-age=86400; domain=localhost';
    await new Promise((done, failed) => {
        const opening = indexedDB.open('left', 1);
        opening.onupgradeneeded = () => opening.result.createObjectStore('left').put('hostile', 'left');
        opening.onsuccess = () => { opening.result.close(); done(); };
        opening.onerror = failed;
    });
    await (await caches.open('left')).put('/static/lab/main.js', new Response("window.ran = 'hostile'"));
    try {
        await navigator.serviceWorker.register('/worker.js', {scope: '/'});
        return 'registered';
    } catch (error) {
        return `${error.name}: ${error.message}`;
    }
}"""

# What a page of the same visitor finds on its origin.
FOUND: Final = """async () => ({
    script: window.ran,
    local: localStorage.getItem('left'),
    session: sessionStorage.getItem('left'),
    cookie: document.cookie,
    databases: (await indexedDB.databases()).map(database => database.name),
    caches: await caches.keys(),
    workers: (await navigator.serviceWorker.getRegistrations()).length,
})"""
NOTHING: Final[dict[str, Any]] = {
    "script": "honest",
    "local": None,
    "session": None,
    "cookie": "",
    "databases": [],
    "caches": [],
    "workers": 0,
}


@pytest.fixture
def hub() -> Iterator[str]:
    with a_hub() as origin:
        yield origin


@pytest.fixture
def door(hub: str) -> Iterator[Rig]:
    with rig(hub=hub) as running:
        yield running


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


def launched(door: Rig, host: str, character: str) -> NotebookServer:
    """Start and publish a notebook whose page and script say what its character is."""
    notebook = door.notebook(host)
    notebook.pages = {
        "/lab": ({"Content-Type": "text/html", "Cache-Control": "no-store"}, LAB.format(character)),
        "/static/lab/main.js": (
            {"Content-Type": "text/javascript", "Cache-Control": FOR_EVER},
            SCRIPT.format(character),
        ),
        "/worker.js": ({"Content-Type": "text/javascript", "Cache-Control": FOR_EVER}, WORKER),
    }
    door.publish(host, notebook.port)
    return notebook


def attacked(page: Page, hub: str, door: Rig, host: str) -> NotebookServer:
    """Launch a hostile notebook, enter it, and let it do its worst; it is then stopped."""
    notebook = launched(door, host, "hostile")
    enter(page, hub, door, host)
    assert page.evaluate("window.ran") == "hostile"
    answer = page.evaluate(ATTACK)
    assert answer.startswith("TypeError"), answer
    assert "403" in answer
    assert "/worker.js" not in notebook.paths
    door.withdraw(host)
    return notebook


def test_nothing_that_a_launch_leaves_in_a_browser_is_there_for_the_next_launch_of_its_session(
    visitor: Page, hub: str, door: Rig
) -> None:
    first = a_session(label=launch_label("the first launch"))
    second = replace(first, label=launch_label("the second launch"), generation=2)
    attacked(visitor, hub, door, first.host)
    honest = launched(door, second.host, "honest")
    enter(visitor, hub, door, second.host)
    assert visitor.evaluate(FOUND) == NOTHING
    assert visitor.locator("p").inner_text() == "honest"
    assert honest.paths[:2] == ["/lab", "/static/lab/main.js"]
    assert honest.cookies == []
    answer = visitor.goto(f"{door.origin(first.host)}/lab")
    assert answer is not None
    assert answer.status == 404
    assert visitor.get_by_role("link").get_attribute("href") == f"{hub}/"


def test_on_one_origin_for_all_launches_all_of_it_would_be_there(visitor: Page, hub: str, door: Rig) -> None:
    """That the attack works, so that the test above shows something: before, both launches had this host."""
    session = a_session(label="")
    hostile = launched(door, session.host, "hostile")
    enter(visitor, hub, door, session.host)
    assert visitor.evaluate(ATTACK).startswith("TypeError")
    honest = launched(door, session.host, "honest")
    enter(visitor, hub, door, session.host)
    found = visitor.evaluate(FOUND)
    assert found == {
        "script": "hostile",
        "local": "hostile",
        "session": "hostile",
        "cookie": "left=hostile",
        "databases": ["left"],
        "caches": ["left"],
        "workers": 0,  # the one thing that the proxy does not let happen in the first place
    }
    assert visitor.locator("p").inner_text() == "honest"
    assert "left=hostile" in honest.cookies[0]
    assert "/worker.js" not in hostile.paths + honest.paths
