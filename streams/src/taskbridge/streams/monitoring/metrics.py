"""The Prometheus metrics of the streams service. Names start with ``taskbridge_streams_``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from taskbridge.schemas.dead_letters import DlqReason
from taskbridge.streams.monitoring.flow import Flow
from taskbridge.streams.positions import REASONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskbridge.schemas.errors import RecordError
    from taskbridge.streams.cores.core import Folded
    from taskbridge.streams.monitoring.progress import Snapshot
    from taskbridge.streams.records import Chunk

_PREFIX = "taskbridge_streams_"
_QUERY_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_DIRECTORIES = {
    "people": "People in memory.",
    "labels": "Field labels and form titles in memory.",
}
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
        self.flow = Flow()
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
        self._tokens_usable = self._gauge(
            "api_tokens_usable", "0 while the API tokens file is invalid and an older version is in use."
        )
        self._tokens_usable.set(1)
        self._directories = {
            what: (
                self._gauge(what, known),
                self._gauge(
                    f"{what}_left_out", f"Records beyond the limit; raise STREAMS_{what.upper()}_MAX and restart."
                ),
                self._gauge(
                    f"{what}_age_seconds", "Time since their topic was last read to its end, or was found missing."
                ),
            )
            for what, known in _DIRECTORIES.items()
        }
        self._inbox_records = self._counter("inbox_notifications", "Notifications applied to inboxes.")
        self._inbox_seconds = self._histogram(
            "inbox_chunk_seconds", "Time to process a chunk of notifications, from decoding to the local store."
        )
        self._inbox_lag = self._gauge(
            "inbox_lag_records", "Notifications that are not applied to inboxes yet.", "partition"
        )
        self._queries = _Children(
            self._histogram(
                "query_seconds",
                "Time from a query's arrival to the first byte of its response, by route and status.",
                "route",
                "status",
                buckets=_QUERY_SECONDS,
            )
        )
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
            (self._inbox_lag, now.inbox_lag),
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
        self.flow.count(result.actions, now_s=time.time())
        self._records.inc(len(records))
        self._folds.inc(result.folded)
        self._chunk_records.observe(len(records))
        self._chunk_seconds.observe(seconds)
        self._position[partition,].set(records[-1].offset)
        for change, count in result.changes.items():
            self._notifications[change].inc(count)
        for rejected in result.rejected:
            self.parked(rejected.reason)

    def parked(self, reason: RecordError) -> None:
        """Count a record that goes to the dead letters."""
        self._dead_letters.labels(reason.dlq_reason).inc()

    def query(self, route: str, status: int, seconds: float) -> None:
        """Count an answer to a query."""
        self._queries[route, status].observe(seconds)

    def watch_tokens(self, usable: Callable[[], bool]) -> None:
        """Read at every scrape whether the tokens file is in use."""
        self._tokens_usable.set_function(usable)

    def watch_directory(self, what: str, *values: Callable[[], float]) -> None:
        """Read at every scrape how many ``people`` or ``labels`` are known, how many exceed the limit, their age."""
        for gauge, each in zip(self._directories[what], values, strict=True):
            gauge.set_function(each)

    def inbox_chunk(self, applied: int, seconds: float) -> None:
        """Count a chunk of notifications that is in the inboxes."""
        self._inbox_records.inc(applied)
        self._inbox_seconds.observe(seconds)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(_PREFIX + name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, *labels: str, buckets: Sequence[float] = Histogram.DEFAULT_BUCKETS
    ) -> Histogram:
        return Histogram(_PREFIX + name, text, labels, buckets=buckets, registry=self.registry)
