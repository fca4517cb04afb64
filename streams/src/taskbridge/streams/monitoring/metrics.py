"""The Prometheus metrics of the streams service. Names start with ``taskbridge_streams_``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from taskbridge.schemas.dead_letters import DlqReason
from taskbridge.streams.positions import REASONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskbridge.streams.cores.core import Folded
    from taskbridge.streams.monitoring.progress import Snapshot
    from taskbridge.streams.records import Chunk

_PREFIX = "taskbridge_streams_"
_CHUNK_SIZES = (1, 2, 5, 10, 50, 100, 250, 500, 1000, 5000)


_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


class _Children(dict[tuple[Any, ...], _Metric]):
    """A metric's children by labels: ``labels()`` locks and formats texts at each call."""

    def __init__(self, metric: _Metric) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, labels: tuple[Any, ...]) -> _Metric:
        child = self[labels] = self._metric.labels(*labels)
        return child


class Metrics:
    """One set per process, in a registry of its own, so that tests can create many.

    Counters have each reason from the start, with 0: Prometheus sees no increase in a series that starts with 1.
    """

    def __init__(self, *, times_stuck: int = 0) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._records = self._counter("records", "Records processed from the task-events topic.")
        self._folds = self._counter("folds", "Events folded into an instance.")
        self._notifications = _Children(
            self._counter("notifications", "Notifications delivered, by view and change.", "view", "change")
        )
        self._dead_letters = self._counter("dead_letters", "Records sent to the dead letters, by reason.", "reason")
        for reason in DlqReason:
            self._dead_letters.labels(reason)
        self._chunk_records = self._histogram("chunk_records", "Records per chunk.", buckets=_CHUNK_SIZES)
        self._chunk_seconds = self._histogram(
            "chunk_seconds", "Time to process a chunk, from its fold to the local store."
        )
        self._position = _Children(self._gauge("position", "Offset of the last processed record.", "partition"))
        self._lag = self._gauge("lag_records", "Records that are not processed yet.", "partition")
        self._lag_seconds = self._gauge(
            "lag_seconds",
            "While records wait: age of the last processed one, or of the first that waits. Otherwise 0.",
            "partition",
        )
        self._restoring = self._gauge(
            "recovery_remaining_records", "Changelog records that are not restored yet.", "partition"
        )
        self._standby_lag = self._gauge(
            "standby_lag_records", "Changelog records that a standby has not applied yet.", "partition"
        )
        self._assigned = self._gauge(
            "assigned_partitions", "Partitions assigned to this worker, by role: active or standby.", "role"
        )
        self.partitions = self._gauge(
            "partitions", "Partitions of the task-events topic. Each should be assigned to a worker."
        )
        self._recovered = self._gauge("recovery_records", "Changelog records applied since the start.")
        self._recovery_rate = self._gauge(
            "recovery_records_per_second", "Changelog records applied in the last second."
        )
        self._rebalances = self._gauge("rebalances", "Rebalances since the start.")
        self._positions_lost = self._counter(
            "positions_lost", "Partitions that did not resume at the group's position, by reason.", "reason"
        )
        for reason in REASONS:
            self._positions_lost.labels(reason)
        self._stores_emptied = self._counter(
            "damaged_stores", "Damaged stores that were emptied and restored from their changelogs."
        )
        self._counter("watchdog", "How often a worker on this data folder exited because it stalled.").inc(times_stuck)

    def progress(self, now: Snapshot, *, rebalances: int) -> None:
        """Set the gauges of all partitions. The series of a revoked partition disappear."""
        for gauge, values in (
            (self._lag, now.lag),
            (self._lag_seconds, now.lag_seconds),
            (self._restoring, now.restoring),
            (self._standby_lag, now.standby_lag),
        ):
            gauge.clear()
            for partition, value in values.items():
                gauge.labels(str(partition)).set(value)
        self._assigned.labels("active").set(len(now.active))
        self._assigned.labels("standby").set(len(now.standby))
        self._recovered.set(now.restored)
        self._recovery_rate.set(now.restored_a_second)
        self._rebalances.set(rebalances)

    def position_lost(self, reason: str) -> None:
        """Count a partition that did not resume at the group's position."""
        self._positions_lost.labels(reason).inc()

    def store_emptied(self) -> None:
        """Count a damaged store."""
        self._stores_emptied.inc()

    def chunk(self, partition: int, records: Chunk, result: Folded, seconds: float) -> None:
        """Count a chunk that is durable."""
        self._records.inc(len(records))
        self._folds.inc(result.folded)
        self._chunk_records.observe(len(records))
        self._chunk_seconds.observe(seconds)
        self._position[partition,].set(records[-1].offset)
        for change, count in result.changes.items():
            self._notifications[change].inc(count)
        for rejected in result.rejected:
            self._dead_letters.labels(rejected.reason.dlq_reason).inc()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(_PREFIX + name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, *labels: str, buckets: Sequence[float] = Histogram.DEFAULT_BUCKETS
    ) -> Histogram:
        return Histogram(_PREFIX + name, text, labels, buckets=buckets, registry=self.registry)
