"""The composition root of the service: a pass now and then, health and metrics, until it is told to end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import structlog
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from taskbridge.reconcile.assembly import assembled, opened_memory
from taskbridge.reconcile.clock import SystemClock
from taskbridge.reconcile.metrics import Metrics
from taskbridge.reconcile.settings import ReconcileSettings
from taskbridge.reconcile.status import status_of
from taskbridge.runtime.locks import only_one_in
from taskbridge.runtime.logs import configure_logs
from taskbridge.runtime.settings import explain_program, load_settings
from taskbridge.schemas.errors import OperatorError, TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType

    from taskbridge.reconcile.assembly import Memory
    from taskbridge.reconcile.runs.passes import PassReport

LOCK = "reconcile.lock"
_RETRY_S = 60.0
_GRACE_S = 10

_log = structlog.stdlib.get_logger(__name__)


class Service:
    """Makes passes; a failed pass is logged and repeated."""

    def __init__(self, settings: ReconcileSettings, memory: Memory) -> None:
        self._settings, self._memory = settings, memory
        self._clock = SystemClock()
        self.metrics = Metrics(memory, self._clock)
        self._failures = 0
        self.problem: str | None = "no pass has completed yet"

    async def work(self) -> None:
        """Go on for ever."""
        while True:
            try:
                async with assembled(
                    self._settings, self._memory, clock=self._clock, count=self.metrics.count_call
                ) as found:
                    while True:
                        await found.read_back.work_for(self._next_s(await found.passes.run()))
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
            told: dict[str, Any] = {"ready": self.problem is None, "problem": self.problem}
            return JSONResponse(told, status_code=200 if self.problem is None else 503)

        @app.get("/status")
        async def status() -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
            return JSONResponse(status_of(self._memory))

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
            asked=tally.asked,
            unsettled=tally.unsettled,
            repairs=tally.repairs.total(),
        )
        if self.problem is not None:
            _log.warning("pass_incomplete", problem=self.problem)
        self._failures = 0 if report.retry_at_ms is None else self._failures + 1
        every_s = self._settings.every_minutes * 60
        return pause_s(report.retry_at_ms, now_ms=self._clock.now_ms(), failures=self._failures, every_s=every_s)


def pause_s(retry_at_ms: int | None, *, now_ms: int, failures: int, every_s: float) -> float:
    """How long until the next pass: sooner than planned after one that DingTalk ended, and never before it is of use.

    Each time in a row twice as long: while DingTalk is away, passes too take calls, which count.
    """
    if retry_at_ms is None:
        return every_s
    return max((retry_at_ms - now_ms) / 1000, min(every_s, _RETRY_S * 2 ** (failures - 1)))


class _Server(uvicorn.Server):
    """Uvicorn would raise the signal once more that it ended by, in the midst of its own task."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    def end(self) -> None:
        self.should_exit = True


async def _serve(service: Service, settings: ReconcileSettings) -> None:
    config = uvicorn.Config(
        service.http(),
        host=settings.host,
        port=settings.port,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config)
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, server.end)
    working = asyncio.create_task(service.work())
    serving = asyncio.create_task(server.serve())
    await asyncio.wait([working, serving], return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await serving
    working.cancel()
    with suppress(asyncio.CancelledError):
        await working


def run() -> None:
    """Work until SIGTERM or Ctrl-C, then end what is under way and exit with 0: the next start goes on there.

    A wrong configuration is one line on standard error and exit code 1.
    """
    # Before it serves. Whatever is under way is left where it stands: it was not counted, and is found again.
    signal.signal(signal.SIGTERM, _exit)
    try:
        settings = load_settings(ReconcileSettings, os.environ)
        configure_logs(settings.log_format, settings.log_level)
        with (
            only_one_in(settings.data_dir, LOCK, setting="RECONCILE_DATA_DIR"),
            opened_memory(settings) as memory,
            suppress(KeyboardInterrupt),
        ):
            asyncio.run(_serve(Service(settings, memory), settings))
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
