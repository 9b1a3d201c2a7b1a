"""Rule 9: a session that a later version of Homeport stored is left alone until it expires or is stopped."""

from __future__ import annotations

import pytest

from chalicelib.session import events as e
from chalicelib.session.errors import IllegalTransition
from chalicelib.session.machine import advance, overdue
from chalicelib.session.values import PHASES, Phase, State, container_name
from tests.builders import LIFETIME, NOW, a_session


@pytest.mark.parametrize("state", sorted(PHASES[Phase.LAUNCHING] | PHASES[Phase.READY]))
def test_no_silence_ends_it_but_its_lifetime_does(state: State) -> None:
    session = a_session(state=state, newer=True)
    assert overdue(session, session.expires_at - 1) is None
    assert overdue(session, session.expires_at) == e.SessionExpired()


@pytest.mark.parametrize("state", sorted(PHASES[Phase.LEAVING]))
def test_one_that_is_leaving_is_taken_over_when_its_lifetime_is_over(state: State) -> None:
    session = a_session(state=state, newer=True)
    assert overdue(session, NOW + LIFETIME - 1) is None
    assert overdue(session, NOW + LIFETIME) == e.StopRequested()


def test_nothing_else_than_its_end_can_happen_to_it() -> None:
    with pytest.raises(IllegalTransition, match="later version"):
        advance(a_session(state=State.READY, newer=True), e.ContainerRan(), NOW)


def test_once_stopped_it_is_this_versions_own_and_its_container_is_looked_for_by_name() -> None:
    """What the later version wrote down is not understood; the name a container would have is known all the same."""
    session = a_session(state=State.READY, newer=True)
    stopped = advance(session, e.StopRequested(), NOW)
    assert not stopped.newer
    assert stopped.container == container_name(session.sid, session.generation)


def test_the_name_of_its_container_is_kept_when_it_is_known() -> None:
    session = a_session(state=State.READY, newer=True, container="homeport-other-1")
    assert advance(session, e.StopRequested(), NOW).container == "homeport-other-1"
