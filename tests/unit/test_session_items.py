"""Sessions as they are stored: items of every format that ever was are read, and whatever else an item may hold."""

from __future__ import annotations

import copy
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.aws.dynamodb import Item
from chalicelib.aws.session_items import (
    FORMAT,
    LINES,
    NEWEST_FORMAT,
    REDRIVE_STEP,
    STOPPED_TTL,
    item_of,
    line_item_of,
    line_of,
    session_of,
    shard_of,
    sid_of,
    summary_of,
)
from chalicelib.engine.messages import pull_error
from chalicelib.repository.source import Provider, Source
from chalicelib.repository.tag import build_name
from chalicelib.session import events as e
from chalicelib.session.lanes import Lane, lane_of
from chalicelib.session.lease import with_lease
from chalicelib.session.machine import advance, new_session
from chalicelib.session.narration import LOG_LINES, NEWER, UNREADABLE
from chalicelib.session.values import (
    DataFolder,
    Failure,
    Limits,
    Line,
    Options,
    Phase,
    Ports,
    PullPolicy,
    Session,
    State,
    Target,
    container_name,
)
from tests.builders import LABEL, LIFETIME, NOW, OWNER, a_session
from tests.write_units import size_of

HUB: Final = "homeport-prod-0123456789abcdef"
NETWORK: Final = "198.51.100.7/32"
SECOND_LABEL: Final = "4e3d2c1b0a"
KEPT: Final = "Stopped: no container and no route are left; your credentials are kept, to start it again"
FROZEN: Final = Path(__file__).resolve().parents[1] / "frozen"
FORMATS: Final = (0, 1)
SID: Final = "cq6k6qneqve3tkfoe443"
CONTAINER, SECOND_CONTAINER = f"homeport-{SID}-1", f"homeport-{SID}-2"
IMAGE: Final = "quay.io/jupyter/minimal-notebook:latest"
BUILDER: Final = "quay.io/jupyterhub/repo2docker:2025.08.0"
VERSIONS: Final = ("c" * 40, "d" * 40)
BUILT: Final = f"localhost/homeport-built:{'e' * 40}"
TIMED_OUT: Final = Failure("endpoint-timeout", "docker.example.org:2376 did not answer in time")
REMOVE_BY_HAND: Final = f"The container may still be on your endpoint; remove it with: docker rm -f {CONTAINER}"

# What the hub said in format 0, and what it said at the time the items of format 1 were frozen.
REWORDED: Final[Mapping[str, str]] = {
    "Opening the way to your notebook": "Publishing your notebook's address",
    "Closing the way to your notebook": "Withdrawing your notebook's address",
}
LAUNCHED: Final = (
    "Launch 1 of “lessons” on tcp://docker.example.org:2376",
    "Connected to Docker 20.10.24 at 203.0.113.7",
    "Pulling: 1 of 4 layers, 30 of 120 MB",
    "Creating the container",
    "Starting the container",
    "Waiting for JupyterLab to answer",
    "Publishing your notebook's address",
    "Your notebook is ready",
)
FORGETTING: Final = (*LAUNCHED, "Deleting your credentials; the notebook keeps running")
FORGOTTEN: Final = (
    "Your notebook is ready. Your credentials are deleted, so the hub can no longer stop or remove its container; do "
    f"that with: docker rm -f {CONTAINER}"
)
STOPPED: Final = (
    *LAUNCHED,
    "Withdrawing your notebook's address",
    "Stopping and removing the container",
    "Deleting your credentials",
    "Stopped: no container, no route and no credentials are left",
)
FAILED: Final = (
    *LAUNCHED,
    TIMED_OUT.message,
    "Stopping and removing the container",
    TIMED_OUT.message,
    REMOVE_BY_HAND,
    REMOVE_BY_HAND,
)

# Of each frozen item: state, version, when it is due and until when it is held (both in seconds after NOW), container,
# and the log's texts.
EXPECTED: Final[Mapping[str, tuple[State, int, float | None, float | None, str | None, tuple[str, ...]]]] = {
    "verifying": (State.VERIFYING, 1, 0.0, None, None, LAUNCHED[:1]),
    "verifying-delayed": (State.VERIFYING, 2, 1.5, None, None, (LAUNCHED[0], TIMED_OUT.message)),
    "pulling": (State.PULLING, 2, 2.5, 62.5, None, LAUNCHED[:2]),
    "pulling-halfway": (State.PULLING, 3, 5.0, 65.0, None, LAUNCHED[:3]),
    "creating": (State.CREATING, 4, 7.5, 67.5, CONTAINER, LAUNCHED[:4]),
    "starting": (State.STARTING, 5, 10.0, 70.0, CONTAINER, LAUNCHED[:5]),
    "probing": (State.PROBING, 6, 12.5, 72.5, CONTAINER, LAUNCHED[:6]),
    "publishing": (State.PUBLISHING, 7, 15.0, 75.0, CONTAINER, LAUNCHED[:7]),
    "ready": (State.READY, 8, 317.5, None, CONTAINER, LAUNCHED),
    "forgetting": (State.FORGETTING, 9, 20.0, 80.0, CONTAINER, FORGETTING),
    "ready-forgotten": (State.READY, 10, 322.5, None, CONTAINER, (*FORGETTING, FORGOTTEN)),
    "withdrawing": (State.WITHDRAWING, 9, 20.0, 80.0, CONTAINER, STOPPED[:9]),
    "removing": (State.REMOVING, 10, 22.5, 82.5, CONTAINER, STOPPED[:10]),
    "purging": (State.PURGING, 11, 25.0, 85.0, None, STOPPED[:11]),
    "stopped": (State.STOPPED, 12, None, None, None, STOPPED),
    "stopped-failed": (State.STOPPED, 12, None, None, CONTAINER, FAILED),
}


# The same of those that need format 2: state, version, launch, when it is due and until when it is held, container, and
# the launch that its credentials were stored for.
EXPECTED_FORMAT_2: Final[Mapping[str, tuple[State, int, int, float, float | None, str | None, int]]] = {
    "republishing": (State.REPUBLISHING, 8, 1, 17.5, 77.5, CONTAINER, 1),
    "kept": (State.KEPT, 13, 1, 1.5 * LIFETIME, None, None, 1),
    "kept-again": (State.KEPT, 14, 1, 32.5, 92.5, None, 1),
    "verifying-sealed": (State.VERIFYING, 15, 2, 35.0, 95.0, None, 1),
    "ready-sealed": (State.READY, 21, 2, 35.0 + LIFETIME, None, SECOND_CONTAINER, 1),
    "removing-sealed": (State.REMOVING, 23, 2, 55.0, 115.0, SECOND_CONTAINER, 1),
}

# Of format 3: state, version, the helper and whether it was seen, the versions, and the image.
EXPECTED_NEWEST: Final[Mapping[str, tuple[State, int, str, bool, tuple[str, ...], str]]] = {
    "resolving": (State.RESOLVING, 3, f"{CONTAINER}-resolve", False, (), ""),
    "resolving-helped": (State.RESOLVING, 4, f"{CONTAINER}-resolve", True, (), ""),
    "building": (State.BUILDING, 5, build_name(BUILT), False, VERSIONS, BUILT),
    "building-halfway": (State.BUILDING, 7, build_name(BUILT), True, VERSIONS, BUILT),
    "cloning": (State.CLONING, 10, f"{CONTAINER}-clone", True, VERSIONS, BUILT),
    "ready-built": (State.READY, 14, "", False, VERSIONS, BUILT),
}


def frozen(number: int) -> dict[str, Item]:
    """The frozen items of one format by case, in DynamoDB's notation.

    The files show the JSON in an item's `session` as JSON, for people to read; the stored form has it as text.
    """
    items = json.loads((FROZEN / f"sessions-format-{number}.json").read_text())["items"]
    return {case: with_values(item, item["session"]["JSON"]) for case, item in items.items()}


def a_life() -> Iterator[tuple[str, Session, float]]:
    """The sixteen cases, as today's machine makes them: case, session, and the time at which it is stored."""
    now = NOW
    session = new_session(
        owner=OWNER,
        name="lessons",
        endpoint="tcp://docker.example.org:2376",
        image=IMAGE,
        limits=Limits(memory=2 * 1024**3, cpus=1.5, gpus=-1),
        open_path="lessons/first.ipynb",
        now=now,
        lifetime=LIFETIME,
        request="request-1",
        label="",
    )
    yield "verifying", session, now
    yield "verifying-delayed", _after(session, e.EffectDelayed(TIMED_OUT), now + 1), now + 1
    ready = session
    launch: tuple[tuple[str, e.Event], ...] = (
        ("pulling", e.EndpointVerified("203.0.113.7", "20.10.24")),
        ("pulling-halfway", e.PullProgressed(0.25, "Pulling: 1 of 4 layers, 30 of 120 MB")),
        ("creating", e.ImagePresent()),
        ("starting", e.ContainerCreated()),
        ("probing", e.ContainerStarted(Target("203.0.113.7", 32768))),
        ("publishing", e.NotebookAnswered()),
        ("ready", e.RoutePublished()),
    )
    for case, event in launch:
        now += 2.5
        ready = _after(ready, event, now)
        yield case, ready, now
    ways_on: tuple[tuple[tuple[str, e.Event], ...], ...] = (
        (("forgetting", e.ForgetRequested()), ("ready-forgotten", e.CredentialsPurged())),
        (
            ("withdrawing", e.StopRequested()),
            ("removing", e.RouteWithdrawn()),
            ("purging", e.ContainerRemoved()),
            ("stopped", e.CredentialsPurged()),
        ),
        (
            ("", e.EffectFailed(TIMED_OUT)),
            ("", e.RouteWithdrawn()),
            ("", e.EffectFailed(TIMED_OUT)),
            ("stopped-failed", e.CredentialsPurged()),
        ),
    )
    for way in ways_on:
        session, later = ready, now
        for case, event in way:
            later += 2.5
            session = _after(session, event, later)
            if case:
                yield case, session, later


def a_second_life() -> Iterator[tuple[str, Session, float]]:
    """The cases of format 2, as today's machine makes them: a launch whose credentials are kept, and the next one."""
    now = NOW
    session = new_session(
        owner=OWNER,
        name="lessons",
        endpoint="tcp://docker.example.org:2376",
        image=IMAGE,
        limits=Limits(memory=2 * 1024**3),
        source=NETWORK,
        keeps=True,
        now=now,
        lifetime=LIFETIME,
        longest=2 * LIFETIME,
        request="request-1",
        label=LABEL,
    )
    launch: tuple[e.Event, ...] = (
        e.EndpointVerified("203.0.113.7", "20.10.24", "", HUB),
        e.ImagePresent(),
        e.ContainerCreated(),
        e.ContainerStarted(Target("203.0.113.7", 32768)),
        e.NotebookAnswered(),
        e.RoutePublished(),
    )
    leave: tuple[e.Event, ...] = (e.StopRequested(), e.RouteWithdrawn(), e.ContainerRemoved(), e.CredentialsKept())
    way: tuple[tuple[str, e.Event], ...] = (
        *(("", event) for event in launch),
        ("republishing", e.ExtendRequested(NOW + 1.5 * LIFETIME)),
        ("", e.RoutePublished()),
        *(("", event) for event in leave[:-1]),
        ("kept", leave[-1]),
        ("kept-again", e.AgainRequested(SECOND_LABEL, NETWORK)),
        ("verifying-sealed", e.LaunchedAgain(LIFETIME)),
        *(("", event) for event in launch[:-1]),
        ("ready-sealed", launch[-1]),
        ("", leave[0]),
        ("removing-sealed", leave[1]),
    )
    for case, event in way:
        now += 2.5
        session = _after(session, event, now)
        if case:
            yield case, session, now


def a_third_life() -> Iterator[tuple[str, Session, float]]:
    """The cases of format 3, as today's machine makes them: a repository is built, another's files are cloned."""
    now = NOW
    session = new_session(
        owner=OWNER,
        name="lessons",
        endpoint="tcp://docker.example.org:2376",
        image="",
        limits=Limits(),
        repository=Source(Provider.GITHUB, "https://github.com/somebody/lessons", "main", "environment"),
        content=Source(Provider.GIT, "https://git.example.org/data"),
        builder=BUILDER,
        now=now,
        lifetime=LIFETIME,
        request="request-1",
        label=LABEL,
    )
    way: tuple[tuple[str, e.Event], ...] = (
        ("", e.EndpointVerified("203.0.113.7", "20.10.24", "", HUB)),
        ("resolving", e.BuilderPresent()),
        ("resolving-helped", e.HelperStarted()),
        ("building", e.VersionsResolved(VERSIONS, BUILT)),
        ("", e.HelperStarted()),
        ("building-halfway", e.HelperProgressed(0.5, "Step 3/6 : RUN pip install")),
        ("", e.ImageBuilt(built=True)),
        ("", e.ContainerAwaitsFiles()),
        ("cloning", e.HelperStarted()),
        ("", e.FilesCloned("The files are in your work folder")),
        ("", e.ContainerStarted(Target("203.0.113.7", 32768))),
        ("", e.NotebookAnswered()),
        ("ready-built", e.RoutePublished()),
    )
    for case, event in way:
        now += 2.5
        session = _after(session, event, now)
        if case:
            yield case, session, now


def _after(session: Session, event: e.Event, now: float) -> Session:
    after = advance(session, event, now)
    return with_lease(after, "tick-1", lane_of(after), now)


def to_be_frozen() -> str:
    """Write today's items down, for a new file in tests/frozen: `python -m tests.unit.test_session_items > FILE`.

    Once, when session_items.NEWEST_FORMAT gets a new number, of sessions that need it. A file that is there is never
    written again: it is what a release stored.
    """
    blocks = []
    for case, session, now in a_third_life():
        item = item_of(session, now)
        item["session"] = {"JSON": json.loads(item["session"]["S"])}
        lines = [f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in item.items()]
        blocks.append(f" {json.dumps(case)}: {{\n" + ",\n".join(lines) + "\n }")
    return f'{{\n"format": {NEWEST_FORMAT},\n"items": {{\n' + ",\n".join(blocks) + "\n}\n}\n"


def values_in(item: Item) -> dict[str, Any]:
    """The JSON of an item."""
    return dict(json.loads(item["session"]["S"]))


def with_values(item: Item, values: object) -> Item:
    """The item with another JSON."""
    return {**item, "session": {"S": json.dumps(values, ensure_ascii=False, separators=(",", ":"))}}


FORMAT_2: Final = frozen(2)
NEWEST: Final = frozen(NEWEST_FORMAT)
ITEMS: Final = {(number, case): item for number in FORMATS for case, item in frozen(number).items()}
every_item = pytest.mark.parametrize(("number", "case"), ITEMS)
both_formats = pytest.mark.parametrize("number", FORMATS)


# ── what was stored ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_items_of_every_format_are_frozen() -> None:
    assert max(FORMATS) == FORMAT
    assert {FROZEN / f"sessions-format-{number}.json" for number in range(NEWEST_FORMAT + 1)} == set(
        FROZEN.glob("sessions-format-*.json")
    )
    for number in FORMATS:
        assert list(frozen(number)) == list(EXPECTED)
    assert list(FORMAT_2) == list(EXPECTED_FORMAT_2)
    assert list(NEWEST) == list(EXPECTED_NEWEST)


@every_item
def test_a_frozen_item_reads_as_the_session_it_was(number: int, case: str) -> None:
    session = session_of(ITEMS[number, case])
    state, version, due, held, container, texts = EXPECTED[case]
    assert (session.sid, session.state, session.version) == (SID, state, version)
    assert (session.generation, session.container, session.newer) == (1, container, False)
    assert session.next_attempt_at == (None if due is None else NOW + due)
    assert session.lease_expires_at == (0.0 if held is None else NOW + held)
    assert session.written_by == ("request-1" if case == "verifying" else "tick-1")
    assert tuple(REWORDED.get(line.text, line.text) for line in session.log) == texts
    assert [line.number for line in session.log] == list(range(1, len(texts) + 1))


@both_formats
def test_a_session_that_was_just_submitted_reads_field_by_field(number: int) -> None:
    assert session_of(ITEMS[number, "verifying"]) == Session(
        sid=SID,
        owner=OWNER,
        name="lessons",
        generation=1,
        version=1,
        state=State.VERIFYING,
        endpoint="tcp://docker.example.org:2376",
        image=IMAGE,
        limits=Limits(memory=2 * 1024**3, cpus=1.5, gpus=-1),
        open_path="lessons/first.ipynb",
        written_by="request-1",
        message="Connecting to your Docker endpoint",
        log=(Line(1, NOW, LAUNCHED[0]),),
        created_at=NOW,
        entered_at=NOW,
        last_news_at=NOW,
        next_attempt_at=NOW,
        expires_at=NOW + LIFETIME,
    )


@both_formats
def test_a_session_in_its_pull_and_in_trouble_reads_field_by_field(number: int) -> None:
    delayed, pulling = session_of(ITEMS[number, "verifying-delayed"]), session_of(ITEMS[number, "pulling-halfway"])
    assert (delayed.last_problem, delayed.attempts, delayed.message) == (TIMED_OUT, 1, TIMED_OUT.message)
    assert (delayed.entered_at, delayed.last_news_at) == (NOW, NOW + 1)
    assert (pulling.fraction, pulling.message, pulling.address) == (0.25, LAUNCHED[2], "203.0.113.7")
    assert (pulling.entered_at, pulling.last_news_at) == (NOW + 2.5, NOW + 5)
    assert [line.at for line in pulling.log] == [NOW, NOW + 2.5, NOW + 5]
    assert [line.progress for line in pulling.log] == [False, False, number > 0]


@both_formats
def test_a_ready_session_reads_field_by_field(number: int) -> None:
    ready, forgotten = session_of(ITEMS[number, "ready"]), session_of(ITEMS[number, "ready-forgotten"])
    assert (ready.target, ready.credentials_held) == (Target("203.0.113.7", 32768), True)
    assert (ready.failure, ready.last_problem, ready.attempts) == (None, None, 0)
    assert (forgotten.target, forgotten.credentials_held) == (ready.target, False)
    assert forgotten.message == FORGOTTEN


@both_formats
def test_a_session_that_failed_reads_field_by_field(number: int) -> None:
    failed, stopped = session_of(ITEMS[number, "stopped-failed"]), session_of(ITEMS[number, "stopped"])
    assert (failed.failure, failed.message) == (TIMED_OUT, REMOVE_BY_HAND)
    assert (failed.target, failed.credentials_held, failed.expires_at) == (None, False, NOW + LIFETIME)
    assert (stopped.failure, stopped.message, stopped.credentials_held) == (None, STOPPED[-1], False)


@pytest.mark.parametrize("case", EXPECTED_NEWEST)
def test_a_frozen_item_of_format_3_reads_as_the_session_it_was_and_is_written_again_as_it_was(case: str) -> None:
    session = session_of(NEWEST[case])
    state, version, helper, helps, versions, image = EXPECTED_NEWEST[case]
    assert (session.state, session.version, session.newer) == (state, version, False)
    assert (session.helper, session.helps, session.versions, session.image) == (helper, helps, versions, image)
    assert session == next(one for name, one, _ in a_third_life() if name == case)
    assert item_of(session, NOW) == in_steps(NEWEST[case])


@pytest.mark.parametrize("case", FORMAT_2)
def test_a_frozen_item_of_format_2_reads_as_the_session_it_was_and_is_written_again_as_it_was(case: str) -> None:
    session = session_of(FORMAT_2[case])
    state, version, generation, due, held, container, sealed_for = EXPECTED_FORMAT_2[case]
    assert (session.state, session.version, session.generation, session.newer) == (state, version, generation, False)
    assert (session.next_attempt_at, session.lease_expires_at) == (NOW + due, NOW + held if held else 0.0)
    assert (session.container, session.credentials_of, session.credentials_held) == (container, sealed_for, True)
    assert item_of(session, session.last_news_at) == in_steps(FORMAT_2[case])


def test_a_session_whose_credentials_are_kept_reads_field_by_field() -> None:
    kept = Session(
        sid=SID,
        owner=OWNER,
        name="lessons",
        generation=1,
        label=LABEL,
        hub=HUB,
        version=13,
        state=State.KEPT,
        endpoint="tcp://docker.example.org:2376",
        image=IMAGE,
        limits=Limits(memory=2 * 1024**3),
        keeps=True,
        address="203.0.113.7",
        written_by="tick-1",
        message=KEPT,
        log=(
            Line(12, NOW + 27.5, "Seeing that your credentials are kept", place=12),
            Line(13, NOW + 30, KEPT, place=13),
        ),
        created_at=NOW,
        entered_at=NOW + 30,
        last_news_at=NOW + 30,
        next_attempt_at=NOW + 1.5 * LIFETIME,
        expires_at=NOW + 1.5 * LIFETIME,
        longest_until=NOW + 2 * LIFETIME,
    )
    assert session_of(FORMAT_2["kept"]) == kept
    again = session_of(FORMAT_2["kept-again"])
    assert (again.again, again.source, again.phase) == (SECOND_LABEL, NETWORK, Phase.LEAVING)


def test_a_launch_with_credentials_of_the_one_before_reads_field_by_field() -> None:
    assert session_of(FORMAT_2["ready-sealed"]) == Session(
        sid=SID,
        owner=OWNER,
        name="lessons",
        generation=2,
        label=SECOND_LABEL,
        hub=HUB,
        version=21,
        state=State.READY,
        endpoint="tcp://docker.example.org:2376",
        image=IMAGE,
        limits=Limits(memory=2 * 1024**3),
        source=NETWORK,
        keeps=True,
        sealed_in=1,
        address="203.0.113.7",
        container=SECOND_CONTAINER,
        target=Target("203.0.113.7", 32768),
        written_by="tick-1",
        message=LAUNCHED[-1],
        log=(Line(20, NOW + 47.5, LAUNCHED[-2], place=6), Line(21, NOW + 50, LAUNCHED[-1], place=7)),
        created_at=NOW + 35,
        entered_at=NOW + 50,
        last_news_at=NOW + 50,
        next_attempt_at=NOW + 35 + LIFETIME,
        expires_at=NOW + 35 + LIFETIME,
        longest_until=NOW + 2 * LIFETIME,
    )


def test_all_formats_read_alike_but_for_what_only_a_later_one_has() -> None:
    for case in EXPECTED:
        old, new = session_of(ITEMS[0, case]), session_of(ITEMS[1, case])
        retold = tuple(replace(line, text=REWORDED.get(line.text, line.text)) for line in old.log)
        old = replace(old, message=REWORDED.get(old.message, old.message), log=retold)
        assert old == replace(new, log=tuple(replace(line, progress=False) for line in new.log)), case


@every_item
def test_a_frozen_item_is_written_again_in_the_present_format_and_reads_the_same(number: int, case: str) -> None:
    session = session_of(ITEMS[number, case])
    item = item_of(session, NOW)
    assert item["format"] == {"N": str(FORMAT)}
    assert session_of(item) == session
    assert sid_of(item) == SID
    assert ("redrive" in item, "ttl" in item) == (session.state is not State.STOPPED, session.state is State.STOPPED)


def test_todays_sessions_are_read_as_they_were_written() -> None:
    for case, session, now in (*a_life(), *a_second_life(), *a_third_life()):
        assert session_of(item_of(session, now)) == session, case


def as_frozen(session: Session) -> Item:
    """The session's item as it was written when those of the present format were frozen: without what came later."""
    item = item_of(session, session.last_news_at)
    del item["listed"]
    assert ("ring" in item) is (session.state is State.READY)
    item.pop("ring", None)
    if "redrive" in item:
        assert item["redrive"] == {"S": shard_of(lane_of(session))}
        item["redrive"] = {"S": "due"}
    values = values_in(item)
    for line in values["log"]:
        del line["place"]
    return with_values(item, values)


def test_an_item_of_the_present_format_is_written_again_as_it_was_frozen() -> None:
    for case in EXPECTED:
        assert as_frozen(session_of(ITEMS[FORMAT, case])) == in_steps(ITEMS[FORMAT, case]), case


# ── every field ──────────────────────────────────────────────────────────────────────────────────────────────────────

CHANGED: Final[Mapping[str, Any]] = {
    "sid": "0123456789abcdefghij",
    "owner": "cd" * 32,
    "name": "Übung 笔记 🛳",
    "generation": 3,
    "label": "zzzzzzzzzz",
    "hub": "homeport-prod-0123456789abcdef",
    "source": "198.51.100.7/32",
    "repository": Source(Provider.GITLAB, "https://gitlab.com/a/b/c", "v1", "environment"),
    "content": Source(Provider.ZENODO, "10.5281/zenodo.3242074"),
    "builder": BUILDER,
    "helper": "homeport-0123456789abcdefghij-3-clone",
    "helps": True,
    "versions": ("c" * 40, "3242074"),
    "keeps": True,
    "again": "yyyyyyyyyy",
    "deletes": True,
    "sealed_in": 2,
    "saving": "localhost/lessons:2026-11-29",
    "commits": 1,
    "tidying": "all",
    "longest_until": NOW + 2.3,
    "queued": True,
    "pull_waits": True,
    "admitted": True,
    "steady": True,
    "progressed_at": NOW + 2,
    "version": 17,
    "state": State.READY,
    "endpoint": "tcp://[2001:db8::1]:2376",
    "image": "registry.example.org/a:b",
    "limits": Limits(memory=2**31, cpus=0.25, gpus=-1, shm=2**30),
    "options": Options(DataFolder("/srv/übung", writable=True), ("A", "B_1"), Ports(40000, 40010), PullPolicy.ALWAYS),
    "open_path": "a/b c.ipynb",
    "address": "2001:db8::1",
    "container": "homeport-0123456789abcdefghij-3",
    "creations": 2,
    "unsettled_until": NOW + 180.5,
    "target": Target("2001:db8::1", 65535),
    "credentials_held": False,
    "written_by": "tick-1",
    "lease_expires_at": NOW + 0.1,
    "fraction": 1 / 3,
    "message": "a “message”",
    "failure": Failure("a-code", "a failure"),
    "last_problem": Failure("another-code", "a problem"),
    "attempts": 5,
    "log": (Line(4, NOW + 0.3, "four", place=2), Line(5, NOW + 0.7, "five", progress=True, place=3)),
    "created_at": NOW + 0.7,
    "entered_at": NOW + 1.1,
    "last_news_at": NOW + 1.3,
    "next_attempt_at": NOW + 1.7,
    "expires_at": NOW + 1.9,
}


def test_every_field_of_a_session_is_kept() -> None:
    """A field that is added to Session is stored, or this fails. `newer` is not: it says how the item was read."""
    assert set(CHANGED) == {field.name for field in fields(Session)} - {"newer"}
    whole = a_session(**CHANGED)
    assert session_of(item_of(whole, NOW)) == whole
    for name, value in CHANGED.items():
        assert getattr(a_session(), name) != value, "the example must not be the default"
        changed = a_session(**{name: value})
        assert session_of(item_of(changed, NOW)) == changed, name


@pytest.mark.parametrize("field", ["address", "target"])
@pytest.mark.parametrize("address", ["docker.example.org", "203.0.113.7/8", "203.0.113.7 evil", ""])
def test_what_is_no_address_is_not_read_as_one(field: str, address: str) -> None:
    item = item_of(a_session(address="203.0.113.7", target=Target("203.0.113.7", 1)), NOW)
    values = values_in(item)
    values[field] = {"address": address, "port": 1} if field == "target" else address
    assert session_of(with_values(item, values)).failure == UNREADABLE


# ── the label ────────────────────────────────────────────────────────────────────────────────────────────────────────


@every_item
def test_a_session_that_was_stored_before_launches_had_labels_keeps_its_id_as_its_host(number: int, case: str) -> None:
    session = session_of(ITEMS[number, case])
    assert (session.label, session.host) == ("", SID)
    assert "label" not in item_of(session, NOW)


def test_a_label_is_one_more_attribute_of_the_item_and_changes_nothing_else_of_it() -> None:
    for case in EXPECTED:
        session = session_of(ITEMS[FORMAT, case])
        labelled = {**ITEMS[FORMAT, case], "label": {"S": LABEL}}
        assert session_of(labelled) == replace(session, label=LABEL), case
        assert as_frozen(replace(session, label=LABEL)) == in_steps(labelled), case


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"state": "ready"', '{"label": "another"}'])
def test_the_label_of_an_item_that_cannot_be_read_is_known_all_the_same(text: str) -> None:
    """Without it nobody could withdraw the launch's route."""
    item = {**ITEMS[FORMAT, "ready"], "label": {"S": LABEL}, "session": {"S": text}}
    assert_on_its_way_out(session_of(item), item)
    assert session_of(item).host == f"{SID}-{LABEL}"


def test_the_label_of_an_item_of_a_later_format_is_known() -> None:
    item = {**ITEMS[FORMAT, "ready"], "label": {"S": LABEL}, "format": {"N": str(NEWEST_FORMAT + 1)}}
    assert (session_of(item).newer, session_of(item).host) == (True, f"{SID}-{LABEL}")
    unreadable = {**item, "label": {"L": []}}
    assert (session_of(unreadable).newer, session_of(unreadable).host) == (True, SID)


def test_a_label_that_is_no_text_sets_the_session_on_its_way_out() -> None:
    labels: tuple[dict[str, Any], ...] = ({"N": "7"}, {"BOOL": True}, {"NULL": True}, {"L": []})
    for label in labels:
        item = {**ITEMS[FORMAT, "ready"], "label": label}
        assert_on_its_way_out(session_of(item), item)
        assert session_of(item).host == SID


# ── whose the container is, and what may still come of its creation ──────────────────────────────────────────────────


def test_the_hub_is_one_more_attribute_of_the_item_and_changes_nothing_else_of_it() -> None:
    for case in EXPECTED:
        session = session_of(ITEMS[FORMAT, case])
        assert session.hub == "", case
        labelled = {**ITEMS[FORMAT, case], "hub": {"S": HUB}}
        assert session_of(labelled) == replace(session, hub=HUB), case
        assert as_frozen(replace(session, hub=HUB)) == in_steps(labelled), case


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"state": "ready"', '{"hub": "another"}'])
def test_the_hub_of_an_item_that_cannot_be_read_is_known_all_the_same(text: str) -> None:
    """Without it nobody could remove the launch's container."""
    item = {**ITEMS[FORMAT, "ready"], "hub": {"S": HUB}, "session": {"S": text}}
    assert_on_its_way_out(session_of(item), item)
    assert session_of(item).hub == HUB
    later = {**ITEMS[FORMAT, "ready"], "hub": {"S": HUB}, "format": {"N": str(NEWEST_FORMAT + 1)}}
    assert (session_of(later).newer, session_of(later).hub) == (True, HUB)


@every_item
def test_nothing_is_unsettled_of_a_session_that_was_stored_before_creations_were_counted(
    number: int, case: str
) -> None:
    session = session_of(ITEMS[number, case])
    assert (session.creations, session.unsettled_until) == (0, 0.0)
    unsettled = replace(session, creations=2, unsettled_until=NOW + 180)
    assert session_of(item_of(unsettled, NOW)) == unsettled
    assert values_in(item_of(unsettled, NOW)).keys() - values_in(item_of(session, NOW)).keys() == {
        "creations",
        "unsettled_until",
    }


# ── what a list shows ────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_a_list_shows_is_beside_what_it_does_not() -> None:
    for case, session, now in a_life():
        item = item_of(session, now)
        shown = {name: item[name] for name in ("pk", "created_at", "listed")}
        assert summary_of(shown) == session.summary, case


def test_a_list_shows_nothing_that_a_pull_changes() -> None:
    session = a_session(state=State.PULLING)
    before = item_of(session, NOW)
    session = advance(advance(session, e.PullProgressed(0.5, "half"), NOW + 1), e.EffectDelayed(TIMED_OUT), NOW + 2)
    after = item_of(with_lease(session, "tick-1", Lane.PULL, NOW + 2), NOW + 2)
    indexed = ("pk", "sk", "owner", "created_at", "listed")
    assert {name: after[name] for name in indexed} == {name: before[name] for name in indexed}


@every_item
def test_what_a_list_shows_of_a_session_that_was_stored_before_is_in_the_session(number: int, case: str) -> None:
    assert summary_of(ITEMS[number, case]) is None
    summary = session_of(ITEMS[number, case]).summary
    assert (summary.sid, summary.name, summary.failed) == (SID, "lessons", case == "stopped-failed")


@pytest.mark.parametrize(
    "junk",
    [{"S": ""}, {"S": "[]"}, {"S": "7"}, {"S": "{}"}, {"S": "[" * 100_000}, {"N": "7"}, {"NULL": True},
     {"S": '{"name":7,"endpoint":"","phase":"ready","failed":false}'},
     {"S": '{"name":"","endpoint":"","phase":"sleeping","failed":false}'}],
)  # fmt: skip
def test_what_cannot_be_read_of_a_list_is_none(junk: Mapping[str, Any]) -> None:
    assert summary_of({**item_of(a_session(), NOW), "listed": junk}) is None


# ── the lines beside the session ─────────────────────────────────────────────────────────────────────────────────────


def test_a_line_beside_its_session_reads_as_it_was_written() -> None:
    line = Line(4, NOW + 0.3, "Pulling: “4” of 笔记", progress=True, place=3)
    item = line_item_of(a_session(generation=7), line, NOW)
    assert item["pk"] == item_of(a_session(), NOW)["pk"]
    assert line_of(item, 7) == line
    assert line_of({**item, "later": {"M": {}}}, 7) == line
    assert line_of(item, 6) is None
    assert int(item["ttl"]["N"]) <= NOW + STOPPED_TTL


def test_a_launch_has_as_many_places_as_lines_are_shown_whatever_happens() -> None:
    places = {line_item_of(a_session(), Line(n, NOW, "x", place=n), NOW)["sk"]["S"] for n in range(1, 10_000)}
    assert len(places) == LOG_LINES
    assert all(place.startswith(LINES) for place in places)
    assert not item_of(a_session(), NOW)["sk"]["S"].startswith(LINES)


@pytest.mark.parametrize("junk", ["", "[]", "7", "{}", "[" * 100_000, '{"number":"x","at":1,"text":"x"}'])
def test_a_line_that_cannot_be_read_is_none(junk: str) -> None:
    item = line_item_of(a_session(), Line(1, NOW, "x", place=1), NOW)
    assert line_of({**item, "line": {"S": junk}}, 1) is None
    assert line_of({name: item[name] for name in ("pk", "sk", "line")}, 1) is None


# ── size ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

LONGEST: Final = "\N{CJK UNIFIED IDEOGRAPH-20000}" * 5000  # four bytes a character, the most there are


def test_a_usual_session_is_a_kilobyte_or_two() -> None:
    sizes = {case: size_of(item_of(session, now)) for case, session, now in a_life()}
    assert max(sizes.values()) < 1536, sizes


# The longest that forms let through, in the longest characters that each field allows.
ASKED_FOR: Final = {
    "name": "\N{CJK UNIFIED IDEOGRAPH-20000}" * 63,
    "endpoint": f"tcp://{'a' * 253}:65535",
    "image": "a" * 255,
    "open_path": "\N{CJK UNIFIED IDEOGRAPH-20000}" * 200,
}


@pytest.mark.parametrize(("asked_for", "limit"), [({}, 4096), (ASKED_FOR, 8192)])
def test_no_engine_makes_a_session_larger_however_much_it_says_and_however_often(
    asked_for: dict[str, str], limit: int
) -> None:
    """40 lines of 200 characters used to be 33 kB, which were written once a second for as long as the engine liked."""
    largest = 0
    session = a_session(state=State.PULLING, **asked_for)
    for number in range(300):
        failed = pull_error(f"{number} {LONGEST}")
        for event in (e.PullProgressed(number / 300, f"{number} {LONGEST}"),
                      e.EffectDelayed(Failure(failed.code, failed.message))):  # fmt: skip
            session = advance(session, event, NOW + number)
            largest = max(largest, size_of(item_of(session, NOW)))
    assert largest < limit


def in_steps(item: Mapping[str, Any]) -> dict[str, Any]:
    """A frozen item as it is written today, when `redrive_at` is rounded up."""
    if "redrive_at" not in item:
        return dict(item)
    stepped = math.ceil(float(item["redrive_at"]["N"]) / REDRIVE_STEP) * REDRIVE_STEP
    return {**item, "redrive_at": {"N": str(stepped)}}


# ── the index and the time to live ───────────────────────────────────────────────────────────────────────────────────


def test_what_is_due_is_in_the_index_and_what_is_stopped_has_a_time_to_live() -> None:
    waiting = item_of(a_session(next_attempt_at=NOW + 5), NOW)
    held = item_of(a_session(next_attempt_at=NOW + 5, lease_expires_at=NOW + 60), NOW)
    stopped = item_of(a_session(state=State.STOPPED, next_attempt_at=None), NOW)
    assert (waiting["redrive"], float(waiting["redrive_at"]["N"])) == ({"S": "launch"}, NOW + 20)
    assert float(held["redrive_at"]["N"]) == NOW + 60
    assert NOW % REDRIVE_STEP == 0
    assert "ttl" not in waiting
    assert "redrive" not in stopped
    assert "redrive_at" not in stopped
    assert stopped["ttl"] == {"N": str(int(NOW + STOPPED_TTL))}


# ── what else an item may hold ───────────────────────────────────────────────────────────────────────────────────────

# The fields that no session can be without; every other one has a default.
NEEDED: Final = {"owner", "generation", "state"}
ATTRIBUTES: Final = ("owner", "generation", "created_at", "expires_at")
OLD_NAMES: Final[Mapping[str, str]] = {
    "holder": "written_by",
    "held_until": "lease_expires_at",
    "heard_at": "last_news_at",
    "trouble": "last_problem",
    "due_at": "next_attempt_at",
}


def assert_on_its_way_out(session: Session, item: Item, generation: int = 1) -> None:
    """Rule 4: whatever could not be read, route, container and credentials of this session will be gone."""
    stopped = "redrive" not in item
    assert session.state is (State.STOPPED if stopped else State.WITHDRAWING)
    assert (session.next_attempt_at is None) is stopped
    assert (session.sid, session.generation) == (SID, generation)
    assert session.version == int(item["version"]["N"])
    assert session.container == container_name(SID, generation)
    assert (session.failure, session.message, session.newer) == (UNREADABLE, UNREADABLE.message, False)
    assert session_of(item_of(session, NOW)) == session


def assert_is_one_or_on_its_way_out(session: Session, item: Item) -> None:
    """Whatever an item holds, its session can be driven on, stopped, stored and read again."""
    assert (session.sid, session.version) == (SID, int(item["version"]["N"]))
    assert (session.next_attempt_at is None) is (session.state is State.STOPPED)
    assert session.state is not State.STOPPED or "redrive" not in item
    assert session_of(item_of(session, NOW)) == replace(session, newer=False)


def deepened(value: object) -> object:
    """The value with an unknown entry in every object of it."""
    if isinstance(value, dict):
        return {name: deepened(part) for name, part in value.items()} | {"later": {"a": [1]}}
    return [deepened(part) for part in value] if isinstance(value, list) else value


@both_formats
def test_fields_that_nobody_knows_do_no_harm_on_any_level(number: int) -> None:
    for case in EXPECTED:
        item = with_values(ITEMS[number, case], deepened(values_in(ITEMS[number, case])))
        assert session_of({**item, "later": {"M": {"a": {"N": "1"}}}}) == session_of(ITEMS[number, case]), case


@every_item
def test_a_field_that_is_missing_has_a_default_or_the_session_is_on_its_way_out(number: int, case: str) -> None:
    item = ITEMS[number, case]
    for name in values_in(item):
        values = values_in(item)
        del values[name]
        shorter = with_values(item, values)
        if number == 0:
            shorter = {key: value for key, value in shorter.items() if key != name or key == "version"}
        check_without(shorter, item, OLD_NAMES.get(name, name))
    for name in ATTRIBUTES if number > 0 else ():
        check_without({key: value for key, value in item.items() if key != name}, item, name)


def check_without(shorter: Item, item: Item, name: str) -> None:
    before, after = session_of(item), session_of(shorter)
    if name in NEEDED:
        told = name != "generation" or before.container is not None
        assert_on_its_way_out(after, shorter, generation=1 if told else before.version)
        return
    assert replace(after, **{name: getattr(before, name)}) == before, name
    if name not in ("sid", "version"):
        assert getattr(after, name) == default_of(name, before), name


def default_of(name: str, session: Session) -> object:
    """What a missing field is: Session's own default, or a time that is as early as can be, or nothing."""
    if name in ("entered_at", "last_news_at", "expires_at"):
        return session.created_at
    if name == "next_attempt_at":
        return None if session.state is State.STOPPED else session.created_at
    if name in ("name", "endpoint", "image"):
        return ""
    if name == "created_at":
        return 0.0
    return next(field.default for field in fields(Session) if field.name == name)


@both_formats
@pytest.mark.parametrize("moment", [-1.0, 253402300800.0, 1e20])
def test_a_time_that_no_date_can_show_sets_the_session_on_its_way_out(number: int, moment: float) -> None:
    item = ITEMS[number, "ready"]
    values = values_in(item)
    for name in (
        "entered_at",
        "heard_at" if number == 0 else "last_news_at",
        "due_at" if number == 0 else "next_attempt_at",
    ):
        assert_on_its_way_out(session_of(with_values(item, values | {name: moment})), item, session_of(item).generation)
    made = session_of({**item, "created_at": {"N": repr(moment)}})
    assert made.state is State.WITHDRAWING
    assert made.created_at == 0.0


JUNK: Final[tuple[Any, ...]] = (None, True, -1, 7, 0.5, 1e400, 10**400, float("nan"), "x", "", [], [7], {}, {"a": 1})


@both_formats
@pytest.mark.parametrize("case", ["verifying-delayed", "pulling-halfway", "ready", "removing", "stopped-failed"])
def test_a_field_of_a_wrong_type_sets_the_session_on_its_way_out(number: int, case: str) -> None:
    item = ITEMS[number, case]
    for name, value in values_in(item).items():
        if number == 0 and name in ("sid", "version", "owner", "created_at"):
            continue  # the item's attributes of that name count
        for junk in wrong_for(OLD_NAMES.get(name, name), value):
            broken = with_values(item, values_in(item) | {name: junk})
            told = name != "generation" or session_of(item).container is not None
            generation = 1 if told else session_of(item).version
            assert_on_its_way_out(session_of(broken), broken, generation)


def wrong_for(name: str, value: object) -> Iterator[object]:
    """The junk that is no value of the field, of which one is given."""
    optional = name in ("address", "container", "target", "fraction", "failure", "last_problem")
    numeric = name.endswith("_at") or name == "fraction"
    for junk in JUNK:
        known = type(junk)
        if junk is None:
            fits = optional or (name == "next_attempt_at" and value is None)
        elif name == "next_attempt_at" and value is None:
            fits = False
        elif numeric:
            fits = known in (int, float) and abs(junk) < 1e300
        elif name in ("attempts", "generation"):
            fits = known is int and junk >= 0
        elif name in ("limits", "log"):
            fits = junk in ([], {}, {"a": 1}) and known is type(value)
        elif name in ("target", "failure", "last_problem"):
            fits = False
        else:
            fits = known is (bool if name == "credentials_held" else str) and (name != "state")
        if not fits:
            yield junk


@both_formats
@pytest.mark.parametrize(
    ("name", "junk"),
    [
        ("limits", {"memory": "2g"}),
        ("limits", {"memory": -1}),
        ("limits", {"cpus": True}),
        ("limits", {"gpus": 1.5}),
        ("limits", {"shm": "1g"}),
        ("options", {"data": {"path": 7}}),
        ("options", {"data": {"path": "/srv", "writable": "yes"}}),
        ("options", {"environment": "A"}),
        ("options", {"environment": [7]}),
        ("options", {"ports": {"first": 40000}}),
        ("options", {"pull": "often"}),
        ("target", {"address": "203.0.113.7"}),
        ("target", {"address": 7, "port": 80}),
        ("target", {"address": "203.0.113.7", "port": "80"}),
        ("failure", {"code": "a-code"}),
        ("failure", {"code": None, "message": "it failed"}),
        ("log", [{"number": 1, "at": NOW}]),
        ("log", [{"number": 1, "at": "now", "text": "one"}]),
        ("log", [{"number": 1, "at": NOW, "text": "one", "progress": 1}]),
        ("log", [None]),
    ],
)
def test_a_part_of_a_wrong_type_sets_the_session_on_its_way_out(number: int, name: str, junk: object) -> None:
    for case in ("ready", "stopped"):
        broken = with_values(ITEMS[number, case], values_in(ITEMS[number, case]) | {name: junk})
        assert_on_its_way_out(session_of(broken), broken, generation=1)


@pytest.mark.parametrize("name", [*ATTRIBUTES, "format"])
def test_an_attribute_of_a_wrong_type_sets_the_session_on_its_way_out(name: str) -> None:
    kinds: tuple[Mapping[str, Any], ...] = (
        {"S": "x"},
        {"NULL": True},
        {"L": []},
        {"M": {}},
        {"BOOL": True},
        {"SS": ["a"]},
        {"N": "-1.5"},
    )
    good = {"owner": "S", "created_at": "N", "expires_at": "N"}
    for junk in (kind for kind in kinds if good.get(name) not in kind):
        for case in ("verifying", "ready", "stopped-failed"):
            broken = {**ITEMS[1, case], name: junk}
            assert_on_its_way_out(session_of(broken), broken, generation=1)  # the first one's version is 1, too


def test_what_is_no_json_sets_the_session_on_its_way_out_with_what_else_is_known() -> None:
    for number in FORMATS:
        for case in ("creating", "stopped"):
            item = ITEMS[number, case]
            cut = {**item, "session": {"S": item["session"]["S"][:-1]}}
            assert_on_its_way_out(session_of(cut), cut, generation=1)
            for junk in ({"S": ""}, {"S": "{"}, {"S": "[" * 100_000}, {"S": "9" * 5000}, {"N": "1"}, {"NULL": True}):
                broken = {**item, "session": junk}
                assert_on_its_way_out(session_of(broken), broken, 1 if number > 0 else int(item["version"]["N"]))
                assert session_of(broken).owner == OWNER


def test_an_item_without_its_json_is_on_its_way_out() -> None:
    for case in EXPECTED:
        bare = {name: value for name, value in ITEMS[1, case].items() if name != "session"}
        assert_on_its_way_out(session_of(bare), bare)


def test_an_item_of_a_later_format_is_read_as_far_as_it_can_be_and_said_to_be_newer() -> None:
    for case in EXPECTED:
        item, known = {**ITEMS[1, case], "format": {"N": "99"}}, session_of(ITEMS[1, case])
        assert session_of(item) == replace(known, newer=True, message=NEWER), case


@pytest.mark.parametrize("case", ["ready", "stopped"])
def test_a_later_format_may_change_everything_but_the_attributes(case: str) -> None:
    item = {**ITEMS[1, case], "format": {"N": "99"}}
    for name in values_in(item):
        for junk in JUNK:
            changed = with_values(item, values_in(item) | {name: junk})
            session = session_of(changed)
            assert (session.newer, session.owner, session.generation) == (True, OWNER, 1)
            assert_is_one_or_on_its_way_out(session, changed)
    emptied = with_values(item, {"state": "sleeping"})
    assert session_of(emptied).state is (State.STOPPED if case == "stopped" else State.READY)


json_values: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8"), max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=100)
@given(
    st.sampled_from(sorted(ITEMS)),
    st.dictionaries(st.sampled_from([*CHANGED, *OLD_NAMES]), json_values, max_size=4),
    st.sampled_from([None, {"N": "0"}, {"N": "1"}, {"N": "2"}, {"S": "x"}]),
)
def test_any_values_of_any_fields_give_a_session(
    key: tuple[int, str], changes: dict[str, object], stored_format: dict[str, str] | None
) -> None:
    item = dict(copy.deepcopy(ITEMS[key]))
    if stored_format:
        item["format"] = stored_format
    changed = with_values(item, values_in(item) | changes)
    assert_is_one_or_on_its_way_out(session_of(changed), changed)


@given(st.sampled_from(sorted(ITEMS)), json_values)
def test_any_json_gives_a_session(key: tuple[int, str], value: object) -> None:
    changed = with_values(ITEMS[key], value)
    assert_is_one_or_on_its_way_out(session_of(changed), changed)


@given(st.sampled_from(sorted(ITEMS)), st.text(max_size=40))
def test_any_text_gives_a_session(key: tuple[int, str], text: str) -> None:
    changed = {**ITEMS[key], "session": {"S": text}}
    assert_is_one_or_on_its_way_out(session_of(changed), changed)


if __name__ == "__main__":
    sys.stdout.write(to_be_frozen())
