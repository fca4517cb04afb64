"""What the streams service tells Prometheus. Names start with ``taskbridge_streams_``."""

from __future__ import annotations

from collections import Counter as Counted
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from streams.dead_letters import reason_code

if TYPE_CHECKING:
    from streams.chunk import ChunkResult
    from streams.transport import type_chunk

_CHUNK_SIZES = (1, 2, 5, 10, 50, 100, 250, 500, 1000, 5000)


class Metrics:
    """One set a process, in a registry of its own, so that tests can make many."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
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

    def chunk(self, partition: int, records: type_chunk, result: ChunkResult, seconds: float) -> None:
        """Count a chunk that is durable."""
        self._records.inc(len(records))
        self._folds.inc(result.folded)
        self._chunk_records.observe(len(records))
        self._chunk_seconds.observe(seconds)
        self._position.labels(str(partition)).set(records[-1].offset)
        for (view, change), count in Counted((each.view, each.change) for each in result.notifications).items():
            self._notifications.labels(view, change).inc(count)
        for rejected in result.rejected:
            self._dead_letters.labels(reason_code(rejected.reason)).inc()
