"""What Chromium makes of the pages for repositories: the form, launch links, badges, and a build as it goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, FilePayload, Page, expect

from tests.browser.scripted_hub import Script, a_problem, scripted_hub
from tests.documents import SID, a_repository_document, a_session_document

BUNDLE: FilePayload = {"name": "ada.zip", "mimeType": "application/zip", "buffer": b"bundle"}
LINK = "?repo=https://github.com/u/r/blob/main/one.ipynb"


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def hub(script: Script) -> Iterator[str]:
    with scripted_hub(script) as address:
        yield address


@pytest.fixture
def plain(browser: Browser) -> Iterator[Page]:
    """A page of a visitor without script."""
    context = browser.new_context(java_script_enabled=False)
    yield context.new_page()
    context.close()


def launched(page: Page, script: Script) -> dict[str, str]:
    """What is sent when it is launched."""
    page.set_input_files("#credentials", BUNDLE)
    page.get_by_role("button", name="Launch", exact=True).click()
    page.wait_for_url("**/sessions/*")
    (sent,) = script.asked("POST", "/sessions")
    return sent


def pasted(page: Page, label: str, text: str) -> None:
    field = page.get_by_label(label, exact=True)
    field.fill(text)
    field.dispatch_event("change")


# ── the form ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("chooser", ["page", "plain"])
def test_what_is_chosen_is_shown_with_and_without_script(
    request: pytest.FixtureRequest, hub: str, chooser: str
) -> None:
    page: Page = request.getfixturevalue(chooser)
    page.goto(hub)
    repository, image = page.get_by_label("Address of the repository"), page.get_by_label("Image", exact=True).last
    expect(page.get_by_role("radio", name="Image")).to_be_checked()
    expect(repository).to_be_hidden()
    expect(image).to_be_visible()
    page.get_by_role("radio", name="Repository").check()
    expect(repository).to_be_visible()
    expect(image).to_be_hidden()


def test_a_pasted_address_fills_the_fields_as_the_hub_reads_it(page: Page, hub: str, script: Script) -> None:
    page.goto(hub)
    page.get_by_role("radio", name="Repository").check()
    pasted(page, "Address of the repository", "https://github.com/JupyterLab/jupyterlab-demo/blob/main/demo/one.ipynb")
    expect(page.locator("#repo-found")).to_have_text(
        "jupyterlab/jupyterlab-demo on GitHub, version main, opens demo/one.ipynb"
    )
    expect(page.get_by_label("Version", exact=True)).to_have_value("main")
    expect(page.get_by_label("Name of the notebook")).to_have_attribute("placeholder", "jupyterlab/jupyterlab-demo")
    assert launched(page, script) == {
        "credentials": "bundle",
        "what": "repository",
        "repo": "jupyterlab/jupyterlab-demo",
        "ref": "main",
        "open": "demo/one.ipynb",
    }


def test_pasting_asks_without_waiting_for_the_next_field(page: Page, hub: str) -> None:
    page.goto(hub)
    page.get_by_role("radio", name="Repository").check()
    page.get_by_label("Address of the repository").evaluate(
        """field => {
            field.value = "https://mybinder.org/v2/gh/u/r/v1?labpath=one.ipynb";
            field.dispatchEvent(new InputEvent("input", {inputType: "insertFromPaste", bubbles: true}));
        }"""
    )
    expect(page.locator("#repo-found")).to_have_text("u/r on GitHub, version v1, opens one.ipynb")
    expect(page.get_by_label("Address of the repository")).to_have_value("u/r")


def test_another_address_takes_back_what_the_one_before_had_filled_in(page: Page, hub: str) -> None:
    page.goto(hub)
    page.get_by_role("radio", name="Repository").check()
    pasted(page, "Address of the repository", "https://github.com/u/r/blob/main/one.ipynb")
    expect(page.get_by_label("Version", exact=True)).to_have_value("main")
    pasted(page, "Address of the repository", "u/other")
    expect(page.locator("#repo-found")).to_have_text("u/other on GitHub, the default branch")
    expect(page.get_by_label("Version", exact=True)).to_have_value("")
    expect(page.locator("#open")).to_have_value("")


def test_a_version_that_was_typed_stays_and_is_said(page: Page, hub: str) -> None:
    page.goto(hub)
    page.get_by_role("radio", name="Repository").check()
    page.get_by_label("Version", exact=True).fill("v2")
    pasted(page, "Address of the repository", "u/r")
    expect(page.locator("#repo-found")).to_have_text("u/r on GitHub, version v2")
    pasted(page, "Version", "no..version")
    expect(page.locator("#repo-found[data-problem]")).to_contain_text("must be a branch, a tag or a commit")


def test_another_version_leaves_what_the_address_says_to_open(page: Page, hub: str) -> None:
    page.goto(f"{hub}{LINK}")
    expect(page.locator("#repo-found")).to_have_text("u/r on GitHub, version main, opens one.ipynb")
    pasted(page, "Version", "v2")
    expect(page.locator("#repo-found")).to_have_text("u/r on GitHub, version v2, opens one.ipynb")
    expect(page.locator("#open")).to_have_value("one.ipynb")


def test_a_doi_has_no_version_of_its_own(page: Page, hub: str) -> None:
    page.goto(hub)
    page.get_by_role("radio", name="Repository").check()
    page.get_by_label("Version", exact=True).fill("main")
    pasted(page, "Address of the repository", "https://doi.org/10.5281/zenodo.3242074")
    expect(page.locator("#repo-found")).to_have_text("10.5281/zenodo.3242074 on Zenodo")
    expect(page.get_by_label("Version", exact=True)).to_have_value("")
    expect(page.get_by_label("Version", exact=True)).not_to_be_editable()
    pasted(page, "Address of the repository", "u/r")
    expect(page.get_by_label("Version", exact=True)).to_be_editable()


def test_an_address_that_cannot_be_used_is_refused_with_the_hubs_sentence(page: Page, hub: str) -> None:
    page.goto(hub)
    page.get_by_role("radio", name="Repository").check()
    pasted(page, "Address of the repository", "git@github.com:u/r.git")
    expect(page.locator("#repo-found[data-problem]")).to_contain_text("SSH are not supported yet")
    pasted(page, "Address of the repository", "")
    expect(page.locator("#repo-found")).to_be_hidden()
    expect(page.get_by_label("Name of the notebook")).to_have_attribute("placeholder", "my-notebook")


def test_the_name_follows_what_is_chosen(page: Page, hub: str) -> None:
    page.goto(f"{hub}{LINK}&content=u/course")
    name = page.get_by_label("Name of the notebook")
    expect(name).to_have_attribute("placeholder", "u/r")
    page.get_by_role("radio", name="Image").check()
    expect(name).to_have_attribute("placeholder", "u/course")
    pasted(page, "Repository with the files", "")
    expect(name).to_have_attribute("placeholder", "my-notebook")
    page.get_by_role("radio", name="Repository").check()
    expect(name).to_have_attribute("placeholder", "u/r")


def test_fields_that_are_not_for_this_launch_are_disabled_and_said_and_not_sent(
    page: Page, hub: str, script: Script
) -> None:
    page.goto(f"{hub}{LINK}")
    page.get_by_text("Pulling and limits").click()
    pull = page.get_by_label("Pull the image")
    expect(pull).to_be_disabled()
    expect(pull).to_have_accessible_description(re.compile("For an image alone"))
    page.get_by_role("radio", name="Image").check()
    expect(pull).to_be_enabled()
    pull.select_option("always")
    sent = launched(page, script)
    assert sent == {"credentials": "bundle", "what": "image", "pull": "always", "open": "one.ipynb"}


def test_files_are_put_into_an_image_and_what_to_open_is_in_their_folder(page: Page, hub: str, script: Script) -> None:
    page.goto(hub)
    page.get_by_text("Files from a repository").click()
    pasted(page, "Repository with the files", "https://github.com/u/course/blob/v1/lessons/one.ipynb")
    expect(page.locator("#content-found")).to_have_text(
        "u/course on GitHub, version v1, opens course/lessons/one.ipynb"
    )
    page.get_by_label("Repository with the files", exact=True).dispatch_event("change")  # as when it is left
    page.wait_for_load_state("networkidle")
    assert launched(page, script) == {
        "credentials": "bundle",
        "what": "image",
        "content": "u/course",
        "content_ref": "v1",
        "open": "course/lessons/one.ipynb",
    }


def test_without_script_a_pasted_address_is_sent_as_it_is(plain: Page, hub: str, script: Script) -> None:
    plain.goto(hub)
    plain.get_by_text("Repository", exact=True).click()
    plain.get_by_label("Address of the repository").fill("https://github.com/u/r/tree/main")
    plain.set_input_files("#credentials", BUNDLE)
    plain.get_by_role("button", name="Launch", exact=True).click()
    expect(plain.locator("body")).to_contain_text(SID)  # what the scripted hub answers is JSON
    (sent,) = script.asked("POST", "/sessions")
    assert (sent["what"], sent["repo"], sent["name"]) == ("repository", "https://github.com/u/r/tree/main", "")


# ── launch links ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_link_says_whose_code_it_is_until_it_was_launched_from_this_browser(
    page: Page, hub: str, script: Script
) -> None:
    full, brief = page.locator("#consent-full"), page.locator("#consent-brief")
    page.goto(f"{hub}{LINK}")
    expect(full).to_contain_text("its authors wrote it, and this hub has not checked it")
    expect(full.get_by_role("link", name="u/r")).to_have_attribute("href", "https://github.com/u/r/tree/main")
    page.reload()
    expect(full, "nothing was launched").to_be_visible()
    launched(page, script)
    page.goto(f"{hub}?repo=u/r&ref=v2")
    expect(brief).to_have_text("You have launched this from this browser before. Nothing runs until you press Launch.")
    expect(full).to_be_hidden()
    for other in ("?repo=u/other", "?repo=u/r&content=u/course", "?image=docker.io/ada/notebook"):
        page.goto(hub + other)
        expect(full).to_be_visible()


def test_what_is_launched_instead_of_the_link_is_not_remembered_as_the_link(
    page: Page, hub: str, script: Script
) -> None:
    page.goto(f"{hub}{LINK}")
    pasted(page, "Address of the repository", "u/other")
    expect(page.locator("#repo-found")).to_contain_text("u/other")
    assert launched(page, script)["repo"] == "u/other"
    page.goto(f"{hub}{LINK}")
    expect(page.locator("#consent-full")).to_be_visible()


def test_a_refused_launch_is_not_remembered(page: Page, hub: str, script: Script) -> None:
    script.launches = [a_problem("repository-not-allowed", "This hub does not allow it", 403)]
    page.goto(f"{hub}{LINK}")
    page.set_input_files("#credentials", BUNDLE)
    page.get_by_role("button", name="Launch", exact=True).click()
    expect(page.locator("#problem")).to_contain_text("This hub does not allow it")
    page.reload()
    expect(page.locator("#consent-full")).to_be_visible()


def test_a_browser_that_remembers_nonsense_shows_the_whole_text(page: Page, hub: str, script: Script) -> None:
    page.goto(hub)
    for nonsense in ("{", "{}", "null"):
        page.evaluate("text => localStorage.setItem('homeport-launched', text)", nonsense)
        page.goto(f"{hub}{LINK}")
        expect(page.locator("#consent-full")).to_be_visible()
    launched(page, script)
    page.goto(f"{hub}{LINK}")
    expect(page.locator("#consent-brief")).to_be_visible()


def test_without_script_the_whole_text_is_always_shown(plain: Page, hub: str) -> None:
    plain.goto(f"{hub}{LINK}")
    expect(plain.locator("#consent-full")).to_be_visible()
    expect(plain.locator("#consent-brief")).to_be_hidden()
    expect(plain.get_by_role("radio", name="Repository")).to_be_checked()
    expect(plain.get_by_label("Address of the repository")).to_have_value("u/r")


# ── badges ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_link_is_made_while_its_author_types(page: Page, hub: str) -> None:
    page.goto(hub)
    page.get_by_role("link", name="Make a launch link").click()
    expect(page.locator("#made")).to_be_hidden()
    page.get_by_label("Address of the repository").press_sequentially("u/r")
    expect(page.get_by_label("Link", exact=True)).to_have_value(re.compile(r"\?repo=u%2Fr$"))
    expect(page.get_by_label("Markdown")).to_have_value(re.compile("badge.svg"))
    page.get_by_label("Version", exact=True).fill("v1")
    expect(page.get_by_label("Link", exact=True)).to_have_value(re.compile(r"\?repo=u%2Fr&ref=v1$"))
    image = page.get_by_role("img", name="Launch on Homeport")
    expect(image).to_have_js_property("complete", True)
    assert int(image.evaluate("image => image.naturalWidth")) > 0
    for label in ("Address of the repository", "Version"):
        page.get_by_label(label, exact=True).fill("")
    expect(page.locator("#made")).to_be_hidden()


def test_what_no_link_can_be_made_of_is_said_and_the_old_link_goes(page: Page, hub: str, script: Script) -> None:
    page.goto(f"{hub}badge?repo=u/r")
    expect(page.locator("#made")).to_be_visible()
    page.get_by_label("Address of the repository").fill("javascript:alert(1)")
    expect(page.get_by_role("alert")).to_contain_text("must begin with https://")
    expect(page.locator("#made")).to_be_hidden()


def test_a_snippet_is_copied_with_one_click(page: Page, hub: str) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{hub}badge?repo=u/r")
    page.get_by_role("button", name="Copy reStructuredText").click()
    expect(page.locator("#copied")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(".. image:: ")
    assert copied == page.get_by_label("reStructuredText", exact=True).input_value()


def test_without_script_a_link_is_made_by_a_plain_form(plain: Page, hub: str) -> None:
    plain.goto(f"{hub}badge")
    plain.get_by_label("Address of the repository").fill("u/r")
    plain.get_by_role("button", name="Make the link").click()
    expect(plain.get_by_label("Link", exact=True)).to_have_value(re.compile(r"\?repo=u%2Fr"))
    expect(plain.get_by_role("button", name="Copy")).to_have_count(0)


# ── a session ────────────────────────────────────────────────────────────────────────────────────────────────────────


def steps(now: int) -> list[dict[str, str]]:
    names = ["Resolve", "Build", "Create", "Start"]
    return [
        {"name": name, "status": "done" if at < now else "now" if at == now else "next"}
        for at, name in enumerate(names)
    ]


def test_a_build_is_followed_step_by_step(page: Page, hub: str, script: Script) -> None:
    unknown = a_repository_document(version=None)
    script.state = a_session_document(state="resolving", progress=0.14, steps=steps(0), image="", repository=unknown)
    page.goto(f"{hub}sessions/{SID}")
    current = page.locator("#steps [aria-current=step]")
    expect(current).to_have_text("Resolve")
    expect(page.get_by_role("link", name="jupyterlab/jupyterlab-demo")).to_be_visible()
    expect(page.locator("#built")).to_have_text("not built yet")
    expect(page.locator("#repository-at")).to_be_hidden()
    script.state = a_session_document(
        state="building",
        progress=0.43,
        steps=steps(1),
        message="Step 3/8 : RUN mamba env update",
        image="localhost/homeport-built:0",
        repository=a_repository_document(),
    )
    expect(current).to_have_text("Build")
    expect(page.locator("#steps [data-is=done]")).to_have_text("Resolve")
    expect(page.locator("#message")).to_have_text("Step 3/8 : RUN mamba env update")
    expect(page.get_by_role("progressbar")).to_have_js_property("value", 43)
    expect(page.locator("#repository-at")).to_have_text(", at 3f78685")
    expect(page.locator("#built")).to_have_text("from jupyterlab/jupyterlab-demo@3f78685")
    expect(page.get_by_role("link", name="Download the build’s log")).to_have_count(0)


def test_a_failed_build_leads_to_its_log_and_to_the_form_with_its_repository(
    page: Page, hub: str, script: Script
) -> None:
    repository = a_repository_document()
    script.state = a_session_document(state="building", steps=steps(1), repository=repository)
    page.goto(f"{hub}sessions/{SID}")
    error = {"code": "build-failed", "message": "The build failed"}
    script.state = a_session_document(
        state="stopped",
        progress=None,
        credentials_held=False,
        error=error,
        repository=repository,
        log_url=f"sessions/{SID}/build-log",
    )
    expect(page.locator("#failure")).to_contain_text("The build failed")
    log = page.locator("#failure").get_by_role("link", name="Download the build’s log")
    assert log.evaluate("link => link.href") == f"{hub}sessions/{SID}/build-log"
    expect(page.locator("#steps")).to_be_hidden()
    page.get_by_role("link", name="Launch again").click()
    expect(page.get_by_role("radio", name="Repository")).to_be_checked()
    expect(page.get_by_label("Address of the repository")).to_have_value("jupyterlab/jupyterlab-demo")
    expect(page.get_by_label("Version", exact=True)).to_have_value("main")
    expect(page.get_by_label("Name of the notebook")).to_have_value("thesis")
