"""Values for tests: each builder gives a good one, and takes changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from chalicelib.aws.queues import TickMessage
from chalicelib.aws.sign_ins import SignIn
from chalicelib.bundle.address import Endpoint
from chalicelib.bundle.credentials import Credentials
from chalicelib.session.lanes import Lane
from chalicelib.session.machine import new_session
from chalicelib.session.values import Limits, Session

NOW = 1_790_000_000.0
OWNER = "ab" * 32
LIFETIME = 72 * 3600.0
SIGN_IN = SignIn("b0" * 32, OWNER, int(NOW * 1000))
LABEL = "0a1b2c3d4e"  # of the launch; another launch has another one


def a_session(**changes: Any) -> Session:
    """A session that was submitted at NOW."""
    session = new_session(
        owner=changes.pop("owner", OWNER),
        name=changes.pop("name", "lessons"),
        endpoint="tcp://203.0.113.7:2376",
        image="jupyter/minimal-notebook:latest",
        limits=Limits(),
        now=NOW,
        lifetime=LIFETIME,
        request="request-1",
        label=LABEL,
    )
    return replace(session, **changes)


def no_queue(message: TickMessage, *, lane: Lane, delay: float) -> None:
    """Takes the messages of what has none to send."""
    raise AssertionError(f"a message to {lane}: {message}")


def some_credentials(**changes: Any) -> Credentials:
    """Credentials for the endpoint of `a_session`. Only their form is good."""
    return replace(
        Credentials(Endpoint("203.0.113.7", 2376), b"a CA\n", b"a client certificate\n", b"its key\n"), **changes
    )
