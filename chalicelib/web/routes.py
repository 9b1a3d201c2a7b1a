"""HTTP: requests into the hub's use cases, and what comes of them into pages or JSON.

Every address answers HTML, or JSON when the request accepts `application/json`. Refusals are problem documents
(RFC 9457) or the error page, with the same sentence. A request that another web site made a browser send is refused.

ADDRESSES is the whole HTTP interface. A view is a function of the site and the request, and of the path's parameters;
`attach` gives Chalice the views with the parts that app.py hands in.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final
from urllib.parse import quote, urlencode

from chalice.app import Blueprint, Chalice, Request, Response

from chalicelib.aws.errors import StoreRefused, StoreUnavailable
from chalicelib.aws.session_items import STOPPED_TTL
from chalicelib.aws.sign_ins import SignIn
from chalicelib.bundle.errors import BundleUnreadable
from chalicelib.config import VERSION, Config
from chalicelib.environment import Network
from chalicelib.errors import HomeportError
from chalicelib.metrics import Metric, Metrics
from chalicelib.repository.badge import badge_svg
from chalicelib.repository.links import Link, launch_query, parse_link
from chalicelib.session.admission import network_of
from chalicelib.session.values import Session, is_session_id
from chalicelib.tracing import UNTRACED, Span, Tracer
from chalicelib.web import pages
from chalicelib.web.errors import (
    BadField,
    BadForm,
    BadLink,
    CrossSiteRequest,
    MethodNotAllowed,
    MissingField,
    NoSuchAddress,
    UnsupportedMediaType,
)
from chalicelib.web.forms import (
    LINK_FIELDS,
    SUGGESTED_NAME,
    Launch,
    Wanted,
    parse_choice,
    parse_deletion,
    parse_launch,
    parse_removal,
    parse_save,
    parse_wanted,
)
from chalicelib.web.hub import Hub, Listing, not_signed_in
from chalicelib.web.json import (
    Badge,
    badge_json,
    built_json,
    check_json,
    found_json,
    image_json,
    lines_json,
    listed_json,
    problem_json,
    session_json,
)
from chalicelib.web.json import Session as SessionJson

COOKIE: Final = "__Host-homeport-owner"
FORM: Final = ("multipart/form-data",)
BUTTON: Final = ("application/x-www-form-urlencoded", "application/json")
ANYTHING: Final = ("application/json",)  # Chalice's own default; a request without a body is not looked at
HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "strict-origin",  # not no-referrer: the ticket's POST must carry the hub's Origin
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
BADGE_HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "public, max-age=86400",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_POSITION: Final = re.compile(r"([0-9]{1,12}\.[0-9]{1,17})-(.{1,40})")

log = logging.getLogger("homeport.web")
View = Callable[..., Response]


# ── the addresses ────────────────────────────────────────────────────────────────────────────────────────────────────


def home(site: Site, request: Request) -> Response:
    """The upload page, filled in by a launch link."""
    path = str(request.context.get("path", "/"))
    if not path.endswith("/"):  # API Gateway's stage without its slash, below which no link of the page would lead
        query = urlencode(_queries(request))
        return _redirect(site, f"./{path.rpartition('/')[2]}/" + (f"?{query}" if query else ""))
    wanted = _wanted(site, request)
    repository, content = wanted.repository, wanted.content
    owners = _sign_ins(site, request)
    config, listing = site.config, site.hub.sessions(owners)
    page = pages.HomePage(
        root="",
        suggested_name=SUGGESTED_NAME,
        default_image=config.image,
        session_hours=config.session_lifetime / 3600,
        idle_minutes=config.idle_lifetime / 60,
        remembered_days=STOPPED_TTL / 86400,
        allowance=config.allowance,
        addresses=[_plain_address(network) for network in config.addresses],
        repositories=config.launches_repositories,
        repository=found_json(repository, "" if content else wanted.open_path) if repository else None,
        content=found_json(content, wanted.open_path) if content else None,
        image=wanted.image,
        open=wanted.open_path,
        name=wanted.name,
        images=list(map(image_json, site.hub.images(owners))),
        sessions=list(map(listed_json, listing.sessions)),
        older=_older(listing),
    )
    return _html(site, page)


def describe_repository(site: Site, request: Request) -> Response:
    """What the form's field says of a repository to launch, or of one with files; nothing is fetched."""
    wanted = _wanted(site, request)
    source = wanted.repository or wanted.content
    if source is None:
        raise MissingField("The repository is missing: fill in its address")
    return _json(site, found_json(source, wanted.open_path))


def follow_link(site: Site, request: Request, **parts: str) -> Response:
    """A link of Binder's: to the first page, filled in with what it says."""
    path = "/".join(parts[part] for part in LINK_PARTS if part in parts)
    try:
        link = parse_link(f"/v2/{path}", _queries(request))
    except ValueError as error:
        raise BadLink(f"The link {error}") from None
    return _redirect(site, f"{_root(request)}?{launch_query(link)}")


def make_link(site: Site, request: Request) -> Response:
    """The page on which authors make a launch link and its badge."""
    if _wants_json(request):
        return _json(site, _badge(site, request))
    typed = {name: _query(request, name, "") for name in LINK_FIELDS}
    made, problem, status = None, "", 200
    try:
        made = _badge(site, request) if any(typed.values()) else None
    except HomeportError as error:
        problem, status = error.message, error.status
    page = pages.BadgePage(
        root=_root(request),
        repositories=site.config.launches_repositories,
        typed=typed,
        made=made,
        problem=problem,
    )
    policy = {"Content-Security-Policy": pages.content_security_policy(images=True)}
    return _html(site, page, status=status, headers=policy)


def show_badge(site: Site, request: Request) -> Response:
    """The badge, which other sites' pages show."""
    return _answer(site, badge_svg(), 200, "image/svg+xml", BADGE_HEADERS)


def health(site: Site, request: Request) -> Response:
    """Say that the web function runs, and its version; asks nothing of the stores."""
    return _json(site, {"status": "ok", "version": VERSION})


def check_bundle(site: Site, request: Request) -> Response:
    """Say what is in a bundle; nothing is stored."""
    _refuse_other_sites(site, request)
    site.hub.let_upload(_source(request))
    bundle = site.hub.check(_form(request))
    if _wants_json(request):
        return _json(site, check_json(bundle))
    return _html(site, pages.BundlePage(root="", check=check_json(bundle)))


def launch_session(site: Site, request: Request) -> Response:
    """Launch a notebook, or come back to the one of the same key and name."""
    _refuse_other_sites(site, request)
    site.hub.let_upload(_source(request))
    launched = site.hub.launch(_form(request), _source(request))
    site.tracer.belongs_to(launched.session.sid)
    token = site.hub.token_for(launched.bundle.owner, _sign_ins(site, request))
    cookie = _cookie(token, max_age=int(site.config.session_lifetime))
    if not _wants_json(request):
        return _redirect(site, f"sessions/{launched.session.sid}#launched", cookie)
    found = {**_shown(site, launched.session), "bundle": check_json(launched.bundle)}
    if "sec-fetch-site" not in request.headers:  # a page's script has the cookie, and is better off without the token
        found["owner_token"] = token
    return _json(site, found, 201 if launched.created else 200, cookie)


def list_sessions(site: Site, request: Request) -> Response:
    """The owner's sessions, newest first, a page of them, and the images that were saved and built."""
    before = _position(request)
    sign_ins = (_present_sign_ins if _wants_json(request) else _sign_ins)(site, request)
    listing = site.hub.sessions(sign_ins, before)
    sessions, older = list(map(listed_json, listing.sessions)), _older(listing)
    images = list(map(image_json, site.hub.images(sign_ins)))
    built = list(map(built_json, site.hub.built(sign_ins)))
    if _wants_json(request):
        return _json(site, {"sessions": sessions, "next": older, "images": images, "built": built})
    return _html(site, pages.SessionsPage(root="", sessions=sessions, older=older, images=images, built=built))


def show_session(site: Site, request: Request, sid: str) -> Response:
    """One session: its page follows it and enters the notebook when it is ready."""
    session = _session(site, request, sid)
    if _wants_json(request):
        return _json(site, _shown(site, session))
    site.hub.ask_for_look(session)
    page = pages.SessionPage(
        root="../",
        session=_shown(site, session),
        log=lines_json(site.hub.lines(session)),
        built=list(map(built_json, site.hub.built([session.owner], session.endpoint))),
    )
    return _html(site, page)


def stop_session(site: Site, request: Request, sid: str) -> Response:
    """Stop the notebook; its files stay in its volume. DELETE does the same without a form."""
    _refuse_other_sites(site, request)
    keep = parse_choice(request.headers.get("content-type", ""), _body(request), "keep")
    return _accepted(site, request, site.hub.stop(_session(site, request, sid), keep=keep))


def delete_session(site: Site, request: Request, sid: str) -> Response:
    """Stop the notebook as it was launched to be stopped; its files stay in its volume."""
    _refuse_other_sites(site, request)
    return _json(site, _shown(site, site.hub.stop(_session(site, request, sid))), 202)


def session_events(site: Site, request: Request, sid: str) -> Response:
    """What happened to the session since the line `after`; `look=1`: somebody has come back to its page."""
    after = _query(request, "after", "0")
    if not (after.isascii() and after.isdigit() and len(after) < 10):
        raise BadField("“after” must be the number of the last line you have, or 0")
    session = _session(site, request, sid)
    if _query(request, "look", "") == "1":
        site.hub.ask_for_look(session)
    events = lines_json(site.hub.lines(session, int(after)))
    return _json(site, {"session": _shown(site, session), "events": events})


def build_log(site: Site, request: Request, sid: str) -> Response:
    """The log of the build of the session's repository, as a file."""
    session = _session(site, request, sid)
    attached = {"Content-Disposition": f'attachment; filename="build-{session.sid}-{session.generation}.log"'}
    return _answer(site, site.hub.build_log(session), 200, "text/plain; charset=utf-8", attached)


def enter_session(site: Site, request: Request, sid: str) -> Response:
    """Hand out a one-time ticket, and the page that posts it to the notebook's origin."""
    _refuse_other_sites(site, request)
    session, sign_in = _visit(site, request, sid)
    entry = site.hub.enter(session, sign_in)
    if _wants_json(request):
        return _json(site, {"url": entry.action, "ticket": entry.ticket, "path": entry.path})
    page = pages.EnterPage(root="../../", name=session.name, action=entry.action, ticket=entry.ticket, path=entry.path)
    origin = site.config.notebook_origin(session.host)
    return _html(site, page, headers={"Content-Security-Policy": pages.content_security_policy(origin)})


def start_session(site: Site, request: Request, sid: str) -> Response:
    """Launch the notebook again with the stored credentials, once it has stopped if it is running."""
    _refuse_other_sites(site, request)
    session = site.hub.launch_again(_session(site, request, sid), _source(request))
    return _accepted(site, request, session, "#launched")


def keep_session(site: Site, request: Request, sid: str) -> Response:
    """Keep a notebook for longer, as far as it may be."""
    _refuse_other_sites(site, request)
    return _accepted(site, request, site.hub.keep_longer(_session(site, request, sid)))


def save_session(site: Site, request: Request, sid: str) -> Response:
    """Save the container of a ready notebook as an image on its endpoint; what is in its volume is no part of it."""
    _refuse_other_sites(site, request)
    session = _session(site, request, sid)
    image = parse_save(request.headers.get("content-type", ""), _body(request))
    return _accepted(site, request, site.hub.save_as(session, image))


def remove_images(site: Site, request: Request, sid: str) -> Response:
    """Remove images that were built on the endpoint of a ready notebook: one, or all; what is in use stays."""
    _refuse_other_sites(site, request)
    session = _session(site, request, sid)
    images = parse_removal(request.headers.get("content-type", ""), _body(request))
    return _accepted(site, request, site.hub.remove_images(session, images))


def delete_files(site: Site, request: Request, sid: str) -> Response:
    """Stop the notebook and remove its volume: its name has to be typed, and its bundle sent if the hub has none."""
    _refuse_other_sites(site, request)
    session = _session(site, request, sid)
    form = parse_deletion(request.headers.get("content-type", ""), _body(request))
    if form.bundle is not None:
        site.hub.let_upload(_source(request))
    return _accepted(site, request, site.hub.delete(session, form))


def forget_credentials(site: Site, request: Request, sid: str) -> Response:
    """Delete the stored credentials now and keep the notebook running."""
    _refuse_other_sites(site, request)
    return _accepted(site, request, site.hub.forget(_session(site, request, sid)))


def ask_to_sign_out(site: Site, request: Request) -> Response:
    """Ask whether to sign out here or everywhere; says so when this browser is not signed in."""
    return _html(site, pages.SignOutPage(root="", signed_in=bool(_sign_ins(site, request))))


def sign_out(site: Site, request: Request) -> Response:
    """End this browser's sign-ins and all that descends from them; everywhere: those of its keys in all browsers."""
    _refuse_other_sites(site, request)
    everywhere = parse_choice(request.headers.get("content-type", ""), _body(request), "everywhere")
    if everywhere:  # who is not signed in would be mistaken about the other browsers
        _present_sign_ins(site, request)
    if token := _token(request):
        site.hub.sign_out(token, everywhere=bool(everywhere))
    cookie = _cookie("", max_age=0)
    return _answer(site, "", 204, "text/plain", cookie) if _wants_json(request) else _redirect(site, "sign-out", cookie)


def no_such_address(site: Site, request: Request) -> Response:
    """All that is none of the other addresses."""
    raise NoSuchAddress("This hub has nothing at this address")


LINK_PARTS: Final = tuple(f"part{number}" for number in range(1, 11))  # Chalice hands no view a path of any length
# Who may GET an address may ask for its HEAD, which is the same without the body.
ADDRESSES: Final[tuple[tuple[str, str, tuple[str, ...], View], ...]] = (
    ("GET", "/", ANYTHING, home),
    ("GET", "/repository", ANYTHING, describe_repository),
    *(
        ("GET", "/v2/" + "/".join(f"{{{part}}}" for part in LINK_PARTS[:count]), ANYTHING, follow_link)
        for count in range(2, len(LINK_PARTS) + 1)
    ),
    ("GET", "/badge", ANYTHING, make_link),
    ("GET", "/badge.svg", ANYTHING, show_badge),
    ("GET", "/health", ANYTHING, health),
    ("POST", "/bundles", FORM, check_bundle),
    ("POST", "/sessions", FORM, launch_session),
    ("GET", "/sessions", ANYTHING, list_sessions),
    ("GET", "/sessions/{sid}", ANYTHING, show_session),
    ("DELETE", "/sessions/{sid}", ANYTHING, delete_session),
    ("GET", "/sessions/{sid}/events", ANYTHING, session_events),
    ("GET", "/sessions/{sid}/build-log", ANYTHING, build_log),
    ("POST", "/sessions/{sid}/enter", BUTTON, enter_session),
    ("POST", "/sessions/{sid}/stop", BUTTON, stop_session),
    ("POST", "/sessions/{sid}/start", BUTTON, start_session),
    ("POST", "/sessions/{sid}/keep", BUTTON, keep_session),
    ("POST", "/sessions/{sid}/save", BUTTON, save_session),
    ("POST", "/sessions/{sid}/images", BUTTON, remove_images),
    ("POST", "/sessions/{sid}/forget", BUTTON, forget_credentials),
    ("POST", "/sessions/{sid}/delete", FORM, delete_files),
    ("GET", "/sign-out", ANYTHING, ask_to_sign_out),
    ("POST", "/sign-out", BUTTON, sign_out),
    ("GET", "/{proxy+}", ANYTHING, no_such_address),
)


class Site:
    """What views are given: the configuration, and the hub, which is not made before a view asks for it."""

    def __init__(
        self,
        config: Callable[[], Config],
        hub: Callable[[], Hub],
        metrics: Callable[[], Metrics],
        tracer: Callable[[], Tracer],
    ) -> None:
        self._config = config
        self._hub = hub
        self._metrics = metrics
        self._tracer = tracer

    @property
    def config(self) -> Config:
        """The hub's configuration."""
        return self._config()

    @property
    def hub(self) -> Hub:
        """The hub, which talks to AWS."""
        return self._hub()

    @property
    def metrics(self) -> Metrics:
        """Where refusals of the hub's own stores are counted."""
        return self._metrics()

    @property
    def tracer(self) -> Tracer:
        """Who records how long an answer takes."""
        return self._tracer()


def attach(
    app: Chalice,
    *,
    config: Callable[[], Config],
    hub: Callable[[], Hub],
    metrics: Callable[[], Metrics],
    tracer: Callable[[], Tracer] = lambda: UNTRACED,
) -> None:
    """Make `app` serve the HTTP interface; none of these is asked for before the first request needs it."""
    site = Site(config, hub, metrics, tracer)
    app.api.binary_types.append("multipart/form-data")
    routes = Blueprint(__name__)
    for method, path, content_types, view in ADDRESSES:
        methods = ["GET", "HEAD"] if method == "GET" else [method]
        routes.route(path, methods=methods, content_types=list(content_types))(_bound(view, site, routes))
    app.register_blueprint(routes)
    app.register_middleware(_head_without_body, "http")  # the first is the outermost
    app.register_middleware(_traced(site), "http")
    app.register_middleware(_chalice_errors(site), "http")


def _head_without_body(event: Request, get_response: Callable[[Request], Response]) -> Response:
    """Middleware: an answer to HEAD has the fields of that to GET, and no body."""
    response = get_response(event)
    if event.method == "HEAD":
        response.body = ""
    return response


def _traced(site: Site) -> Callable[[Request, Callable[[Request], Response]], Response]:
    """Middleware: have each answer recorded, by its address's pattern; the path is told to nobody."""

    def middleware(event: Request, get_response: Callable[[Request], Response]) -> Response:
        span = Span(f"{event.method} {event.context['resourcePath']}")
        with site.tracer.record(span):
            response = get_response(event)
            span.status = response.status_code
            return response

    return middleware


def _chalice_errors(site: Site) -> Callable[[Request, Callable[[Request], Response]], Response]:
    """Middleware: give Chalice's own refusals, which come before any view, the form of ours."""

    def middleware(event: Request, get_response: Callable[[Request], Response]) -> Response:
        response = get_response(event)
        error = _error_of_chalice(response) if isinstance(response.body, dict) else None
        if error is None:
            return response
        translated = _error_response(site, event, error)
        translated.headers.update({name: value for name, value in response.headers.items() if name == "Allow"})
        return translated

    return middleware


def _bound(view: View, site: Site, routes: Blueprint) -> View:
    """The view as Chalice calls it, its HomeportErrors turned into problem documents or error pages."""

    @wraps(view)
    def bound(**parameters: str) -> Response:
        request = routes.current_request
        try:
            return view(site, request, **parameters)
        except HomeportError as error:
            if isinstance(error, StoreUnavailable | StoreRefused):
                site.metrics.put({Metric.STORE_REFUSALS: 1}, code=error.code)
            if error.status >= 500:
                log.error("%s: %s", error.code, error.message)
            elif isinstance(error, BundleUnreadable):  # a parser failed in a way that it should have a code for
                log.error(error.code)
            return _error_response(site, request, error)

    del bound.__wrapped__  # Chalice must see the bound function's own parameters
    return bound


def _error_of_chalice(response: Response) -> HomeportError | None:
    match response.status_code:
        case 405:
            return MethodNotAllowed(f"This address accepts only {response.headers.get('Allow', 'no such method')}")
        case 415:
            return UnsupportedMediaType(
                "This address expects a different content type: send the form as a browser does"
            )
        case 500:
            return HomeportError(
                "Something is wrong with this hub. Try again, and tell its operator if it keeps happening"
            )
        case _:
            return None


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _error_response(site: Site, request: Request, error: HomeportError) -> Response:
    extra = {"Retry-After": str(error.retry_after)} if error.retryable else {}
    if not _wants_json(request):
        page = pages.ErrorPage(
            root=_root(request), status=error.status, title=error.title, code=error.code, message=error.message
        )
        return _html(site, page, status=error.status, headers=extra)
    return _answer(site, json.dumps(problem_json(error)), error.status, "application/problem+json", extra)


def _html(site: Site, page: pages.Page, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    policy = {"Content-Security-Policy": pages.content_security_policy()}
    return _answer(site, page.html(), status, "text/html; charset=utf-8", {**policy, **(headers or {})})


def _json(site: Site, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return _answer(site, json.dumps(value, ensure_ascii=False), status, "application/json", headers or {})


def _redirect(site: Site, path: str, headers: Mapping[str, str] | None = None) -> Response:
    return _answer(site, "", 303, "text/plain", {"Location": path, **(headers or {})})


def _answer(site: Site, body: str, status: int, content_type: str, headers: Mapping[str, str]) -> Response:
    tls = site.config.hub_origin.startswith("https://")
    lasting = {"Strict-Transport-Security": "max-age=31536000"} if tls else {}
    return Response(body, status_code=status, headers={**HEADERS, **lasting, "Content-Type": content_type, **headers})


def _cookie(token: str, *, max_age: int) -> dict[str, str]:
    """The field that gives a browser its owner token for `max_age` seconds; 0 takes it away."""
    return {"Set-Cookie": f"{COOKIE}={token}; Max-Age={max_age}; Path=/; Secure; HttpOnly; SameSite=Lax"}


def _accepted(site: Site, request: Request, session: Session, fragment: str = "") -> Response:
    """What a button of the session's page is answered with."""
    if _wants_json(request):
        return _json(site, _shown(site, session), 202)
    return _redirect(site, f"../{quote(session.sid)}{fragment}")


def _shown(site: Site, session: Session) -> SessionJson:
    return session_json(session, site.config.notebook_origin(session.host), site.hub.now())


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")


def _refuse_other_sites(site: Site, request: Request) -> None:
    """Raise CrossSiteRequest unless the request comes from the hub's own pages, or from no browser at all.

    Sec-Fetch-Site (Fetch Metadata, W3C) is sent by every current browser; Origin by older ones.
    """
    sent_by = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin", site.config.hub_origin)
    if sent_by not in (None, "same-origin", "none") or (sent_by is None and origin != site.config.hub_origin):
        raise CrossSiteRequest("This request came from another web site. Open the hub's own page and try again")


def _token(request: Request) -> str | None:
    """The owner token shown, if it can be one: a program's header, or the one cookie of that name.

    Not http.cookies: its time grows with the square of a quoted value, and one malformed cookie hides those after it.
    """
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value:
        shown = {value.strip()}
    else:
        pairs = (pair.partition("=") for field in _cookies(request) for pair in field.split(";"))
        shown = {value.strip() for name, _, value in pairs if name.strip() == COOKIE}
    return shown.pop() if len(shown) == 1 and all(map(_TOKEN.fullmatch, shown)) else None


def _cookies(request: Request) -> list[str]:
    """The request's Cookie fields: browsers may send several over HTTP/2 (RFC 9113, 8.2.3).

    Chalice's headers have the last one alone; API Gateway has them all, by the name as it was sent.
    """
    repeated = request.to_original_event().get("multiValueHeaders") or {}
    fields = [str(field) for name, sent in repeated.items() if name.lower() == "cookie" for field in sent]
    return fields or [request.headers.get("cookie", "")]


def _plain_address(network: Network) -> str:
    """A network as a firewall's owner writes it: one address without its prefix."""
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def _source(request: Request) -> str:
    """The network that a request came from, as API Gateway saw it; empty if it does not say."""
    address = request.context.get("identity", {}).get("sourceIp")
    try:
        return network_of(str(address))
    except ValueError:
        return ""


def _form(request: Request) -> Launch:
    return parse_launch(request.headers.get("content-type", ""), _body(request))


def _body(request: Request) -> bytes:
    body = request.raw_body
    if not body and "transfer-encoding" in request.headers:
        raise BadForm("Chunked forms are not supported here; send the form with a Content-Length")
    return body.encode() if isinstance(body, str) else body


def _wanted(site: Site, request: Request) -> Wanted:
    """What a launch link asks for; raises BadField, RepositoryNotAllowed, ImageNotAllowed."""
    wanted = parse_wanted(_queries(request))
    if wanted.repository or wanted.content or wanted.image:
        site.hub.check_program(wanted.repository, wanted.content, wanted.image or site.config.image)
    return wanted


def _badge(site: Site, request: Request) -> Badge:
    """The launch link that the query asks for; raises MissingField, and what `_wanted` raises."""
    wanted = _wanted(site, request)
    if not (wanted.repository or wanted.content or wanted.image):
        raise MissingField("There is nothing to launch: fill in a repository, an image, or files from a repository")
    link = Link(wanted.repository, wanted.image, wanted.content, wanted.open_path)
    path = str(request.context.get("path", "/badge"))  # the stage included
    hub = site.config.hub_origin + path.rstrip("/").removesuffix("badge")
    return badge_json(f"{hub}?{launch_query(link)}", f"{hub}badge.svg")


def _root(request: Request) -> str:
    """The way from the request's own path, as the browser sees it, up to the hub's first page."""
    is_below = request.path != "/" and str(request.context.get("path", "")).endswith("/")
    return pages.root_of(request.path) + ("../" if is_below else "")


def _queries(request: Request) -> dict[str, str]:
    """The query's fields; of one that is there twice the last, as `_query` reads it."""
    return {str(name): str(value) for name, value in dict(request.query_params or {}).items()}


def _query(request: Request, name: str, default: str) -> str:
    parameters = request.query_params
    return str(parameters.get(name, default)) if parameters else default


def _older(listing: Listing) -> str | None:
    """The address of the next page of a list, below the hub's first page."""
    if listing.older is None:
        return None
    created_at, sid = listing.older
    return f"sessions?before={created_at!r}-{sid}"


def _position(request: Request) -> tuple[float, str] | None:
    """The position in a list that `_older` put into an address; anybody may make one up, for a list of their own."""
    before = _query(request, "before", "")
    if not before:
        return None
    found = _POSITION.fullmatch(before)
    if not found or not is_session_id(found[2]):
        raise BadField("“before” must be as it was in the “next” of the page before")
    return float(found[1]), found[2]


def _sign_ins(site: Site, request: Request) -> Mapping[str, SignIn]:
    """The sign-ins, by owner, of the token that was shown."""
    token = _token(request)
    return site.hub.sign_ins_of(token) if token else {}


def _present_sign_ins(site: Site, request: Request) -> Mapping[str, SignIn]:
    sign_ins = _sign_ins(site, request)
    if not sign_ins:
        raise not_signed_in()
    return sign_ins


def _session(site: Site, request: Request, sid: str) -> Session:
    return _visit(site, request, sid)[0]


def _visit(site: Site, request: Request, sid: str) -> tuple[Session, SignIn]:
    """The session that is asked for, and the sign-in that allows it."""
    token = _token(request)
    if token is None:
        raise not_signed_in()
    session, sign_in = site.hub.visit(token, sid)
    site.tracer.belongs_to(session.sid)
    return session, sign_in
