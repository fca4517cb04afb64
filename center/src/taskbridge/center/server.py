"""The HTTP side of the task center: its routers, health, readiness and metrics in one application."""

from __future__ import annotations

import logging
import socket
import time
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from taskbridge.center.access.access import OnlyOwnHosts
from taskbridge.center.access.refusals import answer_refusals
from taskbridge.center.live.stream import HoldsStreams
from taskbridge.runtime.openapi import LIVENESS, METRICS, READINESS, amend_document, serve_docs, without_security
from taskbridge.runtime.problems import answer_with_problems
from taskbridge.runtime.process import identity
from taskbridge.runtime.serving import Server, server_config
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fastapi import APIRouter
    from fastapi.telemetry import TelemetryConfig
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from taskbridge.center.metrics import Metrics

_UNREAD_MS = 60_000
_QUERIES = "/v1/"
_GRACE_S = 5


def build_http(
    readiness: Callable[[], Awaitable[dict[str, Any]]],
    metrics: Metrics,
    *,
    routers: Sequence[APIRouter] = (),
    only_hosts: frozenset[str] | None = None,
) -> FastAPI:
    """``readiness`` gives the details for ``/readyz``; its ``ready`` decides the status.

    With ``only_hosts``, requests under any other name are refused: for a service that requires no token.
    """
    # Spans are ours (``runtime.tracing``); the framework would check at each request whether it should create its own.
    silent: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
    http = FastAPI(title="taskbridge center", version="1", docs_url=None, redoc_url=None, telemetry=silent)
    serve_docs(http)
    answer_with_problems(http)
    answer_refusals(http, metrics.database_error)
    # Only a service that requires no token must check the name in requests.
    amend_document(http, _unchanged if only_hosts is None else without_security)
    http.add_middleware(MeasuredQueries, metrics=metrics)
    if only_hosts is not None:
        http.add_middleware(OnlyOwnHosts, hosts=only_hosts)
    for router in routers:
        http.include_router(router)

    @http.get("/healthz", summary="The process lives", tags=["operation"], responses=LIVENESS)
    async def healthz() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        return {"status": "ok"}

    @http.get(
        "/readyz",
        summary="Ready when the database answers and the lists are complete",
        tags=["operation"],
        responses=READINESS,
    )
    async def readyz() -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        found = await readiness()
        return JSONResponse(found, status_code=200 if found["ready"] else 503, headers=identity("center"))

    @http.get("/metrics", summary="Prometheus metrics", tags=["operation"], response_class=Response, responses=METRICS)
    async def prometheus() -> Response:  # pyright: ignore[reportUnusedFunction]
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return http


def _unchanged(_document: dict[str, Any]) -> None: ...


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Made by us, because uvicorn ends the process where it cannot have the port.

    Raises:
        ConfigurationError: the port is in use, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port} ({error.strerror}): set CENTER_PORT and CENTER_HOST"
        ) from error
    # Inherited by every connection; asyncio sets it on sockets that it made itself only. Without it the second part of
    # an answer waits for the client's acknowledgement of the first, which comes after 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Inherited too: a connection to a peer that vanished, or no longer reads, is closed with all that waits for it.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MS)
    return listening


class MeasuredQueries:
    """Measures every query until its answer begins: a stream of events goes on for hours after that.

    Queries are requests under ``/v1``; the rest is for monitoring.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(_QUERIES):
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The route as it is declared: the number of requested paths is unlimited.
                route = getattr(scope.get("route"), "path", "none")
                self._metrics.query(route, message["status"], time.perf_counter() - started)
            await send(message)

        await self._app(scope, receive, measured)


def _is_ours(record: logging.LogRecord) -> bool:
    """Uvicorn warns about clients' requests, and advises to install what they need: neither is for an operator."""
    return record.levelno != logging.WARNING


def make_server(app: ASGIApp) -> Server:
    """A server for the process's own event loop."""
    logging.getLogger("uvicorn.error").addFilter(_is_ours)
    return Server(server_config(HoldsStreams(app), grace_s=_GRACE_S))
