"""HTTP: requests into the hub's use cases, and what comes of them into pages or JSON.

Every address answers HTML, or JSON when the request accepts `application/json`. Refusals are problem documents
(RFC 9457) or the error page, with the same sentence. A request that another web site made a browser send is refused.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import wraps
from typing import Any, Final, TypeVar
from urllib.parse import quote

from chalice.app import Blueprint, Request, Response

from chalicelib import pages
from chalicelib.bundle import Bundle
from chalicelib.config import VERSION
from chalicelib.errors import (
    BadField,
    BadForm,
    CrossSiteRequest,
    HomeportError,
    MethodNotAllowed,
    NotAuthenticated,
    UnsupportedMediaType,
)
from chalicelib.forms import SUGGESTED_NAME, Launch, parse_launch
from chalicelib.hub import Hub
from chalicelib.machine import Session, State, progress
from chalicelib.session_store import STOPPED_TTL
from chalicelib.wiring import wiring

COOKIE: Final = "__Host-homeport-owner"
FORM: Final = ["multipart/form-data"]
BUTTON: Final = ["application/x-www-form-urlencoded", "application/json"]
HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "strict-origin",  # not no-referrer: the ticket's POST must carry the hub's Origin
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")

log = logging.getLogger("homeport.web")
routes = Blueprint(__name__)
View = TypeVar("View", bound=Callable[..., Response])


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def answers(view: View) -> View:
    """Turn a HomeportError of the view into its problem document or error page."""

    @wraps(view)
    def wrapped(*args: str, **kwargs: str) -> Response:
        try:
            return view(*args, **kwargs)
        except HomeportError as error:
            if error.status >= 500:
                log.error("%s: %s", error.code, error.message)
            return refusal(routes.current_request, error)

    return wrapped  # type: ignore[return-value]  # functools.wraps keeps the signature


def refusal(request: Request, error: HomeportError) -> Response:
    """The error as the request wants it."""
    extra = {"Retry-After": "5"} if error.retryable else {}
    if not _wants_json(request):
        page = pages.ErrorPage(
            root=pages.root_of(request.path), status=error.status, code=error.code, message=error.message
        )
        return _html(page, status=error.status, headers=extra)
    problem = {
        "type": f"urn:homeport:{error.code}",
        "title": type(error).__name__,
        "status": error.status,
        "code": error.code,
        "detail": error.message,
    }
    return _answer(json.dumps(problem), error.status, "application/problem+json", extra)


def problems_of_chalice(event: Request, get_response: Callable[[Request], Response]) -> Response:
    """Middleware: give Chalice's own refusals, which come before any view, the form of ours."""
    response = get_response(event)
    error = _error_of_chalice(response) if isinstance(response.body, dict) else None
    if error is None:
        return response
    translated = refusal(event, error)
    translated.headers.update({name: value for name, value in response.headers.items() if name == "Allow"})
    return translated


def _error_of_chalice(response: Response) -> HomeportError | None:
    match response.status_code:
        case 405:
            return MethodNotAllowed(f"This address takes {response.headers.get('Allow', 'no such method')}")
        case 415:
            return UnsupportedMediaType("This address takes another content type: send the form as a browser does")
        case 500:
            return HomeportError("Something is wrong with this hub. Try again, and tell its operator if it stays so")
        case _:
            return None


def _html(page: pages.Page, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    policy = {"Content-Security-Policy": pages.content_security_policy()}
    return _answer(page.html(), status, "text/html; charset=utf-8", {**policy, **(headers or {})})


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return _answer(json.dumps(value, ensure_ascii=False), status, "application/json", headers or {})


def _answer(body: str, status: int, content_type: str, headers: Mapping[str, str]) -> Response:
    tls = wiring().config.hub_origin.startswith("https://")
    lasting = {"Strict-Transport-Security": "max-age=31536000"} if tls else {}
    return Response(body, status_code=status, headers={**HEADERS, **lasting, "Content-Type": content_type, **headers})


def _see(path: str, headers: Mapping[str, str] | None = None) -> Response:
    return _answer("", 303, "text/plain", {"Location": path, **(headers or {})})


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _hub() -> Hub:
    return wiring().hub


def _wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")


def _refuse_other_sites(request: Request) -> None:
    """Raise CrossSiteRequest unless the request comes from the hub's own pages, or from no browser at all.

    Sec-Fetch-Site (Fetch Metadata, W3C) is sent by every current browser; Origin by older ones.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    own = {_hub().config.hub_origin, f"https://{request.headers.get('host', '')}"}
    if site not in (None, "same-origin", "none") or (site is None and origin is not None and origin not in own):
        raise CrossSiteRequest("This request came from another web site. Open the hub's own page and try again")


def _token(request: Request) -> str | None:
    """The owner token shown, if it can be one: a program's header, or the one cookie of that name.

    Not http.cookies: its time grows with the square of a quoted value, and one malformed cookie hides those after it.
    """
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value:
        shown = {value.strip()}
    else:
        pairs = (pair.partition("=") for pair in request.headers.get("cookie", "").split(";"))
        shown = {value.strip() for name, _, value in pairs if name.strip() == COOKIE}
    return shown.pop() if len(shown) == 1 and all(map(_TOKEN.fullmatch, shown)) else None


def _form(request: Request) -> Launch:
    body = request.raw_body
    if not body and "transfer-encoding" in request.headers:
        raise BadForm("The form came in chunks, which this address does not take; send it with a Content-Length")
    return parse_launch(request.headers.get("content-type", ""), body.encode() if isinstance(body, str) else body)


def _query(request: Request, name: str, default: str) -> str:
    parameters = request.query_params
    return str(parameters.get(name, default)) if parameters else default


def _owners(request: Request) -> frozenset[str]:
    token = _token(request)
    return _hub().owners_of(token) if token else frozenset()


def _known_owners(request: Request) -> frozenset[str]:
    owners = _owners(request)
    if not owners:
        raise NotAuthenticated(
            "Upload the bundle again: this browser has not shown the key of this session, or not lately"
        )
    return owners


def _session(request: Request, sid: str) -> Session:
    return _hub().session(sid, _known_owners(request))


# ── values as JSON ───────────────────────────────────────────────────────────────────────────────────────────────────


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _session_json(session: Session) -> pages.Session:
    ready = session.state in (State.READY, State.FORGETTING)
    return {
        "id": session.sid,
        "name": session.name,
        "state": str(session.state),
        "progress": progress(session),
        "message": session.message,
        "error": {"code": session.failure.code, "message": session.failure.message} if session.failure else None,
        "url": f"{_hub().config.notebook_origin(session.sid)}/" if ready else None,
        "created_at": _time(session.created_at),
        "expires_at": _time(session.expires_at),
        "image": session.image,
        "endpoint": session.endpoint,
        "credentials_held": session.credentials_held,
        "container": session.container,
    }


def _lines_json(session: Session, after: int = 0) -> list[pages.Line]:
    return [
        {"number": line.number, "at": _time(line.at), "text": line.text} for line in session.log if line.number > after
    ]


def _check_json(bundle: Bundle) -> pages.Check:
    return {
        "format": bundle.format,
        "endpoint": str(bundle.credentials.endpoint),
        "subject": bundle.subject,
        "fingerprint": bundle.fingerprint,
        "expires_at": _time(bundle.not_after),
        "dropped": list(bundle.dropped),
        "warnings": list(bundle.warnings),
        "owner": bundle.owner,
    }


# ── the addresses ────────────────────────────────────────────────────────────────────────────────────────────────────


@routes.route("/", methods=["GET"])
@answers
def home() -> Response:
    """The upload page."""
    request = routes.current_request
    config = _hub().config
    page = pages.HomePage(
        root="",
        suggested_name=SUGGESTED_NAME,
        default_image=config.image,
        session_hours=config.session_lifetime / 3600,
        idle_minutes=config.idle_lifetime / 60,
        remembered_days=STOPPED_TTL / 86400,
        name=_query(request, "name", ""),
        sessions=[_session_json(session) for session in _hub().sessions(_owners(request))],
    )
    return _html(page)


@routes.route("/health", methods=["GET"])
@answers
def health() -> Response:
    """Say that the web function runs, and its version; asks nothing of the stores."""
    return _json({"status": "ok", "version": VERSION})


@routes.route("/bundles", methods=["POST"], content_types=FORM)
@answers
def check_bundle() -> Response:
    """Say what is in a bundle; nothing is stored."""
    request = routes.current_request
    _refuse_other_sites(request)
    bundle = _hub().check(_form(request))
    if _wants_json(request):
        return _json(_check_json(bundle))
    return _html(pages.BundlePage(root="", check=_check_json(bundle)))


@routes.route("/sessions", methods=["POST"], content_types=FORM)
@answers
def launch_session() -> Response:
    """Launch a notebook, or come back to the one of the same key and name."""
    request = routes.current_request
    _refuse_other_sites(request)
    launched = _hub().launch(_form(request))
    token = _hub().token_for(launched.bundle.owner, _owners(request))
    age = int(_hub().config.session_lifetime)
    cookie = {"Set-Cookie": f"{COOKIE}={token}; Max-Age={age}; Path=/; Secure; HttpOnly; SameSite=Lax"}
    if not _wants_json(request):
        return _see(f"sessions/{launched.session.sid}#launched", cookie)
    found = {**_session_json(launched.session), "bundle": _check_json(launched.bundle)}
    if "sec-fetch-site" not in request.headers:  # a page's script has the cookie, and is better off without the token
        found["owner_token"] = token
    return _json(found, 201 if launched.created else 200, cookie)


@routes.route("/sessions", methods=["GET"])
@answers
def list_sessions() -> Response:
    """The owner's sessions, newest first."""
    request = routes.current_request
    owners = (_known_owners if _wants_json(request) else _owners)(request)
    sessions = [_session_json(session) for session in _hub().sessions(owners)]
    if _wants_json(request):
        return _json({"sessions": sessions})
    return _html(pages.SessionsPage(root="", sessions=sessions))


@routes.route("/sessions/{sid}", methods=["GET"])
@answers
def show_session(sid: str) -> Response:
    """One session: its page follows it and enters the notebook when it is ready."""
    request = routes.current_request
    session = _session(request, sid)
    if _wants_json(request):
        return _json(_session_json(session))
    return _html(pages.SessionPage(root="../", session=_session_json(session), log=_lines_json(session)))


@routes.route("/sessions/{sid}", methods=["DELETE"])
@answers
def delete_session(sid: str) -> Response:
    """Stop the notebook; its files stay in its volume."""
    request = routes.current_request
    _refuse_other_sites(request)
    return _json(_session_json(_hub().stop(_session(request, sid))), 202)


@routes.route("/sessions/{sid}/events", methods=["GET"])
@answers
def session_events(sid: str) -> Response:
    """What happened to the session since the line `after`."""
    request = routes.current_request
    after = _query(request, "after", "0")
    if not (after.isascii() and after.isdigit() and len(after) < 10):
        raise BadField("“after” must be the number of the last line you have, or 0")
    session = _session(request, sid)
    return _json({"session": _session_json(session), "events": _lines_json(session, int(after))})


@routes.route("/sessions/{sid}/enter", methods=["POST"], content_types=BUTTON)
@answers
def enter_session(sid: str) -> Response:
    """Hand out a one-time ticket, and the page that posts it to the notebook's origin."""
    request = routes.current_request
    _refuse_other_sites(request)
    session = _session(request, sid)
    entry = _hub().enter(session)
    if _wants_json(request):
        return _json({"url": entry.action, "ticket": entry.ticket, "path": entry.path})
    page = pages.EnterPage(root="../../", name=session.name, action=entry.action, ticket=entry.ticket, path=entry.path)
    origin = _hub().config.notebook_origin(session.sid)
    return _html(page, headers={"Content-Security-Policy": pages.content_security_policy(origin)})


@routes.route("/sessions/{sid}/stop", methods=["POST"], content_types=BUTTON)
@answers
def stop_session(sid: str) -> Response:
    """What DELETE does, for a form."""
    request = routes.current_request
    _refuse_other_sites(request)
    session = _hub().stop(_session(request, sid))
    return _json(_session_json(session), 202) if _wants_json(request) else _see(f"../{quote(sid)}")


@routes.route("/sessions/{sid}/forget", methods=["POST"], content_types=BUTTON)
@answers
def forget_credentials(sid: str) -> Response:
    """Delete the stored credentials now and keep the notebook running."""
    request = routes.current_request
    _refuse_other_sites(request)
    session = _hub().forget(_session(request, sid))
    return _json(_session_json(session), 202) if _wants_json(request) else _see(f"../{quote(sid)}")
