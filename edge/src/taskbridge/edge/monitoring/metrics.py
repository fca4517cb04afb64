"""The Prometheus metrics of one edge process."""

from __future__ import annotations

from importlib.metadata import version
from itertools import product
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from taskbridge.edge.callbacks import ACTIONS, PUSH, UNKNOWN
from taskbridge.edge.delivery.router import Durability
from taskbridge.edge.errors import REASONS
from taskbridge.edge.monitoring.tally import Durations, Outcomes
from taskbridge.edge.server.admission import ADDRESS_FULL, FULL, GAVE_WAY
from taskbridge.runtime.problems import SERVERS_REASONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from taskbridge.edge.delivery.publisher import Publisher
    from taskbridge.edge.server.admission import Gate
    from taskbridge.edge.verification.credentials import CredentialsFile
    from taskbridge.edge.verification.replay_windows import FileWindows
    from taskbridge.edge.verification.token_use import TokenUse

_STEP_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """Collected in a registry of its own, so that several apps can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.outcomes = Outcomes(
            "taskbridge_edge_callbacks",
            "Callbacks by action and outcome. The outcome is where the event was stored, or "
            "why the callback was rejected.",
        )
        self.outcomes.expect((*ACTIONS, PUSH, UNKNOWN), (*Durability, *REASONS, "not-durable", "error", "aborted"))
        self._seconds = Durations(
            "taskbridge_edge_callback_seconds",
            "Time from the first byte of a callback's body to its response.",
            (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
        )
        self.verify_seconds = Durations(
            "taskbridge_edge_verify_seconds",
            "Time from the end of a callback's body until it is parsed, verified and validated.",
            _STEP_BUCKETS,
        )
        self.publish_seconds = Durations(
            "taskbridge_edge_publish_seconds",
            "Time to store a verified event in Kafka or the spool, or to fail.",
            _STEP_BUCKETS,
        )
        for each in (self.outcomes, self._seconds, self.verify_seconds, self.publish_seconds):
            self.registry.register(each)
        self._connections_refused = Counter(
            "taskbridge_edge_connections_refused",
            "Connections closed by the server, by reason: limit reached, client too slow, not HTTP.",
            ["reason"],
            registry=self.registry,
        )
        for reason in (*SERVERS_REASONS, FULL, ADDRESS_FULL, GAVE_WAY):
            self._connections_refused.labels(reason)
        Gauge(
            "taskbridge_edge_build_info",
            "Always 1; the label is the running version.",
            ["version"],
            registry=self.registry,
        ).labels(version("taskbridge-edge")).set(1)
        self.quarantine = Counter(
            "taskbridge_edge_quarantine",
            "Rejected callbacks by reason and outcome: kept (stored), suppressed (over a "
            "limit), or failed (not stored).",
            ["reason", "outcome"],
            registry=self.registry,
        )
        for reason, outcome in product((*REASONS, "error"), ("kept", "suppressed", "failed")):
            self.quarantine.labels(reason, outcome)
        self._left_out = Counter(
            "taskbridge_edge_left_out",
            "Optional fields of accepted callbacks that could not be parsed. The event contains the raw body.",
            ["field"],
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def count(self, action: str, outcome: str, seconds: float) -> None:
        """Count a callback by its outcome. Call it on the event loop only, as all methods of the tallies."""
        self.outcomes.count(action, outcome)
        self._seconds.observe(action, seconds)

    def count_left_out(self, field: str) -> None:
        """Count a field that could not be parsed in a callback that was accepted."""
        self._left_out.labels(field).inc()

    def count_refused(self, reason: str) -> None:
        self._connections_refused.labels(reason).inc()

    def watch(
        self,
        *,
        credentials: CredentialsFile,
        publisher: Publisher,
        token_use: TokenUse,
        window: FileWindows,
        gate: Gate,
    ) -> None:
        """Read these gauges from the present state at every scrape."""
        self._gauge("connections", "Open connections.", lambda: gate.open)
        self._gauge(
            "kafka_up", "1 while Kafka responds and the topics exist.", lambda: publisher.health().get("kafka") == "ok"
        )
        self._gauge(
            "registry_up",
            "1 while the schema ids are known. Without them events cannot be encoded.",
            lambda: publisher.health().get("registry") == "ok",
        )
        self._gauge(
            "replay_window_usable",
            "0 while the file of past signatures cannot be used. Copied callbacks are then accepted as new ones.",
            lambda: window.problem is None,
        )
        self._gauge(
            "credentials_apps",
            "Apps and other systems in the credentials that are in use.",
            lambda: credentials.current.count,
        )
        self._gauge(
            "credentials_broken",
            "1 while the credentials file is invalid and an older version is in use.",
            lambda: credentials.broken is not None,
        )
        self.registry.register(_TokenCollector(credentials, token_use))

    def _gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        Gauge(f"taskbridge_edge_{name}", documentation, registry=self.registry).set_function(read)


class _TokenCollector(Collector):
    """Built at every scrape, so that the series of a retired token disappears."""

    def __init__(self, credentials: CredentialsFile, token_use: TokenUse) -> None:
        self._credentials = credentials
        self._token_use = token_use

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "taskbridge_edge_token_last_used_seconds",
            "Time of the last callback signed with each configured token, in seconds since 1970; 0 if there was none.",
            labels=["app_type", "token"],
        )
        last = self._token_use.last()
        for app_type, token in sorted({(each.app_type, each.fingerprint) for each in self._credentials.current.tokens}):
            family.add_metric([app_type, token], last.get(token, 0))
        return [family]
