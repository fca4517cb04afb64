"""A person's event stream over HTTP: who may listen, and from where on it goes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Header, Query
from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the handler's annotations
from starlette.responses import Response

from taskbridge.center.api.guard import CorpId, Reader, UserId, guarded_router
from taskbridge.center.live.wire import ID_PATTERN, MEDIA_TYPE, position_of

if TYPE_CHECKING:
    from fastapi import APIRouter
    from starlette.types import ASGIApp, Receive, Scope, Send

    from taskbridge.center.access.access import Access
    from taskbridge.center.live.hub import Hub, Stream

_LastEventId = Annotated[
    str | None,
    Header(
        pattern=ID_PATTERN, description="Last event id that the client received. Missed notifications are sent first."
    ),
]
_After = Annotated[
    str | None,
    Query(
        alias="last_event_id",
        pattern=ID_PATTERN,
        description="The same as the header, for clients that cannot set headers.",
    ),
]
_EXAMPLE = (
    "retry: 1000\n\n: alive\nid: 5f0c9a1e22b47d03-1741\n\n"
    'id: 5f0c9a1e22b47d03-1742\nevent: notification\ndata: {"notification_id": "…", "view": "pending", "change": '
    '"ADDED", …}\n\n'
)
_FOUND: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Each notification of this person as it happens; lists queried after it contain the change. A "
        "comment follows every 15 seconds. After the event `reset`, missed notifications are no longer available: load "
        "the lists again. The stream may end at any time: reconnect with the last id, and nothing is missed.",
        "content": {MEDIA_TYPE.partition(";")[0]: {"schema": {"type": "string"}, "example": _EXAMPLE}},
    }
}


_HEADERS = [
    (b"content-type", MEDIA_TYPE.encode()),
    (b"cache-control", b"no-store"),
    # nginx would hold events back until its buffer is full.
    (b"x-accel-buffering", b"no"),
]
_HELD = "taskbridge.event_stream"
_NEEDED_BY_SERVER = {"type", "method", "http_version", "path", "query_string", "client"}
"""What uvicorn reads of a request until its end. The rest, headers and all, would be kept as long as the stream."""


class _Head(Response):
    """Of an event stream, for the framework's layers, which add their headers."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})


class HoldsStreams:
    """Goes around the whole app, and writes the streams that requests to it have opened.

    Within the app its layers would stay on the stack: 24 KiB per stream in place of 14.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
        stream: Stream | None = scope.pop(_HELD, None)
        if stream is not None:
            for name in set(scope) - _NEEDED_BY_SERVER:
                del scope[name]
            await stream.run(receive, send)


def events_router(hub: Hub, access: Access) -> APIRouter:
    """``GET /v1/corps/{corp_id}/users/{user_id}/events``."""
    router = guarded_router(access, "task center")

    @router.get(
        "/corps/{corp_id}/users/{user_id}/events",
        summary="Live updates, as server-sent events",
        response_class=Response,
        responses=_FOUND,
    )
    async def events(  # noqa: PLR0917 # pyright: ignore[reportUnusedFunction] - the route's parameters
        request: Request,
        caller: Reader,
        corp_id: CorpId,
        user_id: UserId,
        last_event_id: _LastEventId = None,
        after: _After = None,
    ) -> Response:
        now = asyncio.get_running_loop().time()
        # A browser that reconnects sends the header with the address that it was first given.
        resume = position_of(found) if (found := last_event_id or after) else None
        may_go_on = access.lasting(caller, corp_id, user_id, now=now)
        request.scope[_HELD] = await hub.subscribe(corp_id, user_id, resume, now=now, may_go_on=may_go_on)
        return _Head()

    return router
