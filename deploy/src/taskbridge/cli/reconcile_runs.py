"""Run a pass, a backfill or a dry run, for the commands. The outcome of a run is what ``--json`` prints."""

from __future__ import annotations

import asyncio
import math
import os
import time
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from taskbridge.cli.connection import Connection, service_environment
from taskbridge.cli.data_folder import edge_folder
from taskbridge.cli.quarantine import replay_apps
from taskbridge.cli.terminal import Heartbeat
from taskbridge.dingtalk.calls import Absent, Later, Refused, Unexpected
from taskbridge.dingtalk.organisation import OrganisationApi
from taskbridge.reconcile.app import FORM_DATA_WORK, LOCK, replay_rejected, run, store_pass
from taskbridge.reconcile.assembly import app_sync, open_calls, open_data, open_form_reader, open_reconciler
from taskbridge.reconcile.repairer import Tally
from taskbridge.reconcile.runs import estimate, find_copies, import_history, make_pass
from taskbridge.reconcile.settings import ReconcileSettings
from taskbridge.reconcile.status import status_of
from taskbridge.runtime.kafka import read_kafka_config
from taskbridge.runtime.logs import configure_logs
from taskbridge.runtime.process import only_one_in
from taskbridge.runtime.settings import load_settings
from taskbridge.schemas.cloudevents import optional_iso
from taskbridge.schemas.errors import ConfigurationError, OperatorError, TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from taskbridge.cli.terminal import Progress
    from taskbridge.dingtalk.api import YidaApi
    from taskbridge.reconcile.applications import Report
    from taskbridge.reconcile.assembly import LocalData, Reconciler

_BACKFILL_LOCK = "backfill.lock"
environment_of = partial(service_environment, "RECONCILE")


def serve(environment: Mapping[str, str]) -> None:
    """Run the service. Unlike ``python -m taskbridge.reconcile.app``, it replays rejected callbacks of new apps."""
    os.environ.update(environment)
    run(partial(_replay, load_settings(ReconcileSettings, environment)))


def status(environment: Mapping[str, str]) -> dict[str, Any]:
    with open_data(load_settings(ReconcileSettings, environment)) as data:
        return status_of(data)


def sync_apps(
    environment: Mapping[str, str], credentials: Path | None, report: Progress, *, dry_run: bool
) -> dict[str, Any]:
    """Bring the credentials file up to date, and replay the rejected callbacks of new apps and tokens.

    Raises:
        ConfigurationError: a setting or file is wrong, or no corp has a corp token.
        OperatorError: a call failed, the file cannot be written, or Kafka does not answer for the replay.
    """
    settings = _settings(environment)
    settings = settings.model_copy(update={"credentials_file": credentials or settings.credentials_file})

    def replay(app_types: Collection[str]) -> int:
        report("the edge has reloaded the credentials file; replaying rejected callbacks")
        return _replay(settings, app_types)

    async def work(data: LocalData) -> dict[str, Any]:
        sync, problems, released = app_sync(settings, data), list[str](), 0
        reports: list[Report] = []
        async with open_calls(settings, data) as calls:
            for each in data.organisations:
                try:
                    if each.corp_token is not None:
                        reports.append(await sync.run(OrganisationApi(calls(each.corp), each), dry_run=dry_run))
                except OperatorError as error:
                    problems.append(str(error))
        try:
            if not dry_run:
                released = await replay_rejected(data, replay)
        except OperatorError as error:
            done = "the credentials file is up to date, but callbacks that were rejected before are not replayed"
            problems.append(f"{done}: {error}")
        if problems:
            raise OperatorError("; ".join(problems))
        changes = [{"corp_id": each.corp_id, **asdict(change)} for each in reports for change in each.changes]
        return {"listed": sum(each.listed for each in reports), "changes": changes, "replayed": released}

    with open_data(settings) as data:
        return asyncio.run(work(data))


def _replay(settings: ReconcileSettings, app_types: Collection[str]) -> int:
    assert settings.credentials_file is not None, "there is a new token in it"
    properties = read_kafka_config(settings.kafka_config_file)
    connection = Connection(settings.kafka_bootstrap_servers, settings.schema_registry_url, properties)
    try:
        return replay_apps(connection, settings.credentials_file, edge_folder(), app_types)
    finally:
        connection.close()


def one_pass(environment: Mapping[str, str]) -> dict[str, Any]:
    """Make one pass instead of the service's next one, and read whose names were imported.

    Raises:
        ConfigurationError: a setting is wrong, or the service uses this folder.
        OperatorError: Kafka or the registry does not answer.
    """
    settings = _settings(environment)

    async def work(found: Reconciler) -> dict[str, Any]:
        report = await make_pass(found.context, found.apis)
        retry_at_ms, every_s = report.retry_at_ms, settings.every_minutes * 60
        store_pass(found.data, report.problem, every_s=every_s, failed=retry_at_ms is not None, retry_at_ms=retry_at_ms)
        problems = dict(report.problems)
        if found.names is not None:
            try:
                await found.names.catch_up()
            except TaskbridgeError as error:
                problems["names"] = str(error)
        if settings.form_wait_seconds:
            try:
                async with open_form_reader(settings, found.data) as reader:
                    await reader.run()
            except TaskbridgeError as error:
                problems[FORM_DATA_WORK] = str(error)
        return _outcome(report.tally, problems, retry_at_ms)

    return _run(settings, work, lock=LOCK)


def backfill(environment: Mapping[str, str], app_type: str, since_ms: int, report: Progress) -> dict[str, Any]:
    """Import an app's history, as far as today's calls allow; raises as ``one_pass``."""

    async def work(found: Reconciler) -> dict[str, Any]:
        api = _api(found, app_type)
        await found.context.catch_up()
        expected, started, heartbeat = 0, time.monotonic(), Heartbeat(report)

        def show(tally: Tally) -> None:
            left_s = (time.monotonic() - started) / max(1, tally.rows) * max(0, expected - tally.rows)
            heartbeat.beat(
                f"{tally.rows} of about {expected} instances, details fetched for {tally.fetched},"
                f" {tally.repairs.total()} events; about {left_s / 60:.0f} min left"
            )

        tally = Tally()

        async def run() -> None:
            nonlocal expected
            expected = (await estimate(api, found.context.clock, since_ms=since_ms)).instances
            await import_history(found.context, api, since_ms, tally=tally, on_progress=show)

        return await _outcome_of(run(), tally, app_type)

    return _run(_settings(environment), work, lock=_BACKFILL_LOCK)


def copies(
    environment: Mapping[str, str], app_type: str, since_ms: int, users: Sequence[str], report: Progress
) -> dict[str, Any]:
    """Find the copies of an app to these users, or to all whom its states name; raises as ``one_pass``."""

    async def work(found: Reconciler) -> dict[str, Any]:
        api = _api(found, app_type)
        await found.context.catch_up()
        people = users or found.data.store.states.people(api.app.corp_id, app_type)
        report(f"{len(people)} people, a call each; {found.data.budget.left(api.app.corp_id)} calls left today")
        proven = {each.organisation.corp_id: each for each in found.organisations if each.organisation.corp_token}
        tally, organisation = Tally(), proven.get(api.app.corp_id)
        run = find_copies(found.context, api, people, since_ms, tally=tally, organisation=organisation)
        return await _outcome_of(run, tally, app_type)

    return _run(_settings(environment), work, lock=_BACKFILL_LOCK)


def dry_run(environment: Mapping[str, str], app_type: str, since_ms: int) -> dict[str, Any]:
    """The cost of a backfill; the estimate itself takes one call per form, and raises as calls do."""

    async def work(found: Reconciler) -> dict[str, Any]:
        api = _api(found, app_type)
        expected = await estimate(api, found.context.clock, since_ms=since_ms)
        calls = expected.list_calls + expected.detail_calls
        days = math.ceil(calls / found.data.budget.allowance.per_day)
        return {**expected._asdict(), "left_today": found.data.budget.left(api.app.corp_id), "days": days}

    return _run(_settings(environment), work)


def _settings(environment: Mapping[str, str]) -> ReconcileSettings:
    settings = load_settings(ReconcileSettings, environment)
    configure_logs(settings.log_format, "ERROR")
    return settings


def _run(settings: ReconcileSettings, work: Callable[[Reconciler], Any], *, lock: str | None = None) -> Any:
    async def worked(data: LocalData) -> Any:
        async with open_reconciler(settings, data) as found:
            return await work(found)

    alone = only_one_in(settings.data_dir, lock, setting="RECONCILE_DATA_DIR") if lock else nullcontext()
    with alone, open_data(settings) as data:
        return asyncio.run(worked(data))


def _api(found: Reconciler, app_type: str) -> YidaApi:
    for each in found.apis:
        if each.app.app_type == app_type:
            return each
    raise ConfigurationError(f"--app {app_type} is not in the file of RECONCILE_APPS_FILE")


async def _outcome_of(run: Awaitable[None], tally: Tally, app_type: str) -> dict[str, Any]:
    problems: dict[str, str] = {}
    retry_at_ms: int | None = None
    try:
        await run
    except (Later, Refused, Unexpected, Absent) as error:
        problems[app_type] = str(error)
        retry_at_ms = error.retry_at_ms if isinstance(error, Later) else None
    return _outcome(tally, problems, retry_at_ms)


def _outcome(tally: Tally, problems: Mapping[str, str], retry_at_ms: int | None) -> dict[str, Any]:
    repairs = {(app_type, kind.value): count for (app_type, kind), count in tally.repairs.items()}
    return {
        "instances": tally.rows,
        "asked": tally.fetched,
        "unsettled": tally.unsettled,
        "repairs": [
            {"app_type": app_type, "kind": kind, "events": count} for (app_type, kind), count in sorted(repairs.items())
        ],
        # By app, why it was not checked completely.
        "problems": dict(problems),
        "retry_at": optional_iso(retry_at_ms),
    }
