"""What reconcile reports about itself: the status document, and its Prometheus metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from taskbridge.reconcile.applications import ABSENT, WITHOUT_TOKEN
from taskbridge.reconcile.form_store import WORK
from taskbridge.schemas.cloudevents import iso, optional_iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from prometheus_client import Metric

    from taskbridge.reconcile.assembly import LocalData
    from taskbridge.runtime.clock import Clock
    from taskbridge.schemas.events import FormData


def status_of(data: LocalData) -> dict[str, Any]:
    """Cursors, calls left, repairs by app and day, last callbacks, unconfirmed absences, apps, names and problems."""
    store, budget = data.store, data.budget
    return {
        "last_pass_at": optional_iso(store.findings.last_pass_ms(whole=False)),
        "last_whole_pass_at": optional_iso(store.findings.last_pass_ms(whole=True)),
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
        "apps": [
            {
                "corp_id": report.corp_id,
                "synced_at": iso(ended_ms),
                "listed": report.listed,
                "absent": report.of(ABSENT),
                "without_token": report.of(WITHOUT_TOKEN),
            }
            for ended_ms, report in store.app_tokens.last()
        ],
        "form_data": [{"corp_id": each, "waiting": count} for each, count in store.forms.waiting()],
        "names": [each._asdict() for each in store.names.counts()],
        "problems": [
            {"work": work, "since": iso(at_ms), "problem": problem} for work, at_ms, problem in store.problems.all()
        ],
    }


class Metrics:
    """Counts calls as they are made. The database gives all other values at each scrape."""

    def __init__(self, data: LocalData, clock: Clock) -> None:
        self.calls = 0
        """Made by this process."""
        self.registry = CollectorRegistry()
        self._calls = Counter(
            "taskbridge_reconcile_calls",
            "Calls of DingTalk's API, by path and result.",
            ["api", "answer"],
            registry=self.registry,
        )
        self._left_out = Counter(
            "taskbridge_reconcile_form_values_left_out",
            "Values of forms that were left out, by app: a rule may concern them, and their label or shape is unknown.",
            ["app_type"],
            registry=self.registry,
        )
        self._forms = Counter(
            "taskbridge_reconcile_form_records",
            "Records of form data written, by app and cause: create, event, scan, backfill, deleted.",
            ["app_type", "cause"],
            registry=self.registry,
        )
        self.registry.register(_StoreCollector(data, clock))

    def count_left_out(self, app_type: str, values: int) -> None:
        self._left_out.labels(app_type).inc(values)

    def count_form(self, record: FormData) -> None:
        cause = "deleted" if record.deleted else record.cause
        self._forms.labels(record.app_type, cause).inc()

    def count_call(self, path: str, answer: str) -> None:
        self.calls += 1
        self._calls.labels(path, answer).inc()


class _StoreCollector(Collector):
    def __init__(self, data: LocalData, clock: Clock) -> None:
        self._data, self._clock = data, clock

    def collect(self) -> Iterator[Metric]:
        # A scrape runs in a thread of its own, so that large tables delay no pass.
        with self._data.opened_again() as data:
            yield from self._collected(data)

    def _collected(self, data: LocalData) -> Iterator[Metric]:
        store, now_ms = data.store, self._clock.now_ms()
        left = [(each, data.budget.left(each)) for each in data.corp_ids]
        yield _gauge("taskbridge_reconcile_calls_left", "Calls left for today.", ["corp_id"], left)
        repairs = CounterMetricFamily(
            "taskbridge_reconcile_repairs",
            "Events that repaired a state, by app, kind of loss, and the run that found it. Survives restarts.",
            labels=["app_type", "kind", "work"],
        )
        yield _filled(repairs, store.findings.totals())
        callbacks = store.callbacks.all()
        yield _gauge(
            "taskbridge_reconcile_missing_since_callback",
            "Events after the app's last callback for which no callback arrived.",
            ["corp_id", "app_type"],
            [(each.corp_id, each.app_type, each.missing) for each in callbacks],
        )
        yield _gauge(
            "taskbridge_reconcile_last_callback_seconds",
            "Event time of the app's last callback; before the first, the time of the app's first check.",
            ["corp_id", "app_type"],
            [(each.corp_id, each.app_type, each.since_ms / 1000) for each in callbacks],
        )
        absences = len(store.absences.all())
        yield _gauge(
            "taskbridge_reconcile_absences", "Instances that were missing in DingTalk once.", [], [(absences,)]
        )
        synced = store.app_tokens.last()
        apps = [(report.corp_id, "listed", report.listed) for _, report in synced]
        apps += [(each.corp_id, of, len(each.of(of))) for _, each in synced for of in (ABSENT, WITHOUT_TOKEN)]
        yield _gauge(
            "taskbridge_reconcile_apps",
            "Apps at the last sync with DingTalk: listed, absent there but in the credentials file, without a token.",
            ["corp_id", "state"],
            apps,
        )
        yield _gauge(
            "taskbridge_reconcile_last_apps_sync_age_seconds",
            "Time since apps were last synced. No sample before the first.",
            ["corp_id"],
            [(report.corp_id, (now_ms - ended_ms) / 1000) for ended_ms, report in synced],
        )
        yield _gauge(
            "taskbridge_reconcile_names",
            "People and forms in tasks, by whose record is on the topic: from-dingtalk, imported, deleted, missing.",
            ["corp_id", "kind", "record"],
            store.names.counts(),
        )
        yield _gauge(
            "taskbridge_reconcile_form_reads_waiting",
            "Instances whose values are to be read.",
            ["corp_id"],
            store.forms.waiting(),
        )
        oldest = dict[tuple[str, str], int]()
        for key, cursor in store.cursors.all():
            if key.work == WORK:
                its = key.corp_id, key.app_type
                oldest[its] = min(cursor.until_ms, oldest.get(its, cursor.until_ms))
        yield _gauge(
            "taskbridge_reconcile_form_scan_age_seconds",
            "Time since which a form of the app was not scanned for changed values, of the oldest scan.",
            ["corp_id", "app_type"],
            [(*its, (now_ms - until_ms) / 1000) for its, until_ms in oldest.items()],
        )
        last_ms = store.findings.last_pass_ms(whole=True)
        yield _gauge(
            "taskbridge_reconcile_last_whole_pass_age_seconds",
            "Time since the last complete pass ended. No sample before the first.",
            [],
            [] if last_ms is None else [((now_ms - last_ms) / 1000,)],
        )


def _gauge(name: str, description: str, labels: Sequence[str], rows: Iterable[Sequence[Any]]) -> Metric:
    return _filled(GaugeMetricFamily(name, description, labels=labels), rows)


def _filled(family: CounterMetricFamily | GaugeMetricFamily, rows: Iterable[Sequence[Any]]) -> Metric:
    """The family with a sample for each row, which has the labels and then the value."""
    for *labels, value in rows:
        family.add_metric(labels, value)
    return family
