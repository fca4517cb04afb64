"""The HTTP side of the task center: its routers, health, readiness and metrics in one application."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from taskbridge.runtime.access import OnlyOwnHosts
from taskbridge.runtime.openapi import without_security
from taskbridge.runtime.operation import operation_app
from taskbridge.runtime.refusals import answer_refusals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fastapi import APIRouter, FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from taskbridge.center.metrics import Metrics

_QUERIES = "/v1/", "/mcp"


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
    http = operation_app(
        "center",
        readiness=readiness,
        ready="Ready when the database answers and the lists are complete",
        registry=metrics.registry,
        amend=without_security if only_hosts is not None else lambda _document: None,
    )
    answer_refusals(http, metrics.database_errors.inc)
    http.add_middleware(MeasuredQueries, metrics=metrics)
    if only_hosts is not None:
        http.add_middleware(OnlyOwnHosts, hosts=only_hosts)
    for router in routers:
        http.include_router(router)
    return http


class MeasuredQueries:
    """Measures every query until its answer begins: a stream of events goes on for hours after that.

    Queries are requests under ``/v1`` and ``/mcp``; the rest is for monitoring.
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
                self._metrics.queries.labels(route, message["status"]).observe(time.perf_counter() - started)
            await send(message)

        await self._app(scope, receive, measured)
