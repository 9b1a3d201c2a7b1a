"""The HTTP interface's JSON documents, made up: what pages are rendered with and a scripted hub answers."""

from __future__ import annotations

from typing import Any, cast

from chalicelib.session.values import Phase, State, phase_of
from chalicelib.web.json import Asked, Listed, Session

SID = "0123456789abcdefghij"


def asked_for(**changes: Any) -> Asked:
    """What a launch asked for: nothing in particular."""
    nothing = dict.fromkeys(("memory", "cpus", "gpus", "shm", "data", "port"))
    return cast(Asked, {"pull": "missing", "env": [], "open": "", "keep": False, **nothing, **changes})


def a_session_document(**changes: Any) -> Session:
    """A session in the middle of its pull; `phase` and `headline` follow from `state` and `error`."""
    document: dict[str, Any] = {
        "id": SID,
        "name": "thesis",
        "state": "pulling",
        "progress": 0.4,
        "message": "Pulling",
        "error": None,
        "warning": None,
        "url": None,
        "created_at": "2026-11-23T01:02:03Z",
        "expires_at": "2026-11-26T01:02:03Z",
        "keepable_until": None,
        "kept_until": None,
        "image": "quay.io/jupyter/minimal-notebook",
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
