"""The service: a pass at intervals, health and metrics, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from taskbridge.reconcile.assembly import open_data, open_reconciler
from taskbridge.reconcile.clock import SystemClock
from taskbridge.reconcile.settings import ReconcileSettings
from taskbridge.reconcile.status import Metrics, status_of
from taskbridge.runtime.logs import configure_logs
from taskbridge.runtime.process import only_one_in
from taskbridge.runtime.serving import Server, server_config
from taskbridge.runtime.settings import explain_program, load_settings
from taskbridge.schemas.errors import OperatorError, TaskbridgeError

if TYPE_CHECKING:
    from types import FrameType

    from taskbridge.reconcile.assembly import LocalData
    from taskbridge.reconcile.runs import PassReport

LOCK = "reconcile.lock"
_RETRY_S = 60.0
_GRACE_S = 10

_log = structlog.stdlib.get_logger(__name__)


class Service:
    """Makes passes. A failed pass is logged and repeated."""

    def __init__(self, settings: ReconcileSettings, data: LocalData) -> None:
        self._settings, self._data = settings, data
        self._clock = SystemClock()
        self.metrics = Metrics(data, self._clock)
        self._failures = 0
        self.problem: str | None = "no pass has completed yet"

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
        app = FastAPI(title="taskbridge reconcile", version="1", docs_url=None, redoc_url=None, openapi_url=None)

        @app.get("/healthz")
        async def healthz() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
            return {"status": "ok"}

        @app.get("/readyz")
        async def readyz() -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
            body: dict[str, Any] = {"ready": self.problem is None, "problem": self.problem}
            return JSONResponse(body, status_code=200 if self.problem is None else 503)

        @app.get("/status")
        async def status() -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
            return JSONResponse(status_of(self._data))

        @app.get("/metrics")
        async def metrics() -> Response:  # pyright: ignore[reportUnusedFunction]
            return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

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


async def _serve(service: Service, settings: ReconcileSettings) -> None:
    config = server_config(service.http(), grace_s=_GRACE_S, host=settings.host, port=settings.port, lifespan="off")
    server = Server(config)
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, server.handle_exit, signum, None)
    working = asyncio.create_task(service.work())
    serving = asyncio.create_task(server.serve())
    await asyncio.wait([working, serving], return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await serving
    working.cancel()
    with suppress(asyncio.CancelledError):
        await working


def run() -> None:
    """Work until SIGTERM or Ctrl-C, then exit with 0. The next start continues.

    A wrong configuration prints one line on standard error and exits with 1.
    """
    # For a signal before the service runs. Interrupted work was not counted, and is found again.
    signal.signal(signal.SIGTERM, _exit)
    try:
        settings = load_settings(ReconcileSettings, os.environ)
        configure_logs(settings.log_format, settings.log_level)
        with (
            only_one_in(settings.data_dir, LOCK, setting="RECONCILE_DATA_DIR"),
            open_data(settings) as data,
            suppress(KeyboardInterrupt),
        ):
            asyncio.run(_serve(Service(settings, data), settings))
    except TaskbridgeError as error:
        sys.exit(f"taskbridge reconcile: {error}")


def _exit(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    explain_program(
        "python -m taskbridge.reconcile.app",
        does="Find and repair callbacks that never arrived, at intervals, configured by "
        "RECONCILE_* in the environment.",
        example="RECONCILE_APPS_FILE=apps.toml RECONCILE_KAFKA_BOOTSTRAP_SERVERS=kafka:9092 "
        "RECONCILE_SCHEMA_REGISTRY_URL=http://registry:8081 python -m taskbridge.reconcile.app",
    )
    run()
