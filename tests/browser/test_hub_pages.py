"""The real web function in Chromium: what the pages and the hub's answers make of each other.

Nothing drives the sessions of this hub, so each stays where its upload left it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, FilePayload, Page, expect

from local import aws, hub, processes
from tests.functional.hub_rig import a_bundle
from tests.role_guard import guarded_aws
from tests.roles import environ_of


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The first page of a hub with an embedded AWS of its own."""
    folder = tmp_path_factory.mktemp("hub")
    port = processes.free_port()
    with guarded_aws(folder) as embedded:
        environ = aws.own_environ(os.environ) | environ_of("web", embedded.environ)
        environ["HOMEPORT_HUB_ORIGIN"] = f"http://localhost:{port}"
        with hub.hub(folder, port=port, environ=environ):
            yield f"http://localhost:{port}/"


def a_file(content: bytes) -> FilePayload:
    return {"name": "ada.zip", "mimeType": "application/zip", "buffer": content}


def launched(page: Page, address: str, name: str, bundle: bytes) -> None:
    page.goto(address)
    page.set_input_files("#credentials", a_file(bundle))
    page.get_by_label("Name of the notebook").fill(name)
    page.get_by_role("button", name="Launch").click()
    page.wait_for_url("**/sessions/*")


def test_the_facts_of_a_real_bundle_are_shown_before_launching(page: Page, address: str) -> None:
    page.goto(address)
    page.set_input_files("#credentials", a_file(a_bundle()))
    expect(page.locator("#result[data-ok]")).to_contain_text("docker.example.org:2376")
    expect(page.locator("#result")).to_contain_text("visitor-0")


def test_a_bundle_without_endpoint_is_completed_by_the_host_field(page: Page, address: str) -> None:
    page.goto(address)
    page.set_input_files("#credentials", a_file(a_bundle(host=None)))
    expect(page.get_by_label("Address of the endpoint")).to_be_focused()
    page.keyboard.type("docker.example.net")
    page.keyboard.press("Tab")
    expect(page.locator("#result[data-ok]")).to_contain_text("docker.example.net:2376")


def test_what_is_no_bundle_is_refused_with_the_hubs_sentence(page: Page, address: str) -> None:
    page.goto(address)
    page.set_input_files("#credentials", a_file(b"\x89PNG\r\n\x1a\n not a bundle"))
    expect(page.get_by_role("alert")).to_contain_text("bundle")
    assert page.locator("#problem .code").inner_text()


def test_a_launch_leads_to_its_page_and_into_the_list_of_this_browser_alone(
    page: Page, browser: Browser, address: str
) -> None:
    launched(page, address, "<b>Kapitel</b> 4 ✎", a_bundle())
    expect(page.get_by_role("heading", level=1)).to_have_text("<b>Kapitel</b> 4 ✎")
    expect(page.locator("#chip")).to_have_text("Launching")
    with page.expect_response("**/events?after=*") as looked:
        pass
    assert looked.value.ok
    page.goto(f"{address}sessions")
    expect(page.get_by_role("link", name="<b>Kapitel</b> 4 ✎")).to_be_visible()
    session = page.get_by_role("link", name="<b>Kapitel</b> 4 ✎").evaluate("link => link.href")
    stranger = browser.new_context()
    other = stranger.new_page()
    other.goto(str(session))
    expect(other.get_by_role("heading", level=1)).not_to_have_text("<b>Kapitel</b> 4 ✎")
    stranger.close()


def test_stopping_from_the_page_takes_two_clicks_and_shows_that_it_is_stopping(page: Page, address: str) -> None:
    launched(page, address, "thesis", a_bundle(1))
    page.get_by_text("Stop…", exact=True).click()
    page.get_by_role("button", name="Stop the notebook").click()
    expect(page.locator("#chip")).to_have_text("Stopping")


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_link_of_binders_is_followed_to_the_form_and_launched(page: Page, address: str, slash: str) -> None:
    page.goto(f"{address}v2/git/https%3A%2F%2Fgit.example.org%2Fcourse/v1{slash}?labpath=one.ipynb")
    assert page.url.startswith(f"{address}?repo=https")
    expect(page.get_by_role("heading", level=1)).to_have_text("Launch git.example.org/course")
    expect(page.get_by_label("Version", exact=True)).to_have_value("v1")
    page.set_input_files("#credentials", a_file(a_bundle(4)))
    page.get_by_role("button", name="Launch", exact=True).click()
    page.wait_for_url("**/sessions/*")
    expect(page.get_by_role("heading", level=1)).to_have_text("git.example.org/course")
    expect(page.locator("#steps [aria-current=step]")).to_have_text("Resolve")


def test_an_author_makes_a_link_that_leads_to_the_form(page: Page, address: str) -> None:
    page.goto(f"{address}badge")
    page.get_by_label("Address of the repository").fill("https://github.com/u/r/blob/main/one.ipynb")
    link = page.get_by_label("Link", exact=True)
    expect(link).to_have_value(f"{address}?repo=u/r&ref=main&open=one.ipynb")
    image = page.get_by_role("img", name="Launch on Homeport")
    assert int(image.evaluate("image => image.naturalWidth")) > 40
    page.goto(link.input_value())
    expect(page.get_by_label("Address of the repository")).to_have_value("u/r")


def test_without_script_a_file_is_checked_and_launched_by_plain_forms(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    page.set_input_files("#credentials", a_file(a_bundle()))
    page.get_by_role("button", name="Check the file").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("The file can be used")
    launched(page, address, "thesis", a_bundle(2))
    expect(page.get_by_role("heading", level=1)).to_have_text("thesis")
    context.close()


@pytest.mark.parametrize("script", [True, False])
@pytest.mark.parametrize("button", ["Sign out here", "Sign out everywhere"])
def test_signing_out_takes_the_cookie_away_and_the_notebooks_with_it(
    browser: Browser, address: str, button: str, script: bool
) -> None:
    context = browser.new_context(java_script_enabled=script)
    page = context.new_page()
    launched(page, address, "thesis", a_bundle(3))
    session = page.url.partition("#")[0]
    page.goto(f"{address}sessions")
    page.get_by_role("link", name="Sign out…").click()
    page.get_by_role("button", name=button).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Signed out")
    assert context.cookies() == []
    page.goto(session)
    expect(page.get_by_role("heading", level=1)).to_have_text("Not signed in")
    context.close()
