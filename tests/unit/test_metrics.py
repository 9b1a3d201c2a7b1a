"""What the operator's alarms count: the lines, and which of a session's events count for what."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chalicelib.aws.errors import StoreRefused, StoreUnavailable
from chalicelib.launcher.figures import OUTSTANDING_SECONDS, figures_of
from chalicelib.metrics import NAMESPACE, OF_A_LANE, SILENT, Backlog, Metric, Metrics
from chalicelib.session import events as e
from chalicelib.session.events import Event
from chalicelib.session.lanes import Lane
from chalicelib.session.machine import advance
from chalicelib.session.values import Failure, Session, State, Target
from tests.builders import NOW, a_session

SILENCE = Failure("endpoint-timeout", "words that an endpoint may have chosen")


def lines_of(stage: str, *observations: tuple[dict[Metric, float], Lane | None, dict[str, str]]) -> list[Any]:
    lines: list[str] = []
    metrics = Metrics(stage, lambda: NOW, lines.append)
    for figures, lane, fields in observations:
        metrics.put(figures, lane, **fields)
    return [json.loads(line) for line in lines]


def test_an_observation_is_a_line_of_the_embedded_metric_format() -> None:
    figures: dict[Metric, float] = {Metric.FAILURES: 1, Metric.TIME_TO_READY: 7.5}
    (line,) = lines_of("prod", (figures, None, {"code": "no-space", "state": ""}))
    assert line == {
        "_aws": {
            "Timestamp": int(NOW * 1000),
            "CloudWatchMetrics": [
                {
                    "Namespace": NAMESPACE,
                    "Dimensions": [["Stage"]],
                    "Metrics": [{"Name": "Failures", "Unit": "Count"}, {"Name": "TimeToReady", "Unit": "Seconds"}],
                }
            ],
        },
        "Stage": "prod",
        "code": "no-space",
        "Failures": 1,
        "TimeToReady": 7.5,
    }


def test_a_lanes_figures_have_the_lane_as_a_second_dimension() -> None:
    (line,) = lines_of("prod", ({Metric.LANE_AGE: 60.0}, Lane.LEAVE, {}))
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert directive["Dimensions"] == [["Stage", "Lane"]]
    assert (line["Stage"], line["Lane"], line["LaneAge"]) == ("prod", "leave", 60.0)


def test_nothing_is_written_without_a_stage_or_without_figures() -> None:
    assert lines_of("", ({Metric.LAUNCHES: 1}, None, {})) == []
    assert lines_of("prod", ({}, None, {"code": "no-space"})) == []
    SILENT.put({Metric.LAUNCHES: 1})


def test_ten_values_of_dimensions_are_enough_for_all_figures() -> None:
    dimensions = {("Stage", "prod"), *(("Lane", lane) for lane in Lane)}
    assert len(dimensions) <= 10
    assert set(Metric) > OF_A_LANE


def test_the_backlog_has_every_lane_and_the_age_of_its_oldest_session() -> None:
    backlog = Backlog(NOW)
    for lane, since in ((Lane.LAUNCH, NOW - 5), (Lane.LAUNCH, NOW - 60), (Lane.PULL, NOW + 1)):
        backlog.add(lane, since)
    found = {lane: (figures[Metric.LANE_DEPTH], figures[Metric.LANE_AGE]) for lane, figures in backlog.figures()}
    assert found == {Lane.LAUNCH: (2, 60.0), Lane.PULL: (1, 0.0), Lane.LEAVE: (0, 0.0), Lane.WATCH: (0, 0.0)}


def figures(before: Session, event: Event, later: float = 1.0) -> dict[str, float]:
    now = NOW + later
    return {str(metric): value for metric, value in figures_of(before, event, advance(before, event, now), now).items()}


PULLING = a_session(state=State.PULLING, admitted=True)
PUBLISHING = a_session(state=State.PUBLISHING, target=Target("203.0.113.7", 32768))


@pytest.mark.parametrize(
    ("before", "event", "counted"),
    [
        (a_session(), e.EffectDelayed(SILENCE), {}),
        (a_session(), e.EffectFailed(SILENCE), {"Failures": 1}),
        (a_session(), e.PatienceExpired(SILENCE), {"Failures": 1}),
        (a_session(), e.StopRequested(), {}),
        (a_session(state=State.REMOVING, failure=SILENCE), e.EffectFailed(SILENCE), {}),
        (a_session(state=State.READY, container="c"), e.ContainerExited(None), {}),
        (a_session(state=State.READY, container="c"), e.ContainerExited(SILENCE), {"Failures": 1}),
        (a_session(state=State.PULLING), e.PullAdmitted(), {"PullsBegun": 1}),
        (a_session(state=State.PULLING), e.ImagePresent(), {}),
        (PULLING, e.ImagePresent(), {"PullsFinished": 1}),
        (PUBLISHING, e.RoutePublished(), {"TimeToReady": 1.0}),
        (a_session(state=State.FORGETTING, container="c"), e.CredentialsPurged(), {}),
    ],
)
def test_a_sessions_event_counts_for_what_it_is(before: Session, event: Event, counted: dict[str, float]) -> None:
    assert figures(before, event) == counted


@pytest.mark.parametrize("error", [StoreRefused, StoreUnavailable])
def test_a_refusal_of_the_hubs_own_stores_counts_in_every_state(error: type[StoreRefused]) -> None:
    delayed = e.EffectDelayed(Failure(error.code, "made up"))
    assert figures(a_session(), delayed) == {"StoreRefusals": 1}
    assert figures(a_session(state=State.PURGING), delayed) == {"StoreRefusals": 1}


@pytest.mark.parametrize("state", [State.FORGETTING, State.WITHDRAWING, State.PURGING])
def test_a_secret_or_a_route_that_should_be_gone_for_a_quarter_of_an_hour_is_outstanding(state: State) -> None:
    before = a_session(state=state, container="c")
    assert figures(before, e.EffectDelayed(SILENCE), OUTSTANDING_SECONDS + 1) == {"PurgesOutstanding": 1}
    assert figures(before, e.EffectDelayed(SILENCE), OUTSTANDING_SECONDS) == {}
    assert figures(a_session(state=State.REMOVING), e.EffectDelayed(SILENCE), OUTSTANDING_SECONDS + 1) == {}
