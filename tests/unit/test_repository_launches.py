"""Launches of repositories: resolved, built and cloned by helpers, killed at any instruction, stopped, shared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from chalicelib.launcher.helped import helper_error
from chalicelib.repository.answers import report_of
from chalicelib.repository.source import Provider, Source
from chalicelib.repository.tag import build_name, image_name
from chalicelib.session.machine import BUILD_SLACK, PATIENCE, SETTLE_SECONDS, PullPatience
from chalicelib.session.narration import progress
from chalicelib.session.values import Phase, Session, State, container_name, helper_name
from chalicelib.web.json import session_json
from tests.launcher_twins import HelperTwin, answer
from tests.world import BUILDER, CONTENT, IMAGE, REPOSITORY, World

OTHER = Source(Provider.GITHUB, "https://github.com/somebody/other")
ALLOWED = "gh/somebody/*, git/https://git.example.org/data"
BOTH = [(REPOSITORY, None), (None, CONTENT), (REPOSITORY, CONTENT)]


def at_rest(world: World, sid: str) -> Session:
    world.settle()
    world.assert_at_rest()
    assert world.engine.helpers == {}
    return world.session(sid)


def states(world: World, sid: str) -> list[State]:
    """The states that the session was in, in turn."""
    found = [session.state for session in world.store.history if session.sid == sid]
    return [state for state, before in zip(found, [None, *found], strict=False) if state is not before]


def lines(world: World, sid: str) -> list[str]:
    return [line.text for line in world.hub.lines(world.session(sid))]


def failing(task: str, exit_code: int, log: str) -> Callable[[HelperTwin], tuple[int, str] | None]:
    """Have the helpers of that task fail."""
    return lambda helper: (exit_code, log) if helper.specification.labels["homeport.task"] == task else None


def built(world: World, source: Source = REPOSITORY) -> str:
    return image_name(source, world.engine.version, BUILDER)


# ── all is well ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_repository_is_resolved_built_and_launched() -> None:
    world = World()
    sid = world.launch_repository("lessons")
    after = at_rest(world, sid)
    assert (after.state, after.image, after.versions) == (State.READY, built(world), (world.engine.version,))
    assert world.engine.containers[container_name(sid, 1)].specification.image == built(world)
    assert states(world, sid)[:6] == [
        State.VERIFYING,
        State.PULLING,
        State.RESOLVING,
        State.BUILDING,
        State.CREATING,
        State.STARTING,
    ]
    assert f"somebody/lessons is at {world.engine.version}" in lines(world, sid)
    assert "The image is built" in lines(world, sid)
    assert world.hub.build_log(after).startswith("Step 2/2")
    shown = session_json(after, "https://x", after.created_at)
    assert shown["repository"] is not None
    assert (shown["repository"]["version"], shown["content"]) == (world.engine.version, None)


def test_the_same_version_is_not_built_again() -> None:
    world = World()
    first = world.launch_repository("lessons")
    at_rest(world, first)
    second = world.launch_repository("more lessons")
    assert at_rest(world, second).image == built(world)
    assert world.engine.builds == 1
    assert "The image of this version was built before" in lines(world, second)


def test_another_version_is_built_anew_and_a_launch_again_asks_for_the_version_once_more() -> None:
    world = World()
    sid = world.launch_repository("lessons")
    first = at_rest(world, sid).image
    world.engine.version = "d" * 40
    world.launch_again(sid)
    after = at_rest(world, sid)
    assert (after.generation, after.versions, after.image) == (2, ("d" * 40,), built(world))
    assert (after.image != first, world.engine.builds) == (True, 2)


def test_the_files_of_a_repository_go_into_the_work_folder_of_an_image() -> None:
    world = World()
    sid = world.launch_repository("lessons", None, CONTENT)
    after = at_rest(world, sid)
    assert (after.state, after.image, world.engine.builds) == (State.READY, IMAGE, 0)
    assert world.engine.cloned == {f"homeport-{sid}": world.engine.version}
    assert State.CLONING in states(world, sid)
    assert State.BUILDING not in states(world, sid)
    assert "The files are in your work folder" in lines(world, sid)


def test_an_environment_and_its_files_are_two_repositories_in_one_launch() -> None:
    world = World()
    sid = world.launch_repository("lessons", OTHER, CONTENT)
    after = at_rest(world, sid)
    assert after.versions == (world.engine.version,) * 2
    assert (after.image, world.engine.builds, len(world.engine.cloned)) == (built(world, OTHER), 1, 1)


def test_only_what_builds_is_given_the_engines_socket() -> None:
    world = World()
    seen: dict[str, tuple[str, str, str]] = {}

    def look(helper: HelperTwin) -> None:
        spec = helper.specification
        seen[spec.labels["homeport.task"]] = (spec.socket, spec.volume, spec.user)

    world.engine.helper_fails = look
    sid = world.launch_repository("lessons", REPOSITORY, CONTENT)
    at_rest(world, sid)
    socket = "/var/run/docker.sock"
    assert seen == {
        "resolve": (socket, "", ""),
        "build": (socket, "", ""),
        "clone": ("", f"homeport-{sid}", "1000"),
    }
    world.engine.helper_fails = look
    at_rest(world, world.launch_repository("files", None, CONTENT))
    assert seen["resolve"] == ("", "", "")


def test_the_builder_is_pulled_if_it_is_not_there() -> None:
    world = World()
    world.engine.images.remove(BUILDER)
    sid = world.launch_repository("lessons", None, CONTENT)
    world.engine.images.remove(IMAGE)
    assert at_rest(world, sid).state is State.READY
    assert {BUILDER, IMAGE} <= world.engine.images
    assert world.engine.pulls == 2


def test_progress_never_falls() -> None:
    for repository, content in BOTH:
        world = World()
        world.engine.images.clear()
        if content:
            world.engine.images.add(BUILDER)
        sid = world.launch_repository("lessons", repository, content)
        at_rest(world, sid)
        shown = [progress(session) or 0.0 for session in world.store.history if session.sid == sid]
        assert shown == sorted(shown)


# ── killed, stopped, doubled ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("repository", "content"), BOTH)
def test_killed_at_any_instruction_it_is_built_once_and_no_helper_is_left(
    repository: Source | None, content: Source | None
) -> None:
    at, killed = 0, True
    while killed:
        at += 1
        world = World()
        sid = world.launch_repository("lessons", repository, content)
        with world.interrupted(at):
            while world.messages:
                world.deliver()
        killed = world.trouble.count >= at
        world.redrive()
        after = at_rest(world, sid)
        assert (after.state, after.failure) == (State.READY, None)
        assert world.engine.builds == (1 if repository else 0)


@pytest.mark.parametrize("state", [State.RESOLVING, State.BUILDING, State.CLONING])
def test_stopped_at_any_instruction_no_helper_is_left(state: State) -> None:
    at, over = 0, False
    while not over:
        at += 1
        world = World()
        sid = world.launched(state)
        with world.interrupted(at, lambda world=world, sid=sid: world.stop(sid)):  # type: ignore[misc]
            while world.messages and world.session(sid).phase is not Phase.STOPPED:
                world.deliver()
        over = world.trouble.count < at
        if over:
            world.stop(sid)
        assert at_rest(world, sid).state is State.STOPPED
        assert world.engine.containers == {}


def test_two_launches_of_one_version_share_one_build() -> None:
    world = World()
    world.engine.helper_looks = 5
    sids = [world.launch_repository(name) for name in ("one", "two", "three")]
    for sid in sids:
        assert at_rest(world, sid).state is State.READY
    assert world.engine.builds == 1


def test_a_build_that_is_stopped_goes_on_for_who_else_waits_for_it() -> None:
    world = World()
    world.engine.helper_looks = 10
    first = world.launched(State.BUILDING)
    second = world.launch_repository("two")
    while world.session(second).state is not State.BUILDING or not world.session(second).helps:
        world.deliver()
    world.stop(first)
    assert at_rest(world, second).state is State.READY
    assert world.session(first).state is State.STOPPED
    assert world.engine.builds == 1


def test_what_another_launch_left_behind_is_made_anew() -> None:
    world = World()
    first = world.launched(State.BUILDING)
    world.deliver()
    name = build_name(built(world))
    world.engine.helpers[name].end(1, "killed\n")
    world.credentials.objects.clear()  # so that the first launch cannot remove it
    world.stop(first)
    for _ in range(3):
        world.time.now += PATIENCE[State.REMOVING] + SETTLE_SECONDS
        world.redrive()
        while world.messages:
            world.deliver()
    assert (world.session(first).state, name in world.engine.helpers) == (State.STOPPED, True)
    second = world.launch_repository("two")
    world.settle()
    assert (world.session(second).state, world.engine.builds, world.engine.helpers) == (State.READY, 1, {})


def test_a_helper_that_is_somebody_elses_is_never_touched() -> None:
    world = World()
    sid = world.launched(State.BUILDING)
    world.deliver()
    name = build_name(built(world))
    helper = world.engine.helpers[name]
    helper.specification = replace(
        helper.specification, labels={**helper.specification.labels, "homeport.hub": "another"}
    )
    world.settle()
    after = world.session(sid)
    assert after.failure is not None
    assert after.failure.code == "container-conflict"
    assert name in world.engine.helpers


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


FAILURES = [
    ("resolve", "repository-not-found", "repository-not-found"),
    ("resolve", "version-not-found", "version-not-found"),
    ("resolve", "provider-unreachable", "provider-unreachable"),
    ("resolve", "provider-rate-limited", "provider-unreachable"),
    ("resolve", "socket-unreachable", "socket-unreachable"),
    ("resolve", "socket-of-another-engine", "socket-unreachable"),
    ("build", "fetch-failed", "fetch-failed"),
    ("build", "dockerfile-invalid", "build-failed"),
    ("build", "build-failed", "build-failed"),
    ("build", "build-too-long", "build-too-long"),
    ("build", "image-too-large", "built-image-too-large"),
    ("build", "no-space", "no-room-to-build"),
    ("clone", "fetch-failed", "fetch-failed"),
]


@pytest.mark.parametrize(("task", "code", "shown"), FAILURES)
def test_each_failure_of_a_helper_is_told_in_a_sentence_and_leaves_nothing(task: str, code: str, shown: str) -> None:
    world = World()
    log = "a line of the log\n" + answer(answer="failed", code=code, detail="because of this")
    world.engine.helper_fails = failing(task, 1, log)
    sid = world.launch_repository("lessons", REPOSITORY, CONTENT)
    after = at_rest(world, sid)
    assert after.state is State.STOPPED
    assert after.failure is not None
    assert after.failure.code == shown
    assert after.failure.message.endswith("because of this")
    assert world.engine.containers == {}
    if task == "build":
        assert world.hub.build_log(after) == log


@pytest.mark.parametrize(
    ("to", "environ", "shown"),
    [
        ("https://github.com/evil/lessons", {"HOMEPORT_BANNED_REPOSITORIES": "gh/evil/*"}, "repository-moved"),
        ("https://git.example.org/x.git", {"HOMEPORT_REPOSITORIES": ALLOWED}, "repository-moved"),
        ("file:///etc/passwd", {"HOMEPORT_REPOSITORIES": ALLOWED}, "repository-moved"),
        ("https://github.com/somebody/New", {"HOMEPORT_REPOSITORIES": ALLOWED}, None),
        ("https://git.example.org/x.git", {}, None),
    ],
)
def test_what_the_operator_does_not_allow_is_not_launched_either_when_its_site_leads_to_it(
    to: str, environ: dict[str, str], shown: str | None
) -> None:
    for repository, content in BOTH:
        world = World(environ)
        asked = content or repository
        assert asked is not None
        world.engine.moved = {asked.address: to}
        sid = world.launch_repository("lessons", repository, content)
        after = at_rest(world, sid)
        assert (after.failure and after.failure.code) == shown
        if after.failure is not None:
            assert after.failure.message.endswith(f" has moved to {to}, which this hub does not allow")
            assert (world.engine.builds, world.engine.cloned) == (0, {})


def test_a_build_whose_helper_another_launch_removes_before_its_log_is_read_is_no_failure() -> None:
    world = World()
    read, removed = world.engine.helper_log, list[str]()

    def gone(name: str, lines: int | None) -> str:
        found = world.engine.helpers.get(name)
        if not removed and found is not None and found.exit_code is not None and name == build_name(built(world)):
            removed.append(name)
            del world.engine.helpers[name]
            return ""
        return read(name, lines)

    world.engine.helper_log = gone  # type: ignore[method-assign]
    sid = world.launch_repository("lessons")
    world.settle()
    assert (world.session(sid).state, world.session(sid).failure, world.engine.builds) == (State.READY, None, 1)
    assert removed


@pytest.mark.parametrize("log", ["", "Killed\n", answer(answer="resolved", versions=["-x"]), answer(answer="failed")])
def test_a_helper_that_ends_without_an_answer_is_a_failure_with_its_last_lines(log: str) -> None:
    for exit_code in (0, 137):
        world = World()
        world.engine.helper_fails = failing("resolve", exit_code, log)
        sid = world.launch_repository("lessons")
        after = at_rest(world, sid)
        assert after.failure is not None
        assert after.failure.code == "helper-failed"


def test_a_build_that_says_it_is_done_and_is_not_fails() -> None:
    world = World()
    world.engine.helper_fails = failing("build", 0, answer(answer="built", size=1))
    after = at_rest(world, world.launch_repository("lessons"))
    assert after.failure is not None
    assert after.failure.code == "helper-failed"


def test_an_image_of_that_name_without_our_labels_is_not_launched() -> None:
    world = World()
    world.engine.images.add(built(world))
    after = at_rest(world, world.launch_repository("lessons"))
    assert (after.state, world.engine.builds) == (State.READY, 1)


def test_an_endpoint_without_room_is_told_before_anything_is_built() -> None:
    world = World()
    full = answer(answer="resolved", versions=[world.engine.version], disk=1 << 30)
    world.engine.helper_fails = failing("resolve", 0, full)
    after = at_rest(world, world.launch_repository("lessons"))
    assert after.failure is not None
    assert after.failure.code == "no-room-to-build"
    assert "1 GiB" in after.failure.message
    assert world.engine.builds == 0


def test_a_rootless_engine_builds_nothing_and_says_why() -> None:
    world = World()
    world.engine.rootless = True
    after = at_rest(world, world.launch_repository("lessons"))
    assert after.failure is not None
    assert after.failure.code == "socket-unreachable"
    assert at_rest(world, world.launch_repository("files", None, CONTENT)).state is State.READY


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (State.RESOLVING, "resolving-too-long"),
        (State.BUILDING, "build-too-long"),
        (State.CLONING, "cloning-too-long"),
    ],
)
def test_a_helper_that_never_ends_is_given_up(state: State, code: str) -> None:
    world = World()
    sid = world.launched(state)
    world.engine.helper_looks = 1_000_000
    begun, longest = world.time.now, PullPatience().of_helper(state) or 0.0
    world.settle(turns=5000)
    after = world.session(sid)
    assert after.failure is not None
    assert after.failure.code == code
    assert longest < world.time.now - begun < longest + BUILD_SLACK + 120
    assert world.engine.helpers == {}


def test_an_unknown_code_is_no_sentence_of_an_endpoints() -> None:
    report = report_of(answer(answer="failed", code="made-up", detail="visit evil.example"))
    error = helper_error(State.BUILDING, 1, report, "visit evil.example\n")
    assert error.code == "helper-failed"
    assert "ended with exit code 1" in error.message


def test_helpers_are_named_after_their_launch() -> None:
    assert helper_name("s", 2, "clone") == "homeport-s-2-clone"
