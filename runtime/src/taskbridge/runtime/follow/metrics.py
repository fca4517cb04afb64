"""How far followers are, as Prometheus metrics of the service that has them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from taskbridge.runtime.follow.follower import FollowerHealth


class FollowerCollector:
    """How far this replica follows the topics, read at every scrape."""

    def __init__(self, prefix: str, health: Callable[[], Sequence[FollowerHealth]]) -> None:
        self._prefix, self._health = prefix, health

    def collect(self) -> Generator[Metric]:
        running = GaugeMetricFamily(
            self._prefix + "follower_running",
            "1 while the follower of these topics writes to the database; 0 while Kafka or the database is away.",
            labels=["group"],
        )
        lag = GaugeMetricFamily(
            self._prefix + "lag_records",
            "Records that this replica has not written yet, by topic and partition.",
            labels=["topic", "partition"],
        )
        records = CounterMetricFamily(self._prefix + "records", "Records written, by topic.", labels=["topic"])
        skipped = CounterMetricFamily(
            self._prefix + "skipped_records", "Records that could not be read, by topic.", labels=["topic"]
        )
        retries = CounterMetricFamily(
            self._prefix + "follower_retries", "Batches that were written again after an error.", labels=["group"]
        )
        age = GaugeMetricFamily(
            self._prefix + "last_commit_age_seconds", "Time since this replica last wrote a batch.", labels=["group"]
        )
        for each in self._health():
            running.add_metric([each.group], each.problem is None)
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
