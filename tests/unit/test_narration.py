"""What a visitor reads about a session in a word and as a share."""

from __future__ import annotations

import pytest

from chalicelib.session.narration import PROGRESS, headline, progress
from chalicelib.session.values import Failure, State
from tests.builders import a_session

FAILURE = Failure("endpoint-timeout", "The endpoint did not answer in time")


def test_only_a_session_that_stopped_because_of_a_failure_has_failed() -> None:
    assert headline(a_session(state=State.STOPPED, failure=FAILURE)) == "Failed"
    assert headline(a_session(state=State.STOPPED)) == "Stopped"
    assert headline(a_session(state=State.REMOVING, failure=FAILURE)) == "Stopping"


@pytest.mark.parametrize("fraction", [-1.0, 0.0, 0.3, 1.0, 7.0])
def test_a_pull_fills_the_gap_between_its_own_state_and_the_next(fraction: float) -> None:
    share = progress(a_session(state=State.PULLING, fraction=fraction))
    assert share is not None
    assert PROGRESS[State.PULLING] <= share <= PROGRESS[State.CREATING]


def test_a_pull_that_says_nothing_yet_is_where_it_began_and_one_that_leaves_is_nowhere() -> None:
    assert progress(a_session(state=State.PULLING)) == PROGRESS[State.PULLING]
    assert progress(a_session(state=State.REMOVING, fraction=0.5)) is None
