"""The Prometheus metrics of the event streams, read from the hub at every scrape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from taskbridge.center.live.stream import Ending

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

    from taskbridge.center.live.hub import Hub


class HubCollector(Collector):
    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "taskbridge_center_sse_connections", "Open event streams of this replica.", value=self._hub.count
        )
        yield CounterMetricFamily(
            "taskbridge_center_sse_sent", "Changes written to event streams.", value=self._hub.sent
        )
        cut = CounterMetricFamily(
            "taskbridge_center_sse_cut",
            "Event streams that the replica closed, by reason: slow client, rebuilt lists, shutdown, access.",
            labels=["reason"],
        )
        for ending in Ending:
            cut.add_metric([ending], self._hub.cut[ending])
        yield cut
