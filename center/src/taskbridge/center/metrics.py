"""The Prometheus metrics of the task center. Names start with ``taskbridge_center_``."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

_NAMESPACE = "taskbridge_center"
PREFIX = f"{_NAMESPACE}_"
_QUERY_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    """One set per process, in a registry of its own, so that tests can create many."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        counter = partial(Counter, namespace=_NAMESPACE, registry=self.registry)
        gauge = partial(Gauge, namespace=_NAMESPACE, registry=self.registry)
        self.queries = Histogram(
            "query_seconds",
            "Time from a query's arrival to the first byte of its response, by route and status.",
            ("route", "status"),
            namespace=_NAMESPACE,
            buckets=_QUERY_SECONDS,
            registry=self.registry,
        )
        self.database_errors = counter("database_errors", "Queries that the database did not answer.")
        self.tokens_usable = gauge(
            "api_tokens_usable", "0 while the API tokens file is invalid and an older version is in use."
        )
        self.tokens_usable.set(1)
        self.actions = counter(
            "actions", "Decisions, comments and urgings of people that have ended, by result.", ("result",)
        )
        self.comment_reads = counter(
            "comment_reads",
            "Instances whose comments were read for a person, by result: `read`, `not_offered`, `failed`, or `limited` "
            "(too many in an hour or a day).",
            ("result",),
        )
        self.reminders_usable = gauge(
            "reminders_file_usable", "0 while the reminders file is invalid and an older version is in use."
        )
        self.reminders_usable.set(1)
        self.reminders = counter(
            "reminders",
            "Messages to people by channel, kind and result: `sent`, `failed` (repeated later) or `given_up`.",
            ("channel", "kind", "result"),
        )
        self.filled = gauge(
            "lists_filled_ratio", "Share of the states that the lists contain while they are filled; 1 once complete."
        )
