"""What the operator counts of a proxy: its visitors' connections, each minute, as a line of the log.

The lines are metrics (chalicelib/metrics.py): infra/proxy.yaml adds and removes proxies by their average, which is that
of a proxy, as each writes one value. Without a stage nothing is written. A HAProxy that does not answer, or drains, is
not counted; the pusher says so.
"""

from __future__ import annotations

from threading import Event
from typing import Final

from chalicelib.metrics import Metric, Metrics
from proxy.agent.runtime import HaproxyUnavailable, RuntimeSocket

PERIOD: Final = 60.0  # seconds; CloudWatch keeps one value per minute


class Figures:
    """Counts at the HAProxy behind `haproxy` and reports to `metrics`."""

    def __init__(self, haproxy: RuntimeSocket, metrics: Metrics) -> None:
        self._haproxy = haproxy
        self._metrics = metrics

    def run(self, stop: Event) -> None:
        """Report once in each period until `stop` is set."""
        while not stop.wait(PERIOD):
            self.report()

    def report(self) -> None:
        """Report what there is now."""
        try:
            with self._haproxy.connected() as haproxy:
                connections = haproxy.connections()
        except HaproxyUnavailable:
            return
        self._metrics.put({Metric.PROXY_CONNECTIONS: connections})
