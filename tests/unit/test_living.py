"""Living with a notebook: stop, start again, restart, keep longer, forget, delete, at any moment, killed at any
instruction; and what brings a notebook back when the hub's table is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from chalicelib.bundle.errors import EndpointsDisagree
from chalicelib.engine.errors import EndpointTimeout
from chalicelib.engine.ownership import LaunchThere
from chalicelib.session.values import PHASES, Limits, Phase, Session, State, container_name, phase_of, volume_name
from chalicelib.web.errors import (
    CredentialsNeeded,
    LongestLifeReached,
    NameNotTyped,
    OwnersDisagree,
    SessionNotReady,
)
from chalicelib.web.forms import Deletion, Launch
from tests import bundles
from tests.bundles import Pki
from tests.launcher_twins import ContainerTwin
from tests.world import IMAGE, World, pki

HOUR = 3600.0
# The states that hold credentials, and do not delete them.
HOLDS = [state for state in State if state not in (State.FORGETTING, State.PURGING, State.STOPPED)]
PRESSED: dict[str, Callable[[World, str], None]] = {
    "stop": World.stop,
    "stop and keep": World.stop_and_keep,
    "launch again": World.launch_again,
    "keep longer": World.keep_longer,
    "save as image": World.save_as,
    "delete": World.delete,
}


def at_rest(world: World, sid: str) -> Session:
    """The session once nothing is under way any more, and nothing is wrong."""
    world.settle()
    world.assert_at_rest()
    return world.session(sid)


def is_there(world: World, sid: str) -> tuple[bool, bool, bool]:
    """Whether there is a container, a volume, and credentials of the session."""
    containers = [name for name in world.engine.containers if sid in name]
    credentials = [held for held in world.credentials.objects if held[0] == sid]
    return bool(containers), volume_name(sid) in world.engine.volumes, bool(credentials)


# ── at any moment ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", HOLDS)
def test_a_notebook_is_launched_again_at_any_moment(state: State) -> None:
    world = World()
    sid = world.launched(state)
    before = world.session(sid)
    world.launch_again(sid)
    after = at_rest(world, sid)
    assert (after.state, after.generation) == (State.READY, before.generation + 1)
    assert after.label != before.label
    assert list(world.engine.containers) == [container_name(sid, after.generation)]
    assert is_there(world, sid) == (True, True, True)


@pytest.mark.parametrize("what", ["launch again", "stop and keep"])
def test_credentials_that_are_being_deleted_are_not_kept_after_all(what: str) -> None:
    """A tick may be about to delete them: what it then finds kept would not be there."""
    world = World()
    sid = world.launched(State.PURGING)
    with pytest.raises(CredentialsNeeded, match="Launch it again with its bundle"):
        world.hub.launch_again(world.session(sid))
    PRESSED[what](world, sid)
    assert at_rest(world, sid).state is State.STOPPED
    assert is_there(world, sid) == (False, True, False)


@pytest.mark.parametrize("state", HOLDS)
def test_credentials_are_kept_if_that_is_chosen_at_any_moment_of_a_life(state: State) -> None:
    world = World()
    sid = world.launched(state)
    had_volume = is_there(world, sid)[1]
    world.stop_and_keep(sid)
    kept = at_rest(world, sid)
    assert (kept.state, kept.phase, kept.credentials_held) == (State.KEPT, Phase.STOPPED, True)
    assert is_there(world, sid) == (False, had_volume, True)
    world.launch_again(sid)
    assert at_rest(world, sid).state is State.READY


@pytest.mark.parametrize("state", State)
def test_a_notebook_is_deleted_at_any_moment_with_its_volume(state: State) -> None:
    world = World()
    sid = world.launched(state)
    world.delete(sid)
    deleted = at_rest(world, sid)
    assert deleted.state is State.STOPPED
    assert deleted.summary.deleted
    assert deleted.message == "Deleted: no container, no volume with files, no route and no credentials are left"
    assert is_there(world, sid) == (False, False, False)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("first", PRESSED)
@pytest.mark.parametrize("second", PRESSED)
def test_whatever_is_pressed_twice_in_any_state_ends_well(state: State, first: str, second: str) -> None:
    world = World()
    sid = world.launched(state)
    PRESSED[first](world, sid) if _can(world, sid, first) else None
    world.deliver() if world.messages else None
    PRESSED[second](world, sid) if _can(world, sid, second) else None
    session = at_rest(world, sid)
    if second == "delete":
        assert is_there(world, sid) == (False, False, False)
    told = {"credentials-forgotten"} if state is State.FORGETTING else set()
    assert session.failure is None or session.failure.code in told, session.failure


def _can(world: World, sid: str, what: str) -> bool:
    return what == "delete" or world.session(sid).state is not State.STOPPED


@pytest.mark.parametrize("what", PRESSED)
@pytest.mark.parametrize(
    "state",
    [
        State.PULLING,
        State.CREATING,
        State.READY,
        State.SAVING,
        State.TIDYING,
        State.REMOVING,
        State.PURGING,
        State.KEPT,
    ],
)
def test_the_launcher_may_be_killed_at_any_instruction_of_it(what: str, state: State) -> None:
    for at in range(1, 60):
        world = World()
        sid = world.launched(state)
        PRESSED[what](world, sid)
        with world.interrupted(at):
            for _ in range(3):
                if world.messages:
                    world.deliver()
        killed = world.trouble.count >= at
        world.redrive()
        session = at_rest(world, sid)
        expected = {
            "stop": State.STOPPED,
            "stop and keep": State.KEPT,
            "launch again": State.READY,
            "keep longer": at_rest_without(state),
            "save as image": at_rest_without(state),
            "delete": State.STOPPED,
        }
        ends = State.STOPPED if state is State.PURGING else expected[what]  # it was too late to keep the credentials
        assert session.state is ends, (at, session.log)
        assert is_there(world, sid)[1] is (what != "delete" and _had_volume(world, sid)), at
        if not killed:
            return
    raise AssertionError("it was killed every time")


def at_rest_without(state: State) -> State:
    """Where a session ends that is in this state, if nobody presses anything."""
    if state is State.KEPT:
        return state
    return State.STOPPED if state in PHASES[Phase.LEAVING] else State.READY


def _had_volume(world: World, sid: str) -> bool:
    return any(sid in name for name in world.engine.created)


@pytest.mark.parametrize("what", ["launch again", "delete", "stop and keep", "keep longer", "save as image"])
def test_the_hub_may_be_killed_at_any_instruction_of_it(what: str) -> None:
    for at in range(1, 20):
        world = World()
        sid = world.launched(State.STOPPED if what == "delete" else State.READY)
        with world.interrupted(at):
            PRESSED[what](world, sid)
        killed = world.trouble.count >= at
        world.time.now += 120
        world.redrive()
        session = at_rest(world, sid)
        if what == "delete" and session.failed:  # the upload was cut off: it can be done again
            assert "docker volume rm" in session.message
            world.delete(sid)
            session = at_rest(world, sid)
        if not killed:
            return
    raise AssertionError("it was killed every time")


# ── credentials that are kept ────────────────────────────────────────────────────────────────────────────────────────


def test_credentials_are_deleted_at_a_stop_unless_their_visitor_chose_otherwise() -> None:
    world = World()
    sid = world.launched(State.READY)
    world.stop(sid)
    assert at_rest(world, sid).state is State.STOPPED
    assert is_there(world, sid) == (False, True, False)
    with pytest.raises(CredentialsNeeded, match="Launch it again with its bundle"):
        world.hub.launch_again(world.session(sid))


def test_what_was_chosen_at_the_launch_holds_for_a_notebook_that_ends_by_itself() -> None:
    world = World()
    sid = world.launch("lessons", keep=True)
    world.settle()
    world.engine.containers[container_name(sid, 1)].end(0)
    world.silent = True
    for _ in range(20):
        world.time.now += 60
        world.redrive()
        while world.messages:
            world.deliver()
    assert at_rest(world, sid).state is State.KEPT
    world.silent = False
    world.launch_again(sid)
    again = at_rest(world, sid)
    assert (again.state, again.keeps) == (State.READY, True)


def test_a_stop_can_take_back_what_was_chosen_at_the_launch() -> None:
    world = World()
    sid = world.launch("lessons", keep=True)
    world.settle()
    world.stop(sid, keep=False)
    assert at_rest(world, sid).state is State.STOPPED


def test_kept_credentials_end_when_the_session_would_have() -> None:
    world = World()
    sid = world.launched(State.KEPT)
    kept = world.session(sid)
    world.time.now = kept.expires_at - 1
    world.redrive()
    assert at_rest(world, sid).state is State.KEPT
    world.time.now = kept.expires_at + 1
    world.redrive()
    assert at_rest(world, sid).state is State.STOPPED
    assert is_there(world, sid) == (False, True, False)


@pytest.mark.parametrize("forget", [World.forget, World.stop])
def test_kept_credentials_are_forgotten_when_their_visitor_wants(forget: Callable[[World, str], None]) -> None:
    world = World()
    sid = world.launched(State.KEPT)
    forget(world, sid)
    assert at_rest(world, sid).state is State.STOPPED
    assert is_there(world, sid) == (False, True, False)


def test_another_upload_launches_what_was_kept_and_its_end_leaves_nothing() -> None:
    world = World()
    sid = world.launched(State.KEPT)
    world.launch("lessons")
    session = at_rest(world, sid)
    assert (session.state, session.generation, session.sealed_in) == (State.READY, 2, 1)
    world.stop(sid)
    assert at_rest(world, sid).state is State.STOPPED
    assert is_there(world, sid) == (False, True, False)


def test_an_upload_over_what_was_kept_may_be_cut_off_and_no_endpoint_sees_the_credentials_of_another() -> None:
    other = "tcp://other.example.org:2376"
    form = Launch(
        bundle=bundles.carina(pki(), other), name="lessons", host=None, image=IMAGE, limits=Limits(), open_path=""
    )
    ends: set[tuple[State, bool, str | None]] = set()
    for at in range(1, 15):
        world = World()
        sid = world.launched(State.KEPT)
        with world.interrupted(at):
            world.hub.launch(form)
        if world.session(sid).state is State.KEPT:
            world.launch_again(sid)
        after = at_rest(world, sid)
        ends.add((after.state, after.endpoint == other, after.failure.code if after.failure else None))
        world.stop(sid)
        at_rest(world, sid)
        world.hub.launch(form)
        assert (at_rest(world, sid).state, world.session(sid).endpoint) == (State.READY, other)
    assert ends == {
        (State.READY, False, None),  # cut off before anything was stored: launched again with what was kept
        (State.KEPT, False, "credentials-missing"),  # stored, and not written down
        (State.READY, True, None),
    }


def test_credentials_get_no_older_by_being_used_again() -> None:
    """What was uploaded once is used for no longer than one session could be kept with it."""
    world = World()
    sid = world.launched(State.READY)
    until = world.session(sid).longest_until
    refused = False
    for _ in range(100):
        world.time.now += 20 * HOUR
        world.redrive()
        world.settle()
        if world.session(sid).state is State.STOPPED:
            break
        try:
            world.hub.launch_again(world.session(sid))
        except CredentialsNeeded:
            refused = True
        world.settle()
        assert world.session(sid).longest_until == until
    assert refused or world.time.now > until
    assert world.session(sid).state is State.STOPPED
    assert is_there(world, sid) == (False, True, False)


# ── keep longer ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_notebook_is_kept_longer_and_its_route_with_it() -> None:
    world = World()
    sid = world.launched(State.READY)
    before = world.session(sid)
    world.time.now += 70 * HOUR
    world.keep_longer(sid)
    after = at_rest(world, sid)
    assert after.expires_at == pytest.approx(world.time.now + 72 * HOUR, abs=60)
    (route,) = world.routes.published()
    assert (route.host, route.expires_at) == (before.host, int(after.expires_at))
    world.time.now = before.expires_at + 1
    world.redrive()
    assert at_rest(world, sid).state is State.READY


def test_a_notebook_cannot_be_kept_for_ever() -> None:
    world = World()
    sid = world.launched(State.READY)
    begun = world.session(sid).created_at
    for _ in range(5):
        world.time.now += 60 * HOUR
        world.hub.keep_longer(world.session(sid))
        world.settle()
    with pytest.raises(LongestLifeReached, match="cannot be kept any longer"):
        world.hub.keep_longer(world.session(sid))
    assert world.session(sid).expires_at == begun + 336 * HOUR


def test_what_was_launched_before_there_was_a_longest_life_cannot_be_kept_longer() -> None:
    world = World()
    sid = world.launched(State.READY)
    world.store.sessions[sid] = replace(world.session(sid), longest_until=0.0)
    with pytest.raises(LongestLifeReached):
        world.hub.keep_longer(world.session(sid))


def test_only_what_is_ready_can_be_kept_longer() -> None:
    for state in (State.PULLING, State.REMOVING, State.KEPT):
        world = World()
        sid = world.launched(state)
        with pytest.raises(SessionNotReady):
            world.hub.keep_longer(world.session(sid))


# ── delete ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_name_has_to_be_typed_to_delete() -> None:
    world = World()
    sid = world.launched(State.READY)
    for typed in ("", "Lessons", "lessons2"):
        with pytest.raises(NameNotTyped):
            world.hub.delete(world.session(sid), Deletion(name=typed))
    assert at_rest(world, sid).state is State.READY


def test_a_stopped_notebook_is_deleted_with_its_own_bundle_alone() -> None:
    world = World()
    sid = world.launched(State.STOPPED)
    stopped = world.session(sid)
    with pytest.raises(CredentialsNeeded, match="Choose its bundle"):
        world.hub.delete(stopped, Deletion(name="lessons"))
    with pytest.raises(OwnersDisagree):
        world.hub.delete(stopped, Deletion(name="lessons", bundle=bundles.carina(Pki.new(), "docker.example.org:2376")))
    other = bundles.carina(pki(), "tcp://other.example.org:2376")
    with pytest.raises(EndpointsDisagree):
        world.hub.delete(stopped, Deletion(name="lessons", bundle=other))
    assert world.session(sid) == stopped
    assert is_there(world, sid) == (False, True, False)
    world.delete(sid)
    assert at_rest(world, sid).summary.deleted
    assert is_there(world, sid) == (False, False, False)


def test_a_notebook_whose_credentials_were_forgotten_is_deleted_with_its_bundle() -> None:
    world = World()
    sid = world.launched(State.READY)
    world.forget(sid)
    world.settle()
    with pytest.raises(CredentialsNeeded):
        world.hub.delete(world.session(sid), Deletion(name="lessons"))
    world.delete(sid)
    assert at_rest(world, sid).summary.deleted
    assert is_there(world, sid) == (False, False, False)


@pytest.mark.parametrize("state", [State.READY, State.KEPT, State.STOPPED])
def test_a_volume_that_cannot_be_removed_is_named_and_can_be_deleted_later(state: State) -> None:
    world = World()
    sid = world.launched(state)
    world.engine.volumes[volume_name(sid)] = (sid, "another owner")
    world.delete(sid)
    failed = at_rest(world, sid)
    assert (failed.state, failed.summary.deleted, failed.failed) == (State.STOPPED, False, True)
    assert failed.failure is not None
    assert failed.failure.code == "volume-conflict"
    assert f"docker volume rm {volume_name(sid)}" in failed.message
    assert is_there(world, sid)[2] is False, "the credentials are gone all the same"
    world.engine.volumes[volume_name(sid)] = (sid, failed.owner)
    world.delete(sid)
    assert at_rest(world, sid).summary.deleted


def test_an_endpoint_that_stays_away_keeps_the_volume_and_the_visitor_is_told() -> None:
    world = World()
    sid = world.launched(State.READY)
    world.engine.refuses = EndpointTimeout("The endpoint does not answer")
    world.delete(sid)
    failed = at_rest_but_for_what_was_left(world, sid)
    assert failed.state is State.STOPPED
    assert f"docker rm -f {container_name(sid, 1)}; docker volume rm {volume_name(sid)}" in failed.message


def at_rest_but_for_what_was_left(world: World, sid: str) -> Session:
    world.settle()
    return world.session(sid)


def test_a_deleted_notebook_can_be_launched_again_and_begins_empty() -> None:
    world = World()
    sid = world.launched(State.READY)
    world.delete(sid)
    world.settle()
    world.launch("lessons")
    session = at_rest(world, sid)
    assert (session.state, session.generation, session.deletes) == (State.READY, 2, False)


# ── a container that was started anew ────────────────────────────────────────────────────────────────────────────────


def test_a_notebook_that_was_restarted_at_another_port_is_published_there() -> None:
    world = World()
    sid = world.launched(State.READY)
    world.engine.port = 40001
    world.hub.ask_for_look(world.session(sid))
    session = at_rest(world, sid)
    assert session.state is State.READY
    assert session.target is not None
    assert session.target.port == 40001
    (route,) = world.routes.published()
    assert route.target == session.target
    assert any("40001" in line.text for line in world.hub.lines(session))


def test_a_notebook_that_answers_at_neither_port_stays_where_it_is() -> None:
    world = World()
    sid = world.launched(State.READY)
    world.engine.port, world.silent = 40001, True
    world.hub.ask_for_look(world.session(sid))
    world.deliver()
    session = world.session(sid)
    assert session.state is State.READY
    assert session.target is not None
    assert session.target.port == 32768


# ── the table is lost ────────────────────────────────────────────────────────────────────────────────────────────────


def lose_the_table(world: World) -> World:
    """Another hub of the same certificates, on the same endpoint, whose table knows nothing."""
    after = World()
    after.engine, after.time.now = world.engine, world.time.now
    after.engine.witness, after.engine.trouble, after.engine.during = after.saw, after.trouble, after.in_time
    after.engine.renewed = after.renewed
    after.secrets, after.ticks = world.secrets, world.ticks
    return after


@pytest.mark.parametrize("launches", [1, 2, 5])
def test_a_running_notebook_is_brought_back_by_its_labels_alone(launches: int) -> None:
    world = World()
    sid = world.launched(State.READY)
    for _ in range(launches - 1):
        world.launch_again(sid)
        world.settle()
    before = world.session(sid)
    created = list(world.engine.created)
    after = lose_the_table(world)
    assert after.launch("lessons") == sid
    found = at_rest(after, sid)
    assert found.state is State.READY
    assert (found.generation, found.label, found.host) == (launches, before.label, before.host)
    assert (found.image, int(found.expires_at), found.container) == (
        before.image,
        int(before.expires_at),
        before.container,
    )
    assert after.engine.created == created, "nothing was created"
    assert any("is running at" in line.text for line in after.hub.lines(found))
    after.launch_again(sid)
    assert at_rest(after, sid).generation == launches + 1
    after.stop(sid)
    assert at_rest(after, sid).state is State.STOPPED
    assert is_there(after, sid) == (False, True, False)


def test_what_is_left_of_a_launch_that_ended_is_removed_and_the_next_has_a_number_of_its_own() -> None:
    world = World()
    sid = world.launched(State.READY)
    world.launch_again(sid)
    world.settle()
    world.engine.containers[container_name(sid, 2)].end(1)
    after = lose_the_table(world)
    after.checker.see_there(sid, 2)
    after.launch("lessons")
    session = at_rest(after, sid)
    assert (session.state, session.generation) == (State.READY, 3)
    assert list(after.engine.containers) == [container_name(sid, 3)]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"homeport.label": ""}, "an old container, without a label"),
        ({"homeport.label": "no label!!"}, "a label that is none"),
        ({"homeport.expires": "1"}, "a launch that has expired"),
        ({"homeport.expires": "for ever"}, "an end that is none"),
    ],
)
def test_what_does_not_say_all_of_itself_is_replaced_and_its_volume_stays(changes: dict[str, str], what: str) -> None:
    world = World()
    sid = world.launched(State.READY)
    name = container_name(sid, 1)
    spec = world.engine.containers[name].specification
    world.engine.containers[name].specification = replace(spec, labels={**spec.labels, **changes})
    after = lose_the_table(world)
    after.checker.see_there(sid, 1)
    after.launch("lessons")
    session = at_rest(after, sid)
    assert (session.state, session.generation) == (State.READY, 2), what
    assert is_there(after, sid) == (True, True, True)


def test_a_container_of_another_hub_or_owner_is_never_adopted_and_never_touched() -> None:
    for label in ("hub", "owner", "session"):
        world = World()
        sid = world.launched(State.READY)
        name = container_name(sid, 1)
        spec = world.engine.containers[name].specification
        strangers = replace(spec, labels={**spec.labels, f"homeport.{label}": "0" * 20})
        world.engine.containers[name] = ContainerTwin(strangers, status="running", files=b"theirs")
        after = lose_the_table(world)
        after.launch("lessons")
        after.settle()
        session = after.session(sid)
        assert session.state is State.STOPPED or label == "owner", label
        assert after.engine.containers[name].files == b"theirs" or label == "owner"


def test_an_endpoint_that_makes_up_launches_gets_no_longer_life_and_no_other_number_than_it_can_have() -> None:
    world = World()
    sid = world.launched(State.VERIFYING)
    session = world.session(sid)
    lie = LaunchThere(sid, 999_999, True, "zzzzzzzzzz", "an/image", 1e11, 1e11)
    world.engine.launches = lambda owner: [lie]  # type: ignore[method-assign]
    for _ in range(3):
        if world.messages:
            world.deliver()
    found = world.session(sid)
    assert found.expires_at <= world.time.now + 72 * HOUR
    assert found.longest_until <= world.time.now + 336 * HOUR
    assert found.owner == session.owner


def test_phases_of_the_new_states_are_as_their_visitors_see_them() -> None:
    assert phase_of(State.REPUBLISHING) is Phase.READY
    assert phase_of(State.KEPT) is Phase.STOPPED
    world = World()
    sid = world.launched(State.KEPT)
    world.launch_again(sid)
    assert world.session(sid).phase is Phase.LEAVING, "it is about to be launched, not stopped"
