"""Health, readiness and metrics of the edge."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from importlib.metadata import version
from itertools import accumulate, product
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from taskbridge.edge.decision.callbacks import ACTIONS, PUSH, UNKNOWN
from taskbridge.edge.errors import REASONS
from taskbridge.edge.events import Durability
from taskbridge.edge.parsing.parameters import ReadingKind
from taskbridge.edge.server.admission import FULL, GAVE_WAY
from taskbridge.runtime.problems import SERVERS_REASONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from taskbridge.edge.publisher import KafkaPublisher
    from taskbridge.edge.server.admission import Gate
    from taskbridge.edge.verification.credentials import CredentialsFile, TokenUse
    from taskbridge.edge.verification.replays import FileWindows


class Durations(Collector):
    def __init__(self, name: str, documentation: str, bounds: Sequence[float]) -> None:
        self._name, self._documentation = name, documentation
        self._bounds = bounds
        self._counts: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(bounds) + 1))
        self._sums: defaultdict[str, float] = defaultdict(float)

    def observe(self, action: str, seconds: float) -> None:
        self._counts[action][bisect_left(self._bounds, seconds)] += 1
        self._sums[action] += seconds

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=["action"])
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for action, counts in self._counts.items():
            family.add_metric([action], list(zip(names, accumulate(counts), strict=True)), self._sums[action])
        return [family]


class Tally(Collector):
    """A counter by labels, for the event loop alone: without a lock, it costs a tenth of the library's."""

    def __init__(self, name: str, documentation: str, **labels: Iterable[str]) -> None:
        """``labels`` are the values of each label that are reported from the start, with 0."""
        self._name, self._documentation, self._labels = name, documentation, tuple(labels)
        self._counts = defaultdict[tuple[str, ...], int](int, dict.fromkeys(product(*labels.values()), 0))

    def count(self, *values: str) -> None:
        self._counts[values] += 1

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, count in self._counts.items():
            family.add_metric(labels, count)
        return [family]


_STEP_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """The metrics of one edge, in its own registry, so that several can run in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.outcomes = Tally(
            "taskbridge_edge_callbacks",
            "Callbacks by action and outcome. The outcome is where the event was stored, or "
            "why the callback was rejected.",
            action=(*ACTIONS, PUSH, UNKNOWN),
            outcome=(*Durability, *REASONS, "not-durable", "error", "aborted"),
        )
        self.readings = Tally(
            "taskbridge_edge_readings",
            "Verified callbacks of Yida by the reading of their parameters that was signed: plain, literal (nulls are "
            "texts, plus signs not escaped), part (query or body alone), charset (the label's second), or two of them.",
            reading=ReadingKind,
        )
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
        for each in (self.outcomes, self.readings, self._seconds, self.verify_seconds, self.publish_seconds):
            self.registry.register(each)
        self._connections_refused = Counter(
            "taskbridge_edge_connections_refused",
            "Connections closed by the server, by reason: limit reached, client too slow, not HTTP.",
            ["reason"],
            registry=self.registry,
        )
        for reason in (*SERVERS_REASONS, FULL, GAVE_WAY):
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
        self._left_out.labels(field).inc()

    def count_refused(self, reason: str) -> None:
        self._connections_refused.labels(reason).inc()

    def watch(
        self,
        *,
        credentials: CredentialsFile,
        publisher: KafkaPublisher,
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


_OK = "ok"


def readiness(credentials: CredentialsFile, publisher: KafkaPublisher, *, core: str, details: bool) -> dict[str, Any]:
    """Whether a callback can be accepted and stored and, with ``details``, what is missing.

    ``details`` are for operators, the rest for any sender. Degraded: callbacks are stored, but for example in the spool
    alone; or the last change of the credentials is invalid. ``core`` decides callbacks: ``native`` or ``python``.
    """
    has_apps = credentials.current.count > 0
    problem = credentials.problem or (_OK if has_apps else "no apps")
    parts = {**publisher.health(), "credentials": problem}
    ready = has_apps and publisher.can_store()
    degraded = ready and any(part != _OK for part in parts.values())
    return {"ready": ready, **({"degraded": degraded, **parts, "core": core} if details else {})}
