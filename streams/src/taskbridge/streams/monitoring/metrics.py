"""The Prometheus metrics of the streams service. Names start with ``taskbridge_streams_``."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from taskbridge.schemas.dead_letters import DlqReason
from taskbridge.streams.transactions.positions import REASONS

if TYPE_CHECKING:
    from taskbridge.streams.fold.core import Folded
    from taskbridge.streams.monitoring.progress import Snapshot
    from taskbridge.streams.records import Chunk

_NAMESPACE = "taskbridge_streams"
_CHUNK_SIZES = (1, 2, 5, 10, 50, 100, 250, 500, 1000, 5000)


class Metrics:
    """One set per process, in a registry of its own, so that tests can create many.

    Counters have each reason from the start, with 0: Prometheus sees no increase in a series that starts with 1.
    """

    def __init__(self, *, times_stuck: int = 0) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        counter = partial(Counter, namespace=_NAMESPACE, registry=self.registry)
        gauge = partial(Gauge, namespace=_NAMESPACE, registry=self.registry)
        histogram = partial(Histogram, namespace=_NAMESPACE, registry=self.registry)
        self._records = counter("records", "Records processed from the task-events topic.")
        self._folds = counter("folds", "Events folded into an instance.")
        notifications = counter("notifications", "Notifications delivered, by view and change.", ["view", "change"])
        # ``labels`` locks and formats texts at each call.
        self._notifications = cache(notifications.labels)
        self._dead_letters = counter("dead_letters", "Records sent to the dead letters, by reason.", ["reason"])
        for reason in DlqReason:
            self._dead_letters.labels(reason)
        self._chunk_records = histogram("chunk_records", "Records per chunk.", buckets=_CHUNK_SIZES)
        self._chunk_seconds = histogram("chunk_seconds", "Time to process a chunk, from its fold to the local store.")
        self._position = cache(gauge("position", "Offset of the last processed record.", ["partition"]).labels)
        self._lag = gauge("lag_records", "Records that are not processed yet.", ["partition"])
        self._lag_seconds = gauge(
            "lag_seconds",
            "While records wait: age of the last processed one, or of the first that waits. Otherwise 0.",
            ["partition"],
        )
        self._restoring = gauge(
            "recovery_remaining_records", "Changelog records that are not restored yet.", ["partition"]
        )
        self._standby_lag = gauge(
            "standby_lag_records", "Changelog records that a standby has not applied yet.", ["partition"]
        )
        self._assigned = gauge(
            "assigned_partitions", "Partitions assigned to this worker, by role: active or standby.", ["role"]
        )
        self.partitions = gauge(
            "partitions", "Partitions of the task-events topic. Each should be assigned to a worker."
        )
        self._recovered = gauge("recovery_records", "Changelog records applied since the start.")
        self._recovery_rate = gauge("recovery_records_per_second", "Changelog records applied in the last second.")
        self._rebalances = gauge("rebalances", "Rebalances since the start.")
        self.positions_lost = counter(
            "positions_lost", "Partitions that did not resume at the group's position, by reason.", ["reason"]
        )
        for reason in REASONS:
            self.positions_lost.labels(reason)
        self.stores_emptied = counter(
            "damaged_stores", "Damaged stores that were emptied and restored from their changelogs."
        )
        counter("watchdog", "How often a worker on this data folder exited because it stalled.").inc(times_stuck)

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

    def chunk(self, partition: int, records: Chunk, result: Folded, seconds: float) -> None:
        self._records.inc(len(records))
        self._folds.inc(result.folded)
        self._chunk_records.observe(len(records))
        self._chunk_seconds.observe(seconds)
        self._position(partition).set(records[-1].offset)
        for change, count in result.changes.items():
            self._notifications(*change).inc(count)
        for rejected in result.rejected:
            self._dead_letters.labels(rejected.reason.dlq_reason).inc()
