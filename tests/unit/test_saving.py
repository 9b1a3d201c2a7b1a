"""Saving a notebook as an image: killed at any instruction, on engines that are slow or give up, and whatever fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from chalicelib.aws.queues import TickMessage
from chalicelib.engine.errors import EndpointError, EndpointFailed, EndpointTimeout, NoSpace
from chalicelib.engine.saving import SAVED, SAVED_AT, SAVED_BY, ImageThere, changes, image_there
from chalicelib.launcher.saving import COMMITS
from chalicelib.notebook.container import HUB_VARIABLES, SAVABLE
from chalicelib.session import events as e
from chalicelib.session.image import image_to_save, suggested_image
from chalicelib.session.lanes import Lane
from chalicelib.session.lease import SAVE_SECONDS
from chalicelib.session.machine import PATIENCE, advance
from chalicelib.session.values import Failure, Options, Session, State, container_name
from chalicelib.web.errors import (
    BadField,
    BadForm,
    CredentialsNeeded,
    ImageNotAllowed,
    SessionNotReady,
    SessionOfLaterVersion,
    VariablesWouldBeSaved,
)
from chalicelib.web.forms import parse_save
from chalicelib.web.json import session_json
from tests.builders import NOW, OWNER, a_session
from tests.launcher_twins import Clock, SlowEngineTwin
from tests.unit.test_hub import Stage as HubStage
from tests.unit.test_hub import a_form
from tests.unit.test_launcher import Stage
from tests.world import SAVED as IMAGE
from tests.world import World


def at_rest(world: World, sid: str) -> Session:
    world.settle()
    world.assert_at_rest()
    return world.session(sid)


def has_key(world: World, sid: str) -> bool:
    return b"PRIVATE KEY" in world.engine.containers[container_name(sid, 1)].certificate


def a_ready_stage(takes: float = 0.0) -> tuple[Stage, SlowEngineTwin]:
    """A ready notebook on an engine that needs so long to write an image."""
    clock = Clock(NOW)
    engine = SlowEngineTwin(clock=clock, sleep=clock.sleep, takes={"commit": takes})
    stage = Stage(clock=clock, engine=engine)
    stage.run(State.READY)
    return stage, engine


def failing(stage: Stage, error: EndpointError, times: int = 1000) -> None:
    """Have the next commits fail."""
    left = [error] * times

    def during(call: str) -> None:
        if call == "commit" and left:
            raise left.pop()

    stage.engine.during = during


def lines(stage: Stage) -> list[str]:
    return [line.text for session in stage.store.history for line in session.log]


# ── all is well ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_notebook_is_saved_once_and_goes_on() -> None:
    world = World()
    sid = world.launched(State.READY)
    before = world.session(sid)
    world.save_as(sid)
    after = at_rest(world, sid)
    assert (after.state, after.failure, after.saving, after.commits) == (State.READY, None, "", 0)
    assert after.message == f"Your notebook is ready. It is saved as the image {IMAGE}"
    assert after.host == before.host
    assert world.engine.commits == 1
    assert world.engine.saved[IMAGE].owner == before.owner
    (saved,) = world.hub.images([before.owner])
    assert (saved.name, saved.endpoint, saved.notebook, saved.size) == (IMAGE, before.endpoint, "lessons", 1 << 30)
    assert has_key(world, sid), "a start by hand needs it again"
    assert [line.text for line in world.hub.lines(after)][-2:] == [
        f"Asked to save it as the image {IMAGE}",
        f"Saved as the image {IMAGE}, 1 GiB in all",
    ]


def test_an_image_that_its_owner_saved_before_is_replaced() -> None:
    world = World()
    sid = world.launched(State.READY)
    saves = set()
    for _ in range(2):
        world.save_as(sid)
        at_rest(world, sid)
        saves.add(world.engine.saved[IMAGE].save)
    assert (world.engine.commits, len(saves)) == (2, 2)
    assert len(world.hub.images([world.session(sid).owner])) == 1


def test_an_image_that_somebody_else_has_there_is_never_replaced() -> None:
    for there in (None, ImageThere("", "", 7), ImageThere("cd" * 32, "theirs", 7)):
        world = World()
        sid = world.launched(State.READY)
        world.engine.images.add(IMAGE)
        if there:
            world.engine.saved[IMAGE] = there
        world.save_as(sid)
        after = at_rest(world, sid)
        assert (after.state, after.failure) == (State.READY, None)
        assert "It was not saved as an image: The endpoint has an image called" in after.message
        assert world.engine.saved.get(IMAGE) == there
        assert (world.engine.commits, world.hub.images([after.owner])) == (0, [])
        assert has_key(world, sid), "it was never taken away"


# ── killed, paused, slow ─────────────────────────────────────────────────────────────────────────────────────────────


def test_killed_at_any_instruction_it_is_saved_with_one_or_two_commits() -> None:
    at, killed = 0, True
    while killed:
        at += 1
        world = World()
        sid = world.launched(State.SAVING)
        with world.interrupted(at):
            while world.messages:
                world.deliver()
        killed = world.trouble.count >= at
        world.redrive()
        after = at_rest(world, sid)
        assert (after.state, after.failure) == (State.READY, None), at
        assert world.engine.saved[IMAGE].owner == after.owner, at
        assert 1 <= world.engine.commits <= COMMITS, at
        assert len(world.hub.images([after.owner])) == 1, at
    assert at > 10


def test_killed_again_and_again_it_sends_no_more_than_two_commits() -> None:
    """It is killed just before the answer each time."""
    world = World()
    sid = world.launched(State.SAVING)
    sent: list[str] = []

    def during(call: str) -> None:
        if call == "commit":
            sent.append(call)
            raise KeyboardInterrupt

    world.engine.during = during
    for _ in range(100):
        if world.session(sid).state is State.READY:
            break
        try:
            world.deliver() if world.messages else world.sleep_until_due()
        except KeyboardInterrupt:
            continue
    after = world.session(sid)
    assert len(sent) == COMMITS
    assert (after.state, after.failure) == (State.READY, None)
    assert "did not write the image in 2 attempts" in after.message


@pytest.mark.parametrize("takes", [20.0, 40.0, 400.0, 800.0])
def test_an_engine_that_needs_long_is_asked_once_and_its_image_found(takes: float) -> None:
    stage, engine = a_ready_stage(takes)
    stage.ask_for(e.SaveRequested(IMAGE))
    begun = stage.clock.now
    stage.run(State.READY)
    assert engine.commits == 1
    assert engine.saved[IMAGE].owner == OWNER
    assert stage.clock.now - begun < takes + 60
    assert stage.images.of_owner(OWNER)[0].name == IMAGE
    assert b"PRIVATE KEY" in stage.container.certificate
    assert stage.session.failure is None


def test_the_answer_is_waited_for_with_the_lease_held() -> None:
    stage, engine = a_ready_stage(takes=0.9 * SAVE_SECONDS)
    held: list[bool] = []

    def look(seconds: float) -> None:
        stage.clock.now += seconds
        held.append(stage.session.lease_expires_at > stage.clock.now)

    engine.sleep = look
    stage.ask_for(e.SaveRequested(IMAGE))
    stage.tick()
    assert (stage.session.state, engine.commits) == (State.READY, 1)
    assert len(held) > 10
    assert all(held)
    assert all(session.attempts == 0 for session in stage.store.history)


def test_a_function_with_little_time_left_leaves_the_save_to_the_next_one() -> None:
    stage, engine = a_ready_stage()
    stage.ask_for(e.SaveRequested(IMAGE))
    stage.launcher(Lane.LAUNCH, time_left=lambda: SAVE_SECONDS - 1).tick(TickMessage(stage.sid))
    assert (stage.session.state, engine.commits, stage.session.lease_expires_at) == (State.SAVING, 0, 0.0)
    assert [(message, lane) for message, lane, _ in stage.queue.sent] == [(TickMessage(stage.sid), Lane.LAUNCH)]
    stage.tick()
    assert (stage.session.state, engine.commits) == (State.READY, 1)


@pytest.mark.parametrize("pressed_at", range(1, 8))
def test_a_stop_while_the_image_is_written_is_obeyed_within_seconds(pressed_at: int) -> None:
    stage, engine = a_ready_stage(takes=80.0)
    slept: list[float] = []

    def press(seconds: float) -> None:
        stage.clock.now += seconds
        slept.append(stage.clock.now)
        if len(slept) == pressed_at:
            stage.ask_for(e.StopRequested())

    engine.sleep = press
    stage.ask_for(e.SaveRequested(IMAGE))
    stage.tick()
    stage.assert_nothing_is_left()
    assert len(slept) <= pressed_at + 1


def test_an_engine_that_needs_too_long_keeps_its_notebook_and_the_visitor_is_told() -> None:
    stage, _ = a_ready_stage(takes=5000.0)
    stage.ask_for(e.SaveRequested(IMAGE))
    begun = stage.clock.now
    stage.run(State.READY)
    assert PATIENCE[State.SAVING] < stage.clock.now - begun < PATIENCE[State.SAVING] + 120
    assert stage.session.failure is None
    assert "It was not saved as an image: The endpoint is still writing" in stage.session.message
    assert "docker unpause" in stage.session.message


def test_an_engine_that_gives_up_whenever_its_client_goes_is_asked_twice() -> None:
    stage, engine = a_ready_stage()
    failing(stage, EndpointTimeout("The endpoint did not answer in time"))
    stage.ask_for(e.SaveRequested(IMAGE))
    stage.run(State.READY)
    assert engine.deadlines
    assert stage.session.failure is None
    assert "did not write the image in 2 attempts" in stage.session.message
    assert stage.container.certificate == b"", "one of them may still be going on, and would take the key"
    failing(stage, NoSpace("never"), times=0)
    stage.clock.now += 60
    stage.ask_for(e.SaveRequested(IMAGE))
    stage.run(State.READY)
    assert b"PRIVATE KEY" in stage.container.certificate


# ── what fails ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_full_disk_keeps_the_notebook_and_its_key() -> None:
    stage, engine = a_ready_stage()
    failing(stage, NoSpace("The endpoint's disk is full"))
    stage.ask_for(e.SaveRequested(IMAGE))
    stage.run(State.READY)
    assert stage.session.failure is None
    assert stage.session.message.endswith("It was not saved as an image: The endpoint's disk is full")
    assert "It was not saved as an image: The endpoint's disk is full" in lines(stage)
    assert b"PRIVATE KEY" in stage.container.certificate
    assert (engine.commits, stage.images.of_owner(OWNER)) == (0, [])


def test_an_error_that_may_pass_is_tried_once_more() -> None:
    stage, engine = a_ready_stage()
    failing(stage, EndpointFailed("The endpoint reports an error"), times=1)
    stage.ask_for(e.SaveRequested(IMAGE))
    stage.run(State.READY)
    assert (engine.commits, stage.session.message) == (
        1,
        f"Your notebook is ready. It is saved as the image {IMAGE}",
    )


@pytest.mark.parametrize("how", ["ends", "is removed"])
def test_a_container_that_ends_meanwhile_is_told_as_ended(how: str) -> None:
    world = World()
    sid = world.launched(State.SAVING)
    if how == "ends":
        world.engine.containers[container_name(sid, 1)].end(1, "boom")
        while world.session(sid).state is State.SAVING:
            world.deliver()
        after = world.session(sid)
        assert "It was not saved as an image: The notebook's container ended with exit code 1" in after.message
        world.hub.ask_for_look(after)
        assert at_rest(world, sid).state is State.STOPPED
        return
    world.engine.containers[container_name(sid, 1)].specification = replace(
        world.engine.containers[container_name(sid, 1)].specification, labels={"homeport.hub": "another"}
    )
    while world.session(sid).state is State.SAVING:
        world.deliver()
    assert (
        "was not made by this hub" in world.session(sid).message or "not this session's" in world.session(sid).message
    )
    assert world.engine.commits == 0


def test_what_an_earlier_version_launched_is_refused_and_keeps_its_key() -> None:
    world = World()
    sid = world.launched(State.READY)
    container = world.engine.containers[container_name(sid, 1)]
    labels = {name: value for name, value in container.specification.labels.items() if name != SAVABLE}
    container.specification = replace(container.specification, labels=labels)
    world.save_as(sid)
    after = at_rest(world, sid)
    assert (after.state, after.failure, world.engine.commits) == (State.READY, None, 0)
    assert has_key(world, sid)


@pytest.mark.parametrize(
    ("press", "rests_in"),
    [
        (World.stop, State.STOPPED),
        (World.stop_and_keep, State.KEPT),
        (World.delete, State.STOPPED),
        (World.launch_again, State.READY),
        (World.forget, State.READY),
        (World.keep_longer, State.READY),
        (World.save_as, State.READY),
    ],
)
def test_all_buttons_go_their_way_while_it_is_saved(press: Callable[[World, str], None], rests_in: State) -> None:
    world = World()
    sid = world.launched(State.SAVING)
    press(world, sid)
    after = at_rest(world, sid)
    assert (after.state, after.failure, after.saving) == (rests_in, None, "")
    assert after.credentials_held is (press is not World.forget and rests_in is not State.STOPPED)


def test_it_expires_while_it_is_saved() -> None:
    world = World()
    sid = world.launched(State.SAVING)
    world.time.now = world.session(sid).expires_at
    assert at_rest(world, sid).state is State.STOPPED


# ── what is asked for ────────────────────────────────────────────────────────────────────────────────────────────────


def ready(world: World, **changed: object) -> Session:
    session = world.session(world.launched(State.READY))
    changed_session = replace(session, version=session.version + 1, **changed)  # type: ignore[arg-type]  # of any kind
    world.store.save(changed_session)
    return changed_session


def test_what_cannot_be_saved_is_refused_with_what_to_do() -> None:
    for state in (State.PULLING, State.REMOVING, State.KEPT, State.STOPPED, State.FORGETTING, State.REPUBLISHING):
        world = World()
        with pytest.raises(SessionNotReady):
            world.hub.save_as(world.session(world.launched(state)), IMAGE)
    world = World()
    with pytest.raises(CredentialsNeeded, match="Launch it with its bundle"):
        world.hub.save_as(ready(world, credentials_held=False), IMAGE)
    world = World()
    with pytest.raises(VariablesWouldBeSaved, match="without them"):
        world.hub.save_as(ready(world, options=Options(environment=("TOKEN",))), IMAGE)
    world = World()
    with pytest.raises(SessionOfLaterVersion):
        world.hub.save_as(replace(world.session(world.launched(State.READY)), newer=True), IMAGE)


def test_saving_it_as_another_image_waits_for_the_first_one() -> None:
    world = World()
    saving = world.session(world.launched(State.SAVING))
    assert world.hub.save_as(saving, IMAGE) == saving
    with pytest.raises(SessionNotReady):
        world.hub.save_as(saving, "localhost/another:1")


def test_an_image_that_could_not_be_launched_here_is_not_saved() -> None:
    stage = HubStage(environ={"HOMEPORT_IMAGES": "localhost/*"})
    stage.hub.launch(a_form())
    session = stage.move(State.READY)
    with pytest.raises(ImageNotAllowed, match="localhost"):
        stage.hub.save_as(session, "registry.example.org/a:1")
    assert stage.hub.save_as(session, IMAGE).state is State.SAVING


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("lessons", "localhost/lessons:2026-11-29"),
        ("My Thesis, part 2!", "localhost/my-thesis-part-2:2026-11-29"),
        ("Übung 笔记", "localhost/bung:2026-11-29"),
        ("笔记", "localhost/notebook:2026-11-29"),
        ("x" * 63, f"localhost/{'x' * 63}:2026-11-29"),
    ],
)
def test_the_suggested_name_is_one_that_can_be_used(name: str, image: str) -> None:
    assert suggested_image(name, "2026-11-29") == image
    assert image_to_save(image) == image


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/x-www-form-urlencoded", b"image=localhost%2Fa%3A1"),
        ("application/x-www-form-urlencoded; charset=utf-8", b"image=+localhost%2Fa%3A1+"),
        ("application/json", b'{"image": "localhost/a:1"}'),
    ],
)
def test_the_image_is_read_from_a_form_or_from_json(kind: str, body: bytes) -> None:
    assert parse_save(kind, body) == "localhost/a:1"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"image=",
        b"image=a&image=b",
        b"image=a&name=b",
        b"name=a",
        b"image=A%2FB",
        b"image=a%0Ab",
        b"image=" + b"a" * 2000,
        b"image=a@sha256:" + b"0" * 64,
        b"image=" + b"0" * 64,
    ],
)
def test_what_is_no_name_of_an_image_to_write_is_refused(body: bytes) -> None:
    with pytest.raises(BadField):
        parse_save("application/x-www-form-urlencoded", body)


@pytest.mark.parametrize("body", [b"{", b'{"image": 7}', b"[" * 500, b"7", b'{"image": ["a"]}', b"\xff"])
def test_json_that_is_no_name_of_an_image_is_refused(body: bytes) -> None:
    with pytest.raises((BadField, BadForm)):
        parse_save("application/json", body)


def test_the_page_is_told_whether_it_can_be_saved() -> None:
    def save_as(session: Session) -> str | None:
        return session_json(session, "https://x", NOW)["save_as"]

    assert save_as(a_session(state=State.READY)) == "localhost/lessons:2026-09-21"
    assert save_as(a_session(state=State.SAVING)) is None
    assert save_as(a_session(state=State.READY, credentials_held=False)) is None
    assert save_as(a_session(state=State.READY, options=Options(environment=("A",)))) is None


def test_the_first_failure_of_a_session_is_not_one_of_a_save() -> None:
    session = advance(a_session(state=State.READY), e.SaveRequested(IMAGE), NOW)
    failed = advance(session, e.EffectFailed(Failure("no-space", "The disk is full")), NOW)
    assert (failed.state, failed.failure, failed.saving) == (State.READY, None, "")


# ── the image ────────────────────────────────────────────────────────────────────────────────────────────────────────

OURS = {SAVED: "sid", SAVED_BY: "ab", SAVED_AT: "one"}


def test_an_image_starts_as_the_one_it_was_made_of_and_has_no_label_of_ours() -> None:
    container = {"Config": {"Labels": {"homeport.session": "x", "homeport.hub": "y", "other": "stays"}}}
    image = {
        "Config": {"Cmd": ["jupyter", "lab"], "WorkingDir": "/home/jovyan", "Env": ["A=1", "JUPYTER_CONFIG_PATH=/a"]}
    }
    made = changes(container, image, OURS)
    assert made[:5] == [
        'LABEL homeport.session=""',
        'LABEL homeport.hub=""',
        'LABEL homeport.saved="sid"',
        'LABEL homeport.saved-by="ab"',
        'LABEL homeport.saved-at="one"',
    ]
    assert {f'ENV {name}="{"/a" if name == "JUPYTER_CONFIG_PATH" else ""}"' for name in HUB_VARIABLES} <= set(made)
    assert made[-2:] == ['CMD ["jupyter", "lab"]', "WORKDIR /home/jovyan"]


@pytest.mark.parametrize("hostile", ["\nRUN x", "a\nLABEL b=c", '" ENV A="b', "$(x)", "${x}", "\\", 7, None, ["a"], {}])
def test_what_an_engine_makes_up_becomes_no_instruction(hostile: object) -> None:
    container = {"Config": {"Labels": {f"homeport.{hostile}": "x", "homeport.a b": "y", str(hostile): hostile}}}
    env = [f"JUPYTER_CONFIG_PATH={hostile}", hostile]
    image = {"Config": {"Cmd": [hostile], "WorkingDir": hostile, "Env": env}}
    for part in (container, {}, {"Config": hostile}):
        made = changes(part, image, OURS)
        assert all("\n" not in instruction for instruction in made)
        assert {instruction.split()[0] for instruction in made} <= {"LABEL", "ENV", "CMD", "WORKDIR"}
        assert not any("$" in instruction for instruction in made if not instruction.startswith("CMD"))


@pytest.mark.parametrize("hostile", [None, 7, [], {"Labels": 7}, {"Labels": {SAVED_BY: 7, SAVED_AT: []}}])
def test_an_image_that_says_nothing_to_be_believed_is_nobodys(hostile: object) -> None:
    assert image_there({"Config": hostile, "Size": "many"}) == ImageThere("", "", 0)
