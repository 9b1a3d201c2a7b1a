"""So many notebooks of one repository at once: counted from their resolving until they have stopped, and no longer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chalicelib.aws.slots import repository_pool
from chalicelib.config import REPOSITORY_MOST, Config
from chalicelib.errors import BadConfiguration
from chalicelib.repository.source import Source
from chalicelib.session.values import Phase, Session, State
from tests.world import CONTENT, IMAGE, REPOSITORY, World

LIMIT = "HOMEPORT_REPOSITORY_LIMIT"
POOL = repository_pool(REPOSITORY)


def limited(limit: int = 1) -> World:
    return World({LIMIT: str(limit)})


def at_rest(world: World, sid: str) -> Session:
    world.settle()
    world.assert_at_rest()
    return world.session(sid)


def code_of(session: Session) -> str:
    return session.failure.code if session.failure else ""


def test_over_the_limit_a_launch_fails_and_leaves_nothing() -> None:
    world = limited(2)
    sids = [world.launch_repository(name) for name in ("one", "two", "three")]
    states = [at_rest(world, sid).state for sid in sids]
    assert states == [State.READY, State.READY, State.STOPPED]
    refused = world.session(sids[2])
    assert code_of(refused) == "repository-busy"
    assert refused.failure is not None
    assert refused.failure.message.startswith("somebody/lessons has 2 notebooks on this hub")
    assert set(world.slots.held(POOL)) == set(sids[:2])
    assert at_rest(world, world.launch_repository("another version", replace(REPOSITORY, ref="v2"))).failed
    assert at_rest(world, world.launch("an image")).state is State.READY


def test_what_has_stopped_is_counted_no_longer() -> None:
    world = limited()
    first = world.launch_repository("one")
    at_rest(world, first)
    for keep in (False, True):
        world.stop(first, keep=keep)
        at_rest(world, first)
        assert world.slots.held(POOL) == {}
        if keep:
            world.launch_again(first)
        else:
            world.launch_repository("one")
        at_rest(world, first)
        assert set(world.slots.held(POOL)) == {first}
    assert at_rest(world, world.launch_repository("two")).failed
    world.delete(first)
    at_rest(world, first)
    assert at_rest(world, world.launch_repository("two")).state is State.READY


def test_a_restart_keeps_its_place() -> None:
    world = limited()
    sid = world.launch_repository("one")
    at_rest(world, sid)
    world.launch_again(sid)
    held = []

    def look() -> None:
        held.append(set(world.slots.held(POOL)))

    world.before_effect = look
    assert at_rest(world, sid).generation == 2
    assert held
    assert all(sids == {sid} for sids in held)


def test_a_notebook_that_is_kept_longer_is_counted_for_longer() -> None:
    world = limited()
    sid = world.launch_repository("one")
    before = at_rest(world, sid)
    assert world.slots.held(POOL)[sid].until == before.expires_at
    world.time.now += 3600
    world.keep_longer(sid)
    after = at_rest(world, sid)
    assert after.expires_at > before.expires_at
    assert world.slots.held(POOL)[sid].until == after.expires_at


def test_a_place_that_was_lost_ends_with_its_session() -> None:
    world = limited()
    first = world.launch_repository("one")
    ends = at_rest(world, first).expires_at
    del world.store.sessions[first]
    assert code_of(at_rest(world, world.launch_repository("two"))) == "repository-busy"
    world.time.now = ends
    assert at_rest(world, world.launch_repository("two")).state is State.READY


@pytest.mark.parametrize(("repository", "content"), [(None, CONTENT), (REPOSITORY, CONTENT)])
def test_the_files_of_a_repository_count_as_well(repository: Source | None, content: Source) -> None:
    world = limited()
    assert at_rest(world, world.launch_repository("one", None, content)).image == IMAGE
    second = at_rest(world, world.launch_repository("two", repository, content))
    assert code_of(second) == "repository-busy"
    assert world.slots.held(POOL) == {}, "what it took is given back"


def test_killed_at_any_instruction_it_has_its_place_while_it_runs_and_none_afterwards() -> None:
    at, killed = 0, True
    while killed:
        at += 1
        world = limited()
        sid = world.launch_repository("one")
        with world.interrupted(at):
            while world.messages and world.session(sid).state is not State.READY:
                world.deliver()
            world.stop(sid)
            while world.messages and world.session(sid).phase is not Phase.STOPPED:
                world.deliver()
        killed = world.trouble.count >= at
        world.redrive()
        after = at_rest(world, sid)
        if after.state is State.READY:
            assert set(world.slots.held(POOL)) == {sid}, at
            world.stop(sid)
            after = at_rest(world, sid)
        assert (after.state, after.failure, world.slots.held(POOL)) == (State.STOPPED, None, {}), at


def test_a_hub_whose_table_is_away_when_a_place_is_given_back_gives_it_back_later() -> None:
    world = limited()
    sid = world.launch_repository("one")
    at_rest(world, sid)
    world.stop(sid)
    world.lost.add("dynamodb")
    for _ in range(20):
        if world.messages:
            world.deliver()
        else:
            world.sleep_until_due()
    at_rest(world, sid)
    assert (world.session(sid).state, world.slots.held(POOL)) == (State.STOPPED, {})


def test_without_a_limit_nothing_is_counted() -> None:
    world = World()
    for name in ("one", "two"):
        assert at_rest(world, world.launch_repository(name)).state is State.READY
    assert world.slots.held(POOL) == {}


def test_the_limit_is_what_one_item_of_the_table_holds_at_most() -> None:
    assert Config.from_environ({}).repository_quota is None
    assert Config.from_environ({LIMIT: str(REPOSITORY_MOST)}).repository_limit == 500
    for text in ("0", "501", "-1", "many", "1.5"):
        with pytest.raises(BadConfiguration, match=f"{LIMIT} must be a whole number from 1 to 500"):
            Config.from_environ({LIMIT: text})
