"""What reconcile reports about itself: the status document, and its Prometheus metrics."""

from __future__ import annotations

from collections import Counter as Counting
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from taskbridge.schemas.cloudevents import iso

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from taskbridge.reconcile.assembly import LocalData
    from taskbridge.runtime.dingtalk.clock import Clock


def status_of(data: LocalData) -> dict[str, Any]:
    """Cursors, calls left, repairs by app and day, the last callback of each app, and unconfirmed absences."""
    store, budget = data.store, data.budget
    return {
        "last_pass_at": _iso(store.findings.last_pass_ms(whole=False)),
        "last_whole_pass_at": _iso(store.findings.last_pass_ms(whole=True)),
        "forms": [
            {**key._asdict(), "since": iso(cursor.since_ms), "read_until": iso(cursor.until_ms)}
            for key, cursor in store.cursors.all()
        ],
        "calls": [
            {"corp_id": each, "today": used.day, "this_month": used.month, "left_today": budget.left(each)}
            for each, used in ((each, budget.used(each)) for each in data.corp_ids)
        ],
        "found": [
            {
                "corp_id": each.corp_id,
                "app_type": each.app_type,
                "day": each.day,
                "kind": each.kind.value,
                "missing": each.is_lost,
                "found_by": each.work,
                "events": each.repairs,
            }
            for each in store.findings.counts()
        ],
        "callbacks": [
            {
                "corp_id": each.corp_id,
                "app_type": each.app_type,
                "last_at": iso(each.since_ms),
                "missing_since": each.missing,
            }
            for each in store.callbacks.all()
        ],
        "absences": [
            {"corp_id": corp_id, "app_type": app_type, "instance_id": instance_id, "first_at": iso(first_ms)}
            for corp_id, app_type, instance_id, first_ms in store.absences.all()
        ],
    }


class Metrics:
    """Counts calls as they are made. The database gives all other values at each scrape."""

    def __init__(self, data: LocalData, clock: Clock) -> None:
        self.registry = CollectorRegistry()
        self._calls = Counter(
            "taskbridge_reconcile_calls",
            "Calls of DingTalk's API, by path and result.",
            ["api", "answer"],
            registry=self.registry,
        )
        self.registry.register(_StoreCollector(data, clock))

    def count_call(self, path: str, answer: str) -> None:
        self._calls.labels(path, answer).inc()


class _StoreCollector(Collector):
    def __init__(self, data: LocalData, clock: Clock) -> None:
        self._data, self._clock = data, clock

    def collect(self) -> Iterator[Metric]:
        budget, store = self._data.budget, self._data.store
        left = GaugeMetricFamily("taskbridge_reconcile_calls_left", "Calls left for today.", labels=["corp_id"])
        for corp_id in self._data.corp_ids:
            left.add_metric([corp_id], budget.left(corp_id))
        yield left
        repairs = CounterMetricFamily(
            "taskbridge_reconcile_repairs",
            "Events that repaired a state, by app, kind of loss, and the run that found it. Survives restarts.",
            labels=["app_type", "kind", "work"],
        )
        sums = Counting[tuple[str, str, str]]()
        for each in store.findings.counts():
            sums[each.app_type, each.kind.value, each.work] += each.repairs
        for labels, count in sums.items():
            repairs.add_metric(labels, count)
        yield repairs
        missing = GaugeMetricFamily(
            "taskbridge_reconcile_missing_since_callback",
            "Events after the app's last callback for which no callback arrived.",
            labels=["corp_id", "app_type"],
        )
        last = GaugeMetricFamily(
            "taskbridge_reconcile_last_callback_seconds",
            "Event time of the app's last callback; before the first, the time of the app's first check.",
            labels=["corp_id", "app_type"],
        )
        for each in store.callbacks.all():
            missing.add_metric([each.corp_id, each.app_type], each.missing)
            last.add_metric([each.corp_id, each.app_type], each.since_ms / 1000)
        yield missing
        yield last
        yield GaugeMetricFamily(
            "taskbridge_reconcile_absences",
            "Instances that were missing in DingTalk once.",
            value=len(store.absences.all()),
        )
        age = GaugeMetricFamily(
            "taskbridge_reconcile_last_whole_pass_age_seconds",
            "Time since the last complete pass ended. No sample before the first.",
        )
        if (last_ms := store.findings.last_pass_ms(whole=True)) is not None:
            age.add_metric([], (self._clock.now_ms() - last_ms) / 1000)
        yield age


def _iso(at_ms: int | None) -> str | None:
    return None if at_ms is None else iso(at_ms)
