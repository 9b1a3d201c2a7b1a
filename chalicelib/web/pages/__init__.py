"""The hub's pages: one frozen dataclass per page, one Jinja template of the same name, two stylesheets, one script.

Rules

1. A page is a value. The web layer fills it and calls `html()`; nothing here knows a request, a clock or a store.
2. Everything shown is escaped by Jinja (autoescape on, no `safe` anywhere); an unknown variable is an error.
3. Stylesheets and script are inlined, and `content_security_policy` allows exactly them by their SHA-256. There is no
   inline event handler and no style attribute, and nothing is loaded from elsewhere.
4. Every link and form action is relative, built from `root`: the way from the page's own path up to the hub's first
   page ("" at `/`, `/sessions` and others of one part, "../" at `/sessions/{id}`, "../../" at `/sessions/{id}/enter`).
   `root_of` derives it from the request's path, without API Gateway's stage.
5. Each page works without its script, and better with it.

What the script expects of the hub: JSON in the shapes of json.py's `Session`, `Check`, `Found`, `Badge` and `Line`;
problems (RFC 9457) with `detail` and `code`; `GET sessions/{id}/events?after=N` answers `{"session": Session,
"events": [Line, …]}`.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import quote, urlencode

from chalicelib.repository.address import written
from chalicelib.repository.source import Provider
from chalicelib.repository.source import Source as RepositorySource
from chalicelib.session.options import Allowance, shown_limits, shown_size
from chalicelib.session.values import Limits
from chalicelib.web.json import Asked, Badge, Built, Check, Found, Image, Line, Listed, Repository, Session

if TYPE_CHECKING:
    from jinja2 import Environment


_COMMIT: Final = re.compile(r"[0-9a-f]{40}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What every page has; `root` is rule 4's way up to the hub's first page."""

    template: ClassVar[str]
    root: str

    def html(self) -> str:
        """Render the page as a whole HTML document."""
        return render(self.template, **{field.name: getattr(self, field.name) for field in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class HomePage(Page):
    """`GET /`. A launch link prefills the form: `repository`, `content`, `image`, `open` and `name`, empty without it.

    `repositories`: this hub launches them. `suggested_name` is the notebook's if neither visitor nor repository
    says it.
    `default_image` is used when the field stays empty, `session_hours` is the longest life of a session, and
    `idle_minutes` after how long without activity a notebook stops by itself, and `remembered_days` how long the
    hub lists a stopped session. `allowance` is what a launch may ask for. The hub connects from `addresses`, none if
    they change. `sessions` and `older` are as on the SessionsPage, and so are `images`, which the form offers.
    """

    template: ClassVar[str] = "home.html"
    suggested_name: str
    default_image: str
    session_hours: float
    idle_minutes: float
    remembered_days: float
    allowance: Allowance
    addresses: Sequence[str] = ()
    repositories: bool = True
    repository: Found | None = None
    content: Found | None = None
    image: str = ""
    open: str = ""
    name: str = ""
    sessions: Sequence[Listed] = ()
    older: str | None = None
    images: Sequence[Image] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsPage(Page):
    """`GET /sessions`: a page of the owner's sessions, newest first; `older` is the next's address, below `root`.

    `images` are what notebooks were saved as, and `built` the images of repositories.
    """

    template: ClassVar[str] = "sessions.html"
    sessions: Sequence[Listed]
    older: str | None = None
    images: Sequence[Image] = ()
    built: Sequence[Built] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPage(Page):
    """`GET /sessions/{id}`; `log` is oldest first, `built` are the images of repositories on its endpoint."""

    template: ClassVar[str] = "session.html"
    session: Session
    log: Sequence[Line]
    built: Sequence[Built] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EnterPage(Page):
    """`POST /sessions/{id}/enter`: posts `ticket` and `path` to `action`, the notebook's absolute entry address.

    Its answer needs `content_security_policy(origin of action)`.
    """

    template: ClassVar[str] = "enter.html"
    name: str
    action: str
    ticket: str
    path: str = "/lab"


@dataclass(frozen=True, slots=True, kw_only=True)
class BadgePage(Page):
    """`GET /badge`: makes a launch link of `typed`, the form's fields; `problem` is what is wrong with them.

    Its answer needs `content_security_policy(images=True)`.
    """

    template: ClassVar[str] = "badge.html"
    repositories: bool
    typed: Mapping[str, str]
    made: Badge | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundlePage(Page):
    """`POST /bundles` for a browser without script: what was found. A refusal is an ErrorPage."""

    template: ClassVar[str] = "bundle.html"
    check: Check


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOutPage(Page):
    """`GET /sign-out`: here or everywhere? Or, when the browser is not signed in, what that means."""

    template: ClassVar[str] = "sign-out.html"
    signed_in: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorPage(Page):
    """Any refusal: its status (None: not known), its stable code and its sentence."""

    template: ClassVar[str] = "error.html"
    status: int | None
    title: str
    code: str
    message: str


def root_of(path: str) -> str:
    """The way from `path` (begins with a slash, no API Gateway stage) up to the hub's first page; "" when level."""
    return "../" * (path.count("/") - 1)


def render(template: str, /, **values: Any) -> str:
    """Render `template`, a file of this folder; raises jinja2.UndefinedError when a value that it shows is missing."""
    return _environment().get_template(template).render(values)


def compile_all() -> None:
    """Compile every template, which otherwise the first page that needs it does."""
    environment = _environment()
    for name in environment.list_templates(extensions=("html", "css", "js")):
        environment.get_template(name)
    content_security_policy()


@cache
def content_security_policy(form_action: str | None = None, *, images: bool = False) -> str:
    """The Content-Security-Policy of a page.

    `form_action` is one more origin that its forms may post to; `images`: it shows some of the hub's own.
    """
    shown = "'self' data:" if images else "data:"
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src {_source('frame.css')} {_source('style.css')}",
            f"script-src {_source('page.js')}",
            "connect-src 'self'",
            f"img-src {shown}",
            f"form-action 'self' {form_action or ''}".rstrip(),
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )


def _source(name: str) -> str:
    """The CSP source expression of an inlined file: the hash of what base.html includes."""
    digest = sha256(render(name).encode()).digest()
    return f"'sha256-{b64encode(digest).decode()}'"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # a program that asks for JSON needs none of it

    environment = Environment(
        loader=PackageLoader("chalicelib.web", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"day": _day, "moment": _moment, "clock": _clock, "grouped": _grouped}
    environment.filters |= {"limits": _limits, "asked": _asked, "size": shown_size, "short": _short, "again": _again}
    return environment


def _day(at: str) -> str:
    """`at` as a day: 3 March 2027."""
    when = datetime.fromisoformat(at)
    return f"{when.day} {when:%B %Y}"


def _moment(at: str) -> str:
    """`at` as day and minute, for a reader whose time zone is unknown."""
    return f"{_day(at)}, {datetime.fromisoformat(at):%H:%M} UTC"


def _clock(at: str) -> str:
    """`at` as the time of day."""
    return f"{datetime.fromisoformat(at):%H:%M:%S}"


def _grouped(digits: str) -> str:
    """A fingerprint in groups of four, as people compare them."""
    return " ".join(digits[i : i + 4] for i in range(0, len(digits), 4))


def _short(version: str) -> str:
    """A version as people quote it: a commit by its first seven digits."""
    return version[:7] if _COMMIT.fullmatch(version) else version


def _again(session: Session) -> str:
    """The query with which the first page's form is filled in as for this session."""
    repository, content, options = session["repository"], session["content"], session["options"]
    asked = {
        "name": session["name"],
        "repo": _written(repository) if repository else "",
        "ref": repository["ref"] if repository else "",
        "folder": repository["folder"] if repository else "",
        "image": session["image"] if content and not repository else "",
        "content": _written(content) if content else "",
        "content_ref": content["ref"] if content else "",
        "open": options["open"],
    }
    return urlencode({field: text for field, text in asked.items() if text}, quote_via=quote, safe="")


def _written(repository: Repository) -> str:
    return written(RepositorySource(Provider(repository["provider"]), repository["address"]))


def _limits(limits: Limits) -> str:
    """Limits as a phrase, empty when none is set: 4 GiB of memory, 2 CPUs."""
    return ", ".join(shown_limits(limits))


def _asked(options: Asked) -> str:
    """The limits that a launch asked for, as `_limits` says them."""
    gpus = -1 if options["gpus"] == "all" else int(options["gpus"] or 0)
    return _limits(Limits(options["memory"], options["cpus"], gpus, options["shm"]))
