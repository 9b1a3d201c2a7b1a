"""The images that were built on endpoints: written down by launches, listed, and removed but for those in use."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

from chalicelib.aws.session_items import item_of
from chalicelib.engine import endpoint
from chalicelib.engine.errors import EndpointTimeout, RequestRejected
from chalicelib.engine.messages import is_image_in_use
from chalicelib.engine.ownership import built_name
from chalicelib.repository.source import Provider, Source
from chalicelib.repository.tag import image_name
from chalicelib.session import events as e
from chalicelib.session.machine import PATIENCE, advance
from chalicelib.session.narration import MESSAGES
from chalicelib.session.values import ALL_IMAGES, Session, State
from chalicelib.web.errors import BadField, BadForm, CredentialsNeeded, SessionNotReady, SessionOfLaterVersion
from chalicelib.web.forms import parse_removal
from chalicelib.web.json import built_json
from tests.builders import NOW, a_session
from tests.unit.test_hub import Stage as HubStage
from tests.unit.test_hub import a_form
from tests.world import BUILDER, REPOSITORY, World

OTHER = Source(Provider.GITHUB, "https://github.com/somebody/other")
NAME = f"localhost/homeport-built:{40 * 'a'}"
READY = f"{MESSAGES[State.READY]}. "
NONE_LEFT = "No image that was built here is left on the endpoint"


def at_rest(world: World, sid: str) -> Session:
    world.settle()
    world.assert_at_rest()
    return world.session(sid)


def built(world: World, source: Source = REPOSITORY) -> str:
    return image_name(source, world.engine.version, BUILDER)


def listed(world: World, sid: str) -> list[str]:
    return [image.name for image in world.hub.built([world.session(sid).owner])]


def two_built_and_a_notebook(of_image: bool = True) -> tuple[World, str]:
    """An endpoint with the images of two repositories that nobody uses, and a ready notebook there."""
    world = World()
    for name, source in (("one", REPOSITORY), ("two", OTHER)):
        sid = world.launch_repository(name, source)
        at_rest(world, sid)
        if of_image or source is REPOSITORY:
            world.stop(sid)
    if of_image:
        sid = world.launch("three")
    at_rest(world, sid)
    assert sorted(world.engine.built) == sorted([built(world), built(world, OTHER)])
    return world, sid


# ── written down ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_launch_that_builds_an_image_or_finds_it_writes_it_down() -> None:
    world = World()
    first = world.launch_repository("lessons")
    before = at_rest(world, first)
    (made,) = world.hub.built([before.owner])
    assert (made.name, made.endpoint, made.repository) == (built(world), before.endpoint, REPOSITORY)
    assert (made.version, made.size, made.built_at) == (world.engine.version, 1 << 30, made.used_at)
    world.time.now += 1000
    at_rest(world, world.launch_repository("more lessons"))
    (used,) = world.hub.built([before.owner])
    assert (used.name, used.built_at) == (made.name, made.built_at)
    assert used.used_at > made.used_at + 999
    assert world.hub.built([before.owner], "tcp://elsewhere:2376") == []
    assert built_json(used) | {"built_at": "", "used_at": ""} == {
        "name": built(world),
        "repository": "somebody/lessons",
        "place": "GitHub",
        "page": "https://github.com/somebody/lessons/tree/main",
        "version": world.engine.version,
        "endpoint": before.endpoint,
        "size": 1 << 30,
        "built_at": "",
        "used_at": "",
    }


def test_what_was_saved_is_in_the_other_list() -> None:
    world = World()
    sid = world.launched(State.SAVING)
    session = at_rest(world, sid)
    assert (len(world.hub.images([session.owner])), world.hub.built([session.owner])) == (1, [])


# ── removed ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_are_removed_and_listed_no_longer_and_the_notebook_goes_on() -> None:
    world, sid = two_built_and_a_notebook()
    before = world.session(sid)
    world.remove_images(sid)
    assert world.session(sid).message == MESSAGES[State.TIDYING]
    after = at_rest(world, sid)
    assert (after.state, after.failure, after.tidying, after.host) == (State.READY, None, "", before.host)
    assert after.message == READY + NONE_LEFT
    assert (world.engine.built, listed(world, sid)) == ({}, [])
    lines = [line.text for line in world.hub.lines(after)]
    assert lines[-1] == NONE_LEFT
    assert any(line.startswith("The image of somebody/") and line.endswith(" is removed") for line in lines)


def test_one_is_removed_by_its_name_alone() -> None:
    world, sid = two_built_and_a_notebook()
    world.remove_images(sid, built(world))
    after = at_rest(world, sid)
    assert list(world.engine.built) == listed(world, sid) == [built(world, OTHER)]
    assert after.message == (
        f"{READY}The image of somebody/lessons at {world.engine.version} is on the endpoint no longer"
    )


def test_what_a_container_uses_stays_and_is_told_also_the_notebooks_own() -> None:
    world, sid = two_built_and_a_notebook(of_image=False)
    world.remove_images(sid)
    after = at_rest(world, sid)
    assert after.message == f"{READY}1 of 2 images is in use by a container, so it stays"
    assert list(world.engine.built) == listed(world, sid) == [built(world, OTHER)]
    world.remove_images(sid, built(world, OTHER))
    told = at_rest(world, sid).message
    assert told.endswith("is in use by a container, so it stays. Stop that one first")
    at_rest(world, world.launch_repository("one"))
    world.remove_images(sid)
    assert at_rest(world, sid).message == f"{READY}2 of 2 images are in use by containers, so they stay"


def test_what_the_list_forgot_is_removed_with_all_and_what_the_endpoint_lost_is_forgotten() -> None:
    world, sid = two_built_and_a_notebook()
    world.images.built.clear()
    world.engine.images.add(NAME)
    world.engine.built[NAME] = world.session(sid).hub
    world.remove_images(sid)
    at_rest(world, sid)
    assert world.engine.built == {}
    world, sid = two_built_and_a_notebook()
    world.engine.images -= set(world.engine.built)
    world.remove_images(sid, built(world))
    at_rest(world, sid)
    assert listed(world, sid) == [built(world, OTHER)]
    world.remove_images(sid)
    assert at_rest(world, sid).message == READY + NONE_LEFT
    assert listed(world, sid) == []


def test_another_hubs_image_is_never_touched() -> None:
    world, sid = two_built_and_a_notebook()
    world.engine.built[built(world)] = "another hub"
    world.remove_images(sid)
    at_rest(world, sid)
    assert built(world) in world.engine.images
    assert built(world, OTHER) not in world.engine.images


def test_more_than_are_listed_at_once_are_removed_by_asking_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chalicelib.launcher.repositories.IMAGES_LENGTH", 2)
    world, sid = two_built_and_a_notebook()
    world.remove_images(sid)
    assert at_rest(world, sid).message == f"{READY}2 images are removed. There may be more: remove all once more"
    world.remove_images(sid)
    assert at_rest(world, sid).message == READY + NONE_LEFT


# ── killed, failing ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("images", [ALL_IMAGES, "one"])
def test_killed_at_any_instruction_they_are_removed_and_the_notebook_goes_on(images: str) -> None:
    at, killed = 0, True
    while killed:
        at += 1
        world, sid = two_built_and_a_notebook()
        world.remove_images(sid, built(world) if images == "one" else images)
        with world.interrupted(at):
            while world.messages:
                world.deliver()
        killed = world.trouble.count >= at
        world.redrive()
        after = at_rest(world, sid)
        left = [built(world, OTHER)] if images == "one" else []
        assert (after.state, after.failure) == (State.READY, None), at
        assert list(world.engine.built) == listed(world, sid) == left, at


def failing(world: World, error: Exception, calls: Callable[[int], bool]) -> None:
    numbers = count(1)

    def during(call: str) -> None:
        if call == "remove_built" and calls(next(numbers)):
            raise error

    world.engine.during = during


def test_an_endpoint_that_is_slow_is_asked_again_for_the_rest() -> None:
    world, sid = two_built_and_a_notebook()
    failing(world, EndpointTimeout("The endpoint did not answer in time"), lambda number: number == 2)
    world.remove_images(sid)
    assert at_rest(world, sid).message == READY + NONE_LEFT
    assert world.engine.built == {}


def test_whatever_fails_keeps_the_notebook_and_is_told() -> None:
    for error, seconds in ((RequestRejected("No"), 0.0), (EndpointTimeout("Slow"), PATIENCE[State.TIDYING])):
        world, sid = two_built_and_a_notebook()
        failing(world, error, lambda number: True)
        world.remove_images(sid)
        begun = world.time.now
        after = at_rest(world, sid)
        assert (after.state, after.failure) == (State.READY, None)
        assert after.message == f"{READY}Not all images could be removed: {error}"
        assert len(listed(world, sid)) == 2
        assert seconds <= world.time.now - begun < seconds + 120
    world, sid = two_built_and_a_notebook()
    failing(world, RequestRejected("No"), lambda number: True)
    world.remove_images(sid, built(world))
    assert at_rest(world, sid).message == f"{READY}The image could not be removed: No"


@pytest.mark.parametrize("ask", ["stop", "forget", "delete"])
def test_what_the_visitor_asks_for_meanwhile_is_done(ask: str) -> None:
    world, sid = two_built_and_a_notebook()
    world.remove_images(sid)
    getattr(world, ask)(sid)
    after = at_rest(world, sid)
    assert after.state is (State.READY if ask == "forget" else State.STOPPED)
    assert after.tidying == ""
    assert len(world.engine.built) == 2


# ── asked for ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_a_ready_notebook_with_credentials_removes_images() -> None:
    world = World()
    sid = world.launched(State.READY)
    session = world.session(sid)
    asked = world.hub.remove_images(session, ALL_IMAGES)
    assert (asked.state, asked.tidying) == (State.TIDYING, ALL_IMAGES)
    assert world.hub.remove_images(asked, ALL_IMAGES) == asked
    with pytest.raises(SessionNotReady):
        world.hub.remove_images(asked, NAME)
    stage = HubStage()
    stage.hub.launch(a_form())
    for state in set(State) - {State.READY, State.TIDYING}:
        with pytest.raises(SessionNotReady):
            stage.hub.remove_images(a_session(state=state), ALL_IMAGES)
    with pytest.raises(CredentialsNeeded):
        stage.hub.remove_images(a_session(state=State.READY, credentials_held=False), ALL_IMAGES)
    with pytest.raises(SessionOfLaterVersion):
        stage.hub.remove_images(a_session(state=State.READY, newer=True), ALL_IMAGES)


def test_a_version_without_this_state_leaves_it_alone() -> None:
    tidying = advance(a_session(state=State.READY), e.TidyRequested(ALL_IMAGES), NOW)
    assert item_of(tidying, NOW)["format"] == {"N": "3"}
    done = advance(tidying, e.ImagesRemoved(NONE_LEFT), NOW)
    assert item_of(done, NOW)["format"] == {"N": "1"}
    assert "tidying" not in item_of(done, NOW)["session"]["S"]


def test_a_notebook_whose_credentials_are_forgotten_ends_no_removal_in_ready() -> None:
    tidying = advance(a_session(state=State.READY), e.TidyRequested(ALL_IMAGES), NOW)
    forgetting = advance(tidying, e.ForgetRequested(), NOW)
    assert (forgetting.state, forgetting.tidying) == (State.FORGETTING, "")


def test_the_form_takes_one_image_that_was_built_here_or_all() -> None:
    form, as_json = "application/x-www-form-urlencoded", "application/json"
    assert parse_removal(form, b"image=all") == ALL_IMAGES
    assert parse_removal(form, f"image={NAME}".encode()) == NAME
    assert parse_removal(as_json, f'{{"image": "{NAME}"}}'.encode()) == NAME
    for kind, body in (
        (form, b""),
        (form, b"image="),
        (form, b"image=all&image=all"),
        (form, b"image=quay.io/jupyter/scipy-notebook"),
        (form, f"image={NAME}{2000 * '0'}".encode()),
        (as_json, b'{"image": ["all"]}'),
        (as_json, b'{"images": "all"}'),
    ):
        with pytest.raises(BadField):
            parse_removal(kind, body)
    with pytest.raises(BadForm):
        parse_removal(as_json, b"{")


# ── what an endpoint says ────────────────────────────────────────────────────────────────────────────────────────────


def test_only_an_image_with_our_labels_under_its_own_name_is_ours() -> None:
    labels = {"homeport.hub": "hub", "homeport.built": NAME}
    assert built_name({"Labels": labels, "RepoTags": ["another:latest", NAME]}, "hub") == NAME
    others: tuple[object, ...] = (
        None,
        [],
        {},
        {"Labels": labels},
        {"Labels": labels, "RepoTags": None},
        {"Labels": labels, "RepoTags": [7]},
        {"Labels": labels, "RepoTags": ["<none>:<none>"]},
        {"Labels": labels, "RepoTags": ["localhost/made-of-it:latest"]},
        {"Labels": [labels], "RepoTags": [NAME]},
        {"Labels": labels | {"homeport.hub": "another"}, "RepoTags": [NAME]},
        {"Labels": labels | {"homeport.built": "python:3"}, "RepoTags": ["python:3"]},
        {"Labels": labels | {"homeport.built": 7}, "RepoTags": [NAME]},
    )
    for entry in others:
        assert built_name(entry, "hub") == "", entry
    assert endpoint.IMAGES_LENGTH == 100


@pytest.mark.parametrize(
    ("status", "text", "is_in_use"),
    [
        (409, "conflict: unable to remove repository reference (must force) - container 1 is using its image", True),
        (500, "image used by 0123: image is in use by a container", True),
        (500, "no space left on device", False),
        (403, "denied", False),
    ],
)
def test_engines_say_in_their_own_words_that_an_image_is_in_use(status: int, text: str, is_in_use: bool) -> None:
    assert is_image_in_use(status, text) is is_in_use
