"""Sessions in every state: how a visitor and a hub that is cut off bring each of them there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from chalicelib.session.values import State

REST: Final = ""  # the session's messages are handled until there are none
NAME: Final = "{name}"  # stands for the session's
UNTOUCHED: Final = "untouched"  # nobody handles them


@dataclass(frozen=True, slots=True)
class Step:
    """What the visitor does: "launch", or a button; and how far the hub gets with it.

    `until` is REST, UNTOUCHED, or where the function is killed (worker.py). `bundle`: the button is given the bundle.
    """

    what: str
    until: str = REST
    form: Mapping[str, str] = field(default_factory=dict)
    bundle: bool = False
    image: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """A session: `steps` of the version that runs first bring it into a `state`.

    `meanwhile` is what its visitor does under the version before once the hub was rolled back, and `afterwards` what
    they do under the new one in the end; then it is in `ends`, if that is not where the state leads by itself. `tells`
    are violations (tests/history.py) that are none: the version before knew another table.
    """

    name: str
    state: State
    steps: tuple[Step, ...]
    meanwhile: tuple[Step, ...] = ()
    afterwards: tuple[Step, ...] = ()
    ends: State | None = None
    tells: tuple[str, ...] = ()


def launch(until: str = REST, image: str = "", **form: str) -> Step:
    """The visitor uploads their bundle."""
    return Step("launch", until, form, image=image)


def press(what: str, until: str = REST, **form: str) -> Step:
    """The visitor presses a button."""
    return Step(what, until, form)


def delete(until: str = REST, bundle: bool = False) -> Step:
    """The visitor types the notebook's name, and deletes it."""
    return Step("delete", until, {"name": NAME}, bundle)


S = State
EXPIRE: Final = Step("expire")  # nobody does anything, and the session's time is over
STOPPED: Final = (launch(), press("stop"))
KEPT: Final = (launch(), press("stop", keep="yes"))
SEALED: Final = (launch(keep="yes"), press("stop"))  # the next launch has the credentials of this one
REPOSITORY: Final = "https://git.example.org/lessons"
PULLED: Final = "127.0.0.1:5000/pulled:latest"  # an image that is not there yet

# How a session comes into each state, and stands there with nothing of it done.
INTO: Final[Mapping[State, tuple[Step, ...]]] = MappingProxyType(
    {
        S.VERIFYING: (launch("after verifying"),),
        S.PULLING: (launch("after pulling"),),
        S.RESOLVING: (launch("after resolving", repo=REPOSITORY),),
        S.BUILDING: (launch("after building", repo=REPOSITORY),),
        S.CREATING: (launch("after creating"),),
        S.CLONING: (launch("after cloning", content=REPOSITORY),),
        S.STARTING: (launch("after starting"),),
        S.PROBING: (launch("after probing"),),
        S.PUBLISHING: (launch("after publishing"),),
        S.READY: (launch(),),
        S.REPUBLISHING: (launch(), press("keep", UNTOUCHED)),
        S.FORGETTING: (launch(), press("forget", UNTOUCHED)),
        S.SAVING: (launch(), press("save", UNTOUCHED, image="localhost/saved")),
        S.TIDYING: (launch(), press("images", UNTOUCHED, image="all")),
        S.WITHDRAWING: (launch(), press("stop", UNTOUCHED)),
        S.REMOVING: (launch(), press("stop", "after removing")),
        S.PURGING: (launch(), press("stop", "after purging")),
        S.KEPT: KEPT,
        S.STOPPED: STOPPED,
    }
)

# The same with its effect done, and the function killed before it could say so.
DONE: Final[Mapping[State, tuple[Step, ...]]] = MappingProxyType(
    {
        S.RESOLVING: (launch("before building", repo=REPOSITORY),),
        S.BUILDING: (launch("before creating", repo=REPOSITORY),),
        S.CREATING: (launch("before starting"),),
        S.CLONING: (launch("before starting", content=REPOSITORY),),
        S.STARTING: (launch("before probing"),),
        S.PUBLISHING: (launch("before ready"),),
        S.REPUBLISHING: (launch(), press("keep", "before ready")),
        S.FORGETTING: (launch(), press("forget", "before ready")),
        S.SAVING: (launch(), press("save", "before ready", image="localhost/saved-done")),
        S.TIDYING: (launch(), press("images", "before ready", image="all")),
        S.WITHDRAWING: (launch(), press("stop", "before removing")),
        S.REMOVING: (launch(), press("stop", "before purging")),
        S.PURGING: (launch(), press("stop", "before stopped")),
    }
)

HALFWAY: Final = Case("pulling, halfway", S.PULLING, (launch("after pulling+", image=PULLED),))

# What a visitor does with a notebook that the version before has launched.
LIVES_ON: Final = (
    Case("ready, then restarted", S.READY, INTO[S.READY], afterwards=(press("start"),)),
    Case("ready, then kept", S.READY, INTO[S.READY], afterwards=(press("stop", keep="yes"),), ends=S.KEPT),
    Case("ready, then deleted", S.READY, INTO[S.READY], afterwards=(delete(),), ends=S.STOPPED),
    Case("ready, then saved", S.READY, INTO[S.READY], afterwards=(press("save", image="localhost/refused"),)),
    Case("starting, then restarted", S.STARTING, INTO[S.STARTING], afterwards=(press("start"),)),
    Case("stopped, then deleted", S.STOPPED, STOPPED, afterwards=(delete(bundle=True),)),
    Case("stopped, then launched", S.STOPPED, STOPPED, afterwards=(launch(keep="yes"),), ends=S.READY),
)

# What only the new version stores, so that the version before leaves it alone.
SEALED_AGAIN: Final = (*SEALED, press("start"))
NEWER: Final = (
    Case("kept, then started", S.KEPT, KEPT, afterwards=(press("start"),), ends=S.READY),
    Case("kept, to be launched again", S.KEPT, (launch(), press("start", "after kept")), ends=S.READY),
    Case("verifying, sealed before", S.VERIFYING, (*SEALED, press("start", "after verifying"))),
    Case("creating, sealed before", S.CREATING, (*SEALED, press("start", "before starting"))),
    Case("ready, sealed before", S.READY, SEALED_AGAIN, afterwards=(press("stop"), press("start"))),
    Case("forgetting, sealed before", S.FORGETTING, (*SEALED_AGAIN, press("forget", UNTOUCHED))),
    Case("removing, sealed before", S.REMOVING, (*SEALED_AGAIN, press("stop", "after removing")), ends=S.KEPT),
    Case("purging, sealed before", S.PURGING, (*SEALED_AGAIN, press("stop", "after purging")), ends=S.KEPT),
)

# Wishes that the version before does not know. It ends what is leaving, and keeps, launches and deletes nothing.
WISHES: Final = (
    Case("ready, to be kept", S.READY, (launch(keep="yes"),), afterwards=(press("stop"),), ends=S.KEPT),
    Case("removing, to be kept", S.REMOVING, (launch(keep="yes"), press("stop", "after removing"))),
    Case("purging, to be kept", S.PURGING, (launch(keep="yes"), press("stop", "after purging"))),
    Case("withdrawing, to be restarted", S.WITHDRAWING, (launch(), press("start", UNTOUCHED))),
    Case("purging, to be restarted", S.PURGING, (launch(), press("start", "after purging"))),
    Case("withdrawing, to be deleted", S.WITHDRAWING, (launch(), delete(UNTOUCHED))),
    Case("removing, to be deleted", S.REMOVING, (launch(), delete("after removing"))),
    Case("stopped, to be deleted", S.REMOVING, (*STOPPED, delete(UNTOUCHED, bundle=True))),
)

# What visitors ask the version before for, of sessions that the new one has stored.
_READ_AS_READY: Final = ("kept went to withdrawing", "saved withdrawing while")
MEANWHILE: Final = (
    Case("kept, then stopped", S.KEPT, KEPT, (press("stop"),), ends=S.STOPPED, tells=_READ_AS_READY),
    Case("kept, then expired", S.KEPT, KEPT, (EXPIRE,), ends=S.STOPPED, tells=_READ_AS_READY),
    Case("republishing, then stopped", S.REPUBLISHING, INTO[S.REPUBLISHING], (press("stop"),), ends=S.STOPPED),
    Case("saving, then stopped", S.SAVING, INTO[S.SAVING], (press("stop"),), ends=S.STOPPED),
    Case("ready, sealed before, then stopped", S.READY, SEALED_AGAIN, (press("stop"),), ends=S.STOPPED),
    Case("ready, then stopped", S.READY, INTO[S.READY], (press("stop"),), ends=S.STOPPED),
    Case("ready, then forgotten", S.READY, INTO[S.READY], (press("forget"),)),
)


def states_without_a_case(states: frozenset[str]) -> set[str]:
    """The states of a version into which nothing here brings a session."""
    return set(states) - {str(state) for state in INTO}


def cases_of(states: frozenset[str]) -> list[Case]:
    """The cases that a version with these states can bring about."""
    into = [Case(str(state), state, steps) for state, steps in INTO.items() if state in states]
    done = [Case(f"{state}, done", state, steps) for state, steps in DONE.items() if state in states]
    return [*into, *done]
