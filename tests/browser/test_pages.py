"""The pages in Chromium, against a hub that says what the test tells it to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, FilePayload, Page, expect

from tests.browser.scripted_hub import Script, a_problem, scripted_hub
from tests.documents import SID, a_built_document, a_session_document

MISSING = a_problem("endpoint-missing", "The bundle names no endpoint: type its address")
MISMATCH = a_problem("key-mismatch", "key.pem does not belong to cert.pem: export the bundle again")


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def hub(script: Script) -> Iterator[str]:
    with scripted_hub(script) as address:
        yield address


def a_file(name: str = "ada.dockercontext", content: bytes = b"bundle") -> FilePayload:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


def chosen(page: Page) -> str:
    return str(page.locator("#credentials").evaluate("field => field.files[0]?.name ?? ''"))


# ── the launch form ──────────────────────────────────────────────────────────────────────────────────────────────


def test_choosing_a_file_shows_what_is_in_it_before_launching(page: Page, hub: str, script: Script) -> None:
    page.goto(hub)
    page.set_input_files("#credentials", a_file())
    result = page.locator("#result")
    expect(result.locator(".facts")).to_contain_text("tcp://203.0.113.7:2376")
    for fact in ("Docker context", "CN=ada", "3f9a 0c51 d27e 84b6", "1 March 2099", "ca-key.pem", "names no host"):
        expect(result).to_contain_text(fact)
    assert script.asked("POST", "/bundles") == [{"credentials": "bundle"}]
    assert script.asked("POST", "/sessions") == []


def test_a_bundle_without_endpoint_asks_for_the_host_and_keeps_the_file(page: Page, hub: str, script: Script) -> None:
    script.bundles.insert(0, MISSING)
    page.goto(hub)
    expect(page.get_by_label("Address of the endpoint")).to_be_hidden()
    page.set_input_files("#credentials", a_file())
    expect(page.get_by_label("Address of the endpoint")).to_be_focused()
    assert chosen(page) == "ada.dockercontext"
    page.keyboard.type("203.0.113.7")
    page.keyboard.press("Tab")
    expect(page.locator("#result[data-ok]")).to_be_visible()
    expect(page.get_by_label("Address of the endpoint")).to_have_value("203.0.113.7")
    assert script.asked("POST", "/bundles")[-1] == {"credentials": "bundle", "host": "203.0.113.7"}


def test_another_file_is_asked_about_without_the_host_typed_for_the_first(page: Page, hub: str, script: Script) -> None:
    script.bundles.insert(0, MISSING)
    page.goto(hub)
    page.set_input_files("#credentials", a_file())
    page.get_by_label("Address of the endpoint").fill("203.0.113.7")
    page.keyboard.press("Tab")
    expect(page.locator("#result[data-ok]")).to_be_visible()
    page.set_input_files("#credentials", a_file("other.zip"))
    expect(page.get_by_label("Address of the endpoint")).to_be_hidden()
    expect(page.locator("#result[data-ok]")).to_be_visible()
    page.get_by_role("button", name="Launch").click()
    page.wait_for_url(f"**/sessions/{SID}")
    assert "host" not in script.asked("POST", "/sessions")[0]


def test_a_refused_bundle_shows_the_sentence_and_its_code(page: Page, hub: str, script: Script) -> None:
    script.bundles = [MISMATCH]
    page.goto(hub)
    page.set_input_files("#credentials", a_file())
    expect(page.get_by_role("alert")).to_contain_text("key.pem does not belong to cert.pem")
    expect(page.get_by_role("alert")).to_contain_text("key-mismatch")
    expect(page.locator("#result")).to_be_hidden()


def test_the_next_file_clears_the_refusal(page: Page, hub: str, script: Script) -> None:
    script.bundles.insert(0, MISMATCH)
    page.goto(hub)
    page.set_input_files("#credentials", a_file())
    expect(page.get_by_role("alert")).to_be_visible()
    page.set_input_files("#credentials", a_file("right.zip"))
    expect(page.locator("#result[data-ok]")).to_be_visible()
    expect(page.locator("#problem")).to_be_hidden()


def test_a_large_file_is_refused_without_sending_it(page: Page, hub: str, script: Script) -> None:
    page.goto(hub)
    page.set_input_files("#credentials", a_file("holiday.mp4", bytes(65537)))
    expect(page.get_by_role("alert")).to_contain_text("“holiday.mp4” is too large")
    assert script.asked("POST", "/bundles") == []


def test_a_launch_sends_the_options_that_were_filled_in_and_no_others(page: Page, hub: str, script: Script) -> None:
    page.goto(hub)
    page.set_input_files("#credentials", a_file())
    page.get_by_text("Pulling and limits").click()
    page.get_by_label("Pull the image").select_option(label="Never: I have put it there myself")
    page.get_by_label("Shared memory").fill("8g")
    page.get_by_text("Data, variables, port, start").click()
    page.get_by_label("Data directory on the endpoint’s machine").fill("/srv/data:rw")
    page.get_by_label("Environment variables").fill("A=1\nB=2")
    page.get_by_role("button", name="Launch").click()
    page.wait_for_url("**/sessions/*")
    (sent,) = script.asked("POST", "/sessions")
    assert sent.pop("env").split() == ["A=1", "B=2"]
    options = {"pull": "never", "shm": "8g", "data": "/srv/data:rw"}
    assert sent == {"credentials": "bundle", "what": "image", **options}


def test_a_refused_launch_keeps_file_and_name_and_can_be_tried_again(page: Page, hub: str, script: Script) -> None:
    script.launches.insert(0, a_problem("store-unavailable", "The hub cannot store it now: try again", 503))
    page.goto(hub)
    page.set_input_files("#credentials", a_file())
    page.get_by_label("Name of the notebook").fill("<b>thesis</b>")
    page.get_by_role("button", name="Launch").click()
    expect(page.locator("#problem")).to_contain_text("The hub cannot store it now")
    assert chosen(page) == "ada.dockercontext"
    expect(page.get_by_label("Name of the notebook")).to_have_value("<b>thesis</b>")
    page.get_by_role("button", name="Launch").click()
    page.wait_for_url(f"**/sessions/{SID}")
    assert script.asked("POST", "/sessions")[1] == {"credentials": "bundle", "what": "image", "name": "<b>thesis</b>"}


def test_a_file_can_be_dropped(page: Page, hub: str) -> None:
    page.goto(hub)
    page.locator("#drop").evaluate(
        """zone => {
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File(["bundle"], "dropped.zip"));
            zone.dispatchEvent(new DragEvent("drop", {dataTransfer, bubbles: true, cancelable: true}));
        }"""
    )
    expect(page.locator("#result[data-ok]")).to_be_visible()
    assert chosen(page) == "dropped.zip"


def test_the_name_in_the_address_fills_the_form(page: Page, hub: str) -> None:
    page.goto(f"{hub}?name=chapter%204")
    expect(page.get_by_label("Name of the notebook")).to_have_value("chapter 4")


# ── a session ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_session_is_followed_and_entered_once_when_it_gets_ready(page: Page, hub: str, script: Script) -> None:
    page.goto(f"{hub}sessions/{SID}#launched")
    expect(page.get_by_role("progressbar")).to_have_js_property("value", 40)
    script.state = a_session_document(state="probing", progress=0.85, message="Waiting")
    expect(page.locator("#message")).to_have_text("Waiting")
    expect(page.get_by_role("progressbar")).to_have_js_property("value", 85)
    expect(page.locator("#log li").nth(1)).to_be_visible()
    script.state = a_session_document(state="ready", progress=1.0, message="Your notebook is ready")
    page.wait_for_url("**/.homeport/enter")
    assert script.asked("POST", "/.homeport/enter") == [{"ticket": "t-1", "path": "/lab"}]
    origin = hub.removesuffix("/stage/")
    expect(page.locator("p")).to_have_text(origin)  # the proxy compares it with the hub's
    page.go_back()
    expect(page.get_by_role("button", name="Open the notebook")).to_be_visible()
    assert len(script.asked("POST", f"/sessions/{SID}/enter")) == 1


def test_the_list_of_images_built_here_is_open_where_a_link_leads_to_it_and_new_when_they_are_removed(
    page: Page, hub: str, script: Script
) -> None:
    script.state, script.built = a_session_document(state="ready"), [a_built_document()]
    page.goto(f"{hub}sessions/{SID}#images")
    expect(page.get_by_role("button", name="Remove jupyterlab/jupyterlab-demo at 3f78685")).to_be_visible()
    script.state = a_session_document(state="tidying")
    page.reload()
    expect(page.locator("#images")).to_be_hidden()
    script.state, script.built = a_session_document(state="ready"), []
    expect(page.locator("#images")).to_have_count(0)
    expect(page.locator("#chip")).to_have_text("Ready")
    assert script.asked("POST", f"/sessions/{SID}/enter") == []


def test_a_session_that_was_ready_before_is_not_entered_unasked(page: Page, hub: str, script: Script) -> None:
    script.state = a_session_document(state="ready", progress=1.0)
    page.goto(f"{hub}sessions/{SID}")
    page.get_by_role("button", name="Open the notebook").click()
    page.wait_for_url("**/.homeport/enter")
    assert len(script.asked("POST", f"/sessions/{SID}/enter")) == 1


def test_coming_back_to_a_running_notebook_enters_it(page: Page, hub: str, script: Script) -> None:
    script.state = a_session_document(state="ready", progress=1.0)
    script.launches = [(200, script.state)]
    page.goto(hub)
    page.set_input_files("#credentials", a_file())
    page.get_by_role("button", name="Launch").click()
    page.wait_for_url("**/.homeport/enter")


def test_a_failure_is_shown_with_its_code_and_a_way_to_try_again(page: Page, hub: str, script: Script) -> None:
    error = {"code": "image-not-found", "message": "There is no image <i>x</i>"}
    page.goto(f"{hub}sessions/{SID}")
    script.state = a_session_document(state="stopped", progress=None, error=error, message=error["message"])
    expect(page.locator("#failure")).to_contain_text("There is no image <i>x</i>")
    expect(page.locator("#failure")).to_contain_text("image-not-found")
    expect(page.locator("#chip")).to_have_text("Failed")
    expect(page.locator("summary", has_text="Stop")).to_be_hidden()
    page.get_by_role("link", name="Launch again").click()
    expect(page.get_by_label("Name of the notebook")).to_have_value("thesis")


@pytest.mark.parametrize(
    ("first", "button", "path"),
    [("Stop…", "Stop the notebook", "stop"), ("Forget my credentials…", "Forget my credentials now", "forget")],
)
def test_what_cannot_be_undone_takes_two_clicks(
    page: Page, hub: str, script: Script, first: str, button: str, path: str
) -> None:
    script.state = a_session_document(state="ready", progress=1.0)
    page.goto(f"{hub}sessions/{SID}")
    expect(page.get_by_role("button", name=button)).to_be_hidden()
    page.get_by_text(first, exact=True).click()
    page.get_by_role("button", name=button).click()
    page.wait_for_url(f"**/sessions/{SID}")
    expect(page.get_by_role("heading", level=1)).to_have_text("thesis")
    assert len(script.asked("POST", f"/sessions/{SID}/{path}")) == 1


def test_after_forgetting_the_page_says_how_to_remove_the_container(page: Page, hub: str, script: Script) -> None:
    page.goto(f"{hub}sessions/{SID}")
    page.get_by_text("Stop…", exact=True).click()  # an open panel also keeps the page from leaving by itself
    script.state = a_session_document(state="ready", credentials_held=False)
    expect(page.get_by_text(f"docker rm -f homeport-{SID}-1")).to_be_visible()
    expect(page.get_by_text("Forget my credentials…")).to_be_hidden()
    expect(page.get_by_text("Deleted from this hub", exact=True)).to_be_visible()


# ── every page ───────────────────────────────────────────────────────────────────────────────────────────────────


def without_script(act: Callable[[Page], None], browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    try:
        act(context.new_page())
    finally:
        context.close()


def test_without_script_the_host_field_is_there_and_a_session_refreshes(
    browser: Browser, hub: str, script: Script
) -> None:
    def act(page: Page) -> None:
        page.goto(hub)
        page.get_by_text("Endpoint address not in the file?").click()
        expect(page.get_by_label("Address of the endpoint")).to_be_visible()
        page.goto(f"{hub}sessions/{SID}#launched")  # as after a launch; to refresh an address with "#" loads nothing
        expect(page.locator("#chip")).to_have_text("Launching")
        script.state = a_session_document(state="ready", progress=1.0)
        expect(page.locator("#chip")).to_have_text("Ready", timeout=15_000)
        page.get_by_role("button", name="Open the notebook").click()
        page.get_by_role("button", name="Continue to the notebook").click()
        page.wait_for_url("**/.homeport/enter")

    without_script(act, browser)


@pytest.mark.parametrize("width", [320, 768, 1440])
def test_no_page_is_wider_than_the_window(page: Page, hub: str, script: Script, width: int) -> None:
    long = a_session_document(
        state="ready", name="W" * 63, image="registry.example.org/" + "x" * 200, message="y" * 200
    )
    script.state = long
    page.set_viewport_size({"width": width, "height": 800})
    repository = f"repo=https://git.example.org/{'z' * 200}&content=u/{'y' * 99}"
    for path in ("", f"?{repository}", "badge", f"badge?{repository}", f"sessions/{SID}", "nowhere"):
        page.goto(hub + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("path", ["", "?repo=u/r&content=u/course", "badge?repo=u/r"])
def test_everything_can_be_reached_and_named_by_keyboard_and_screen_reader(page: Page, hub: str, path: str) -> None:
    page.goto(hub + path)
    for more in page.locator("details.more:visible > summary").all():
        more.click()
    fields = page.locator(
        ", ".join(f"{tag}:visible:enabled" for tag in ("input", "select", "textarea", "button", "a", "summary"))
    )
    for field in fields.all():
        box = field.bounding_box()
        assert box is not None
        field.focus()
        expect(field).to_be_focused()
        expect(field).to_have_accessible_name(re.compile(r"\S"))
