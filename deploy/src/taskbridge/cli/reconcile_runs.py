"""Run a pass, a backfill or a dry run, for the commands."""

from __future__ import annotations

import asyncio
import math
import os
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from taskbridge.cli.connection import find_connection, first_given
from taskbridge.reconcile.app import LOCK, run
from taskbridge.reconcile.assembly import open_data, open_reconciler
from taskbridge.reconcile.clock import CHINA
from taskbridge.reconcile.dingtalk.calls import Later, Refused, Unexpected
from taskbridge.reconcile.runs import Backfill, estimate
from taskbridge.reconcile.settings import ReconcileSettings
from taskbridge.reconcile.status import status_of
from taskbridge.runtime.logs import configure_logs
from taskbridge.runtime.process import only_one_in
from taskbridge.runtime.settings import load_settings
from taskbridge.schemas.cloudevents import iso
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from taskbridge.cli.terminal import Progress
    from taskbridge.reconcile.assembly import LocalData, Reconciler
    from taskbridge.reconcile.dingtalk.api import YidaApi
    from taskbridge.reconcile.repairer import Tally

_REPORT_EVERY_S = 2.0
_PREFIX = "RECONCILE_"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a run."""

    rows: int
    fetched: int
    unsettled: int
    repairs: Mapping[tuple[str, str], int]
    problems: Mapping[str, str]
    """By app, why it was not checked completely."""
    retry_at: str | None

    def as_json(self) -> dict[str, Any]:
        return {
            "instances": self.rows,
            "asked": self.fetched,
            "unsettled": self.unsettled,
            "repairs": [
                {"app_type": app_type, "kind": kind, "events": count}
                for (app_type, kind), count in sorted(self.repairs.items())
            ],
            "problems": dict(self.problems),
            "retry_at": self.retry_at,
        }


def environment_of(
    bootstrap_servers: str | None = None, registry_url: str | None = None, data_dir: Path | None = None
) -> dict[str, str]:
    """The environment; addresses of Kafka and the registry that it lacks are found as for every command.

    Options, also --data-dir, take precedence over the environment.
    """
    found = dict(os.environ)
    connection = find_connection(bootstrap_servers, registry_url, data_dir=data_dir)
    given = {
        "KAFKA_BOOTSTRAP_SERVERS": (bootstrap_servers, connection.bootstrap_servers),
        "SCHEMA_REGISTRY_URL": (registry_url, connection.registry_url),
        "KAFKA_CONFIG_FILE": (None, first_given(found, "KAFKA_CONFIG_FILE") or ""),
    }
    for name, (flag, otherwise) in given.items():
        configured = found.get(_PREFIX + name) if data_dir is None else None
        found[_PREFIX + name] = flag or configured or otherwise
    return found


def moment_of(text: str) -> int:
    """The time in ms; without a zone it is China time.

    Raises:
        ConfigurationError: the text is no time.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"--since {text} is not a day or time: write it as 2026-09-01") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=CHINA)).timestamp() * 1000)


def serve(environment: Mapping[str, str]) -> None:
    """Run the service, as ``python -m taskbridge.reconcile.app`` does."""
    os.environ.update(environment)
    run()


def status(environment: Mapping[str, str]) -> dict[str, Any]:
    with open_data(load_settings(ReconcileSettings, environment)) as data:
        return status_of(data)


def one_pass(environment: Mapping[str, str]) -> Outcome:
    """Make one pass.

    Raises:
        ConfigurationError: a setting is wrong, or the service uses this folder.
        OperatorError: Kafka or the registry does not answer.
    """

    async def work(found: Reconciler) -> Outcome:
        report = await found.passes.run()
        return _outcome(report.tally, report.problems, report.retry_at_ms)

    settings = _settings(environment)
    with only_one_in(settings.data_dir, LOCK, setting="RECONCILE_DATA_DIR"):
        return _with_all(settings, work)


def backfill(environment: Mapping[str, str], app_type: str, since_ms: int, report: Progress) -> Outcome:
    """Import an app's history, as far as today's calls allow; raises as ``one_pass``."""

    async def work(found: Reconciler) -> Outcome:
        api = _api(found, app_type)
        await found.context.catch_up()
        shown = _ProgressReport(report)
        work = Backfill(found.context, api, on_progress=shown)
        problems: dict[str, str] = {}
        retry_at_ms: int | None = None
        try:
            shown.expected = (await estimate(api, found.context.clock, since_ms=since_ms)).instances
            await work.run(since_ms)
        except (Later, Refused, Unexpected) as error:
            problems[app_type] = str(error)
            retry_at_ms = error.retry_at_ms if isinstance(error, Later) else None
        return _outcome(work.tally, problems, retry_at_ms)

    settings = _settings(environment)
    with only_one_in(settings.data_dir, "backfill.lock", setting="RECONCILE_DATA_DIR"):
        return _with_all(settings, work)


def dry_run(environment: Mapping[str, str], app_type: str, since_ms: int) -> dict[str, Any]:
    """The cost of a backfill; the estimate itself takes one call per form, and raises as calls do."""
    settings = _settings(environment)

    async def work(found: Reconciler) -> dict[str, Any]:
        api = _api(found, app_type)
        expected = await estimate(api, found.context.clock, since_ms=since_ms)
        calls = expected.list_calls + expected.detail_calls
        days = math.ceil(calls / settings.calls_per_day)
        return {**expected._asdict(), "left_today": found.data.budget.left(api.app.corp_id), "days": days}

    return _with_all(settings, work)


def _settings(environment: Mapping[str, str]) -> ReconcileSettings:
    settings = load_settings(ReconcileSettings, environment)
    configure_logs(settings.log_format, "ERROR")
    return settings


def _with_all(settings: ReconcileSettings, work: Callable[[Reconciler], Any]) -> Any:
    async def worked(data: LocalData) -> Any:
        async with open_reconciler(settings, data) as found:
            return await work(found)

    with open_data(settings) as data:
        return asyncio.run(worked(data))


def _api(found: Reconciler, app_type: str) -> YidaApi:
    for each in found.apis:
        if each.app.app_type == app_type:
            return each
    raise ConfigurationError(f"--app {app_type} is not in the file of RECONCILE_APPS_FILE")


def _outcome(tally: Tally, problems: Mapping[str, str], retry_at_ms: int | None) -> Outcome:
    repairs = {(app_type, kind.value): count for (app_type, kind), count in tally.repairs.items()}
    retry_at = None if retry_at_ms is None else iso(retry_at_ms)
    return Outcome(tally.rows, tally.fetched, tally.unsettled, repairs, problems, retry_at)


class _ProgressReport:
    """Reports a line every two seconds, with the estimated time left."""

    expected = 0

    def __init__(self, report: Progress) -> None:
        self._report = report
        self._started = self._reported = time.monotonic()

    def __call__(self, tally: Tally) -> None:
        now = time.monotonic()
        if now - self._reported < _REPORT_EVERY_S:
            return
        self._reported = now
        left_s = (now - self._started) / max(1, tally.rows) * max(0, self.expected - tally.rows)
        events = tally.repairs.total()
        self._report(
            f"{tally.rows} of about {self.expected} instances, details fetched for {tally.fetched}, {events} events;"
            f" about {left_s / 60:.0f} min left"
        )
