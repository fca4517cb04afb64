"""What Prometheus is told of the spool: what it holds, how fast it commits, and what needs a person."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from taskbridge.schemas.topics import CALLBACKS_QUARANTINE, TASK_EVENTS

if TYPE_CHECKING:
    from taskbridge.edge.kafka.path import KafkaPath
    from taskbridge.edge.spool.keeper import SpoolKeeper

_PREFIX = "taskbridge_edge_spool"


class SpoolMetrics:
    """Depth, bytes and age are those of the whole folder, so any worker may be asked; the rest is this process's."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = registry or CollectorRegistry()
        self._drained = self._counter("drained", "Records delivered from the spool.")
        self._rows_damaged = self._counter("damaged_records", "Records found damaged, and set aside.")
        self._files_damaged = self._counter("damaged_files", "Spool files found damaged, and moved aside.")
        self._set_aside = self._counter(
            "set_aside", "Records and files moved out of the way: damaged, or refused by the broker for good."
        )
        self._failures = self._counter("failures", "Errors after which a file was left, and a new one begun.")
        self._commit_seconds = Histogram(
            f"{_PREFIX}_commit_seconds",
            "One commit of records: transaction, write and fsync.",
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
            registry=self._registry,
        )
        self._commit_records = Histogram(
            f"{_PREFIX}_commit_records",
            "Records that shared one commit.",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
            registry=self._registry,
        )

    def watch(self, keeper: SpoolKeeper, kafka: KafkaPath) -> None:
        """Read the gauges from the present state, whenever they are asked for."""
        self._gauge("depth", "Records that are not delivered yet.").set_function(lambda: keeper.waiting)
        self._gauge("bytes", "Bytes that count against EDGE_SPOOL_MAX_BYTES.").set_function(lambda: keeper.size)
        self._gauge("oldest_seconds", "Age of the oldest record that is not delivered yet.").set_function(
            lambda: keeper.oldest_age_s
        )
        self._gauge("set_aside_records", "Records that cannot be delivered: 'taskbridge spool status'.").set_function(
            lambda: keeper.set_aside
        )
        self._gauge("full", "1 while there is no room for another record.").set_function(lambda: keeper.full)
        self._gauge("broken", "1 after an I/O error, until a new file is open.").set_function(
            lambda: keeper.broken is not None
        )
        self._gauge(
            "unopened_files", "Files that cannot be opened now; the depth is without their records."
        ).set_function(lambda: len(keeper.unopened))
        Gauge(
            "taskbridge_edge_kafka_usable", "1 while records are expected to be acknowledged.", registry=self._registry
        ).set_function(lambda: kafka.usable)
        failing = Gauge(
            "taskbridge_edge_kafka_failing_partitions",
            "Partitions that have not acknowledged a record since the last that failed.",
            ["topic"],
            registry=self._registry,
        )
        for topic in (TASK_EVENTS, CALLBACKS_QUARANTINE):
            failing.labels(topic.name).set_function(partial(kafka.failing, topic.name))

    def committed(self, *, seconds: float, rows: int) -> None:
        self._commit_seconds.observe(seconds)
        self._commit_records.observe(rows)

    def row_damaged(self) -> None:
        self._rows_damaged.inc()
        self._set_aside.inc()

    def row_refused(self) -> None:
        self._set_aside.inc()

    def file_broken(self) -> None:
        self._failures.inc()

    def file_damaged(self, *, rows_damaged: int) -> None:
        self._files_damaged.inc()
        self._rows_damaged.inc(rows_damaged)
        self._set_aside.inc(1 + rows_damaged)

    def drained(self, count: int) -> None:
        self._drained.inc(count)

    def _counter(self, name: str, documentation: str) -> Counter:
        return Counter(f"{_PREFIX}_{name}", documentation, registry=self._registry)

    def _gauge(self, name: str, documentation: str) -> Gauge:
        return Gauge(f"{_PREFIX}_{name}", documentation, registry=self._registry)
