"""A visitor's whole way in a real browser: bundle, launch, JupyterLab, a cell, stop."""

from __future__ import annotations

import re
from contextlib import closing, suppress

import docker
from docker.errors import NotFound
from playwright.sync_api import Browser, Page, expect

from local.run import Stack
from tests.browser.conftest import PATIENCE


def launch(page: Page, stack: Stack, name: str) -> str:
    """Choose the bundle, see what is in it, launch; gives the session page's address."""
    page.goto(stack.hub_url)
    page.get_by_label("Credentials of your Docker endpoint").set_input_files(stack.bundle)
    expect(page.get_by_text("This file can be used")).to_be_visible()
    page.get_by_label("Name of the notebook").fill(name)
    page.get_by_role("button", name="Launch").click()
    page.wait_for_url("**/sessions/*")
    return page.url.split("#")[0]


def test_a_visitor_comes_from_the_bundle_into_jupyterlab_and_runs_a_cell(visitor: Page, stack: Stack) -> None:
    session = launch(visitor, stack, "in the browser")
    visitor.wait_for_url("**/lab**")
    sid = session.rpartition("/")[2]
    assert re.match(rf"http://{sid}-[0-9a-v]{{10}}\.localhost:{stack.proxy_port}/lab", visitor.url)
    visitor.get_by_role("button", name="Python 3").or_(visitor.locator(".jp-LauncherCard")).first.click()
    expect(visitor.get_by_text("| Idle")).to_be_visible(timeout=PATIENCE)  # the kernel, through the websocket
    cell = visitor.locator(".jp-Notebook .jp-CodeCell .cm-content").first
    cell.click()
    visitor.keyboard.type("6 * 7")
    expect(cell).to_have_text("6 * 7")
    visitor.keyboard.press("Shift+Enter")
    expect(visitor.locator(".jp-OutputArea-output").first).to_have_text("42", timeout=PATIENCE)
    visitor.goto(session)
    expect(visitor.get_by_role("button", name="Open the notebook")).to_be_visible()
    visitor.get_by_text("Stop…").click()
    visitor.get_by_role("button", name="Stop the notebook").click()
    expect(visitor.get_by_text("no container, no route and no credentials are left").first).to_be_visible(
        timeout=PATIENCE
    )


def press(page: Page, summary: str, button: str) -> None:
    page.get_by_text(summary, exact=True).click()
    page.get_by_role("button", name=button).click()


def test_a_visitor_stops_starts_again_restarts_and_deletes_with_a_click_or_two(visitor: Page, stack: Stack) -> None:
    session = launch(visitor, stack, "a life")
    visitor.wait_for_url("**/lab**")
    origins = {visitor.url.split("/lab")[0]}
    visitor.goto(session)
    visitor.get_by_text("Stop…", exact=True).click()
    visitor.get_by_label("Keep my credentials until").check()
    visitor.get_by_role("button", name="Stop the notebook").click()
    expect(visitor.locator("#kept-until")).to_be_visible(timeout=PATIENCE)
    visitor.get_by_role("button", name="Start again").click()
    visitor.wait_for_url("**/lab**")
    origins.add(visitor.url.split("/lab")[0])
    visitor.goto(session)
    press(visitor, "Restart…", "Restart the notebook")
    visitor.wait_for_url("**/lab**")
    origins.add(visitor.url.split("/lab")[0])
    assert len(origins) == 3, "each launch has an origin of its own"
    visitor.goto(session)
    ends = visitor.locator("#expires").get_attribute("datetime")
    visitor.get_by_role("button", name="Keep longer").click()
    expect(visitor.get_by_role("button", name="Open the notebook")).to_be_visible()
    assert visitor.locator("#expires").get_attribute("datetime") > ends  # type: ignore[operator]
    visitor.get_by_text("Delete…", exact=True).click()
    visitor.get_by_label("Type the notebook’s name").fill("a lif")
    visitor.get_by_role("button", name="Delete the notebook and its files").click()
    expect(visitor.get_by_text("type its name exactly as it is shown")).to_be_visible()
    visitor.goto(session)
    visitor.get_by_text("Delete…", exact=True).click()
    visitor.get_by_label("Type the notebook’s name").fill("a life")
    visitor.get_by_role("button", name="Delete the notebook and its files").click()
    expect(visitor.locator("#chip")).to_have_text("Deleted")
    expect(visitor.get_by_text("Delete…", exact=True)).to_be_hidden()


def test_a_visitor_saves_a_notebook_as_an_image_and_finds_it_for_the_next_launch(visitor: Page, stack: Stack) -> None:
    session = launch(visitor, stack, "to be saved")
    visitor.wait_for_url("**/lab**")
    visitor.goto(session)
    visitor.get_by_text("Save as image…", exact=True).click()
    name = visitor.get_by_label("Name of the image").input_value()
    assert re.fullmatch(r"localhost/to-be-saved:\d{4}-\d\d-\d\d", name)
    try:
        visitor.get_by_role("button", name="Save the notebook as an image").click()
        expect(visitor.locator("#message")).to_contain_text(f"It is saved as the image {name}", timeout=PATIENCE)
        expect(visitor.locator("#log")).to_contain_text(f"Saved as the image {name}")
        visitor.goto(f"{stack.hub_url}/sessions")
        visitor.get_by_role("link", name=name).click()
        expect(visitor.get_by_label("Image", exact=True)).to_have_value(name)
        visitor.goto(session)
        press(visitor, "Stop…", "Stop the notebook")
        expect(visitor.locator("#chip")).to_have_text("Stopped", timeout=PATIENCE)
    finally:
        with closing(docker.APIClient(base_url=stack.engine_url)) as engine, suppress(NotFound):
            engine.remove_image(name, force=True)


def test_another_browser_is_shown_the_way_back_to_the_hub(browser: Browser, visitor: Page, stack: Stack) -> None:
    session = launch(visitor, stack, "not yours")
    visitor.wait_for_url("**/lab**")
    stranger = browser.new_context()
    try:
        page = stranger.new_page()
        answer = page.goto(visitor.url)
        assert answer is not None
        assert answer.status == 401
        assert page.get_by_role("link").first.get_attribute("href", timeout=PATIENCE).startswith(stack.hub_url)  # type: ignore[union-attr]
        answer = page.goto(session)
        assert answer is not None
        assert answer.status == 401
    finally:
        stranger.close()
        visitor.goto(session)
        visitor.get_by_text("Stop…").click()
        visitor.get_by_role("button", name="Stop the notebook").click()
        expect(visitor.get_by_text("no container, no route").first).to_be_visible(timeout=PATIENCE)
