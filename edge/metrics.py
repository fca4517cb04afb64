"""What Prometheus is told of one edge process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

if TYPE_CHECKING:
    from edge.credentials import CredentialsFile
    from edge.replays import FileWindow


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
        self.quarantine = Counter(
            "taskbridge_edge_quarantine",
            "Rejected callbacks by reason and outcome: kept, suppressed by a bound, or failed to be kept.",
            ["reason", "outcome"],
            registry=self.registry,
        )
        self.replay_window_usable = Gauge(
            "taskbridge_edge_replay_window_usable",
            "0 when the file that tells copied signatures cannot be used: copies then pass for new callbacks.",
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
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def watch_credentials(self, credentials: CredentialsFile) -> None:
        """Read the credentials' gauges from the file's present state, whenever they are asked for."""
        self.credentials_apps.set_function(lambda: credentials.current.count)
        self.credentials_broken.set_function(lambda: credentials.broken is not None)

    def watch_window(self, window: FileWindow) -> None:
        self.replay_window_usable.set_function(lambda: window.problem is None)
