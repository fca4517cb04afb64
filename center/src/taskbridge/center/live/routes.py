"""The address of a person's event stream: who may listen, and from where on it goes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Header, Query
from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the handler's annotations
from starlette.responses import Response

from taskbridge.center.access.access import TOKEN
from taskbridge.center.access.refusals import BadQuery, NotNow, TooManyQueries
from taskbridge.center.api import models
from taskbridge.center.api.routes import CorpId, UserId  # noqa: TC001 - as above
from taskbridge.center.live.hub import TooManyOfPerson, TooManyStreams
from taskbridge.center.live.stream import EventStream
from taskbridge.center.live.wire import ID_PATTERN, MEDIA_TYPE, BrokenEventId, place_of

if TYPE_CHECKING:
    from taskbridge.center.access.access import Access
    from taskbridge.center.live.hub import Hub

_ID_MAX = 64
_LATER_S = 30
"""For somebody who has many streams open; a page that waits shows its lists all the same."""

_SHAPE: dict[str, Any] = {"pattern": ID_PATTERN}
_LastEventId = Annotated[
    str | None,
    Header(
        max_length=_ID_MAX,
        description="Last event id that the client received. Missed notifications are sent first.",
        json_schema_extra=_SHAPE,
    ),
]
_After = Annotated[
    str | None,
    Query(
        alias="last_event_id",
        max_length=_ID_MAX,
        description="The same as the header, for clients that cannot set headers.",
        json_schema_extra=_SHAPE,
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


def events_router(hub: Hub, access: Access) -> APIRouter:
    """``GET /v1/corps/{corp_id}/users/{user_id}/events``."""
    router = APIRouter(prefix="/v1", tags=["task center"], dependencies=[TOKEN])

    @router.get(
        "/corps/{corp_id}/users/{user_id}/events",
        summary="Live updates, as server-sent events",
        response_class=Response,
        responses={**models.problems(400, 401, 403, 429, 503), **_FOUND},
    )
    async def events(  # pyright: ignore[reportUnusedFunction]
        request: Request,
        corp_id: CorpId,
        user_id: UserId,
        last_event_id: _LastEventId = None,
        after: _After = None,
    ) -> Response:
        now = asyncio.get_running_loop().time()
        caller = await access.caller_of(request)
        caller.check(corp_id, user_id)
        try:
            # A browser that reconnects sends the header with the address that it was first given.
            resume = place_of(found) if (found := last_event_id or after) else None
        except BrokenEventId as error:
            raise BadQuery(str(error)) from error
        may_go_on = access.lasting(caller, corp_id, user_id, now=now)
        try:
            stream = await hub.subscribe(corp_id, user_id, now=now, may_go_on=may_go_on)
        except TooManyOfPerson as error:
            raise TooManyQueries(str(error), retry_after_s=_LATER_S) from error
        except TooManyStreams as error:
            raise NotNow(str(error), retry_after_s=2) from error
        stream.resume = resume
        return EventStream(stream)

    return router
