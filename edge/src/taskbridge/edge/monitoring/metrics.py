"""What Prometheus is told of one edge process."""

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
from taskbridge.edge.server.connections.gate import ADDRESS_FULL, FULL, GAVE_WAY
from taskbridge.runtime.http.refusals import SERVERS_REASONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from taskbridge.edge.delivery.publisher import Publisher
    from taskbridge.edge.server.connections.gate import Gate
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
            "Callbacks by action and outcome: how durable the event is, or why there is none.",
        )
        self.outcomes.expect((*ACTIONS, PUSH, UNKNOWN), (*Durability, *REASONS, "not-durable", "error", "aborted"))
        self._seconds = Durations(
            "taskbridge_edge_callback_seconds",
            "From the first byte of a callback's body to its answer.",
            (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
        )
        self.verify_seconds = Durations(
            "taskbridge_edge_verify_seconds",
            "From the end of a callback's body to what is proven: parsing, verification, shape.",
            _STEP_BUCKETS,
        )
        self.publish_seconds = Durations(
            "taskbridge_edge_publish_seconds",
            "From a verified event until it is durable, or until nothing could keep it.",
            _STEP_BUCKETS,
        )
        for each in (self.outcomes, self._seconds, self.verify_seconds, self.publish_seconds):
            self.registry.register(each)
        self._connections_refused = Counter(
            "taskbridge_edge_connections_refused",
            "Connections closed by the server, by reason: a limit, a sender that is too slow, no HTTP.",
            ["reason"],
            registry=self.registry,
        )
        for reason in (*SERVERS_REASONS, FULL, ADDRESS_FULL, GAVE_WAY):
            self._connections_refused.labels(reason)
        Gauge(
            "taskbridge_edge_build_info", "Always 1; the label says what runs.", ["version"], registry=self.registry
        ).labels(version("taskbridge-edge")).set(1)
        self.quarantine = Counter(
            "taskbridge_edge_quarantine",
            "Rejected callbacks by reason and outcome: kept, suppressed by a bound, or failed to be kept.",
            ["reason", "outcome"],
            registry=self.registry,
        )
        for reason, outcome in product((*REASONS, "error"), ("kept", "suppressed", "failed")):
            self.quarantine.labels(reason, outcome)
        self._left_out = Counter(
            "taskbridge_edge_left_out",
            "Fields of accepted callbacks that only describe and were not understood; they are raw in the event.",
            ["field"],
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def count(self, action: str, outcome: str, seconds: float) -> None:
        """Note what became of a callback. Only on the event loop, as all that the tallies are told."""
        self.outcomes.count(action, outcome)
        self._seconds.observe(action, seconds)

    def count_left_out(self, field: str) -> None:
        """A field was not understood, and its callback taken all the same."""
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
        """Read these from the present state, whenever they are asked for."""
        self._gauge("connections", "Open connections.", lambda: gate.open)
        self._gauge(
            "kafka_up", "1 while Kafka answers and has the topics.", lambda: publisher.health().get("kafka") == "ok"
        )
        self._gauge(
            "registry_up",
            "1 while the schemas' ids are known, so that events can be encoded.",
            lambda: publisher.health().get("registry") == "ok",
        )
        self._gauge(
            "replay_window_usable",
            "0 when the file that tells copied signatures cannot be used: copies then pass for new callbacks.",
            lambda: window.problem is None,
        )
        self._gauge(
            "credentials_apps", "Apps and other systems in the credentials in force.", lambda: credentials.current.count
        )
        self._gauge(
            "credentials_broken",
            "1 when the newest version of the credentials file is not in force, because it is broken.",
            lambda: credentials.broken is not None,
        )
        self.registry.register(_TokenCollector(credentials, token_use))

    def _gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        Gauge(f"taskbridge_edge_{name}", documentation, registry=self.registry).set_function(read)


class _TokenCollector(Collector):
    """Made anew each time, so that a token that is retired goes with its series."""

    def __init__(self, credentials: CredentialsFile, token_use: TokenUse) -> None:
        self._credentials = credentials
        self._token_use = token_use

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "taskbridge_edge_token_last_used_seconds",
            "When each configured token last signed a callback, in seconds since 1970; 0 when it never did.",
            labels=["app_type", "token"],
        )
        last = self._token_use.last()
        for app_type, token in sorted({(each.app_type, each.fingerprint) for each in self._credentials.current.tokens}):
            family.add_metric([app_type, token], last.get(token, 0))
        return [family]
