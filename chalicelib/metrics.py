"""What an operator's alarms count: lines of CloudWatch's embedded metric format, which it reads out of the log.

1. A line is one observation. No call to AWS is made for it and nothing is kept.
2. Each value of a dimension is a metric of its own, which is paid for and looked at by itself. So there are two: the
   stage, and for the figures of OF_A_LANE the lane. A failure's code and all else that tells cases apart are fields of
   the line, for whoever reads the log.
3. Without a stage, as on one machine, nothing is written.

Source: "CloudWatch embedded metric format specification", version 0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Final

from chalicelib.session.lanes import Lane

NAMESPACE: Final = "Homeport"


class Metric(StrEnum):
    """All there are; docs/operations.md says what each means, and infra/resources.yaml has alarms on some."""

    LAUNCHES = "Launches"
    FAILURES = "Failures"
    TIME_TO_READY = "TimeToReady"
    PULLS_BEGUN = "PullsBegun"
    PULLS_FINISHED = "PullsFinished"
    PURGES_OUTSTANDING = "PurgesOutstanding"
    STORE_REFUSALS = "StoreRefusals"
    LANE_DEPTH = "LaneDepth"
    LANE_AGE = "LaneAge"
    PROXY_CONNECTIONS = "ProxyConnections"


OF_A_LANE: Final = frozenset({Metric.LANE_DEPTH, Metric.LANE_AGE})
_SECONDS: Final = frozenset({Metric.TIME_TO_READY, Metric.LANE_AGE})


class Metrics:
    """Where figures are reported; `write` writes a line to the log as it is, `clock` gives seconds since the epoch."""

    def __init__(self, stage: str, clock: Callable[[], float], write: Callable[[str], None]) -> None:
        self._stage = stage
        self._clock = clock
        self._write = write

    def put(self, figures: Mapping[Metric, float], lane: Lane | None = None, **fields: str) -> None:
        """Report figures of the stage, or of a lane, with fields that say more of them."""
        if not self._stage or not figures:
            return
        dimensions = {"Stage": self._stage} | ({"Lane": str(lane)} if lane else {})
        metrics = [{"Name": metric, "Unit": "Seconds" if metric in _SECONDS else "Count"} for metric in figures]
        directive = {"Namespace": NAMESPACE, "Dimensions": [list(dimensions)], "Metrics": metrics}
        head = {"Timestamp": round(self._clock() * 1000), "CloudWatchMetrics": [directive]}
        said = {name: field for name, field in fields.items() if field}
        self._write(json.dumps({"_aws": head, **dimensions, **said, **figures}))


SILENT: Final = Metrics("", lambda: 0.0, lambda line: None)


class Backlog:
    """How many sessions of each lane are due at `now`, and for how many seconds the oldest of them has been."""

    def __init__(self, now: float) -> None:
        self._now = now
        self._ages: dict[Lane, list[float]] = {lane: [] for lane in Lane}

    def add(self, lane: Lane, since: float) -> None:
        """Count a session that has been due since then."""
        self._ages[lane].append(max(self._now - since, 0.0))

    def figures(self) -> Iterator[tuple[Lane, Mapping[Metric, float]]]:
        """Yield the figures of each lane, also of one in which nothing is due."""
        for lane, ages in self._ages.items():
            yield lane, {Metric.LANE_DEPTH: len(ages), Metric.LANE_AGE: max(ages, default=0.0)}
