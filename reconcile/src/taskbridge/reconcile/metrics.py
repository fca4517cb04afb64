"""The Prometheus metrics of reconcile: calls as they are made, the rest from the database at every scrape."""

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
            "Calls of DingTalk's API, by path and result.",
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
        left = GaugeMetricFamily("taskbridge_reconcile_calls_left", "Calls left for today.", labels=["corp_id"])
        for corp_id in self._memory.corp_ids:
            left.add_metric([corp_id], budget.left(corp_id))
        yield left
        repairs = CounterMetricFamily(
            "taskbridge_reconcile_repairs",
            "Events that repaired a state, by app, kind of loss, and the run that found it. Survives restarts.",
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
            "Events after the app's last callback for which no callback arrived.",
            labels=["corp_id", "app_type"],
        )
        told = GaugeMetricFamily(
            "taskbridge_reconcile_last_callback_seconds",
            "Event time of the app's last callback; before the first, the time of the app's first check.",
            labels=["corp_id", "app_type"],
        )
        for each in kept.callbacks.all():
            missing.add_metric([each.corp_id, each.app_type], each.missing)
            told.add_metric([each.corp_id, each.app_type], each.since_ms / 1000)
        yield missing
        yield told
        yield GaugeMetricFamily(
            "taskbridge_reconcile_absences",
            "Instances that were missing in DingTalk once.",
            value=len(kept.absences.all()),
        )
        age = GaugeMetricFamily(
            "taskbridge_reconcile_last_whole_pass_age_seconds",
            "Time since the last complete pass ended. No sample before the first.",
        )
        if (last_ms := kept.found.last_pass_ms(whole=True)) is not None:
            age.add_metric([], (self._clock.now_ms() - last_ms) / 1000)
        yield age
