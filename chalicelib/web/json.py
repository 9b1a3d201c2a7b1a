"""The JSON of the HTTP interface: its shapes, and how the hub's values become it. The pages are filled with the same.

Times are ISO 8601 in UTC, fractions 0 to 1, fingerprints hex SHA-256.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TypedDict

from chalicelib.bundle.parse import Bundle
from chalicelib.errors import HomeportError
from chalicelib.repository.address import shown, suggested_name, web_address, written
from chalicelib.repository.badge import snippets
from chalicelib.repository.source import Provider, Source
from chalicelib.session.image import suggested_image
from chalicelib.session.narration import headline, progress, warning
from chalicelib.session.values import BuiltImage, Phase, SavedImage, State, Summary
from chalicelib.session.values import Line as LineValue
from chalicelib.session.values import Session as SessionValue

# Where a repository is, to a person; the name of what is elsewhere says it (chalicelib/repository/address.py, `shown`).
PLACES: Final[Mapping[Provider, str]] = {
    Provider.GITHUB: "GitHub",
    Provider.GIST: "GitHub",
    Provider.ZENODO: "Zenodo",
    Provider.FIGSHARE: "Figshare",
    Provider.DATAVERSE: "Dataverse",
}
_STEPS: Final[Mapping[State, str]] = {
    State.PULLING: "Pull",
    State.RESOLVING: "Resolve",
    State.BUILDING: "Build",
    State.CREATING: "Create",
    State.CLONING: "Create",
    State.STARTING: "Start",
    State.PROBING: "Start",
    State.PUBLISHING: "Start",
}


class Error(TypedDict):
    """Why a session failed: a stable code and a sentence for the visitor."""

    code: str
    message: str


class Asked(TypedDict):
    """What a launch asked for, as the form's fields are written, but sizes in bytes; `env` has the names alone."""

    pull: str
    memory: int | None
    cpus: float | None
    gpus: int | str | None
    shm: int | None
    data: str | None
    env: Sequence[str]
    port: str | None
    open: str
    keep: bool


class Repository(TypedDict):
    """A repository that a launch was asked for; `version` is what its `ref` was resolved to, None until it is known.

    `address` is canonical, `page` where a person reads it, `name` what it is called, and `place` where it is, empty if
    the name says it.
    """

    provider: str
    address: str
    ref: str
    folder: str
    name: str
    place: str
    page: str
    version: str | None


class Found(TypedDict):
    """What the form's field says of a repository, as `GET /repository` answers it.

    `repo`, `ref`, `folder` and `open` are what to fill the form with; `name` is what the notebook is called if nothing
    else is typed. `shown` and `place` say it to a person, `page` is where one reads it, `summary` says in a line which
    version and folder of it. `versioned`: it has branches, tags and commits.
    """

    repo: str
    ref: str
    folder: str
    open: str
    name: str
    provider: str
    shown: str
    place: str
    page: str
    summary: str
    versioned: bool


class Badge(TypedDict):
    """A launch link, its badge, and what an author pastes, as `GET /badge` answers it."""

    link: str
    badge: str
    markdown: str
    html: str
    rst: str


class Step(TypedDict):
    """A step of a launch: `status` is done, now or next."""

    name: str
    status: str


class Session(TypedDict):
    """A session as `GET /sessions/{id}` answers it.

    `phase` is launching, ready, leaving or stopped; `headline` says it to a visitor, and says "Failed" when it is
    stopped because of `error`, "Deleted" when its volume is gone. `progress` is None once there is none; `url` is None
    unless the notebook can be entered. `keepable_until`: *Keep longer* reaches so far; None if that is no later than
    `expires_at`. `kept_until`: the credentials of a stopped session are kept for another launch; None if they are not.
    `warning` is a sentence when its end is near. `again`: it is going to be launched again once it has stopped.
    `steps` are those of its launch while it goes on. `log_url`: where the log of its build is, below the hub's first
    page; None while there is none.
    `save_as`: what the image might be called that it is saved as; None while it cannot be saved.
    """

    id: str
    name: str
    state: str
    phase: str
    headline: str
    progress: float | None
    steps: Sequence[Step]
    message: str
    error: Error | None
    warning: str | None
    url: str | None
    created_at: str
    expires_at: str
    keepable_until: str | None
    kept_until: str | None
    image: str
    repository: Repository | None
    content: Repository | None
    log_url: str | None
    options: Asked
    endpoint: str
    credentials_held: bool
    again: bool
    save_as: str | None
    container: str | None


class Listed(TypedDict):
    """A session as a list shows it; `failed` as soon as it has an error, also while it is leaving."""

    id: str
    name: str
    phase: str
    headline: str
    failed: bool
    endpoint: str
    created_at: str


class Image(TypedDict):
    """An image that a notebook was saved as; `size` in bytes, None if the endpoint did not say it."""

    name: str
    endpoint: str
    notebook: str
    saved_at: str
    size: int | None


class Built(TypedDict):
    """An image of a repository: `repository`, `place` and `page` are as a Repository's `name`, `place` and `page`.

    `size` in bytes, None if the endpoint did not say it; `used_at` is when a launch used it last.
    """

    name: str
    repository: str
    place: str
    page: str
    version: str
    endpoint: str
    size: int | None
    built_at: str
    used_at: str


class Line(TypedDict):
    """One line of a session's log. A line with `progress` replaces the one before it if that one has it, too."""

    number: int
    at: str
    text: str
    progress: bool


class Check(TypedDict):
    """What `POST /bundles` found in a bundle."""

    format: str
    endpoint: str
    subject: str
    fingerprint: str
    expires_at: str
    dropped: Sequence[str]
    warnings: Sequence[str]
    owner: str


class Problem(TypedDict):
    """A problem document (RFC 9457): `code` is stable, `title` names the kind, `detail` says what to do next."""

    type: str
    title: str
    status: int
    code: str
    detail: str


def session_json(session: SessionValue, origin: str, now: float) -> Session:
    """A session as it is `now` (epoch seconds); `origin` is its notebook's."""
    failure, is_ready = session.failure, session.phase is Phase.READY
    may_keep = session.state in (State.READY, State.REPUBLISHING) and not session.newer
    keepable = may_keep and session.longest_until > session.expires_at
    return {
        "id": session.sid,
        "name": session.name,
        "state": str(session.state),
        "phase": str(session.phase),
        "headline": headline(session),
        "progress": progress(session),
        "steps": _steps(session),
        "message": session.message,
        "error": {"code": failure.code, "message": failure.message} if failure else None,
        "warning": warning(session, now),
        "url": f"{origin}/" if is_ready else None,
        "created_at": _time(session.created_at),
        "expires_at": _time(session.expires_at),
        "keepable_until": _time(session.longest_until) if keepable else None,
        "kept_until": _time(session.expires_at) if session.state is State.KEPT else None,
        "image": session.image,
        "repository": _repository(session, session.repository),
        "content": _repository(session, session.content),
        "log_url": f"sessions/{session.sid}/build-log" if _has_built(session) else None,
        "options": _asked(session),
        "endpoint": session.endpoint,
        "credentials_held": session.credentials_held,
        "again": session.again != "",
        "save_as": suggested_image(session.name, _time(now)[:10]) if can_be_saved(session) else None,
        "container": session.container,
    }


def _steps(session: SessionValue) -> list[Step]:
    """The steps of a launch. One that has a version to look up pulls the builder for that, and no image before."""
    if session.phase is not Phase.LAUNCHING:
        return []
    names = ["Resolve"] if session.sources else []
    names += ["Build" if session.repository else "Pull", "Create", "Start"]
    is_first = session.state is State.VERIFYING or (session.state is State.PULLING and not session.versions)
    now = names[0] if is_first else _STEPS[session.state]
    order = names.index(now)
    return [
        {"name": name, "status": "done" if at < order else "now" if at == order else "next"}
        for at, name in enumerate(names)
    ]


def _has_built(session: SessionValue) -> bool:
    """Say whether the launch may have built an image: a build has ended, or another launch's was used."""
    return session.repository is not None and session.image != "" and session.state is not State.BUILDING


def _repository(session: SessionValue, source: Source | None) -> Repository | None:
    if source is None:
        return None
    versions = dict(zip(session.sources, session.versions, strict=False))
    return {
        "provider": str(source.provider),
        "address": source.address,
        "ref": source.ref,
        "folder": source.folder,
        "name": shown(source),
        "place": PLACES.get(source.provider, ""),
        "page": web_address(source),
        "version": versions.get(source),
    }


def found_json(source: Source, open_path: str = "") -> Found:
    """A repository that was typed or linked to, and what to open of it."""
    return {
        "repo": written(source),
        "ref": source.ref,
        "folder": source.folder,
        "open": open_path,
        "name": suggested_name(source),
        "provider": str(source.provider),
        "shown": shown(source),
        "place": PLACES.get(source.provider, ""),
        "page": web_address(source),
        "summary": _summary(source),
        "versioned": source.takes_ref,
    }


def badge_json(link: str, badge: str) -> Badge:
    """A launch link and a badge's address, and what an author pastes of them."""
    found = snippets(link, badge)
    return {"link": link, "badge": badge, "markdown": found.markdown, "html": found.html, "rst": found.rst}


def _summary(source: Source) -> str:
    """A repository in a line: jupyterlab/jupyterlab-demo on GitHub, version main."""
    where = f" on {PLACES[source.provider]}" if source.provider in PLACES else ""
    version = f", version {source.ref}" if source.ref else ", the default branch" if source.takes_ref else ""
    return f"{shown(source)}{where}{version}" + (f", folder {source.folder}" if source.folder else "")


def can_be_saved(session: SessionValue) -> bool:
    """Say whether a session can be saved as an image now."""
    return (
        session.state is State.READY
        and session.credentials_held
        and not session.newer
        and not session.options.environment
    )


def _asked(session: SessionValue) -> Asked:
    limits, options = session.limits, session.options
    return {
        "pull": str(options.pull),
        "memory": limits.memory,
        "cpus": limits.cpus,
        "gpus": "all" if limits.gpus == -1 else limits.gpus,
        "shm": limits.shm,
        "data": str(options.data) if options.data else None,
        "env": list(options.environment),
        "port": str(options.ports) if options.ports else None,
        "open": session.open_path,
        "keep": session.keeps,
    }


def listed_json(summary: Summary) -> Listed:
    """A session in a list."""
    return {
        "id": summary.sid,
        "name": summary.name,
        "phase": str(summary.phase),
        "headline": headline(summary),
        "failed": summary.failed,
        "endpoint": summary.endpoint,
        "created_at": _time(summary.created_at),
    }


def image_json(image: SavedImage) -> Image:
    """A saved image in a list."""
    return {
        "name": image.name,
        "endpoint": image.endpoint,
        "notebook": image.notebook,
        "saved_at": _time(image.saved_at),
        "size": image.size or None,
    }


def built_json(image: BuiltImage) -> Built:
    """An image of a repository in a list."""
    return {
        "name": image.name,
        "repository": shown(image.repository),
        "place": PLACES.get(image.repository.provider, ""),
        "page": web_address(image.repository),
        "version": image.version,
        "endpoint": image.endpoint,
        "size": image.size or None,
        "built_at": _time(image.built_at),
        "used_at": _time(image.used_at),
    }


def lines_json(lines: Iterable[LineValue]) -> list[Line]:
    """Lines of a session's log."""
    return [
        {"number": line.number, "at": _time(line.at), "text": line.text, "progress": line.progress} for line in lines
    ]


def check_json(bundle: Bundle) -> Check:
    """What is in a bundle, nothing of it secret."""
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


def problem_json(error: HomeportError) -> Problem:
    """An error."""
    return {
        "type": f"urn:homeport:{error.code}",
        "title": error.title,
        "status": error.status,
        "code": error.code,
        "detail": error.message,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
