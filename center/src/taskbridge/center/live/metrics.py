"""The Prometheus metrics of the event streams, read from the hub at every scrape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from taskbridge.center.live.subscription import Ending

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

    from taskbridge.center.live.hub import Hub


class HubCollector(Collector):
    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "taskbridge_streams_sse_connections",
            "Open event streams of this worker's partitions.",
            value=self._hub.count,
        )
        yield GaugeMetricFamily(
            "taskbridge_streams_sse_forwarded",
            "Open event streams that this worker forwards to other workers.",
            value=self._hub.forwarded,
        )
        yield CounterMetricFamily(
            "taskbridge_streams_sse_sent", "Notifications written to event streams.", value=self._hub.sent
        )
        cut = CounterMetricFamily(
            "taskbridge_streams_sse_cut",
            "Event streams that the worker closed, by reason: slow client, moved partition, shutdown, access.",
            labels=["reason"],
        )
        for ending in Ending:
            cut.add_metric([ending], self._hub.cut[ending])
        yield cut
