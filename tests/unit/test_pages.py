"""The hub's pages as values: everything escaped, everything relative, everything allowed by its own policy."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from jinja2 import UndefinedError

from chalicelib.repository.source import Provider, Source
from chalicelib.session.options import Allowance
from chalicelib.session.values import Limits, Phase, State, phase_of
from chalicelib.web import json as documents
from chalicelib.web import pages
from chalicelib.web.forms import LINK_FIELDS
from tests.builders import a_session
from tests.documents import (
    a_built_document,
    a_found_document,
    a_listed_document,
    a_repository_document,
    a_session_document,
    asked_for,
)

FOLDER = Path(pages.__file__).parent
LINK = "https://hub.example.org/?repo=u%2Fr"

# Names as in the Big List of Naughty Strings, one of each kind that a template could get wrong.
NAUGHTY = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</title><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onfocus='alert(1)' autofocus='",
    "javascript:alert(1)",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "${7*7}",
    "&lt;script&gt;",
    "undefined",
    "\u202etest\u202e",
    "田中さんにあげて下さい",
    "ﷺ",
    "👩🏽‍💻",
    "Z̮̞̠͙͔ͅḀ̗̞͈̻̗Ḷ͙͎̯̹̞͓G̻O̭̗̮",
    "../../../etc/passwd",
    "a?b#c%2f&d=e",
    "\\",
)


def a_line(text: str = "Launch 1", number: int = 1) -> documents.Line:
    return {"number": number, "at": "2026-11-23T01:02:03Z", "text": text, "progress": False}


def a_check(text: str = "x") -> documents.Check:
    return {
        "format": text,
        "endpoint": text,
        "subject": text,
        "fingerprint": "ab" * 32,
        "expires_at": "2027-03-01T12:00:00Z",
        "dropped": [text],
        "warnings": [text],
        "owner": "cd" * 32,
    }


def a_home(text: str = "x", **changes: Any) -> pages.HomePage:
    values: dict[str, Any] = {
        "root": "",
        "suggested_name": text,
        "default_image": text,
        "session_hours": 72.0,
        "idle_minutes": 120.0,
        "remembered_days": 90.0,
        "allowance": Allowance(),
        "sessions": [a_listed_document(name=text)],
        "older": "sessions?before=1790000000.5-0123456789abcdefghij",
    }
    return pages.HomePage(**(values | changes))


def every_page(text: str) -> Iterator[pages.Page]:
    """Each page with `text` wherever a visitor's or an endpoint's words are shown."""
    failed = a_session_document(name=text, state="stopped", progress=None, error={"code": "x", "message": text})
    asked = asked_for(data=f"{text}:ro", env=[text], port=text)
    said = a_session_document(name=text, message=text, image=text, endpoint=text, container=text, options=asked)
    yield a_home(text)
    yield a_home(text, allowance=Allowance(images=(text,)))
    yield a_home(text, name=text, sessions=())
    listed = a_listed_document(name=text, endpoint=text)
    yield pages.SessionsPage(root="", sessions=[listed, {**listed, "failed": True}])
    yield pages.SessionPage(root="../", session=said, log=[a_line(text)])
    yield pages.SessionPage(root="../", session=failed, log=[])
    repository = a_repository_document(name=text, place=text, ref=text, folder=text, version=text)
    step: documents.Step = {"name": text, "status": "now"}
    built = a_session_document(repository=repository, content=repository, steps=[step], log_url="sessions/x/build-log")
    yield pages.SessionPage(root="../", session=built, log=[])
    image = a_built_document(repository=text, place=text, version=text, endpoint=text)
    yield pages.SessionsPage(root="", sessions=[{**listed, "phase": "ready"}], built=[image])
    yield pages.SessionPage(root="../", session=built, log=[], built=[image])
    found = a_found_document(repo=text, ref=text, folder=text, name=text, shown=text, place=text, summary=text)
    yield a_home(text, repository=found, content=found, open=text)
    yield a_home(text, image=f"{text}!", content=found)
    yield a_home(text, content=found)
    typed = dict.fromkeys(LINK_FIELDS, text)
    made: documents.Badge = {
        "link": LINK,
        "badge": text,
        "markdown": text,
        "html": text,
        "rst": text,
    }
    yield pages.BadgePage(root="", repositories=True, typed=typed, made=made)
    yield pages.BadgePage(root="", repositories=True, typed=typed, problem=text)
    yield pages.EnterPage(root="../../", name=text, action="https://x.example/.homeport/enter", ticket=text, path=text)
    yield pages.BundlePage(root="", check=a_check(text))
    yield pages.SignOutPage(root="", signed_in=True)
    yield pages.SignOutPage(root="", signed_in=False)
    yield pages.ErrorPage(root="../", status=400, title=text, code="bad-name", message=text)


VOID: Final = frozenset({"circle", "img", "input", "link", "meta", "path", "wbr"})


class Element(NamedTuple):
    """An element of a page; `hidden` by itself or by one that it is in."""

    tag: str
    attributes: dict[str, str | None]
    hidden: bool
    within: tuple[str, ...]


class Outline(HTMLParser):
    """What a browser would make of a page: its tags with their attributes, and the text of style and script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inlined: dict[str, list[str]] = {"style": [], "script": []}
        self.text: list[str] = []
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self._within = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within = tag
        hidden = "hidden" in dict(attrs) or any(outer.hidden for outer in self._open)
        element = Element(tag, dict(attrs), hidden, tuple(outer.tag for outer in self._open))
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        self._within = ""
        if tag not in VOID:
            assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.inlined.get(self._within, self.text).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def shape(outline: Outline) -> list[tuple[str, frozenset[str]]]:
    """Its tags and their attributes; but for where a long name may be broken, which is behind its slashes."""
    return [(tag, frozenset(attributes)) for tag, attributes in outline.tags if tag != "wbr"]


# ── options ──────────────────────────────────────────────────────────────────────────────────────────────────────


def facts(**asked: Any) -> str:
    """What the session's page says of a launch that asked for this, as text in one line."""
    page = pages.SessionPage(root="../", session=a_session_document(options=asked_for(**asked)), log=[])
    return " ".join(" ".join(Outline(page.html()).text).split())


def test_the_session_page_shows_what_was_asked_for_and_nothing_that_was_not() -> None:
    said = facts(
        memory=4 << 30,
        cpus=1.5,
        gpus="all",
        shm=1 << 30,
        pull="always",
        data="/srv/d:rw",
        env=["A", "B"],
        port="40000-40099",
    )
    for fact in (
        "Limits 4 GiB of memory, 1.5 CPUs, all GPUs, 1 GiB of shared memory",
        "Pull At every launch",
        "Data /srv/d , read and write, as /data",
        "Variables A , B",
        "Port 40000-40099",
    ):
        assert fact in said
    assert "Limits 1 CPU, 2 GPUs " in facts(cpus=1.0, gpus=2)
    assert "Data /srv/d , read-only," in facts(data="/srv/d:ro")
    assert "Pull Never" in facts(pull="never")
    assert not any(term in facts() for term in ("Limits", "Pull At", "Data", "Variables", "Port"))


def test_the_form_says_what_the_operator_allows_and_sets() -> None:
    allowance = Allowance(most=Limits(memory=8 << 30), default=Limits(shm=1 << 30), images=("quay.io/jupyter/*",))
    said = " ".join("".join(Outline(a_home(allowance=allowance).html()).text).split())
    assert "no limit, but for 1 GiB of shared memory. This hub allows at most 8 GiB of memory." in said
    assert "This hub allows quay.io/jupyter/*." in said
    assert "Empty fields set no limit. " in " ".join("".join(Outline(a_home().html()).text).split())


def test_no_field_for_a_data_directory_where_the_operator_allows_none() -> None:
    fields = [Outline(a_home(allowance=Allowance(data=allowed)).html()).all("input") for allowed in (True, False)]
    assert [any(field.get("name") == "data" for field in found) for found in fields] == [True, False]


# ── escaping ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("naughty", NAUGHTY)
def test_no_words_of_a_visitor_change_the_shape_of_a_page(naughty: str) -> None:
    plain = [shape(Outline(page.html())) for page in every_page("thesis")]
    shown = [shape(Outline(page.html())) for page in every_page(naughty)]
    assert shown == plain


@pytest.mark.parametrize("naughty", NAUGHTY)
def test_names_are_shown_as_typed(naughty: str) -> None:
    outline = Outline(pages.SessionPage(root="../", session=a_session_document(name=naughty), log=[]).html())
    assert naughty in outline.text
    home = Outline(a_home(name=naughty).html())
    assert naughty in [field.get("value") for field in home.all("input")]


def test_a_name_cannot_leave_the_query_of_the_link_that_carries_it() -> None:
    session = a_session_document(name='a&image=evil#"', state="stopped", progress=None)
    html = pages.SessionPage(root="../", session=session, log=[]).html()
    assert 'href="../?name=a%26image%3Devil%23%22"' in html


def test_templates_never_turn_escaping_off() -> None:
    for template in FOLDER.glob("*.html"):
        assert not re.search(r"\|\s*safe\b|autoescape|Markup", template.read_text()), template.name


def test_a_missing_value_is_an_error_and_not_an_empty_place() -> None:
    with pytest.raises(UndefinedError, match="message"):
        pages.render("error.html", root="", status=400, title="x", code="x")


# ── what the policy allows ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["style", "script"])
def test_policy_allows_exactly_what_the_pages_inline(kind: str) -> None:
    inlined: dict[str, None] = {}
    for page in every_page("x"):
        inlined |= dict.fromkeys(Outline(page.html()).inlined[kind])
    hashes = [b64encode(sha256(text.encode()).digest()).decode() for text in inlined]
    assert len(hashes) == {"style": 2, "script": 1}[kind]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    assert f"; {kind}-src {allowed}; " in pages.content_security_policy()


def test_the_error_page_is_small_and_has_no_script() -> None:
    """API Gateway has a copy of it for each of its own answers."""
    page = pages.ErrorPage(root="https://hub.example.com/", status=None, title="x", code="bad-request", message="x")
    outline = Outline(page.html())
    assert len(page.html().encode()) < 8000
    assert outline.inlined["script"] == []
    assert len(outline.inlined["style"]) == 1
    assert [link["href"] for link in outline.all("a")] == [
        "#main",
        "https://hub.example.com/",
        "https://hub.example.com/",
        "https://hub.example.com/sessions",
        "https://hub.example.com/",
    ]
    assert '<p class="code">bad-request</p>' in page.html()


def test_policy_allows_nothing_by_default_and_forms_only_where_told() -> None:
    policy = pages.content_security_policy()
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "form-action 'self';" in policy
    entry = pages.content_security_policy("https://x.notebooks.example.org")
    assert "form-action 'self' https://x.notebooks.example.org;" in entry


def test_the_page_of_badges_alone_may_show_the_hubs_own_images() -> None:
    assert "; img-src data:; " in pages.content_security_policy()
    assert "; img-src 'self' data:; " in pages.content_security_policy(images=True)


def test_pages_have_no_inline_handler_and_no_style_attribute() -> None:
    for page in every_page("x"):
        for tag, attributes in Outline(page.html()).tags:
            assert not [name for name in attributes if name == "style" or name.startswith("on")], tag


def test_pages_load_nothing() -> None:
    for page in every_page("x"):
        outline = Outline(page.html())
        assert not [tag for tag, _ in outline.tags if tag in {"iframe", "object", "embed", "base"}]
        images = ["badge.svg"] if isinstance(page, pages.BadgePage) else []
        assert [image["src"] for image in outline.all("img")] == images
        assert not [script for script in outline.all("script") if "src" in script]
        assert [link["href"][:19] for link in outline.all("link") if link["href"]] == ["data:image/svg+xml,"]
    for stylesheet in FOLDER.glob("*.css"):
        assert not re.search(r"url\(|@import|@font-face", stylesheet.read_text()), stylesheet.name
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", (FOLDER / "page.js").read_text())


def test_forms_keep_their_origin() -> None:
    """With "no-referrer" a browser posts forms with "Origin: null", which the hub and the proxy refuse."""
    for page in every_page("x"):
        referrer = [meta["content"] for meta in Outline(page.html()).all("meta") if meta.get("name") == "referrer"]
        assert referrer == ["strict-origin"]


# ── links ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_link_and_form_action_is_relative() -> None:
    for page in every_page("x"):
        for tag, attributes in Outline(page.html()).tags:
            for name in ("href", "action", "formaction", "data-events", "data-root"):
                address = attributes.get(name) or ""
                entry = isinstance(page, pages.EnterPage) and tag == "form"
                entry = entry or attributes.get("rel") == "external noreferrer" or address == LINK
                assert entry or not address.startswith("/"), (tag, address)
                assert entry or "://" not in address or address.startswith("data:"), (tag, address)


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("/", ""),
        ("/sessions", ""),
        ("/bundles", ""),
        ("/sign-out", ""),
        ("/sessions/abc", "../"),
        ("/sessions/", "../"),
        ("/sessions/abc/enter", "../../"),
        ("", ""),
    ],
)
def test_root_leads_up_to_the_first_page(path: str, root: str) -> None:
    assert pages.root_of(path) == root


# ── what a session's page offers ─────────────────────────────────────────────────────────────────────────────────


ACTS: Final = {"open", "start", "keep", "restart", "stop", "forget", "delete"}


def a_document_in(state: State, **changes: Any) -> documents.Session:
    """A session in that state, with the credentials that it has then."""
    kept = "2026-11-26T01:02:03Z" if state is State.KEPT else None
    held = state is not State.STOPPED
    values: dict[str, Any] = {"credentials_held": held, "kept_until": kept, "progress": None, **changes}
    return a_session_document(state=state.value, **values)


def offered(session: documents.Session) -> set[str]:
    """What can be seen to be done on the session's page: the buttons that are not hidden, by what they do."""
    outline = Outline(pages.SessionPage(root="../", session=session, log=[]).html())
    seen = set()
    for tag, attributes, hidden, within in outline.elements:
        if not hidden and tag == "details" and "data-act" in attributes:
            seen.add(attributes["data-act"])
        if not hidden and tag == "form" and "details" not in within:
            action = str(attributes["action"]).rpartition("/")[2]
            seen.add("open" if action == "enter" else action)
    return {str(act) for act in seen} & ACTS


@pytest.mark.parametrize("state", list(State))
def test_session_page_offers_what_the_state_allows(state: State) -> None:
    expected = {
        Phase.LAUNCHING: {"restart", "stop", "delete"},
        Phase.READY: {"open", "restart", "stop", "forget", "delete"},
        Phase.LEAVING: {"start", "delete"},
        Phase.STOPPED: {"delete"},
    }[phase_of(state)]
    if state is State.KEPT:
        expected |= {"start", "forget"}
    assert offered(a_document_in(state)) == expected


@pytest.mark.parametrize("state", [State.READY, State.TIDYING, State.SAVING, State.BUILDING, State.STOPPED])
def test_images_built_here_are_removed_from_a_ready_page_that_has_any(state: State) -> None:
    for held in (True, False):
        for built in ([], [a_built_document()]):
            session = a_document_in(state, credentials_held=held)
            page = pages.SessionPage(root="../", session=session, log=[], built=built)
            acts = [
                element for element in Outline(page.html()).elements if element.attributes.get("data-act") == "images"
            ]
            assert [act.hidden for act in acts] == [not (state is State.READY and held)] * len(built)


def test_images_built_here_are_summed_by_endpoint() -> None:
    near, far = "tcp://docker.example.org:2376", "tcp://[2001:db8::1]:2376"
    images = [
        a_built_document(endpoint=near),
        a_built_document(endpoint=near, size=None),
        a_built_document(endpoint=far),
    ]
    ready = a_listed_document(endpoint=near, state="ready")
    shown = words(pages.SessionsPage(root="", sessions=[ready], built=images))
    assert f"open the page of {ready['name']}, which is ready there" in shown
    assert "2 images, together up to 3 GiB. To remove them, open" in shown
    assert "1 image, 3 GiB. To remove it, launch a notebook there" in shown
    assert "Images built here" not in words(pages.SessionsPage(root="", sessions=[ready]))


def test_without_credentials_nothing_is_offered_that_needs_them() -> None:
    assert offered(a_document_in(State.READY, credentials_held=False)) == {"open", "stop", "delete"}
    assert offered(a_document_in(State.PURGING, credentials_held=False)) == {"delete"}


def test_a_file_is_asked_for_to_delete_what_the_hub_has_no_credentials_for() -> None:
    for held in (True, False):
        page = pages.SessionPage(root="../", session=a_document_in(State.READY, credentials_held=held), log=[])
        (file,) = (element for element in Outline(page.html()).elements if element.attributes.get("type") == "file")
        assert file.hidden is held


def test_what_is_deleted_cannot_be_deleted_again_and_can_be_launched() -> None:
    deleted = {**a_document_in(State.STOPPED), "headline": "Deleted"}
    html = pages.SessionPage(root="../", session=deleted, log=[]).html()  # type: ignore[arg-type]
    assert offered(deleted) == set()  # type: ignore[arg-type]
    assert "Launch again</a>" in html


def test_a_notebook_is_kept_longer_beside_its_end_or_beside_the_warning() -> None:
    until, warning = "2026-12-26T01:02:03Z", "This notebook ends in less than 2 hours"
    for state, changes, times in (
        (State.READY, {}, 0),
        (State.READY, {"keepable_until": until}, 1),
        (State.READY, {"keepable_until": until, "warning": warning}, 1),
        (State.READY, {"warning": warning}, 0),
        (State.PROBING, {"keepable_until": until}, 0),
    ):
        html = pages.SessionPage(root="../", session=a_document_in(state, **changes), log=[]).html()
        forms = [element for element in Outline(html).elements if element.tag == "form" and not element.hidden]
        assert sum(str(form.attributes["action"]).endswith("/keep") for form in forms) == times, changes
        assert (warning in html) is ("warning" in changes)


@pytest.mark.parametrize("state", [state for state in State if phase_of(state) is not Phase.STOPPED])
def test_session_page_refreshes_without_script_until_it_is_stopped(state: State) -> None:
    html = pages.SessionPage(root="../", session=a_document_in(state), log=[]).html()
    assert '<noscript><meta http-equiv="refresh"' in html


def test_stopped_session_page_does_not_refresh() -> None:
    html = pages.SessionPage(root="../", session=a_session_document(state="stopped", progress=None), log=[]).html()
    assert "http-equiv" not in html


def test_failure_is_shown_once_with_its_code() -> None:
    error: documents.Error = {"code": "image-not-found", "message": "There is no such image"}
    session = a_session_document(state="stopped", progress=None, error=error, message=error["message"])
    html = pages.SessionPage(root="../", session=session, log=[]).html()
    assert "image-not-found" in html
    assert re.search(r'id="message" hidden>There is no such image', html)


# ── repositories ─────────────────────────────────────────────────────────────────────────────────────────────────


def words(page: pages.Page) -> str:
    return " ".join("".join(Outline(page.html()).text).split())


def of_repository(**changes: Any) -> str:
    session = a_session_document(image="localhost/homeport-built:0", repository=a_repository_document(**changes))
    return words(pages.SessionPage(root="../", session=session, log=[]))


def test_the_session_page_says_what_an_image_was_built_from_and_not_what_it_is_called() -> None:
    assert "from jupyterlab/jupyterlab-demo@3f78685 " in of_repository()
    assert "@10.5281/zenodo.3242074 " in of_repository(version="10.5281/zenodo.3242074")
    assert "not built yet" in of_repository(version=None)
    assert "homeport-built" not in of_repository()


def test_the_builds_log_is_offered_once_there_is_one_and_beside_a_failure() -> None:
    error = {"code": "build-failed", "message": "It failed"}
    for changes, times in (
        ({}, 0),
        ({"log_url": "sessions/x/build-log"}, 1),
        ({"log_url": "sessions/x/build-log", "state": "stopped", "error": error}, 1),
        ({"state": "stopped", "error": error}, 0),
    ):
        outline = Outline(pages.SessionPage(root="../", session=a_session_document(**changes), log=[]).html())
        links = [link for link in outline.elements if str(link.attributes.get("href")).endswith("/build-log")]
        assert sum(not link.hidden for link in links) == times, changes


def steps_of(state: State, **changes: Any) -> str:
    """The steps of a session in a state, the present one in brackets."""
    session = a_session(state=state, **changes)
    steps = documents.session_json(session, "https://x.example", 0.0)["steps"]
    statuses = [step["status"] for step in steps]
    assert statuses == sorted(statuses, key=["done", "now", "next"].index)
    return " ".join(f"[{step['name']}]" if step["status"] == "now" else step["name"] for step in steps)


SOURCE = Source(Provider.GITHUB, "https://github.com/u/r")


def test_the_steps_of_a_launch_follow_its_state() -> None:
    for state, steps in (
        (State.VERIFYING, "[Resolve] Build Create Start"),
        (State.PULLING, "[Resolve] Build Create Start"),
        (State.RESOLVING, "[Resolve] Build Create Start"),
        (State.BUILDING, "Resolve [Build] Create Start"),
        (State.CREATING, "Resolve Build [Create] Start"),
        (State.PROBING, "Resolve Build Create [Start]"),
        (State.READY, ""),
        (State.STOPPED, ""),
    ):
        assert steps_of(state, repository=SOURCE, builder="b") == steps
    assert steps_of(State.VERIFYING) == "[Pull] Create Start"
    assert steps_of(State.PULLING, content=SOURCE, builder="b") == "[Resolve] Pull Create Start"
    assert steps_of(State.PULLING, content=SOURCE, builder="b", versions=("v",)) == "Resolve [Pull] Create Start"
    assert steps_of(State.CLONING, content=SOURCE, builder="b", versions=("v",)) == "Resolve Pull [Create] Start"


@pytest.mark.parametrize("state", [state for state in State if phase_of(state) is Phase.LAUNCHING])
def test_every_state_of_a_launch_is_a_step(state: State) -> None:
    repository = None if state is State.PULLING else SOURCE
    assert "[" in steps_of(state, repository=repository, content=SOURCE, versions=("v", "w"))


def test_a_link_says_whose_code_it_is_and_with_which_rights_in_two_sentences() -> None:
    found = a_found_document()
    for values, socket in (
        ({"repository": found}, True),
        ({"repository": found, "content": found}, True),
        ({"image": "ada/x"}, False),
        ({"content": found}, False),
    ):
        page = a_home(default_image="x", **values)
        (said,) = re.findall(r'id="consent-full">(.*?)</p>', page.html(), re.DOTALL)
        assert said.count(". ") == 1
        for part in ("has not checked", "your own Docker endpoint", "nothing runs until"):
            assert part in said
        assert ("engine’s socket" in said) is socket
    at = "2026-11-23T01:02:03Z"
    saved: documents.Image = {"name": "ada/x", "notebook": "n", "endpoint": "e", "saved_at": at, "size": None}
    mine = a_home(image="ada/x", images=[saved])
    assert "consent-full" not in a_home().html().partition("<script>")[0]
    assert "consent-full" not in mine.html().partition("<script>")[0]


# ── accessibility ────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_field_has_a_label_and_every_description_exists() -> None:
    for page in every_page("x"):
        outline = Outline(page.html())
        ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        labels = {label.get("for") for label in outline.all("label")}
        for field in outline.all("input"):
            assert field.get("type") == "hidden" or field.get("id") in labels
        for _, attributes in outline.tags:
            for name in ("aria-describedby", "aria-labelledby"):
                assert name not in attributes or attributes[name] in ids


def test_every_page_has_one_heading_of_the_first_level_and_a_language() -> None:
    for page in every_page("x"):
        outline = Outline(page.html())
        assert len(outline.all("h1")) == 1
        assert outline.all("html") == [{"lang": "en"}]
        assert outline.all("main")


def luminance(colour: str) -> float:
    """Relative luminance of "#rgb" or "#rrggbb", as WCAG 2.2 defines it."""
    digits = colour.removeprefix("#")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def palettes() -> tuple[dict[str, str], dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", (FOLDER / "frame.css").read_text(), re.DOTALL)
    day = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", light))
    return day, day | dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", dark))


@pytest.mark.parametrize("palette", palettes(), ids=["light", "dark"])
@pytest.mark.parametrize(
    ("text", "ground", "least"),
    [
        *((text, ground, 4.5) for text in ("ink", "muted", "sea") for ground in ("paper", "card", "shallow")),
        ("ink", "buff", 4.5),
        ("green", "card", 4.5),
        ("green", "green-wash", 4.5),
        ("red", "card", 4.5),
        ("red", "paper", 4.5),
        ("red", "red-wash", 4.5),
        ("amber", "amber-wash", 4.5),
        ("on-magenta", "magenta", 4.5),
        ("edge", "card", 3.0),
        ("edge", "shallow", 3.0),
        ("magenta", "paper", 3.0),
        ("magenta", "card", 3.0),
    ],
)
def test_colours_contrast_as_wcag_aa_wants(palette: dict[str, str], text: str, ground: str, least: float) -> None:
    lighter, darker = sorted((luminance(palette[text]), luminance(palette[ground])), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= least


def test_the_form_says_from_which_addresses_the_hub_connects_or_that_they_change() -> None:
    assert "This hub connects from addresses that change" in a_home().html()
    fixed = a_home(addresses=["198.51.100.7", "2001:db8::/64"]).html()
    assert "this hub’s addresses, <code>198.51.100.7</code> and <code>2001:db8::/64</code>." in fixed
