"""Measures every query, until its answer begins: a stream of events goes on for hours after that."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from taskbridge.streams.monitoring.metrics import Metrics

_QUERIES = "/v1/"


class MeasuredQueries:
    """What is asked for under ``/v1``; the rest is for machines that watch over this one."""

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
