"""Which lane drives a session on."""

from __future__ import annotations

import pytest

from chalicelib.session import events as e
from chalicelib.session.lanes import Lane, lane_of, queue_of
from chalicelib.session.machine import advance
from chalicelib.session.values import PHASES, Phase, State, Target
from tests.builders import NOW, a_session

LAUNCH: tuple[e.Event, ...] = (
    e.EndpointVerified("203.0.113.7", "20.10.24"),
    e.PullQueued("Waiting to pull the image: 4 other pulls are under way"),
    e.PullAdmitted(),
    e.PullProgressed(0.5, "Pulling: 1 of 2 layers"),
    e.ImagePresent(),
    e.ContainerCreated(),
    e.ContainerStarted(Target("203.0.113.7", 32768)),
    e.NotebookAnswered(),
    e.RoutePublished(),
)
LEAVE: tuple[e.Event, ...] = (e.StopRequested(), e.RouteWithdrawn(), e.ContainerRemoved(), e.CredentialsPurged())


def test_a_session_comes_through_all_lanes() -> None:
    session = a_session()
    lanes = [lane_of(session)]
    for event in (*LAUNCH, *LEAVE):
        session = advance(session, event, NOW)
        lanes.append(lane_of(session))
    launch, pull, leave, watch = Lane
    assert lanes == [*[launch] * 3, *[pull] * 2, *[launch] * 4, watch, *[leave] * 4]


def test_the_pull_lane_has_admitted_pulls_alone() -> None:
    assert [state for state in State if lane_of(a_session(state=state)) is Lane.PULL] == []
    admitted = advance(a_session(state=State.PULLING), e.PullAdmitted(), NOW)
    for event in (e.PullQueued("Waiting"), e.ImagePresent(), e.StopRequested()):
        assert lane_of(advance(admitted, event, NOW)) is not Lane.PULL


@pytest.mark.parametrize("state", sorted({*PHASES[Phase.LEAVING], State.FORGETTING}))
def test_what_deletes_credentials_or_comes_before_it_waits_for_no_launch(state: State) -> None:
    assert lane_of(a_session(state=state)) is Lane.LEAVE


def test_each_lane_has_a_queue_of_its_own() -> None:
    assert {queue_of("homeport-prod", lane) for lane in Lane} == {
        "homeport-prod-launch",
        "homeport-prod-pull",
        "homeport-prod-leave",
        "homeport-prod-watch",
    }
