"""What every store of sessions and routes must do: inherited by the tests of the twins and of DynamoDB."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import pytest

from chalicelib.aws.errors import LaunchWithdrawn, SessionNotFound, StaleSession
from chalicelib.aws.sessions import Due
from chalicelib.launcher.outside import Routes
from chalicelib.session import events as e
from chalicelib.session.errors import IllegalTransition
from chalicelib.session.lanes import Lane
from chalicelib.session.machine import advance
from chalicelib.session.narration import LOG_LINES, begin
from chalicelib.session.values import Failure, Limits, Line, Phase, Session, State, Summary, Target
from chalicelib.web import hub
from tests.builders import NOW, a_session

SLOW = Failure("endpoint-timeout", "The endpoint did not answer in time")


class Sessions(hub.Sessions, Protocol):
    """All that anybody needs of a store of sessions: the hub, the tick (which needs less), and the schedule."""

    def find(self, sid: str, *, consistent: bool = ...) -> Session | None: ...
    def due(self, now: float) -> Iterator[Due]: ...
    def to_look_at(self, now: float) -> Iterator[str]: ...
    def put_off(self, due: Due, until: float) -> None: ...


class SessionStoreContract:
    """`store` is a fixture of the inheriting class."""

    def test_what_was_saved_is_found(self, store: Sessions) -> None:
        session = a_session(
            name="Übung 笔记 🛳",
            limits=Limits(memory=2**31, cpus=1.5, gpus=-1),
            target=Target("203.0.113.7", 32768),
            failure=Failure("notebook-exited", "It ended"),
            last_problem=Failure("endpoint-timeout", "It is slow"),
            fraction=0.25,
            log=(Line(1, NOW, "one"), Line(2, NOW + 1.5, "two", progress=True)),
        )
        store.save(session)
        assert store.find(session.sid) == session
        assert store.load(session.sid) == session

    def test_what_was_saved_long_ago_is_found_at_half_the_price(self, store: Sessions) -> None:
        store.save(a_session())
        assert store.find(a_session().sid, consistent=False) == a_session()
        assert store.find("nowhere", consistent=False) is None

    def test_an_unknown_session_is_not_found(self, store: Sessions) -> None:
        assert store.find("nowhere") is None
        with pytest.raises(SessionNotFound):
            store.load("nowhere")

    def test_a_first_save_never_overwrites(self, store: Sessions) -> None:
        store.save(a_session())
        with pytest.raises(StaleSession):
            store.save(a_session())

    def test_of_two_saves_of_one_version_the_second_is_stale(self, store: Sessions) -> None:
        session = a_session()
        store.save(session)
        first = replace(session, version=2, message="first")
        store.save(first)
        with pytest.raises(StaleSession):
            store.save(replace(session, version=2, message="second"))
        assert store.load(session.sid) == first

    def test_an_owner_sees_their_own_sessions_newest_first(self, store: Sessions) -> None:
        older = a_session(name="older", created_at=NOW)
        newer = a_session(name="newer", created_at=NOW + 5)
        other = a_session(name="older", owner="cd" * 32)
        for session in (older, newer, other):
            store.save(session)
        assert store.of_owner(older.owner, 10, None) == [newer.summary, older.summary]
        assert store.of_owner(older.owner, 1, None) == [newer.summary]
        assert store.of_owner("ef" * 32, 10, None) == []

    @pytest.mark.parametrize("limit", [1, 2, 3, 8])
    def test_a_list_is_read_in_pages_also_of_sessions_that_were_created_at_the_same_time(
        self, store: Sessions, limit: int
    ) -> None:
        moments = (NOW, NOW + 1.25, NOW + 1.25, NOW + 1.25, NOW + 1.25, NOW + 2.000001, NOW + 3)
        sessions = [a_session(name=f"session {at}", created_at=created) for at, created in enumerate(moments)]
        for session in (*sessions, a_session(owner="cd" * 32, created_at=NOW + 1.25)):
            store.save(session)
        found: list[Summary] = []
        while page := store.of_owner(sessions[0].owner, limit, found[-1].position if found else None):
            assert len(page) <= limit
            found += page
        assert found == sorted((one.summary for one in sessions), key=lambda one: one.position, reverse=True)

    def test_what_a_list_shows_follows_the_session(self, store: Sessions) -> None:
        session = a_session()
        store.save(session)
        for event in (e.EffectFailed(SLOW), e.RouteWithdrawn(), e.ContainerRemoved(), e.CredentialsPurged()):
            session = saved(store, session, event)
            assert store.of_owner(session.owner, 10, None) == [session.summary]
        assert (session.summary.phase, session.summary.failed) == (Phase.STOPPED, True)

    def test_the_lines_before_the_newest_are_found_beside_the_session(self, store: Sessions) -> None:
        session = a_session(state=State.REMOVING, container="homeport-x-1")
        store.save(session)
        assert store.earlier_lines(session) == []
        log = {line.number: line for line in session.log}
        for event in (e.EffectDelayed(SLOW), e.EffectFailed(SLOW), e.CredentialsPurged()):
            session = saved(store, session, event)
            log |= {line.number: line for line in session.log}
        *earlier, newest = (log[number] for number in sorted(log))
        assert newest == session.log[-1]
        assert in_order(store.earlier_lines(session)) == earlier

    def test_a_line_that_is_kept_twice_is_there_once(self, store: Sessions) -> None:
        """As when a tick was killed between the save and the line, and the next one claims the session."""
        session = a_session(state=State.PULLING)
        store.save(session)
        session = saved(store, session, e.EffectDelayed(SLOW))
        store.save(replace(session, version=session.version + 1, written_by="tick-2"))
        assert store.earlier_lines(session) == list(session.log[:-1])

    def test_a_lost_save_leaves_no_line(self, store: Sessions) -> None:
        session = a_session(state=State.PULLING)
        store.save(session)
        store.save(replace(session, version=2, message="quicker"))
        with pytest.raises(StaleSession):
            store.save(advance(session, e.EffectDelayed(SLOW), NOW))
        assert store.earlier_lines(session) == []

    def test_a_launch_does_not_see_the_lines_of_the_one_before(self, store: Sessions) -> None:
        session = a_session(state=State.PULLING)
        store.save(session)
        for number in range(5):
            session = saved(store, session, e.EffectDelayed(Failure("a-code", f"problem {number}")))
        again = begin(replace(session, generation=2, version=session.version + 1), NOW)
        store.save(again)
        assert store.earlier_lines(again) == []
        again = saved(store, again, e.EffectDelayed(SLOW))
        assert store.earlier_lines(again) == list(again.log[:-1])

    def test_of_a_launch_the_newest_lines_are_kept_and_no_more(self, store: Sessions) -> None:
        session = a_session(state=State.PULLING)
        store.save(session)
        for number in range(LOG_LINES + 5):
            session = saved(store, session, e.EffectDelayed(Failure("a-code", f"problem {number}")))
        kept = in_order(store.earlier_lines(session))
        assert [line.text for line in kept] == [f"problem {number}" for number in range(4, LOG_LINES + 4)]

    def test_a_log_that_was_stored_whole_is_kept_from_its_next_change_on(self, store: Sessions) -> None:
        old = tuple(Line(number, NOW, f"line {number}") for number in range(1, 21))
        session = a_session(state=State.PULLING, log=old)
        store.save(session)
        claim = replace(session, version=2, written_by="tick-2")
        store.save(claim)
        assert store.earlier_lines(claim) == []
        changed = saved(store, claim, e.EffectDelayed(SLOW))
        assert [line.text for line in in_order(store.earlier_lines(changed))] == [line.text for line in old]

    def test_due_is_what_waits_no_longer_and_nobody_holds(self, store: Sessions) -> None:
        due = a_session(name="due")
        later = a_session(name="later", next_attempt_at=NOW + 100)
        held = a_session(name="held", lease_expires_at=NOW + 100)
        stopped = a_session(name="stopped", state=State.STOPPED, next_attempt_at=None)
        for session in (due, later, held, stopped):
            store.save(session)
        assert [replace(found, since=repr(float(found.since))) for found in store.due(NOW)] == [
            Due(due.sid, Lane.LAUNCH, repr(NOW))
        ]
        assert {found.sid for found in store.due(NOW + 100)} == {due.sid, later.sid, held.sid}

    def test_what_was_sent_is_not_due_again_for_a_while_unless_it_was_saved(self, store: Sessions) -> None:
        session = a_session()
        store.save(session)
        (due,) = store.due(NOW)
        store.put_off(due, NOW + 100)
        assert list(store.due(NOW)) == []
        assert [found.sid for found in store.due(NOW + 100)] == [due.sid]
        store.save(replace(session, version=2, next_attempt_at=NOW + 40))
        store.put_off(due, NOW + 100)  # it is another wait by now
        assert [float(found.since) for found in store.due(NOW + 40)] == [NOW + 40]

    def test_what_waits_is_due_when_its_time_has_come_or_a_little_later(self, store: Sessions) -> None:
        store.save(a_session(next_attempt_at=NOW + 1))
        assert list(store.due(NOW + 0.9)) == []
        assert len(list(store.due(NOW + 20))) == 1

    def test_a_ready_session_is_looked_at_in_its_minute_and_no_other_is(self, store: Sessions) -> None:
        often = a_session(name="often", state=State.READY)
        seldom = a_session(name="seldom", state=State.READY, steady=True)
        forgetting = a_session(name="forgetting", state=State.FORGETTING)
        for session in (often, seldom, forgetting):
            store.save(session)
        looks = [sid for minute in range(15) for sid in store.to_look_at(NOW + 60 * minute)]
        assert sorted(looks) == sorted([*[often.sid] * 3, seldom.sid])

    def test_a_look_is_asked_for_once_in_a_minute(self, store: Sessions) -> None:
        session = a_session(state=State.READY)
        store.save(session)
        assert [store.may_ask_for_look(session.sid) for _ in range(3)] == [True, False, False]
        assert store.load(session.sid) == session
        store.save(replace(session, version=2))
        assert not store.may_ask_for_look(session.sid)


def saved(store: Sessions, session: Session, event: e.Event) -> Session:
    """The session after an event, saved."""
    after = advance(session, event, NOW)
    store.save(after)
    return after


def in_order(lines: Iterable[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: line.number)


class RouteStoreContract(ABC):
    """`routes` is a fixture of the inheriting class."""

    @abstractmethod
    def published(self) -> Sequence[tuple[str, Target | None]]:
        """The published routes: host and target."""

    def test_a_published_route_is_seen_until_it_is_withdrawn(self, routes: Routes) -> None:
        session = a_session(target=Target("203.0.113.7", 32768))
        routes.publish(session)
        routes.publish(session)
        assert self.published() == [(session.host, session.target)]
        routes.withdraw(session)
        assert self.published() == []

    def test_a_withdrawn_launch_stays_withdrawn(self, routes: Routes) -> None:
        session = a_session(target=Target("203.0.113.7", 32768))
        routes.withdraw(session)
        for _ in range(2):
            with pytest.raises(LaunchWithdrawn):
                routes.publish(session)
            routes.withdraw(session)
        assert self.published() == []

    @pytest.mark.parametrize("generation", [1, 2])  # 1: the item of the launch before was lost
    def test_an_old_launch_touches_nothing_of_a_later_one(self, routes: Routes, generation: int) -> None:
        old = a_session(target=Target("203.0.113.7", 32768))
        new = replace(old, label="zzzzzzzzzz", generation=generation, target=Target("203.0.113.8", 40000))
        routes.withdraw(old)
        routes.publish(new)
        with pytest.raises(LaunchWithdrawn):
            routes.publish(old)
        routes.withdraw(old)
        assert self.published() == [(new.host, new.target)]

    def test_two_launches_of_one_session_have_a_route_each(self, routes: Routes) -> None:
        one = a_session(target=Target("203.0.113.7", 32768))
        two = replace(one, label="zzzzzzzzzz", target=Target("203.0.113.8", 40000))
        routes.publish(one)
        routes.publish(two)
        assert sorted(self.published()) == sorted([(one.host, one.target), (two.host, two.target)])
        routes.withdraw(one)
        assert self.published() == [(two.host, two.target)]

    def test_a_launch_without_a_label_is_found_by_the_sessions_id(self, routes: Routes) -> None:
        session = a_session(label="", target=Target("203.0.113.7", 32768))
        routes.publish(session)
        assert self.published() == [(session.sid, session.target)]
        routes.withdraw(session)
        assert self.published() == []

    def test_a_session_without_a_target_has_nothing_to_publish(self, routes: Routes) -> None:
        with pytest.raises(IllegalTransition):
            routes.publish(a_session(target=None))
        assert self.published() == []
