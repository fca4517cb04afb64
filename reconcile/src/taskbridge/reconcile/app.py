"""The service: a pass at intervals, health and metrics, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog

from taskbridge.reconcile.assembly import open_data, open_reconciler
from taskbridge.reconcile.settings import ReconcileSettings
from taskbridge.reconcile.status import Metrics, status_of
from taskbridge.runtime.dingtalk.clock import SystemClock
from taskbridge.runtime.logs import configure_logs
from taskbridge.runtime.operation import operation_app, serve_until_stopped
from taskbridge.runtime.process import only_one_in
from taskbridge.runtime.settings import load_settings, run_program
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import FrameType

    from fastapi import FastAPI

    from taskbridge.reconcile.assembly import LocalData
    from taskbridge.reconcile.runs import PassReport

LOCK = "reconcile.lock"
_RETRY_S = 60.0
_END_S = 20.0

_log = structlog.stdlib.get_logger(__name__)


class Service:
    """Makes passes. A failed pass is logged and repeated."""

    def __init__(self, settings: ReconcileSettings, data: LocalData) -> None:
        self._settings, self._data = settings, data
        self._clock = SystemClock()
        self.metrics = Metrics(data, self._clock)
        self._failures = 0
        self.problem: str | None = "no pass has completed yet"

    async def start(self) -> list[Coroutine[Any, Any, None]]:
        return [self.work()]

    async def work(self) -> None:
        """Make passes and read-backs for ever."""
        while True:
            try:
                async with open_reconciler(self._settings, self._data, on_call=self.metrics.count_call) as reconciler:
                    while True:
                        await reconciler.read_back.work_for(self._next_s(await reconciler.passes.run()))
            except OperatorError as error:
                self.problem = str(error)
                _log.error("pass_failed", problem=self.problem)
                await self._clock.sleep(_RETRY_S)

    def http(self) -> FastAPI:
        app = operation_app(
            "reconcile",
            readiness=lambda: {"ready": self.problem is None, "problem": self.problem},
            ready="Ready when the last pass was complete",
            registry=self.metrics.registry,
        )

        @app.get("/status", summary="Calls, repairs and unconfirmed absences", tags=["operation"])
        async def status() -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
            return status_of(self._data)

        return app

    def _next_s(self, report: PassReport) -> float:
        self.problem = "; ".join(f"{app}: {why}" for app, why in report.problems.items()) or None
        tally = report.tally
        _log.info(
            "pass_ended",
            rows=tally.rows,
            fetched=tally.fetched,
            unsettled=tally.unsettled,
            repairs=tally.repairs.total(),
        )
        if self.problem is not None:
            _log.warning("pass_incomplete", problem=self.problem)
        self._failures = 0 if report.retry_at_ms is None else self._failures + 1
        every_s = self._settings.every_minutes * 60
        return pause_s(report.retry_at_ms, now_ms=self._clock.now_ms(), failures=self._failures, every_s=every_s)


def pause_s(retry_at_ms: int | None, *, now_ms: int, failures: int, every_s: float) -> float:
    """The pause before the next pass. It is shorter after a pass that DingTalk ended, but no retry comes too early.

    It doubles with each failure in a row, because passes spend calls while DingTalk does not answer.
    """
    if retry_at_ms is None:
        return every_s
    return max((retry_at_ms - now_ms) / 1000, min(every_s, _RETRY_S * 2 ** (failures - 1)))


def run() -> None:
    """Work until SIGTERM or Ctrl-C, then exit with 0. The next start continues.

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
        service = Service(settings, data)
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
