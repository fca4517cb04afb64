"""The Prometheus metrics of webhooks. Names start with ``taskbridge_webhooks_``."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector

if TYPE_CHECKING:
    from taskbridge.webhooks.store import Result, Waiting

_PREFIX = "taskbridge_webhooks_"
_RECENT = 100
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600, 3600, 86400)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.attempts = Counter(
            _PREFIX + "attempts",
            "Attempts, by endpoint and outcome: delivered, failed or given_up.",
            ("endpoint", "outcome"),
            registry=self.registry,
        )
        self._delay = Histogram(
            _PREFIX + "delivery_seconds",
            "Time from when a delivery was added to when it was delivered, by endpoint.",
            ("endpoint",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._waiting = self._gauge("waiting_deliveries", "Deliveries that wait, by endpoint.")
        self._oldest = self._gauge("oldest_waiting_seconds", "Age of the oldest delivery that waits, by endpoint.")
        self._disabled = self._gauge("endpoint_disabled", "1 while an endpoint is disabled.")
        self.endpoints_usable = Gauge(
            _PREFIX + "endpoints_usable",
            "0 while the endpoints file is invalid and an older version is in use.",
            registry=self.registry,
        )
        self.endpoints_usable.set(1)
        self.recent: defaultdict[str, deque[bool]] = defaultdict(lambda: deque(maxlen=_RECENT))
        """Whether the last attempts at an endpoint succeeded."""

    def attempt(self, endpoint: str, result: Result) -> None:
        outcome = "delivered" if result.delivered else "failed" if result.retry_in_ms is not None else "given_up"
        self.attempts.labels(endpoint, outcome).inc()
        self.recent[endpoint].append(result.delivered)
        if result.delivered:
            self._delay.labels(endpoint).observe(max(0, result.at - result.delivery.at) / 1000)

    def state(self, endpoint: str, waiting: Waiting, *, disabled: bool) -> None:
        self._waiting.labels(endpoint).set(waiting.deliveries)
        self._oldest.labels(endpoint).set(waiting.oldest_s)
        self._disabled.labels(endpoint).set(disabled)

    def removed(self, endpoint: str, waiting: Waiting) -> None:
        """The endpoint is no longer in the file: what waits for it is counted, but nobody is alerted."""
        for each in (self._waiting, self._oldest, self._disabled):
            each.remove(endpoint)
        if waiting.deliveries:
            self._waiting.labels(endpoint).set(waiting.deliveries)
        self.recent.pop(endpoint, None)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(_PREFIX + name, text, ("endpoint",), registry=self.registry)
