"""What Prometheus is told of one edge process."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

if TYPE_CHECKING:
    from edge.credentials import CredentialsFile


class Metrics:
    """Collected in a registry of its own, so that several apps can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.callbacks = Counter(
            "taskbridge_edge_callbacks",
            "Callbacks by action and outcome: how durable the event is, or why there is none.",
            ["action", "outcome"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "taskbridge_edge_callback_seconds",
            "From the first byte of a callback's body to its answer.",
            ["action"],
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
            registry=self.registry,
        )
        self.credentials_apps = Gauge(
            "taskbridge_edge_credentials_apps", "Apps in the credentials in force.", registry=self.registry
        )
        self.credentials_broken = Gauge(
            "taskbridge_edge_credentials_broken",
            "1 when the newest version of the credentials file is not in force, because it is broken.",
            registry=self.registry,
        )
        # Looking a child up takes longer than counting with it. There are few: actions and outcomes are words of ours.
        self._counter = cache(self.callbacks.labels)
        self._histogram = cache(self.seconds.labels)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def count(self, action: str, outcome: str, seconds: float) -> None:
        """Note what became of a callback."""
        self._counter(action, outcome).inc()
        self._histogram(action).observe(seconds)

    def watch_credentials(self, credentials: CredentialsFile) -> None:
        """Read the credentials' gauges from the file's present state, whenever they are asked for."""
        self.credentials_apps.set_function(lambda: credentials.current.count)
        self.credentials_broken.set_function(lambda: credentials.broken is not None)
