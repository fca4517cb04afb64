"""The Prometheus metrics of the spool: its contents, its commits, and failures that need an operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskbridge.edge.kafka.record import SpooledRecord

_PREFIX = "taskbridge_edge_spool"


class SpoolMetrics:
    """The metrics of the files that this process owns."""

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        on_drained: Callable[[Sequence[SpooledRecord]], None] | None = None,
    ) -> None:
        """``on_drained`` receives records as soon as Kafka has acknowledged them."""
        self._on_drained = on_drained
        self._registry = registry or CollectorRegistry()
        self._drained = self._counter("drained", "Records delivered from the spool.")
        self._rows_damaged = self._counter("damaged_records", "Damaged records that were set aside.")
        self._files_damaged = self._counter("damaged_files", "Damaged spool files that were moved aside.")
        self._set_aside = self._counter(
            "set_aside", "Records and files that were set aside: damaged, or rejected by the broker for good."
        )
        self._failures = self._counter("failures", "I/O errors after which the spool continued in a new file.")
        self._commit_seconds = Histogram(
            f"{_PREFIX}_commit_seconds",
            "Duration of a commit: transaction, write and fsync.",
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
            registry=self._registry,
        )
        self._commit_records = Histogram(
            f"{_PREFIX}_commit_records",
            "Records per commit.",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
            registry=self._registry,
        )

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

    def drained(self, records: Sequence[SpooledRecord]) -> None:
        self._drained.inc(len(records))
        if self._on_drained is not None:
            self._on_drained(records)

    def gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Register a gauge that calls ``read`` at every scrape."""
        Gauge(f"{_PREFIX}_{name}", documentation, registry=self._registry).set_function(read)

    def _counter(self, name: str, documentation: str) -> Counter:
        return Counter(f"{_PREFIX}_{name}", documentation, registry=self._registry)
