"""Count what JupyterLab's page takes from the proxy in a browser, for docs/benchmarks.md and docs/cost.md.

`make bench PART=traffic` starts a real JupyterLab on an engine of its own, behind the real proxy, and opens it in
Chromium, as one who has not been there before does; then loads the page again, and opens it in another tab. The same
once more in a browser that takes nothing compressed. Counted are the bytes of the responses with their headers, as
Chromium got them, without TLS, TCP and what comes through websockets. The proxy changes no content, so they are what
the visitor's machine sends to the proxy, too, but for some of the headers.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import docker
from playwright.sync_api import Browser, Page, sync_playwright

from bench import peers
from bench.results import Result, Table
from local import image
from local.endpoint import endpoint
from local.engine import own_engine
from tests.browser.conftest import CHROMIUM, FLAGS
from tests.browser.stand_in_hub import a_hub, enter
from tests.lab_rig import jupyterlab
from tests.proxy_rig import Rig, rig

PART: Final = "traffic"
ROUNDS: Final = 3
FIRST, RELOAD, TAB = "the first load", "a reload", "another tab"
PLAIN: Final = ", nothing compressed"
LOADS: Final = "What a page load takes"
KINDS: Final = {"javascript": "scripts", "css": "style sheets", "json": "JSON", "html": "the page", "image": "images"}
PATIENCE: Final = 60_000  # milliseconds
REST: Final = 3_000  # milliseconds; what JupyterLab asks for a moment after its page is there


def load(page: Page, go: Callable[[], object]) -> Counter[str]:
    """Load JupyterLab; gives the bytes of each kind."""
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    mime_types: dict[str, str] = {}
    found: Counter[str] = Counter()

    def answered(event: Mapping[str, Any]) -> None:
        mime_types[event["requestId"]] = event["response"]["mimeType"]

    def loaded(event: Mapping[str, Any]) -> None:  # no bytes of what the browser had
        mime_type = mime_types.get(event["requestId"], "")
        kind = next((name for part, name in KINDS.items() if part in mime_type), "others")
        found[kind] += round(event["encodedDataLength"])

    session.on("Network.responseReceived", answered)
    session.on("Network.loadingFinished", loaded)
    go()
    page.locator(".jp-LauncherCard").first.wait_for(timeout=PATIENCE)
    page.wait_for_load_state("networkidle", timeout=PATIENCE)
    page.wait_for_timeout(REST)
    session.detach()
    return found


def visit(browser: Browser, hub: str, door: Rig, host: str, *, compressed: bool) -> dict[str, Counter[str]]:
    """What each load takes of a visitor who has not been there before."""
    plain = {} if compressed else {"Accept-Encoding": "identity"}
    with browser.new_context(extra_http_headers=plain) as context:
        first, tab = context.new_page(), context.new_page()
        found = {FIRST: load(first, lambda: enter(first, hub, door, host))}
        found[RELOAD] = load(first, first.reload)
        found[TAB] = load(tab, lambda: tab.goto(f"{door.origin(host)}/lab"))
        return found


def measure(result: Result) -> None:
    """Count everything."""
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="hpb-", ignore_cleanup_errors=True)))
        engine = parts.enter_context(own_engine(peers.KEPT / "engine"))
        name = image.provide_local(engine.url, peers.KEPT / "image", print)
        offered = parts.enter_context(endpoint(folder / "endpoint", engine.socket))
        hub = parts.enter_context(a_hub())
        door = parts.enter_context(rig(hub=hub))
        host = parts.enter_context(jupyterlab(door, offered, engine, name))
        chromium = parts.enter_context(sync_playwright()).chromium
        browser = parts.enter_context(chromium.launch(executable_path=str(CHROMIUM), args=FLAGS))
        result.versions = f"JupyterLab {jupyterlab_version(engine.url, name)}, Chromium {browser.version}."
        rows: dict[str, list[float]] = {}
        kinds: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            for compressed, ending in ((True, ""), (False, PLAIN)):
                for one, found in visit(browser, hub, door, host, compressed=compressed).items():
                    rows.setdefault(f"{one}{ending}", []).append(found.total() / 1000)
                    if one == FIRST:
                        for kind, size in found.most_common():
                            kinds.setdefault(f"{kind}{ending}", []).append(size / 1000)
    result.add(Table(title=LOADS, unit="kB", rows=rows))
    result.add(Table(title="The first load, by kind", unit="kB", rows=kinds, plotted=False))
    for one in (FIRST, RELOAD):
        result.compare(f"{one} / {one}{PLAIN}", rows[one], rows[f"{one}{PLAIN}"], aim=0.3)


def jupyterlab_version(url: str, name: str) -> str:
    """Which JupyterLab the image has."""
    client = docker.DockerClient(base_url=url)
    try:
        return str(client.containers.run(name, ["jupyter", "lab", "--version"], remove=True).decode().strip())
    finally:
        client.close()
