"""The hub's HTTP interface (docs/http.md): JSON for programs, pages for browsers, one sentence for both."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NoReturn

import pytest

from chalicelib.bundle.errors import BundleUnreadable
from chalicelib.repository.source import Provider, Source
from chalicelib.session import events as e
from chalicelib.session.lanes import Lane, queue_of
from chalicelib.session.machine import advance
from chalicelib.session.values import BuiltImage, Failure, Line, SavedImage, Session, State, Target, session_id
from chalicelib.web.hub import LISTED
from tests.builders import NOW
from tests.functional.hub_rig import HubRig, a_bundle, a_hub, away, hub_rig, once

BROWSER = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def hub() -> Iterator[HubRig]:
    with hub_rig() as rig:
        yield rig


def made_ready(hub: HubRig, sid: str) -> Session:
    """What the launcher does, without a launcher."""
    store = hub.parts.sessions
    session = store.load(sid)
    target = Target("203.0.113.7", 32768)
    for event in (
        e.EndpointVerified("203.0.113.7", "20.10.24"),
        e.ImagePresent(),
        e.ContainerCreated(),
        e.ContainerStarted(target),
        e.NotebookAnswered(),
        e.RoutePublished(),
    ):
        session = advance(session, event, session.created_at)
        store.save(session)
    return session


def moved_to(hub: HubRig, sid: str, state: State, **changes: Any) -> Session:
    session = hub.parts.sessions.load(sid)
    changed = replace(session, state=state, version=session.version + 1, **changes)
    hub.parts.sessions.save(changed)
    return changed


def test_who_opens_the_page_of_a_ready_notebook_or_comes_back_to_it_has_it_looked_at(hub: HubRig) -> None:
    session = hub.upload(a_bundle(), name="one").json
    sid, token = session["id"], session["owner_token"]
    hub.messages()
    made_ready(hub, sid)
    for path, html in ((f"/sessions/{sid}/events?after=1", False), (f"/sessions/{sid}", False), ("/sessions", True)):
        assert hub.ask("GET", path, token=token, html=html).status == 200
    assert hub.messages() == [], "what follows a session by itself asks for no look"
    assert hub.ask("GET", f"/sessions/{sid}", token=token, html=True).status == 200
    assert hub.messages(Lane.WATCH) == [{"session": sid}]
    assert hub.ask("GET", f"/sessions/{sid}/events?after=1&look=1", token=token).status == 200
    assert hub.messages() == [], "the last one was a moment ago"


def test_the_first_page_is_the_upload_form(hub: HubRig) -> None:
    answer = hub.ask("GET", "/", html=True)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert 'name="credentials"' in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


def test_health_says_the_version(hub: HubRig) -> None:
    assert hub.ask("GET", "/health").json == {"status": "ok", "version": "0.1.0"}


def test_an_upload_launches_a_session(hub: HubRig) -> None:
    answer = hub.upload(a_bundle(), name="Übung 1")
    assert answer.status == 201
    session = answer.json
    assert session["name"] == "Übung 1"
    assert (session["state"], session["phase"], session["headline"]) == ("verifying", "launching", "Launching")
    assert session["endpoint"] == "tcp://docker.example.org:2376"
    assert session["error"] is None
    assert session["url"] is None
    assert session["bundle"]["subject"] == "CN=visitor-0"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", session["created_at"])
    assert hub.messages() == [{"session": session["id"]}]
    assert hub.objects() == [f"credentials/{session['id']}/1"]


def test_an_upload_from_a_form_goes_to_the_sessions_page(hub: HubRig) -> None:
    answer = hub.upload(a_bundle(), name="one", html=True, headers=BROWSER)
    assert answer.status == 303
    assert re.fullmatch(r"sessions/[0-9a-v]{20}#launched", answer.headers["location"])
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-homeport-owner=")
    assert all(part in cookie for part in ("; Secure", "; HttpOnly", "; SameSite=Lax", "; Path=/"))
    page = hub.ask(
        "GET",
        "/" + answer.headers["location"].split("#")[0],
        html=True,
        headers={"Cookie": cookie.split(";")[0]},
    )
    assert page.status == 200
    assert "one" in page.text


def test_same_key_and_name_rejoins_the_running_session(hub: HubRig) -> None:
    first = hub.upload(a_bundle(), name="one")
    again = hub.upload(a_bundle(), name="one")
    assert (first.status, again.status) == (201, 200)
    assert again.json["id"] == first.json["id"]
    assert len(hub.messages()) == 1


def test_same_key_and_another_name_is_a_second_session(hub: HubRig) -> None:
    first = hub.upload(a_bundle(), name="one")
    second = hub.upload(a_bundle(), name="two")
    assert second.status == 201
    assert second.json["id"] != first.json["id"]
    listed = hub.ask("GET", "/sessions", token=second.json["owner_token"]).json["sessions"]
    assert {session["name"] for session in listed} == {"one", "two"}


def test_another_key_with_the_same_name_is_another_session_that_nobody_else_sees(hub: HubRig) -> None:
    mine = hub.upload(a_bundle(0), name="one").json
    theirs = hub.upload(a_bundle(1), name="one").json
    assert mine["id"] != theirs["id"]
    for method, path in (
        ("GET", ""),
        ("GET", "/events"),
        ("DELETE", ""),
    ):
        answer = hub.ask(method, f"/sessions/{theirs['id']}{path}", token=mine["owner_token"])
        assert (answer.status, answer.json["code"]) == (404, "session-not-found")
    for action in ("enter", "stop", "forget"):
        answer = hub.press(f"/sessions/{theirs['id']}/{action}", token=mine["owner_token"])
        assert (answer.status, answer.json["code"]) == (404, "session-not-found")


def test_a_browser_with_two_keys_sees_the_sessions_of_both(hub: HubRig) -> None:
    first = hub.upload(a_bundle(0), name="one", headers=BROWSER)
    assert "owner_token" not in first.json
    cookie = {"Cookie": first.headers["set-cookie"].split(";")[0]}
    second = hub.upload(a_bundle(1), name="two", headers={**BROWSER, **cookie})
    both = {"Cookie": second.headers["set-cookie"].split(";")[0]}
    listed = hub.ask("GET", "/sessions", headers=both).json["sessions"]
    assert {session["name"] for session in listed} == {"one", "two"}
    listed = hub.ask("GET", "/sessions", headers=cookie).json["sessions"]
    assert {session["name"] for session in listed} == {"one"}


@pytest.mark.parametrize("path", ["/sessions", "/sessions/0123456789abcdefghij", "/sessions/x/events"])
def test_without_a_token_nothing_is_shown(hub: HubRig, path: str) -> None:
    answer = hub.ask("GET", path)
    assert (answer.status, answer.json["code"]) == (401, "not-authenticated")
    answer = hub.ask("GET", path, token="never-given-out")
    assert answer.status == 401


def test_the_list_of_a_browser_that_has_launched_nothing_says_what_to_do(hub: HubRig) -> None:
    answer = hub.ask("GET", "/sessions", html=True)
    assert answer.status == 200
    assert "Launch" in answer.text


def test_a_bundle_can_be_checked_without_anything_being_stored(hub: HubRig) -> None:
    answer = hub.upload(a_bundle(), "/bundles", name="one")
    assert answer.status == 200
    assert answer.json["endpoint"] == "tcp://docker.example.org:2376"
    assert len(answer.json["fingerprint"]) == 64
    assert answer.json["warnings"] == []
    assert hub.objects() == []
    assert hub.messages() == []
    page = hub.upload(a_bundle(), "/bundles", html=True)
    assert page.status == 200
    assert "docker.example.org" in page.text


def test_a_certificate_that_ends_before_the_session_warns(hub: HubRig) -> None:
    answer = hub.upload(a_bundle(not_after=time.time() + 3600), "/bundles")
    assert "expires on" in answer.json["warnings"][0]


def test_a_bundle_without_an_endpoint_asks_for_the_host_field(hub: HubRig) -> None:
    answer = hub.upload(a_bundle(host=None), name="one")
    assert (answer.status, answer.json["code"]) == (400, "endpoint-missing")
    answer = hub.upload(a_bundle(host=None), name="one", host="docker2.example.org")
    assert answer.json["endpoint"] == "tcp://docker2.example.org:2376"


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:2376", "tcp://169.254.169.254:2376", "tcp://[::1]:2376"])
def test_a_forbidden_address_is_refused_at_the_door(hub: HubRig, host: str) -> None:
    answer = hub.upload(a_bundle(host=host), name="one")
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert hub.objects() == []


def test_refusals_are_problem_documents_and_pages_with_the_same_sentence(hub: HubRig) -> None:
    problem = hub.upload(b"not an archive", name="one")
    page = hub.upload(b"not an archive", name="one", html=True)
    assert problem.status == page.status == 400
    assert set(problem.json) == {"type", "title", "status", "code", "detail"}
    assert (problem.json["code"], problem.json["title"]) == ("not-an-archive", "Not an archive")
    assert problem.json["detail"].replace("'", "&#39;") in page.text
    assert problem.json["code"] in page.text


def test_an_empty_name_gets_the_suggested_one(hub: HubRig) -> None:
    assert hub.upload(a_bundle(), name="  ").json["name"] == "my-notebook"


def test_fields_are_checked(hub: HubRig) -> None:
    cases: dict[str, Any] = {
        "name": "x" * 64,
        "image": "Not An Image",
        "memory": "1k",
        "cpus": "-1",
        "gpus": "many",
        "open": "../secret",
        "surprise": "1",
    }
    for name, value in cases.items():
        answer = hub.upload(a_bundle(), **{name: value})
        assert answer.status == 400, name
        assert answer.json["code"] in ("bad-field", "bad-name"), name
    assert hub.objects() == []


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        ("multipart/form-data", b"x", 400, "bad-form"),
        ("multipart/form-data; boundary=b", b"", 400, "bad-form"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="cre', 400, "bad-form"),
        ("application/json", b"{}", 415, "unsupported-media-type"),
        ("multipart/form-data; boundary=b", b"x" * 200_000, 413, "body-too-large"),
    ],
)
def test_malformed_bodies_are_refused(hub: HubRig, content_type: str, body: bytes, status: int, code: str) -> None:
    answer = hub.ask("POST", "/sessions", headers={"Content-Type": content_type}, body=body)
    assert (answer.status, answer.json["code"]) == (status, code)


def test_a_method_that_is_not_known_says_which_are(hub: HubRig) -> None:
    answer = hub.ask("DELETE", "/sessions")
    assert (answer.status, answer.json["code"]) == (405, "method-not-allowed")


def test_an_address_that_is_none_has_a_page_and_a_problem_document(hub: HubRig) -> None:
    problem, page = hub.ask("GET", "/nowhere"), hub.ask("GET", "/nowhere", html=True)
    assert (problem.status, problem.json["code"]) == (404, "no-such-address")
    assert (page.status, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert problem.json["detail"] in page.text


@pytest.mark.parametrize(("path", "html", "status"), [("/", True, 200), ("/health", False, 200), ("/no", False, 404)])
def test_the_head_of_an_answer_has_its_fields_and_no_body(hub: HubRig, path: str, html: bool, status: int) -> None:
    head, whole = hub.ask("HEAD", path, html=html), hub.ask("GET", path, html=html)
    assert (head.status, whole.status) == (status, status)
    assert (head.headers, head.text) == (whole.headers, "")


def test_a_defect_of_the_hub_is_a_problem_document_and_a_page_too(hub: HubRig) -> None:
    def broken() -> NoReturn:
        raise RuntimeError("not to be shown")

    hub.hub = a_hub(hub.parts, clock=broken)
    problem = hub.upload(a_bundle(), "/bundles")
    assert (problem.status, problem.json["code"]) == (500, "internal")
    assert problem.headers["content-type"] == "application/problem+json"
    page = hub.upload(a_bundle(), "/bundles", html=True)
    assert page.status == 500
    assert problem.json["detail"].replace("'", "&#39;") in page.text
    assert "not to be shown" not in problem.text + page.text


def test_a_bundle_that_no_code_is_made_for_is_logged_by_its_code_alone(
    hub: HubRig, caplog: pytest.LogCaptureFixture
) -> None:
    def unreadable() -> NoReturn:
        raise BundleUnreadable("not to be logged")

    hub.upload(b"not an archive", "/bundles")
    assert caplog.messages == []
    hub.hub = a_hub(hub.parts, clock=unreadable)
    assert hub.upload(a_bundle(), "/bundles").json["code"] == "bundle-unreadable"
    assert caplog.messages == ["bundle-unreadable"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_other_web_sites_cannot_act_for_a_visitor(hub: HubRig, headers: dict[str, str]) -> None:
    refused = hub.upload(a_bundle(), name="one", headers=headers)
    assert (refused.status, refused.json["code"]) == (403, "cross-site-request")
    session = hub.upload(a_bundle(), name="one").json
    for action in ("enter", "stop", "forget"):
        answer = hub.press(f"/sessions/{session['id']}/{action}", token=session["owner_token"], headers=headers)
        assert answer.status == 403
    answer = hub.ask("DELETE", f"/sessions/{session['id']}", token=session["owner_token"], headers=headers)
    assert answer.status == 403


def test_entering_hands_out_a_ticket_for_the_sessions_origin(hub: HubRig) -> None:
    session = hub.upload(a_bundle(), name="one", open="lessons/first one.ipynb").json
    path, token = f"/sessions/{session['id']}/enter", session["owner_token"]
    early = hub.press(path, token=token)
    assert (early.status, early.json["code"]) == (409, "session-not-ready")
    made_ready(hub, session["id"])
    entry = hub.press(path, token=token).json
    origin = f"https://{hub.parts.sessions.load(session['id']).host}.notebooks.example.net"
    assert entry["url"] == f"{origin}/.homeport/enter"
    assert entry["path"] == "/lab/tree/lessons/first%20one.ipynb"
    assert entry["ticket"] not in hub.everything_stored()
    page = hub.press(path, token=token, html=True)
    assert f'action="{entry["url"]}"' in page.text
    assert f"form-action 'self' {origin}" in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "strict-origin"


def test_events_tell_what_happened_since(hub: HubRig) -> None:
    session = hub.upload(a_bundle(), name="one").json
    made_ready(hub, session["id"])
    path = f"/sessions/{session['id']}/events"
    everything = hub.ask("GET", path, token=session["owner_token"]).json
    assert everything["session"]["state"] == "ready"
    assert (everything["session"]["phase"], everything["session"]["headline"]) == ("ready", "Ready")
    assert all(line.keys() == {"number", "at", "text", "progress"} for line in everything["events"])
    assert not any(line["progress"] for line in everything["events"])
    assert everything["session"]["progress"] == 1.0
    assert [line["number"] for line in everything["events"]] == list(range(1, len(everything["events"]) + 1))
    assert "Connected to Docker 20.10.24 at 203.0.113.7" in [line["text"] for line in everything["events"]]
    gateway = hub.client.http
    answer = gateway.get(f"{path}?after=3", headers={"Authorization": f"Bearer {session['owner_token']}"})
    assert [line["number"] for line in answer.json_body["events"]] == list(range(4, len(everything["events"]) + 1))
    answer = gateway.get(f"{path}?after=-1", headers={"Authorization": f"Bearer {session['owner_token']}"})
    assert answer.status_code == 400


def test_looking_again_and_again_reads_the_session_alone(hub: HubRig) -> None:
    """A page asks every second: one read for session and sign-outs, none for lines that it has; once for the token."""
    session = hub.upload(a_bundle(), name="one").json
    made_ready(hub, session["id"])
    path, headers = f"/sessions/{session['id']}/events", {"Authorization": f"Bearer {session['owner_token']}"}
    calls: list[str] = []
    with (
        hub.on_call("dynamodb", "GetItem", lambda: calls.append("get")),
        hub.on_call("dynamodb", "BatchGetItem", lambda: calls.append("batch")),
        hub.on_call("dynamodb", "Query", lambda: calls.append("query")),
    ):
        for after in (6, 7):
            hub.client.http.get(f"{path}?after={after}", headers=headers)
        assert calls == ["get", *["batch"] * 2]
        hub.ask("GET", f"/sessions/{session['id']}", token=session["owner_token"])
        assert calls == ["get", *["batch"] * 3]
        hub.client.http.get(path, headers=headers)
        assert calls == ["get", *["batch"] * 4, "query"]


def test_a_session_that_was_stored_with_its_whole_log_shows_it(hub: HubRig) -> None:
    session = hub.upload(a_bundle(), name="one").json
    stored = hub.parts.sessions.load(session["id"])
    old = tuple(Line(number, stored.created_at, f"line {number}") for number in range(1, 31))
    moved_to(hub, session["id"], State.READY, log=old)
    path = f"/sessions/{session['id']}/events"
    for _ in range(2):
        events = hub.ask("GET", path, token=session["owner_token"]).json["events"]
        assert [line["text"] for line in events][:30] == [line.text for line in old]
        hub.press(f"/sessions/{session['id']}/stop", token=session["owner_token"])
    assert len(hub.parts.sessions.load(session["id"]).log) == 1
    page = hub.ask("GET", f"/sessions/{session['id']}", token=session["owner_token"], html=True)
    assert [f"line {number}</span>" in page.text for number in (1, 30)] == [True, True]


# ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def with_past_sessions(hub: HubRig, count: int) -> dict[str, Any]:
    """Launch one notebook; gives its JSON once the same owner has `count` older ones."""
    launched: dict[str, Any] = hub.upload(a_bundle(), name="the newest").json
    present = hub.parts.sessions.load(launched["id"])
    for number in range(count):
        name, at = f"notebook {number:03}", present.created_at - count + number
        sid = session_id(present.owner, name)
        past = replace(present, state=State.STOPPED, next_attempt_at=None, credentials_held=False)
        hub.parts.sessions.save(replace(past, sid=sid, name=name, version=1, created_at=at))
    return launched


def test_a_list_has_pages_and_each_says_where_the_next_one_is(hub: HubRig) -> None:
    launched = with_past_sessions(hub, 2 * LISTED + 5)
    names, address, pages = list[str](), "sessions", 0
    while address:
        page = hub.client.http.get(f"/{address}", headers=json_as(launched)).json_body
        assert len(page["sessions"]) <= LISTED
        names, address, pages = names + [session["name"] for session in page["sessions"]], page["next"], pages + 1
    assert names == ["the newest", *(f"notebook {number:03}" for number in reversed(range(2 * LISTED + 5)))]
    assert pages == 3


def json_as(launched: dict[str, Any]) -> dict[str, str]:
    return {"Accept": "application/json", "Authorization": f"Bearer {launched['owner_token']}"}


def test_what_a_list_shows_of_a_session(hub: HubRig) -> None:
    launched = hub.upload(a_bundle(), name="one").json
    (listed,) = hub.ask("GET", "/sessions", token=launched["owner_token"]).json["sessions"]
    shown = ("id", "name", "phase", "headline", "endpoint", "created_at")
    assert listed == {**{name: launched[name] for name in shown}, "failed": False}
    failed = advance(hub.parts.sessions.load(launched["id"]), e.EffectFailed(Failure("a-code", "It failed")), NOW)
    hub.parts.sessions.save(failed)
    (listed,) = hub.ask("GET", "/sessions", token=launched["owner_token"]).json["sessions"]
    assert (listed["failed"], listed["phase"], listed["headline"]) == (True, "leaving", "Stopping")


@pytest.mark.parametrize("path", ["/", "/sessions"])
def test_pages_with_a_list_lead_to_the_older_ones(hub: HubRig, path: str) -> None:
    launched = with_past_sessions(hub, LISTED)
    headers = {"Accept": "text/html", "Authorization": f"Bearer {launched['owner_token']}"}
    page = hub.client.http.get(path, headers=headers).body.decode()
    assert page.count('<a href="sessions/') == LISTED
    (address,) = re.findall(r'<a href="(sessions\?before=[^"]+)">Older</a>', page)
    older = hub.client.http.get(f"/{address}", headers=headers).body.decode()
    assert older.count('<a href="sessions/') == 1
    assert "notebook 000" in older
    assert "Older" not in older


@pytest.mark.parametrize(
    "before",
    ["x", "1", "1.0", "1.0-", "-0123456789abcdefghij", "1e3-0123456789abcdefghij", "1.0-0123456789abcdefghiJ",
     "1.0-0123456789abcdefghij-", "1.0-0123456789abcdefghi", "nan-0123456789abcdefghij",
     "%D9%A1.0-0123456789abcdefghij", f"{'9' * 13}.0-0123456789abcdefghij",
     f"1.{'0' * 5000}-0123456789abcdefghij", "1.0-0123456789abcdefghij%0A"],
)  # fmt: skip
def test_a_made_up_page_of_a_list_is_refused(hub: HubRig, before: str) -> None:
    launched = hub.upload(a_bundle(), name="one").json
    answer = hub.client.http.get(f"/sessions?before={before}", headers=json_as(launched))
    assert (answer.status_code, answer.json_body["code"]) == (400, "bad-field")


def test_a_page_of_a_list_shows_nobody_elses_sessions(hub: HubRig) -> None:
    mine, theirs = hub.upload(a_bundle(0), name="mine").json, hub.upload(a_bundle(1), name="theirs").json
    position = f"{time.time() + 3600!r}-{theirs['id']}"
    page = hub.client.http.get(f"/sessions?before={position}", headers=json_as(mine)).json_body
    assert [session["name"] for session in page["sessions"]] == ["mine"]


def test_delete_stops_the_session_and_may_be_repeated(hub: HubRig) -> None:
    session = hub.upload(a_bundle(), name="one").json
    made_ready(hub, session["id"])
    for _ in range(2):
        answer = hub.ask("DELETE", f"/sessions/{session['id']}", token=session["owner_token"])
        assert (answer.status, answer.json["state"]) == (202, "withdrawing")
    moved_to(hub, session["id"], State.STOPPED, next_attempt_at=None)
    answer = hub.ask("DELETE", f"/sessions/{session['id']}", token=session["owner_token"])
    assert (answer.status, answer.json["state"]) == (202, "stopped")


def test_the_stop_button_does_what_delete_does(hub: HubRig) -> None:
    session = hub.upload(a_bundle(), name="one").json
    answer = hub.press(f"/sessions/{session['id']}/stop", token=session["owner_token"], html=True)
    assert (answer.status, answer.headers["location"]) == (303, f"../{session['id']}")
    assert hub.parts.sessions.load(session["id"]).state is State.WITHDRAWING


def test_a_stopped_session_is_launched_again_with_the_next_generation(hub: HubRig) -> None:
    session = hub.upload(a_bundle(), name="one").json
    moved_to(hub, session["id"], State.PURGING)
    leaving = hub.upload(a_bundle(), name="one")
    assert (leaving.status, leaving.json["code"]) == (409, "session-leaving")
    assert leaving.headers["retry-after"] == "5"
    moved_to(hub, session["id"], State.STOPPED, next_attempt_at=None)
    again = hub.upload(a_bundle(), name="one")
    assert again.status == 201
    assert again.json["id"] == session["id"]
    assert f"credentials/{session['id']}/2" in hub.objects()


def test_credentials_can_be_forgotten_once_the_notebook_is_ready_and_brought_again(hub: HubRig) -> None:
    session = hub.upload(a_bundle(), name="one").json
    path, token = f"/sessions/{session['id']}/forget", session["owner_token"]
    assert hub.press(path, token=token).json["code"] == "session-not-ready"
    made_ready(hub, session["id"])
    assert hub.press(path, token=token).json["state"] == "forgetting"
    forgotten = advance(hub.parts.sessions.load(session["id"]), e.CredentialsPurged(), 0.0)
    hub.parts.sessions.save(forgotten)
    hub.client_of("s3").delete_object(Bucket="homeport-test", Key=f"credentials/{session['id']}/1")
    shown = hub.ask("GET", f"/sessions/{session['id']}", token=token).json
    assert shown["credentials_held"] is False
    assert "docker rm -f" in shown["message"]
    assert hub.press(path, token=token).status == 202
    again = hub.upload(a_bundle(), name="one")
    assert (again.status, again.json["credentials_held"]) == (200, True)
    assert hub.objects() == [f"credentials/{session['id']}/1"]


def made_forgotten(hub: HubRig, sid: str) -> Session:
    made_ready(hub, sid)
    return moved_to(hub, sid, State.READY, credentials_held=False)


def test_credentials_that_could_not_be_brought_again_can_be_brought_later(hub: HubRig) -> None:
    session = hub.upload(a_bundle(), name="one").json
    made_forgotten(hub, session["id"])
    hub.client_of("s3").delete_object(Bucket="homeport-test", Key=f"credentials/{session['id']}/1")
    with hub.on_call("s3", "PutObject", away):
        assert hub.upload(a_bundle(), name="one").status == 503
    moved_to(hub, session["id"], State.READY, last_problem=Failure("credentials-missing", "The launcher found none"))
    assert hub.upload(a_bundle(), name="one").status == 200
    assert hub.objects() == [f"credentials/{session['id']}/1"]


def test_credentials_brought_again_while_they_are_forgotten_are_forgotten(hub: HubRig) -> None:
    """One browser brings them again; before they are stored, another asks to forget them, and the launcher does."""
    session = hub.upload(a_bundle(), name="one").json
    made_forgotten(hub, session["id"])
    forgotten = once(lambda: moved_to(hub, session["id"], State.READY, credentials_held=False))
    with hub.on_call("s3", "PutObject", forgotten):
        assert hub.upload(a_bundle(), name="one").status == 200
    assert hub.parts.sessions.load(session["id"]).state is State.FORGETTING


def test_an_upload_that_loses_against_stop_is_purged_after_all(hub: HubRig) -> None:
    """Between the item and its credentials, another browser presses Stop and the launcher is done with it."""

    def stopped() -> None:
        (due,) = hub.parts.sessions.due(2e9)
        moved_to(hub, due.sid, State.STOPPED, next_attempt_at=None, credentials_held=False)

    with hub.on_call("s3", "PutObject", once(stopped)):
        session = hub.upload(a_bundle(), name="one").json
    stored = hub.parts.sessions.load(session["id"])
    assert stored.state is State.PURGING
    assert {"session": session["id"]} in hub.messages()


@pytest.mark.parametrize(("service", "operation"), [("kms", "GenerateDataKey"), ("s3", "PutObject")])
def test_an_upload_whose_sealing_fails_says_so_and_ends_the_session(hub: HubRig, service: str, operation: str) -> None:
    with hub.on_call(service, operation, away):
        answer = hub.upload(a_bundle(), name="one")
    assert (answer.status, answer.json["code"]) == (503, "store-unavailable")
    (due,) = hub.parts.sessions.due(2e9)
    assert hub.parts.sessions.load(due.sid).state is State.WITHDRAWING


def test_an_upload_while_the_queue_is_down_is_launched_by_the_schedule(hub: HubRig) -> None:
    queue = queue_of(hub.parts.config.queue_urls, Lane.LAUNCH)
    hub.client_of("sqs").delete_queue(QueueUrl=queue)
    answer = hub.upload(a_bundle(), name="one")
    assert answer.status == 201
    assert [(due.sid, due.lane) for due in hub.parts.sessions.due(2e9)] == [(answer.json["id"], Lane.LAUNCH)]


def test_an_answer_lost_by_the_table_is_recognised_as_our_own_write(hub: HubRig) -> None:
    with hub.losing_an_answer("dynamodb", "PutItem") as lost:
        answer = hub.upload(a_bundle(), name="one")
    assert lost
    assert answer.status == 201
    assert hub.objects() == [f"credentials/{answer.json['id']}/1"]


def test_nothing_of_the_key_is_stored_but_sealed(hub: HubRig) -> None:
    bundle = a_bundle()
    session = hub.upload(bundle, name="one").json
    from tests.certificates import key_pem, shared_key

    pem = key_pem(shared_key("p256", 0))
    der = base64.b64decode(b"".join(pem.splitlines()[1:-1]))
    stored = hub.everything_stored() + repr(session)
    for form in (pem.splitlines()[1].decode(), der.hex(), base64.b64encode(der).decode()[:40], repr(der)[2:40]):
        assert form not in stored
    assert session["owner_token"] not in hub.everything_stored()


def test_pages_escape_what_visitors_type(hub: HubRig) -> None:
    name = "<script>alert(1)</script>"
    answer = hub.upload(a_bundle(), name=name, html=True, headers=BROWSER)
    cookie = {"Cookie": answer.headers["set-cookie"].split(";")[0]}
    for path in ("/", "/sessions", "/" + answer.headers["location"].split("#")[0]):
        page = hub.ask("GET", path, html=True, headers=cookie)
        assert page.status == 200
        assert name not in page.text
        assert "&lt;script&gt;alert(1)" in page.text


def test_a_ready_notebook_is_saved_as_an_image_by_a_form_or_by_json_and_its_owner_finds_it(hub: HubRig) -> None:
    session = hub.upload(a_bundle(), name="one").json
    sid, token = session["id"], session["owner_token"]
    assert session["save_as"] is None
    ready = made_ready(hub, sid)
    shown = hub.ask("GET", f"/sessions/{sid}", token=token).json
    assert re.fullmatch(r"localhost/one:\d{4}-\d\d-\d\d", shown["save_as"])
    assert f'value="{shown["save_as"]}"' in hub.ask("GET", f"/sessions/{sid}", token=token, html=True).text
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert hub.ask("POST", f"/sessions/{sid}/save", body=b"image=a%40b", token=token, headers=form).status == 400
    hub.messages()
    answer = hub.ask("POST", f"/sessions/{sid}/save", body=b"image=localhost%2Fone%3A1", token=token, headers=form)
    assert (answer.status, answer.json["state"], answer.json["save_as"]) == (202, "saving", None)
    assert hub.messages(Lane.LAUNCH) == [{"session": sid}]
    again = hub.ask("POST", f"/sessions/{sid}/save", body=b"image=localhost%2Ftwo%3A1", token=token, headers=form)
    assert (again.status, again.json["code"]) == (409, "session-not-ready")
    hub.parts.images.put(SavedImage(ready.owner, "localhost/one:1", ready.endpoint, "<one>", time.time(), 3 << 30))
    (image,) = hub.ask("GET", "/sessions", token=token).json["images"]
    assert (image["name"], image["notebook"], image["size"]) == ("localhost/one:1", "<one>", 3 << 30)
    listed = hub.ask("GET", "/sessions", token=token, html=True).text
    assert 'href="./?image=localhost/one%3A1"' in listed
    assert "&lt;one&gt;" in listed
    assert "3 GiB" in listed
    home = hub.ask("GET", "/?image=localhost/one:1", token=token, html=True).text
    assert '<option value="localhost/one:1">' in home
    assert 'name="image" value="localhost/one:1"' in home
    assert "has not checked it" not in home, "it is the visitor's own"
    refused = hub.ask("GET", "/?image=localhost/one:1%22%3E", token=token, html=True)
    assert (refused.status, '1"&gt;' in refused.text) == (400, False)


def test_nobody_sees_or_saves_anybody_elses_images(hub: HubRig) -> None:
    session = hub.upload(a_bundle(), name="one").json
    ready = made_ready(hub, session["id"])
    hub.parts.images.put(SavedImage(ready.owner, "localhost/one:1", ready.endpoint, "one", time.time(), 0))
    stranger = hub.upload(a_bundle(1), name="one").json["owner_token"]
    assert hub.ask("GET", "/sessions", token=stranger).json["images"] == []
    body, json_form = b'{"image": "localhost/one:1"}', {"Content-Type": "application/json"}
    path = f"/sessions/{session['id']}/save"
    assert hub.ask("POST", path, body=body, token=stranger, headers=json_form).status == 404
    assert hub.ask("POST", path, body=body, headers=json_form).status == 401
    other = {**json_form, "Sec-Fetch-Site": "cross-site"}
    assert hub.ask("POST", path, body=body, token=session["owner_token"], headers=other).status == 403
    assert "one:1" not in hub.ask("GET", "/", html=True).text


def test_images_built_here_are_listed_and_removed_by_their_owner_through_a_ready_notebook(hub: HubRig) -> None:
    session = hub.upload(a_bundle(), name="<one>").json
    sid, token = session["id"], session["owner_token"]
    name, form = f"localhost/homeport-built:{40 * 'a'}", {"Content-Type": "application/x-www-form-urlencoded"}
    path = f"/sessions/{sid}/images"
    refused = hub.ask("POST", path, body=b"image=all", token=token, headers=form)
    assert (refused.status, refused.json["code"]) == (409, "session-not-ready")
    ready = made_ready(hub, sid)
    source = Source(Provider.GITHUB, "https://github.com/somebody/lessons")
    for endpoint in (ready.endpoint, "tcp://elsewhere:2376"):
        image = BuiltImage(ready.owner, name, endpoint, source, "v1", 3 << 30, time.time(), time.time())
        hub.parts.images.put_built(image, is_new=True)
    built = hub.ask("GET", "/sessions", token=token).json["built"]
    assert [(image["name"], image["repository"], image["size"]) for image in built] == [
        (name, "somebody/lessons", 3 << 30)
    ] * 2
    listed = hub.ask("GET", "/sessions", token=token, html=True).text
    assert f'<a href="sessions/{sid}#images"><bdi>&lt;one&gt;</bdi></a>' in listed
    assert listed.count("launch a notebook there") == 1
    page = hub.ask("GET", f"/sessions/{sid}", token=token, html=True).text
    assert page.count(f'<button name="image" value="{name}"') == 1, "the other one is elsewhere"
    hub.messages()
    stranger = hub.upload(a_bundle(1), name="one").json["owner_token"]
    assert hub.ask("GET", "/sessions", token=stranger).json["built"] == []
    for who, headers, status in (
        (stranger, form, 404),
        ("", form, 401),
        (token, {**form, "Sec-Fetch-Site": "cross-site"}, 403),
    ):
        assert hub.ask("POST", path, body=b"image=all", token=who, headers=headers).status == status
    assert hub.ask("POST", path, body=b"image=python", token=token, headers=form).status == 400
    hub.messages()
    answer = hub.ask("POST", path, body=f"image={name}".encode(), token=token, headers=form)
    assert (answer.status, answer.json["state"], answer.json["phase"]) == (202, "tidying", "ready")
    assert hub.messages(Lane.LAUNCH) == [{"session": sid}]


def test_what_the_operator_does_not_allow_is_refused_before_a_file_is_chosen() -> None:
    with hub_rig(HOMEPORT_REPOSITORIES="gh/jupyterlab/*") as hub:
        assert hub.ask("GET", "/?repo=jupyterlab/jupyterlab-demo").status == 200
        for path in ("/?repo=u/r", "/repository?repo=u/r", "/badge?repo=u/r"):
            refused = hub.ask("GET", path)
            assert (refused.status, refused.json["code"]) == (403, "repository-not-allowed")
            assert "gh/jupyterlab/*" in refused.json["detail"]


def test_a_hub_that_launches_no_repositories_has_no_fields_for_them() -> None:
    with hub_rig(HOMEPORT_BUILDER_IMAGE="off") as hub:
        for path in ("/", "/badge"):
            page = hub.ask("GET", path, html=True)
            assert (page.status, 'name="repo"' in page.text) == (200, False)
            assert 'name="image"' in page.text
        assert hub.ask("GET", "/?repo=u/r", html=True).status == 403


# ── who may launch at the moment ─────────────────────────────────────────────────────────────────────────────────────


def test_who_launches_at_a_closed_door_reads_why_on_the_page_and_in_json(hub: HubRig) -> None:
    hub.parts.door.close("We are moving. Back at noon.")
    refused = hub.upload(a_bundle(), name="one")
    assert (refused.status, refused.json["code"], refused.headers["retry-after"]) == (503, "launches-closed", "300")
    assert "Back at noon." in refused.json["detail"]
    assert "Back at noon." in hub.upload(a_bundle(), html=True, name="one").text
    assert hub.objects() == []


def test_who_uploads_too_often_is_told_when_to_come_back() -> None:
    with hub_rig(HOMEPORT_NETWORK_UPLOADS="2") as hub:
        assert [hub.upload(a_bundle(), name=name).status for name in ("one", "two")] == [201, 201]
        for path in ("/sessions", "/bundles"):
            refused = hub.upload(a_bundle(), path, name="three")
            assert (refused.status, refused.json["code"]) == (429, "too-many-launches")
            assert 0 < int(refused.headers["retry-after"]) <= 1800
