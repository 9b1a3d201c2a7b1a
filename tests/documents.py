"""The HTTP interface's JSON documents, made up: what pages are rendered with and a scripted hub answers."""

from __future__ import annotations

from typing import Any, cast

from chalicelib.session.values import Phase, State, phase_of
from chalicelib.web.json import Asked, Built, Found, Listed, Repository, Session

SID = "0123456789abcdefghij"


def asked_for(**changes: Any) -> Asked:
    """What a launch asked for: nothing in particular."""
    nothing = dict.fromkeys(("memory", "cpus", "gpus", "shm", "data", "port"))
    return cast(Asked, {"pull": "missing", "env": [], "open": "", "keep": False, **nothing, **changes})


def a_repository_document(**changes: Any) -> Repository:
    """A repository of a session whose version is known."""
    document: dict[str, Any] = {
        "provider": "gh",
        "address": "https://github.com/jupyterlab/jupyterlab-demo",
        "ref": "main",
        "folder": "",
        "name": "jupyterlab/jupyterlab-demo",
        "place": "GitHub",
        "page": "https://github.com/jupyterlab/jupyterlab-demo/tree/main",
        "version": "3f786850e387550fdab836ed7e6dc881de23001b",
        **changes,
    }
    return cast(Repository, document)


def a_built_document(**changes: Any) -> Built:
    """An image of a repository in a list."""
    document: dict[str, Any] = {
        "name": f"localhost/homeport-built:{40 * 'a'}",
        "repository": "jupyterlab/jupyterlab-demo",
        "place": "GitHub",
        "page": "https://github.com/jupyterlab/jupyterlab-demo/tree/main",
        "version": "3f786850e387550fdab836ed7e6dc881de23001b",
        "endpoint": "tcp://docker.example.org:2376",
        "size": 3 << 30,
        "built_at": "2026-11-23T01:02:03Z",
        "used_at": "2026-11-24T01:02:03Z",
        **changes,
    }
    return cast(Built, document)


def a_found_document(**changes: Any) -> Found:
    """What the hub says of an address in the form's field."""
    document: dict[str, Any] = {
        "repo": "jupyterlab/jupyterlab-demo",
        "ref": "main",
        "folder": "",
        "open": "",
        "name": "jupyterlab/jupyterlab-demo",
        "provider": "gh",
        "shown": "jupyterlab/jupyterlab-demo",
        "place": "GitHub",
        "page": "https://github.com/jupyterlab/jupyterlab-demo/tree/main",
        "summary": "jupyterlab/jupyterlab-demo on GitHub, version main",
        "versioned": True,
        **changes,
    }
    return cast(Found, document)


def a_session_document(**changes: Any) -> Session:
    """A session in the middle of its pull; `phase` and `headline` follow from `state` and `error`."""
    document: dict[str, Any] = {
        "id": SID,
        "name": "thesis",
        "state": "pulling",
        "progress": 0.4,
        "steps": [],
        "message": "Pulling",
        "error": None,
        "warning": None,
        "url": None,
        "created_at": "2026-11-23T01:02:03Z",
        "expires_at": "2026-11-26T01:02:03Z",
        "keepable_until": None,
        "kept_until": None,
        "image": "quay.io/jupyter/minimal-notebook",
        "repository": None,
        "content": None,
        "log_url": None,
        "options": asked_for(),
        "endpoint": "tcp://203.0.113.7:2376",
        "credentials_held": True,
        "again": False,
        "save_as": None,
        "container": f"homeport-{SID}-1",
        **changes,
    }
    phase = phase_of(State(document["state"]))
    failed = phase is Phase.STOPPED and document["error"]
    document["phase"] = str(phase)
    document["headline"] = "Failed" if failed else {"leaving": "Stopping"}.get(phase, str(phase).capitalize())
    return cast(Session, document)


def a_listed_document(**changes: Any) -> Listed:
    """The session of `a_session_document` as a list shows it."""
    session = a_session_document(**changes)
    return {
        "id": session["id"],
        "name": session["name"],
        "phase": session["phase"],
        "headline": session["headline"],
        "failed": session["error"] is not None,
        "endpoint": session["endpoint"],
        "created_at": session["created_at"],
    }
