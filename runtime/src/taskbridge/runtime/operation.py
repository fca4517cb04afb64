"""What services with an HTTP side have in common: application, socket, server, signals, and an end within a time."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from taskbridge.runtime.openapi import LIVENESS, METRICS, READINESS, amend_document, serve_docs, without_security
from taskbridge.runtime.problems import answer_with_problems
from taskbridge.runtime.serving import Server, server_config
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from fastapi.telemetry import TelemetryConfig
    from starlette.types import ASGIApp

_UNREAD_MS = 60_000

log = structlog.get_logger(__name__)


def operation_app(
    service: str,
    *,
    readiness: Callable[[], dict[str, Any] | Awaitable[dict[str, Any]]],
    ready: str,
    registry: CollectorRegistry,
    is_slow: bool = False,
    amend: Callable[[dict[str, Any]], None] = without_security,
) -> FastAPI:
    """An application with the routes of ``operation_router``; other routes may be added.

    ``amend`` changes the OpenAPI document, by default that of a service without tokens.
    """
    # Spans are ours (``runtime.tracing``); the framework would check at each request whether it should create its own.
    silent: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
    http = FastAPI(title=f"taskbridge {service}", version="1", docs_url=None, redoc_url=None, telemetry=silent)
    serve_docs(http)
    answer_with_problems(http)
    amend_document(http, amend)
    http.include_router(operation_router(readiness=readiness, ready=ready, registry=registry, is_slow=is_slow))
    return http


def operation_router(
    *,
    readiness: Callable[[], dict[str, Any] | Awaitable[dict[str, Any]]],
    ready: str,
    registry: CollectorRegistry | None,
    is_slow: bool = False,
) -> APIRouter:
    """Health and readiness; with a registry, metrics too.

    ``readiness`` gives the details for ``/readyz``; its ``ready`` decides the status, and the text ``ready`` says when
    it is true. ``is_slow``: collectors of the registry read a disk, so each scrape runs in a thread.
    """
    router = APIRouter(tags=["operation"])

    @router.get("/healthz", summary="The process lives", responses=LIVENESS)
    async def healthz() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        return {"status": "ok"}

    @router.get("/readyz", summary=ready, responses=READINESS)
    async def readyz() -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        found = readiness()
        details = await found if inspect.isawaitable(found) else found
        return JSONResponse(details, status_code=200 if details["ready"] else 503)

    if registry is not None:

        @router.get("/metrics", summary="Prometheus metrics", response_class=Response, responses=METRICS)
        async def prometheus() -> Response:  # pyright: ignore[reportUnusedFunction]
            found = await asyncio.to_thread(generate_latest, registry) if is_slow else generate_latest(registry)
            return Response(found, media_type=CONTENT_TYPE_LATEST)

    return router


def listen(host: str, port: int, *, prefix: str) -> socket.socket:
    """A listening socket. Made by us, because uvicorn ends the process where it cannot have the port.

    Raises ConfigurationError if the address cannot be used, which names the settings with the prefix.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port} ({error.strerror}): set {prefix}_PORT and {prefix}_HOST"
        ) from error
    # Inherited by every connection; asyncio sets it on sockets that it made itself only. Without it the second part of
    # an answer waits for the client's acknowledgement of the first, which comes after 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Inherited too: a connection to a peer that vanished, or no longer reads, is closed with all that waits for it.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MS)
    return listening


def make_server(app: ASGIApp) -> Server:
    """A server for the process's own event loop. Open requests may take five seconds after a stop."""
    logging.getLogger("uvicorn.error").addFilter(_is_ours)
    return Server(server_config(app, grace_s=5))


def _is_ours(record: logging.LogRecord) -> bool:
    """Uvicorn warns about clients' requests, and advises to install what they need: neither is for an operator."""
    return record.levelno != logging.WARNING


def stop_on_signal() -> asyncio.Event:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    return stop


async def serve_until_stopped(
    app: ASGIApp,
    *,
    service: str,
    address: tuple[str, int],
    end_s: float,
    start: Callable[[], Awaitable[Iterable[Coroutine[Any, Any, None]]]],
    stopping: Callable[[], None] = lambda: None,
    close: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Serve the application and run the tasks that ``start`` returns, until a signal comes or one of them ends.

    Then ``stopping`` is called, open requests are answered, the tasks are cancelled, and ``close`` is awaited. All of
    that takes ``end_s`` at most.

    Raises:
        ConfigurationError: the address cannot be used; nothing was started.
        Exception: what ended a task.
    """
    stop = stop_on_signal()
    server, listening = make_server(app), listen(*address, prefix=service.upper())
    running = [asyncio.ensure_future(each) for each in await start()]
    serving, stopped = asyncio.ensure_future(server.serve([listening])), asyncio.ensure_future(stop.wait())
    try:
        done, _ = await asyncio.wait([stopped, serving, *running], return_when=asyncio.FIRST_COMPLETED)
        for each in done - {stopped}:
            each.result()
    finally:
        failure = sys.exception()
        end_within(end_s, 0 if failure is None else f"taskbridge {service}: {failure}")
        stopping()
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if close is not None:
            await close()


def end_within(seconds: float, outcome: int | str, *, end: Callable[[int], None] = os._exit) -> None:
    """End the process after that time, even while it waits for Kafka. Uncommitted records are processed again.

    ``outcome``: as for ``sys.exit``, the exit code or a message about a failure.
    """

    def wait() -> None:
        time.sleep(seconds)
        log.warning("exited_by_force", seconds=seconds)
        if isinstance(outcome, str):
            print(outcome, file=sys.stderr, flush=True)  # noqa: T201 - as sys.exit does
        end(1 if isinstance(outcome, str) else outcome)

    threading.Thread(target=wait, name="end", daemon=True).start()
