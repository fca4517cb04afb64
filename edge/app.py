"""The composition root of the edge: here everything is built once and put together, and the process is run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import structlog
import uvicorn
from fastapi import FastAPI

from edge.answers import callback_paths
from edge.credentials import CredentialsFile
from edge.health import HealthRoutes
from edge.metrics import Metrics
from edge.publisher import KafkaPublisher, Publisher
from edge.routes import CallbackRoutes
from edge.settings import EdgeSettings
from schemas.errors import ConfigurationError
from schemas.topics import DEFAULT_PARTITIONS
from service.logs import configure_logs
from service.problems import answer_with_problems
from service.settings import load_settings, partitions_setting

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from types import FrameType

    from starlette.types import Receive, Scope, Send

_GRACE_S = 10
_KEEP_ALIVE_S = 30
_WORKER_START_S = 30
"""uvicorn's own 5 s would kill workers that start slowly on a busy machine, and start them again, for ever."""

_log = structlog.stdlib.get_logger(__name__)


class EdgeApp(FastAPI):
    """Answers callbacks before any of FastAPI's layers, which together cost more than the callback itself does."""

    callbacks: CallbackRoutes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire_action = self.callbacks.action_of(scope)
        if wire_action is None:
            await super().__call__(scope, receive, send)
        else:
            await self.callbacks.serve(wire_action, scope, receive, send)


def create_app(
    settings: EdgeSettings, *, partitions: int = DEFAULT_PARTITIONS, publisher: Publisher | None = None
) -> FastAPI:
    """The edge, not yet started. ``partitions`` is for topics that are missing; ``publisher`` stands in for Kafka.

    Raises:
        ConfigurationError: the credentials, the Kafka configuration or the data folder cannot be used.
    """
    _make_data_dir(settings)
    credentials = CredentialsFile(settings.credentials_file)
    events = publisher or KafkaPublisher(settings, partitions=partitions)
    metrics = Metrics()
    metrics.watch_credentials(credentials)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        await events.start()
        watching = asyncio.create_task(credentials.watch())
        _log.info("edge_started", apps=credentials.current.count, workers=settings.workers)
        yield
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        await events.close()
        _log.info("edge_stopped")

    app = EdgeApp(
        title="taskbridge edge",
        summary="Takes Yida's task callbacks and answers once they are durable.",
        version=version("taskbridge"),
        lifespan=lifespan,
        redirect_slashes=False,
    )
    answer_with_problems(app)
    app.callbacks = CallbackRoutes(settings=settings, credentials=credentials, publisher=events, metrics=metrics)
    app.router.routes[:0] = app.callbacks.routes()
    app.include_router(HealthRoutes(credentials=credentials, publisher=events, metrics=metrics).router())
    _document_callbacks(app)
    return app


def app_from_environment() -> FastAPI:
    """What each worker process of uvicorn starts."""
    return _configured()[1]


def run() -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what is under way and exit with 0.

    A wrong configuration is one line on standard error and exit code 1.
    """
    # uvicorn raises the signal that ended it once more when it is done: what it meets then decides the exit code.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, _exit)
    try:
        settings, app = _configured()
    except ConfigurationError as error:
        sys.exit(f"taskbridge edge: {error}")
    uvicorn.run(
        app if settings.workers == 1 else "edge.app:app_from_environment",
        factory=settings.workers > 1,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
        timeout_worker_healthcheck=_WORKER_START_S,
    )


def _configured() -> tuple[EdgeSettings, FastAPI]:
    settings = load_settings(EdgeSettings, os.environ)
    partitions = partitions_setting(os.environ)
    configure_logs(settings.log_format, settings.log_level)
    return settings, create_app(settings, partitions=partitions)


def _exit(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _make_data_dir(settings: EdgeSettings) -> None:
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"data folder {settings.data_dir}: {error.strerror}") from error


def _document_callbacks(app: FastAPI) -> None:
    """Add the callbacks to the OpenAPI document: Starlette's own routes are not in it by themselves."""
    generated = app.openapi

    def with_callbacks() -> dict[str, Any]:
        document = generated()
        document["paths"] = callback_paths() | document["paths"]
        return document

    app.openapi = with_callbacks
