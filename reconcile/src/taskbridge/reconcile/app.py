"""The service: a pass at intervals, health and metrics, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from taskbridge.dingtalk.calls import Absent, NotOffered
from taskbridge.dingtalk.organisation import OrganisationApi
from taskbridge.reconcile.assembly import app_sync, open_calls, open_data, open_form_reader, open_reconciler
from taskbridge.reconcile.runs import make_pass
from taskbridge.reconcile.settings import ReconcileSettings
from taskbridge.reconcile.status import Metrics, status_of
from taskbridge.runtime.logs import configure_logs
from taskbridge.runtime.operation import operation_app, serve_until_stopped
from taskbridge.runtime.process import only_one_in
from taskbridge.runtime.settings import POLL_S, load_settings, run_program
from taskbridge.schemas.errors import OperatorError, TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Generator
    from types import FrameType

    from fastapi import FastAPI

    from taskbridge.reconcile.assembly import CallsOf, LocalData, Reconciler
    from taskbridge.reconcile.runs import PassReport

    Replay = Callable[[Collection[str]], int]

LOCK = "reconcile.lock"
FORM_DATA_WORK = "values of forms"
_PASSES = "passes"
"""The work of passes, among the stored problems."""
_RETRY_S = 60.0
_DOUBLED = 16
"""How often a pause is doubled at most: then it is longer than any interval between passes."""
_END_S = 20.0
_APPS_S = 3600.0
_RELOADED_S = 5 * POLL_S
"""After so long every worker of the edge has read the credentials file again: until then it rejects callbacks."""

_log = structlog.stdlib.get_logger(__name__)


class Service:
    """Makes passes, and follows names and apps. What fails is logged and repeated."""

    def __init__(self, settings: ReconcileSettings, data: LocalData, replay: Replay | None = None) -> None:
        """``replay`` is that of ``replay_rejected``."""
        self._settings, self._data, self._replay = settings, data, replay
        self._clock = data.clock
        self.metrics = Metrics(data, self._clock)
        self._problems: dict[str, str | None] = {}
        is_new = data.store.schedule.due() is None
        self._pass_problem = data.store.problems.find(_PASSES) or ("no pass has completed yet" if is_new else None)
        self._failure: str | None = None
        self._due_s = self._clock.monotonic_s() + self._stored_pause_s()

    @property
    def problem(self) -> str | None:
        """Why the last pass was not complete, or why the service does not work now."""
        return self._failure or self._pass_problem

    async def start(self) -> list[Coroutine[Any, Any, None]]:
        forms = [self.follow_forms()] if self._settings.form_wait_seconds else []
        return [self.work(), self.follow_apps(), *forms]

    async def work(self) -> None:
        """Make passes when they are due, and between them read-backs and readings of names, for ever."""
        while True:
            try:
                async with open_reconciler(self._settings, self._data, on_call=self.metrics.count_call) as reconciler:
                    while True:
                        self._data.file.reload_if_changed()
                        if self._clock.monotonic_s() >= self._due_s:
                            await self._make_pass(reconciler)
                        go_on = partial(self._go_on, reconciler)
                        await go_on()
                        await reconciler.read_back.work_for(self._due_s - self._clock.monotonic_s(), also=go_on)
            except (OperatorError, Absent) as error:
                self._failure = str(error)
                _log.error("work_interrupted", problem=self._failure)
                await self._clock.sleep(_RETRY_S)

    async def _make_pass(self, reconciler: Reconciler) -> None:
        calls = self.metrics.calls
        try:
            report = await make_pass(reconciler.context, reconciler.apis)
        except OperatorError as error:
            # Without a call a repetition costs nothing.
            self._ended(str(error), failed=self.metrics.calls > calls, retry_at_ms=self._clock.now_ms())
            raise
        _log_report(report)
        self._ended(report.problem, failed=report.retry_at_ms is not None, retry_at_ms=report.retry_at_ms)

    def _ended(self, problem: str | None, *, failed: bool, retry_at_ms: int | None) -> None:
        self._pass_problem = problem
        every_s = self._settings.every_minutes * 60
        pause = store_pass(self._data, problem, every_s=every_s, failed=failed, retry_at_ms=retry_at_ms)
        self._due_s = self._clock.monotonic_s() + pause

    def _stored_pause_s(self) -> float:
        """How long the next pass has to wait. The clock may have been wrong, and the interval longer."""
        due_ms = self._data.store.schedule.due()
        if due_ms is None:
            return 0
        return min((due_ms - self._clock.now_ms()) / 1000, self._settings.every_minutes * 60)

    async def _go_on(self, reconciler: Reconciler) -> None:
        """Nothing failed until now. Read the names that are due."""
        self._failure = None
        if reconciler.names is not None:
            await self.read_names(reconciler)

    async def read_names(self, reconciler: Reconciler) -> None:
        """Publish the names that are due."""
        assert reconciler.names is not None
        self._data.file.reload_if_changed()
        with self._reported("names"):
            await reconciler.context.catch_up()
            changed = await reconciler.names.run(reconciler.organisations, self._data.apps)
            if changed:
                _log.info("names_changed", names=changed)

    async def follow_forms(self) -> None:
        """Publish the values of forms, for ever."""
        on_call, wait_s = self.metrics.count_call, self._settings.form_wait_seconds
        while True:
            with self._reported(FORM_DATA_WORK):
                async with open_form_reader(
                    self._settings,
                    self._data,
                    on_call=on_call,
                    on_written=self.metrics.count_form,
                    on_left_out=self.metrics.count_left_out,
                ) as reader:
                    while True:
                        with self._reported(FORM_DATA_WORK):
                            await reader.run()
                        await self._clock.sleep(wait_s)
            await self._clock.sleep(_RETRY_S)

    async def follow_apps(self) -> None:
        """Bring the credentials file up to date with DingTalk's list every hour, for ever."""
        async with open_calls(self._settings, self._data, on_call=self.metrics.count_call) as calls:
            while True:
                await self.sync_apps(calls)
                await self._clock.sleep(_APPS_S)

    async def sync_apps(self, calls: CallsOf) -> None:
        """Once, for each corp with a corp token; then callbacks are checked that were rejected in between."""
        self._data.file.reload_if_changed()
        for each in self._data.organisations:
            if each.corp_token is not None:
                with self._reported(f"apps of {each.corp_id}"), suppress(NotOffered):
                    await app_sync(self._settings, self._data).run(OrganisationApi(calls(each.corp), each))
        self._data.file.reload_if_changed()
        if self._replay is not None:
            with self._reported("replay"):
                await replay_rejected(self._data, self._replay)

    @contextmanager
    def _reported(self, work: str) -> Generator[None]:
        """A problem of the block is logged once, and reported until it is over."""
        problem = None
        try:
            yield
        except TaskbridgeError as error:
            problem = str(error)
            if problem != self._problems.get(work):
                _log.warning("work_failed", work=work, problem=problem)
        self._problems[work] = problem
        self._data.store.problems.set(work, problem, now_ms=self._clock.now_ms())

    def http(self) -> FastAPI:
        app = operation_app(
            "reconcile",
            readiness=lambda: {"ready": self.problem is None, "problem": self.problem},
            ready="Ready when the last pass was complete",
            registry=self.metrics.registry,
            is_slow=True,
        )

        @app.get("/status", summary="Calls, repairs and unconfirmed absences", tags=["operation"])
        def status() -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
            with self._data.opened_again() as data:
                return status_of(data)

        return app


def store_pass(data: LocalData, problem: str | None, *, every_s: float, failed: bool, retry_at_ms: int | None) -> float:
    """Store how a pass ended and when the next one is due, so that a restart makes none before. Returns the pause."""
    now_ms = data.clock.now_ms()
    failures = data.store.schedule.failures() + 1 if failed else 0
    pause = pause_s(retry_at_ms, now_ms=now_ms, failures=max(failures, 1), every_s=every_s)
    data.store.problems.set(_PASSES, problem, now_ms=now_ms)
    data.store.schedule.set(now_ms + int(pause * 1000), failures=failures)
    return pause


def _log_report(report: PassReport) -> None:
    tally = report.tally
    _log.info(
        "pass_ended",
        rows=tally.rows,
        fetched=tally.fetched,
        unsettled=tally.unsettled,
        repairs=tally.repairs.total(),
    )
    if report.problem is not None:
        _log.warning("pass_incomplete", problem=report.problem)


async def replay_rejected(data: LocalData, replay: Replay) -> int:
    """Check the callbacks again that were rejected before their app or token was known; how many became events.

    ``replay`` does so for apps, and returns that number. Raises what it raises; then the next call repeats it.
    """
    waiting = data.store.app_tokens.to_replay()
    if not waiting:
        return 0
    await data.clock.sleep(_RELOADED_S)
    released = await asyncio.to_thread(replay, waiting)
    data.store.app_tokens.replayed(waiting)
    _log.info("rejected_callbacks_replayed", released=released, app_types=sorted(waiting))
    return released


def pause_s(retry_at_ms: int | None, *, now_ms: int, failures: int, every_s: float) -> float:
    """The pause before the next pass. It is shorter after a pass that DingTalk ended, but no retry comes too early.

    It doubles with each failure in a row, because passes spend calls while DingTalk does not answer.
    """
    if retry_at_ms is None:
        return every_s
    return max((retry_at_ms - now_ms) / 1000, min(every_s, _RETRY_S * 2 ** min(failures - 1, _DOUBLED)))


def run(replay: Replay | None = None) -> None:
    """Work until SIGTERM or Ctrl-C, then exit with 0. The next start continues. ``replay`` as in ``replay_rejected``.

    Raises:
        ConfigurationError: before anything is started; also if another process uses the data folder.
    """
    # For a signal before the service runs. Interrupted work was not counted, and is found again.
    signal.signal(signal.SIGTERM, _exit)
    settings = load_settings(ReconcileSettings, os.environ)
    configure_logs(settings.log_format, settings.log_level)
    with (
        only_one_in(settings.data_dir, LOCK, setting="RECONCILE_DATA_DIR"),
        open_data(settings) as data,
        suppress(KeyboardInterrupt),
    ):
        service = Service(settings, data, replay)
        asyncio.run(
            serve_until_stopped(
                service.http(),
                service="reconcile",
                address=(settings.host, settings.port),
                end_s=_END_S,
                start=service.start,
            )
        )


def _exit(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    run_program(
        "reconcile",
        run,
        does="Find and repair callbacks that never arrived, at intervals",
        needs="RECONCILE_APPS_FILE=apps.toml ",
        name="python -m taskbridge.reconcile.app",
    )
