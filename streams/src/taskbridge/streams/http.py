"""The HTTP side of the streams service: health, readiness and metrics, served in the worker's own event loop."""

from __future__ import annotations

import logging
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from taskbridge.runtime.http.docs import serve_docs
from taskbridge.runtime.http.identity import identity
from taskbridge.runtime.http.openapi import LIVENESS, METRICS, READINESS, amend_document, without_security
from taskbridge.runtime.http.problems import answer_with_problems
from taskbridge.runtime.http.refusals import LARGE_HEAD, MALFORMED
from taskbridge.runtime.http.request_line import cut_at_lines, ends_in_line, escape_request_line
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.streams.api.access import OnlyOwnHosts
from taskbridge.streams.api.refusals import answer_refusals
from taskbridge.streams.api.resolver import give_answers_of_others
from taskbridge.streams.query.direct import DirectQueries
from taskbridge.streams.sse.stream import HoldsStreams

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Generator, Sequence

    from fastapi import APIRouter
    from fastapi.telemetry import TelemetryConfig
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from taskbridge.runtime.http.refusals import Refusal
    from taskbridge.streams.monitoring.metrics import Metrics
    from taskbridge.streams.query.answers import ApiContext

_UNREAD_MS = 60_000
_QUERIES = "/v1/"
_HEAD_MAX_BYTES = 32 << 10
_HEAD_S = 20.0


def build_http(
    readiness: Callable[[], dict[str, Any]],
    metrics: Metrics,
    *,
    routers: Sequence[APIRouter] = (),
    directly: ApiContext | None = None,
    only_hosts: frozenset[str] | None = None,
) -> FastAPI:
    """``readiness`` gives the details for ``/readyz``; its ``ready`` decides the status.

    With ``directly``, what is asked most is answered before the framework looks for its route. With ``only_hosts``,
    requests under any other name are refused: for a service that asks nobody for a token.
    """
    # Spans are ours (``runtime.tracing``); the framework would look at each request whether anybody wants its own.
    silent: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
    http = FastAPI(title="taskbridge streams", version="1", docs_url=None, redoc_url=None, telemetry=silent)
    serve_docs(http)
    answer_with_problems(http)
    answer_refusals(http)
    give_answers_of_others(http)
    # Only a service that asks nobody for a token has to mind under which name it is asked.
    amend_document(http, _as_it_is if only_hosts is None else without_security)
    if directly is not None:
        http.add_middleware(DirectQueries, context=directly)
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
        summary="Ready when tables are restored and events are processed",
        tags=["operation"],
        responses=READINESS,
    )
    async def readyz() -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        found = readiness()
        return JSONResponse(found, status_code=200 if found["ready"] else 503, headers=identity("streams"))

    @http.get("/metrics", summary="Prometheus metrics", tags=["operation"], response_class=Response, responses=METRICS)
    async def prometheus() -> Response:  # pyright: ignore[reportUnusedFunction]
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return http


def _as_it_is(_document: dict[str, Any]) -> None: ...


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
            f"cannot listen on {host}:{port} ({error.strerror}): set STREAMS_PORT and STREAMS_HOST"
        ) from error
    # Inherited by every connection; asyncio sets it on sockets that it made itself only. Without it the second part of
    # an answer waits for the client's acknowledgement of the first, which comes after 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Inherited too: a peer that vanished, or reads no more, is given up, whatever waits for it.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MS)
    return listening


class BoundedHeads(HttpToolsProtocol):
    """Hangs up on a request whose head does not end, in bytes or in time: uvicorn would keep all of it, for ever.

    What a client sends behind a head it reads only as far as somebody wants it, which for queries nobody does.
    """

    # Beside the many attributes that the class above has, more would double the room of each connection's dict.
    __slots__ = ("_began", "_head_began", "_head_bytes", "_head_timer", "_in_head", "_line_goes_on")

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._in_head, self._head_bytes = True, 0
        self._began = self._head_began = self._line_goes_on = False
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_awaiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head and self._head_timer is None:
            self._await_head()
        for piece in (data,) if data.isascii() else cut_at_lines(data):
            if not self.transport.is_closing():
                self._take(piece)

    def _take(self, data: bytes) -> None:
        self._began = False
        if self._line_goes_on or (self._in_head and not self._head_began):
            data = escape_request_line(data, goes_on=self._line_goes_on)
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_began:
            self._line_goes_on = ends_in_line(data, self.url, began=self._began, before=self._line_goes_on)
        else:
            self._line_goes_on = False
        if self._in_head and self._head_bytes > _HEAD_MAX_BYTES and not self.transport.is_closing():
            self._refuse(LARGE_HEAD)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own words, as plain text
        self._refuse(MALFORMED)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_began = self._began = True

    def on_headers_complete(self) -> None:
        self._in_head = self._head_began = False
        self._stop_awaiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()

    def _refuse(self, refusal: Refusal) -> None:
        self.transport.write(refusal.encoded(self.server_state.default_headers))
        self.transport.close()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(_HEAD_S, self.transport.close)

    def _stop_awaiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class MeasuredQueries:
    """Measures every query until its answer begins: a stream of events goes on for hours after that.

    Queries are what is asked for under ``/v1``; the rest is for machines that watch over this one.
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
                # The route as it is declared: the paths that people ask for are without number.
                route = getattr(scope.get("route"), "path", "none")
                self._metrics.query(route, message["status"], time.perf_counter() - started)
            await send(message)

        await self._app(scope, receive, measured)


def _is_ours(record: logging.LogRecord) -> bool:
    """Uvicorn warns of what clients sent, and advises to install what they asked for: neither is for an operator."""
    return record.levelno != logging.WARNING


class Server(uvicorn.Server):
    """Uvicorn within a loop that is somebody else's: signals are the composition root's business."""

    def __init__(self, app: ASGIApp) -> None:
        logging.getLogger("uvicorn.error").addFilter(_is_ours)
        super().__init__(
            uvicorn.Config(
                HoldsStreams(app),
                log_config=None,
                access_log=False,
                server_header=False,
                http=BoundedHeads,
                ws="none",
                # Whose word is believed on who is asking depends on the address that a request really comes from.
                proxy_headers=False,
                timeout_graceful_shutdown=5,
            )
        )

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield
