"""What the streams service tells Prometheus. Names start with ``taskbridge_streams_``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from taskbridge.streams.monitoring.flow import Flow
from taskbridge.streams.positions.standing import REASONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.schemas.errors import RecordError
    from taskbridge.streams.folding.folding import Folded
    from taskbridge.streams.monitoring.snapshot import Snapshot
    from taskbridge.streams.records import Chunk

_QUERY_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_CHUNK_SIZES = (1, 2, 5, 10, 50, 100, 250, 500, 1000, 5000)


class Metrics:
    """One set a process, in a registry of its own, so that tests can make many."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.flow = Flow()
        self._records = Counter(
            "taskbridge_streams_records", "Records taken from the task-events topic.", registry=self.registry
        )
        self._folds = Counter("taskbridge_streams_folds", "Events folded into an instance.", registry=self.registry)
        self._notifications = Counter(
            "taskbridge_streams_notifications",
            "Notifications delivered, by view and change.",
            ["view", "change"],
            registry=self.registry,
        )
        self._dead_letters = Counter(
            "taskbridge_streams_dead_letters", "Records parked, by reason.", ["reason"], registry=self.registry
        )
        self._chunk_records = Histogram(
            "taskbridge_streams_chunk_records", "Records in a chunk.", buckets=_CHUNK_SIZES, registry=self.registry
        )
        self._chunk_seconds = Histogram(
            "taskbridge_streams_chunk_seconds", "From a chunk's fold to its local store.", registry=self.registry
        )
        self._position = Gauge(
            "taskbridge_streams_position",
            "Offset of the last record that was processed.",
            ["partition"],
            registry=self.registry,
        )

        self._tokens_usable = Gauge(
            "taskbridge_streams_api_tokens_usable",
            "0 while the newest version of the API tokens file is not in force.",
            registry=self.registry,
        )
        self._tokens_usable.set(1)
        self._inbox_records = Counter(
            "taskbridge_streams_inbox_notifications", "Notifications applied to inboxes.", registry=self.registry
        )
        self._inbox_seconds = Histogram(
            "taskbridge_streams_inbox_chunk_seconds",
            "From the decoding of a chunk of notifications to its local store.",
            registry=self.registry,
        )
        self._inbox_lag = self._of_partition("inbox_lag_records", "Notifications that wait to be applied to inboxes.")

        self._queries = Histogram(
            "taskbridge_streams_query_seconds",
            "From a query's arrival to the beginning of its answer, by route and status.",
            ["route", "status"],
            buckets=_QUERY_SECONDS,
            registry=self.registry,
        )

        self._lag = self._of_partition("lag_records", "Records that wait to be processed.")
        self._lag_seconds = self._of_partition(
            "lag_seconds", "Age of the last record that was processed, while others wait; else 0."
        )
        self._restoring = self._of_partition("recovery_remaining_records", "Changelog records still to be restored.")
        self._standby_lag = self._of_partition("standby_lag_records", "Changelog records that a standby is behind.")
        self._assigned = Gauge(
            "taskbridge_streams_assigned_partitions",
            "Partitions of this worker: active or standby.",
            ["role"],
            registry=self.registry,
        )
        self._recovered = Gauge(
            "taskbridge_streams_recovery_records", "Changelog records applied since the start.", registry=self.registry
        )
        self._recovery_rate = Gauge(
            "taskbridge_streams_recovery_records_per_second",
            "Changelog records applied in the last second.",
            registry=self.registry,
        )
        self._rebalances = Gauge("taskbridge_streams_rebalances", "Rebalances since the start.", registry=self.registry)
        self._positions_lost = Counter(
            "taskbridge_streams_positions_lost",
            "Partitions that did not go on from where the group was, by reason.",
            ["reason"],
            registry=self.registry,
        )
        for reason in REASONS:
            self._positions_lost.labels(reason)
        self._stores_emptied = Counter(
            "taskbridge_streams_damaged_stores",
            "Stores that were found damaged, and emptied to be restored from their changelogs.",
            registry=self.registry,
        )
        self._watchdog = Counter(
            "taskbridge_streams_watchdog", "Times that the worker was found standing still.", registry=self.registry
        )

    def progress(self, now: Snapshot, *, rebalances: int) -> None:
        """Show how far everything is. A partition that left is shown no more."""
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

    def stuck(self) -> None:
        """Count that the watchdog's patience is over."""
        self._watchdog.inc()

    def position_lost(self, reason: str) -> None:
        """Count a partition that goes on from elsewhere than the group's position."""
        self._positions_lost.labels(reason).inc()

    def store_emptied(self) -> None:
        """Count a damaged store."""
        self._stores_emptied.inc()

    def _of_partition(self, name: str, text: str) -> Gauge:
        return Gauge(f"taskbridge_streams_{name}", text, ["partition"], registry=self.registry)

    def chunk(self, partition: int, records: Chunk, result: Folded, seconds: float) -> None:
        """Count a chunk that is durable."""
        self.flow.count(result.actions, now_s=time.time())
        self._records.inc(len(records))
        self._folds.inc(result.folded)
        self._chunk_records.observe(len(records))
        self._chunk_seconds.observe(seconds)
        self._position.labels(str(partition)).set(records[-1].offset)
        for (view, change), count in result.changes.items():
            self._notifications.labels(view, change).inc(count)
        for rejected in result.rejected:
            self.parked(rejected.reason)

    def parked(self, reason: RecordError) -> None:
        """Count a record that goes to the dead letters."""
        self._dead_letters.labels(reason.dlq_reason).inc()

    def query(self, route: str, status: int, seconds: float) -> None:
        """Count an answer to a query."""
        self._queries.labels(route, str(status)).observe(seconds)

    def watch_tokens(self, usable: Callable[[], bool]) -> None:
        """Ask at every scrape whether the tokens file is in force."""
        self._tokens_usable.set_function(usable)

    def inbox_chunk(self, applied: int, seconds: float) -> None:
        """Count a chunk of notifications that is in the inboxes."""
        self._inbox_records.inc(applied)
        self._inbox_seconds.observe(seconds)
