"""What Prometheus is told: calls as they are made, the rest from what is kept, whenever it is asked for."""

from __future__ import annotations

from collections import Counter as Counting
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from taskbridge.reconcile.assembly import Memory
    from taskbridge.reconcile.clock import Clock


class Metrics:
    def __init__(self, memory: Memory, clock: Clock) -> None:
        self.registry = CollectorRegistry()
        self._calls = Counter(
            "taskbridge_reconcile_calls",
            "Calls of DingTalk's API that were made, by its path and what became of them.",
            ["api", "answer"],
            registry=self.registry,
        )
        self.registry.register(_Kept(memory, clock))

    def count_call(self, path: str, answer: str) -> None:
        self._calls.labels(path, answer).inc()


class _Kept(Collector):
    def __init__(self, memory: Memory, clock: Clock) -> None:
        self._memory, self._clock = memory, clock

    def collect(self) -> Iterator[Metric]:
        budget, kept = self._memory.budget, self._memory.kept
        left = GaugeMetricFamily(
            "taskbridge_reconcile_calls_left", "Calls that may still be made today.", labels=["corp_id"]
        )
        for corp_id in self._memory.corp_ids:
            left.add_metric([corp_id], budget.left(corp_id))
        yield left
        repairs = CounterMetricFamily(
            "taskbridge_reconcile_repairs",
            "Events that mended a state, by app, what was missing and what found it; kept across restarts.",
            labels=["app_type", "kind", "work"],
        )
        sums = Counting[tuple[str, str, str]]()
        for each in kept.found.counts():
            sums[each.app_type, each.kind.value, each.work] += each.repairs
        for labels, count in sums.items():
            repairs.add_metric(labels, count)
        yield repairs
        missing = GaugeMetricFamily(
            "taskbridge_reconcile_missing_since_callback",
            "Events that a callback should have told and none did, and that happened after the app's last callback.",
            labels=["corp_id", "app_type"],
        )
        told = GaugeMetricFamily(
            "taskbridge_reconcile_last_callback_seconds",
            "When what the app's last callback told happened; before the first, when the app was first looked at.",
            labels=["corp_id", "app_type"],
        )
        for each in kept.callbacks.all():
            missing.add_metric([each.corp_id, each.app_type], each.missing)
            told.add_metric([each.corp_id, each.app_type], each.since_ms / 1000)
        yield missing
        yield told
        yield GaugeMetricFamily(
            "taskbridge_reconcile_absences", "Instances that were absent once.", value=len(kept.absences.all())
        )
        age = GaugeMetricFamily(
            "taskbridge_reconcile_last_whole_pass_age_seconds",
            "How long ago the last pass ended that left nothing out; none is told before the first.",
        )
        if (last_ms := kept.found.last_pass_ms(whole=True)) is not None:
            age.add_metric([], (self._clock.now_ms() - last_ms) / 1000)
        yield age
