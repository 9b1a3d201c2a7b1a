"""Whatever happens, in any order: launches, duplicates, kills, stops, deletions, ends of lifetimes, faults.

Hypothesis chooses what happens next; the rules of history.py hold after each step, and at the end, when nothing goes
wrong any more, every session comes to rest. HOMEPORT_EXAMPLES is how many lives there are (CI: 150).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chalicelib.engine.errors import EndpointTimeout
from chalicelib.errors import HomeportError
from chalicelib.repository.source import Source
from chalicelib.session.lease import LEASE_SECONDS
from chalicelib.session.values import Phase, State
from tests.history import OWNER, Entry, HelperRemoved, Removed
from tests.launcher_twins import answer
from tests.world import BUILDER, CONTENT, IMAGE, REPOSITORY, SERVICES, World

NAMES = st.sampled_from(["lessons", "notes"])
INSTRUCTIONS = st.integers(1, 40)  # a tick has about as many at most; after its last one nothing happens
SOURCES = st.sampled_from([(REPOSITORY, None), (None, CONTENT), (REPOSITORY, CONTENT)])
NUMBERS = st.integers(0, 5)
ASKS = ["stop", "stop_and_keep", "launch_again", "keep_longer", "save_as", "remove_images", "forget", "delete"]
SKEWS = st.sampled_from([0.0, 0.0, 120.0, -120.0])
PAUSES = st.sampled_from([1.0, LEASE_SECONDS + 1, 600.0])


class AnyOrder(RuleBasedStateMachine):
    """Two notebooks of one visitor, and all that can happen to them."""

    environ: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.environ)

    # ── the visitor ──

    @initialize()
    def a_first_launch(self) -> None:
        self.world.launch("lessons")

    @rule(name=NAMES)
    def launch(self, name: str) -> None:
        self._ask(lambda: self.world.launch(name))

    @rule(name=NAMES, sources=SOURCES)
    def launch_a_repository(self, name: str, sources: tuple[Source | None, Source | None]) -> None:
        self._ask(lambda: self.world.launch_repository(name, *sources))

    @rule(name=NAMES, at=st.integers(1, 12))
    def launch_and_the_hub_is_killed(self, name: str, at: int) -> None:
        with self.world.interrupted(at):
            self._ask(lambda: self.world.launch(name))

    @rule(ask=st.sampled_from(ASKS), number=NUMBERS)
    def the_visitor_presses_a_button(self, ask: str, number: int) -> None:
        self._ask(lambda: getattr(self.world, ask)(self._sid(number)))

    # ── queue, schedule and time ──

    @rule(turns=st.integers(1, 12))
    def all_goes_on_for_a_while(self, turns: int) -> None:
        for _ in range(turns):
            if self.world.messages:
                self.world.deliver()
            else:
                self.world.sleep_until_due()

    @precondition(lambda self: self.world.messages)
    @rule(number=NUMBERS, again=st.booleans(), skew=SKEWS)
    def a_message_comes(self, number: int, again: bool, skew: float) -> None:
        self.world.deliver(number, again=again, skew=skew)

    @precondition(lambda self: self.world.messages)
    @rule(number=NUMBERS, at=INSTRUCTIONS)
    def a_message_comes_and_the_launcher_is_killed(self, number: int, at: int) -> None:
        with self.world.interrupted(at):
            self.world.deliver(number)

    @precondition(lambda self: self.world.messages)
    @rule(number=NUMBERS, at=INSTRUCTIONS, seconds=PAUSES, skew=SKEWS, turns=st.integers(1, 12))
    def a_message_comes_and_the_launcher_is_paused(
        self, number: int, at: int, seconds: float, skew: float, turns: int
    ) -> None:
        """While it is, others go on."""

        def meanwhile() -> None:
            self.world.time.now += seconds
            self.world.redrive()
            for _ in range(turns):
                if self.world.messages:
                    self.world.deliver(skew=skew)

        with self.world.interrupted(at, meanwhile):
            self.world.deliver(number)

    @precondition(lambda self: self.world.messages)
    @rule(number=NUMBERS, at=INSTRUCTIONS, ask=st.sampled_from([*ASKS, "launch"]), seconds=PAUSES)
    def a_message_comes_and_meanwhile_the_visitor_asks_for_something(
        self, number: int, at: int, ask: str, seconds: float
    ) -> None:
        def meanwhile() -> None:
            session = self.world.session(self._sid(number))
            self._ask(lambda: getattr(self.world, ask)(session.name if ask == "launch" else session.sid))
            self.world.time.now += seconds
            if self.world.messages:
                self.world.deliver(-1)

        with self.world.interrupted(at, meanwhile):
            self.world.deliver(number)

    @rule(seconds=st.sampled_from([1.0, 10.0, LEASE_SECONDS + 1, 300.0]))
    def time_passes_and_the_schedule_runs(self, seconds: float) -> None:
        self.world.time.now += seconds
        self.world.redrive()

    @rule(number=NUMBERS)
    def a_lifetime_ends(self, number: int) -> None:
        self.world.time.now = max(self.world.time.now, self.world.session(self._sid(number)).expires_at)

    # ── faults ──

    @rule(fault=st.sampled_from([*SERVICES, *SERVICES, "endpoint", "notebook"]), lost=st.booleans())
    def something_fails(self, fault: str, lost: bool) -> None:
        if fault == "endpoint":
            self.world.engine.refuses = EndpointTimeout("The endpoint does not answer")
        elif fault == "notebook":
            self.world.silent = True
        else:
            (self.world.lost if lost else self.world.down).add(fault)

    @rule()
    def all_is_well_again(self) -> None:
        self.world.down.clear()
        self.world.lost.clear()
        self.world.engine.refuses, self.world.silent = None, False
        self.world.engine.images |= {IMAGE, BUILDER}

    @rule(
        number=NUMBERS,
        what=st.sampled_from(["ends", "crashes", "is paused", "is restarted", "is removed", "its image is removed"]),
    )
    def something_happens_on_the_endpoint(self, number: int, what: str) -> None:
        engine = self.world.engine
        if what == "its image is removed":
            engine.images.clear()
        elif names := sorted(engine.containers):
            name = names[number % len(names)]
            has_run = engine.containers[name].status != "created"
            match what:
                case "ends" | "crashes" if has_run:
                    engine.containers[name].end(int(what == "crashes"))
                case "is paused" if has_run:
                    engine.containers[name].pause()
                case "ends" | "crashes" | "is paused":
                    pass
                case "is restarted":
                    engine.port += 1
                case _:
                    del engine.containers[name]
                    self.world.checker.see(Entry(Removed(name), OWNER))

    @rule(number=NUMBERS, what=st.sampled_from(["fails", "crashes", "is removed", "goes on for long"]))
    def something_happens_to_a_helper(self, number: int, what: str) -> None:
        engine = self.world.engine
        if names := sorted(engine.helpers):
            helper = engine.helpers[names[number % len(names)]]
            match what:
                case "fails" | "crashes" if helper.status == "running":
                    helper.end(1, answer(answer="failed", code="build-failed") if what == "fails" else "")
                case "is removed":
                    del engine.helpers[helper.specification.name]
                    sid = helper.specification.labels["homeport.session"]
                    self.world.checker.see(Entry(HelperRemoved(sid, helper.specification.name), OWNER))
                case _:
                    helper.looks = -20

    # ── what always holds ──

    @invariant()
    def no_rule_was_broken(self) -> None:
        assert self.world.checker.violations == []

    def teardown(self) -> None:
        """Nothing goes wrong any more: all sessions come to rest, and a Stop leaves nothing."""
        world = self.world
        self.all_is_well_again()
        world.settle()
        for sid, session in list(world.store.sessions.items()):
            if session.state in (State.READY, State.KEPT):
                world.stop(sid, keep=False)
                world.settle()
        world.assert_at_rest()
        assert {session.phase for session in world.store.sessions.values()} <= {Phase.STOPPED}
        assert world.engine.helpers == {}
        assert not any(held for pool, held in world.slots.pools.items() if pool.startswith("repository-"))

    def _sid(self, number: int) -> str:
        sids = list(self.world.store.sessions)
        return sids[number % len(sids)]

    def _ask(self, act: Callable[[], object]) -> None:
        """Ask the hub for something; it may refuse that, or have no store."""
        with suppress(HomeportError):
            act()


class AnyOrderWithALimit(AnyOrder):
    """The same, where one notebook of each repository may be launching or running."""

    environ = MappingProxyType({"HOMEPORT_REPOSITORY_LIMIT": "1"})


def _settings(examples: int) -> settings:
    return settings(
        max_examples=int(os.environ.get("HOMEPORT_EXAMPLES", examples)),
        stateful_step_count=40,
        derandomize=True,
        database=None,
    )


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = _settings(150)
TestAnyOrderWithALimit = AnyOrderWithALimit.TestCase
TestAnyOrderWithALimit.settings = _settings(50)
