"""The Prometheus metrics of the task center. Names start with ``taskbridge_center_``."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from taskbridge.runtime.follow.follower import FollowerHealth

_NAMESPACE = "taskbridge_center"
_PREFIX = f"{_NAMESPACE}_"
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


class FollowerCollector:
    """How far this replica follows the topics, read at every scrape."""

    def __init__(self, health: Callable[[], Sequence[FollowerHealth]]) -> None:
        self._health = health

    def collect(self) -> Generator[Metric]:
        running = GaugeMetricFamily(
            _PREFIX + "follower_running",
            "1 while the follower of these topics writes to the database; 0 while Kafka or the database is away.",
            labels=["group"],
        )
        lag = GaugeMetricFamily(
            _PREFIX + "lag_records",
            "Records that this replica has not written yet, by topic and partition.",
            labels=["topic", "partition"],
        )
        records = CounterMetricFamily(_PREFIX + "records", "Records written, by topic.", labels=["topic"])
        skipped = CounterMetricFamily(
            _PREFIX + "skipped_records", "Records that could not be read, by topic.", labels=["topic"]
        )
        retries = CounterMetricFamily(
            _PREFIX + "follower_retries", "Batches that were written again after an error.", labels=["group"]
        )
        age = GaugeMetricFamily(
            _PREFIX + "last_commit_age_seconds", "Time since this replica last wrote a batch.", labels=["group"]
        )
        for each in self._health():
            running.add_metric([each.group], each.running and each.problem is None)
            retries.add_metric([each.group], each.retries)
            if each.last_commit_at is not None:
                age.add_metric([each.group], max(0.0, time.time() - each.last_commit_at / 1000))
            for partition in each.partitions:
                behind = max(0, partition.end - partition.next_offset)
                lag.add_metric([partition.topic, str(partition.partition)], behind)
            for family, counts in ((records, each.records), (skipped, each.skipped)):
                for topic, count in counts.items():
                    family.add_metric([topic], count)
        yield from (running, lag, records, skipped, retries, age)
