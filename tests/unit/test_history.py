"""The checker of histories finds nothing wrong with a good one, and each kind of wrong in a bad one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chalicelib.session import events as e
from chalicelib.session.values import Session, State, container_name
from tests.builders import LABEL, NOW, a_session
from tests.history import (
    OWNER,
    Created,
    Deleted,
    Entry,
    Fact,
    Published,
    Removed,
    Saved,
    Started,
    Stored,
    Withdrawn,
    violations,
)
from tests.unit.test_launcher import Stage

SID, CONTAINER, HOST = a_session().sid, container_name(a_session().sid, 1), a_session().host


def a_life(*events: e.Event) -> list[Fact]:
    """What happens to a session from its upload to its end; after READY come these events."""
    stage = Stage()
    facts: list[Fact] = [Saved(stage.session), Stored(stage.sid, 1)]
    stage.store.witness = stage.routes.witness = stage.credentials.witness = stage.engine.witness = facts.append
    stage.engine.images.add(stage.session.image)
    stage.run(State.READY)
    for event in events:
        stage.ask_for(event)
        stage.tick()
    return facts


STOPPED = a_life(e.StopRequested())
READY = a_life()


def wrongs(facts: list[Fact], by: str = "") -> list[str]:
    return violations(Entry(fact, by) for fact in facts)


@pytest.mark.parametrize("facts", [READY, STOPPED, a_life(e.ForgetRequested()), []])
def test_nothing_is_wrong_with_a_good_life(facts: list[Fact]) -> None:
    assert wrongs(facts) == []


def test_a_session_that_told_its_visitor_of_a_container_may_leave_it_and_be_launched_beside_it() -> None:
    forgotten = a_life(e.ForgetRequested(), e.StopRequested())
    assert wrongs(forgotten) == []
    last = last_saved(forgotten)
    again = a_session(generation=2, version=last.version + 1, label="zzzzzzzzzz")
    pulling = replace(again, version=again.version + 1, state=State.PULLING)
    creating = replace(pulling, version=pulling.version + 1, state=State.CREATING)
    facts = [*forgotten, *map(Saved, (again, pulling, creating)), Created(container_name(SID, 2))]
    assert wrongs(facts) == [f"{SID}: still creating"]


def last_saved(facts: list[Fact]) -> Session:
    return [fact.session for fact in facts if isinstance(fact, Saved)][-1]


def saved(facts: list[Fact], state: State) -> int:
    """Where the session is first saved in that state."""
    return next(at for at, fact in enumerate(facts) if isinstance(fact, Saved) and fact.session.state is state)


def without(facts: list[Fact], kind: type[Fact]) -> list[Fact]:
    return [fact for fact in facts if not isinstance(fact, kind)]


def before(state: State, *more: Fact) -> list[Fact]:
    at = saved(STOPPED, state)
    return [*STOPPED[:at], *more, *STOPPED[at:]]


def after(state: State, *more: Fact) -> list[Fact]:
    at = saved(STOPPED, state) + 1
    return [*STOPPED[:at], *more, *STOPPED[at:]]


def then(facts: list[Fact], **changes: object) -> list[Fact]:
    """The life with one more save, of the last version with changes."""
    last = last_saved(facts)
    return [*facts, Saved(replace(last, **({"version": last.version + 1} | changes)))]  # type: ignore[arg-type]


READY_AT = READY[-1]
AT_WORK = READY[: saved(READY, State.STARTING) + 1]  # a tick holds the session

BAD: dict[str, tuple[list[Fact], str]] = {
    "a version is left out": (then(READY, version=last_saved(READY).version + 2), "was saved upon"),
    "a version is saved twice": ([*READY, READY_AT], "was saved upon"),
    "a state is left out": (then(READY, state=State.STOPPED), "ready went to stopped"),
    "a launch begins before the last one is over": (
        then(READY, generation=2, label="zzzzzzzzzz", state=State.VERIFYING),
        "a launch began in verifying, after ready",
    ),
    "a launch begins in its middle": (
        then(STOPPED, generation=2, label="zzzzzzzzzz", state=State.STARTING),
        "a launch began in starting",
    ),
    "a generation is left out": (
        then(STOPPED, generation=3, label="zzzzzzzzzz", state=State.VERIFYING),
        "generation 3 followed upon 1",
    ),
    "a label is used again": (then(STOPPED, generation=2, label=LABEL, state=State.VERIFYING), "was used again"),
    "a launch gets another label": (then(READY, label="zzzzzzzzzz"), "a launch became another one"),
    "a tick saves what another holds": (
        then(AT_WORK, written_by="two", state=State.PROBING),
        "two saved probing while tick-1 held the session",
    ),
    "a tick claims what another holds": (
        then(AT_WORK, written_by="two", lease_expires_at=NOW + 61),
        "two claimed the session while tick-1 held it",
    ),
    "a container that nobody wrote down": ([Created(CONTAINER)], "belongs to no session"),
    "a container before its launch wrote it down": (after(State.PULLING, Created(CONTAINER)), "was created in pulling"),
    "a container of another launch": (
        after(State.CREATING, Created(container_name(SID, 2))),
        "was created for a launch that is over, or has not begun",
    ),
    "a container after the end": (
        [*STOPPED, Created(CONTAINER)],
        "was created for a launch that is over, or has not begun",
    ),
    "two containers at a time": (before(State.STARTING, Created(CONTAINER)), f"was created beside {CONTAINER}"),
    "a container is created again": (
        before(State.STARTING, Removed(CONTAINER), Created(CONTAINER)),
        f"{CONTAINER} was created again",
    ),
    "a start of nothing": (before(State.CREATING, Started(CONTAINER)), "was started and not created"),
    "a removal of nothing": (before(State.CREATING, Removed(CONTAINER)), "was removed and is not there"),
    "a removal while the route is published": (
        after(State.READY, Removed(CONTAINER)),
        "was removed while its route is published",
    ),
    "a route without a container that was started": (
        [fact for fact in READY if not isinstance(fact, Started)],
        "has no container that was started",
    ),
    "a route after its withdrawal": (after(State.REMOVING, Published(HOST)), "was published after it was withdrawn"),
    "a removal is begun and the route is there": (without(STOPPED, Withdrawn), "is being removed and its route"),
    "stopped with a route": (without(STOPPED, Withdrawn), "stopped, and its route is published"),
    "stopped with a container": (without(STOPPED, Removed), f"stopped, and {CONTAINER} is there"),
    "stopped with credentials": (without(STOPPED, Deleted), "stopped, and the credentials of launch 1 are stored"),
    "credentials of a launch that is not written down": (
        [*READY, Stored(SID, 2)],
        "credentials were stored for launch 2, which is not written down",
    ),
    "credentials are deleted while they are needed": (
        before(State.STARTING, Deleted(SID, 1)),
        "were deleted in creating, which needs them",
    ),
    "credentials that were brought again are deleted": (
        [*then([*a_life(e.ForgetRequested()), Stored(SID, 1)], credentials_held=True), Deleted(SID, 1)],
        "were deleted in ready, which needs them",
    ),
    "credentials stored late stay": ([*STOPPED, Stored(SID, 1)], "stopped with credentials of launches [1]"),
    "ready without a container": ([*READY, Removed(CONTAINER)], "ready with containers of launches []"),
    "ready without credentials": ([*READY, Deleted(SID, 1)], "ready with credentials of launches []"),
    "ready without a route": ([*READY, Withdrawn(HOST)], "ready with routes of launches []"),
    "ready with a container that does not run": (without(READY, Started), "ready with started containers of"),
    "not at rest": (READY[:-2], "still"),
}


@pytest.mark.parametrize("what", BAD)
def test_each_kind_of_wrong_is_found(what: str) -> None:
    facts, words = BAD[what]
    assert any(words in wrong for wrong in wrongs(facts)), wrongs(facts)


def test_what_is_wrong_is_said_with_its_place_and_who_did_it() -> None:
    found = wrongs([*STOPPED, Created(CONTAINER), Removed(CONTAINER)], by="tick-7")[0]
    assert found.startswith(f"{len(STOPPED) + 1}, by tick-7: {CONTAINER} was created for a launch that is over")


def test_a_container_that_its_owner_removed_is_nobodys_fault_and_may_be_created_again() -> None:
    at = saved(STOPPED, State.STARTING)
    facts = [*STOPPED[:at], Created(CONTAINER), *STOPPED[at:]]
    entries = [Entry(fact) for fact in facts]
    entries.insert(at, Entry(Removed(CONTAINER), OWNER))
    assert violations(entries) == []
