"""What a saved event counts for (chalicelib/metrics.py): failures, pulls, the time to ready, what stays undone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from chalicelib.aws.errors import StoreRefused, StoreUnavailable
from chalicelib.metrics import Metric
from chalicelib.session import events as e
from chalicelib.session.events import Event
from chalicelib.session.values import Failure, Session, State

OUTSTANDING_SECONDS: Final = 900.0  # after which a route or a secret that should be gone is the operator's business

_TAKES_AWAY: Final = frozenset({State.FORGETTING, State.WITHDRAWING, State.PURGING})
_OUR_STORES: Final = frozenset({StoreRefused.code, StoreUnavailable.code})


def failure_of(event: Event) -> Failure | None:
    """What failed, of an event that says that something did."""
    match event:
        case e.EffectDelayed() | e.EffectFailed() | e.PatienceExpired() | e.ContainerExited():
            return event.failure
        case _:
            return None


def figures_of(before: Session, event: Event, after: Session, now: float) -> Mapping[Metric, float]:
    """What the event that made `after` of `before` counts for."""
    failure = failure_of(event)
    late = isinstance(event, e.EffectDelayed) and now - before.entered_at > OUTSTANDING_SECONDS
    found: dict[Metric, float] = {
        Metric.FAILURES: after.failed and not before.failed,
        Metric.PULLS_BEGUN: isinstance(event, e.PullAdmitted),
        Metric.PULLS_FINISHED: isinstance(event, e.ImagePresent) and before.admitted,
        Metric.PURGES_OUTSTANDING: late and before.state in _TAKES_AWAY,
        Metric.STORE_REFUSALS: failure is not None and failure.code in _OUR_STORES,
    }
    counted = {metric: 1.0 for metric, happened in found.items() if happened}
    if before.state is State.PUBLISHING and after.state is State.READY:
        counted[Metric.TIME_TO_READY] = now - before.created_at
    return counted
