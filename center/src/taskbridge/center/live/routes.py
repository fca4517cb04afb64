"""The address of a person's event stream: who may listen, where it is held, and from where on it goes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Header, Query
from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the handler's annotations
from starlette.responses import Response

from taskbridge.schemas.errors import OperatorError
from taskbridge.center.access.access import TOKEN
from taskbridge.center.access.refusals import BadQuery, NotNow, TooManyQueries
from taskbridge.streams.query import models
from taskbridge.center.api.routes import CorpId, UserId  # noqa: TC001 - as above
from taskbridge.center.live.hub import TooManyOfPerson, TooManyStreams
from taskbridge.center.live.stream import EventStream, Writer
from taskbridge.center.live.wire import ID_PATTERN, MEDIA_TYPE, BrokenEventId, place_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.center.access.access import Caller
    from taskbridge.streams.api.resolver import OwnerResolver
    from taskbridge.center.live.hub import Hub
    from taskbridge.center.live.missed import MissedReader

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
    "retry: 1000\n\n: alive\nid: 3-1741\n\n"
    'id: 3-1742\nevent: notification\ndata: {"notification_id": "…", "view": "pending", "change": "ADDED", …}\n\n'
)
_FOUND: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Each notification of this person as it happens; lists queried after it contain the change. A "
        "comment follows every 15 seconds. After the event `reset`, missed notifications are no longer available: load "
        "the lists again. The stream may end at any time: reconnect with the last id, and nothing is missed.",
        "content": {MEDIA_TYPE.partition(";")[0]: {"schema": {"type": "string"}, "example": _EXAMPLE}},
    }
}


def events_router(hub: Hub, missed: Callable[[], MissedReader | None], resolver: OwnerResolver) -> APIRouter:
    """``GET /v1/corps/{corp_id}/users/{user_id}/events``. ``missed`` gives the reader, once there is one."""
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

        async def passed_on(url: str, caller: Caller) -> Response:
            try:
                done = hub.pass_on()
            except TooManyStreams as error:
                raise NotNow(str(error), retry_after_s=2) from error
            may_go_on = resolver.access.lasting(caller, corp_id, user_id, now=now)
            return await resolver.forwarding.forward_stream(request, url, caller, may_go_on=may_go_on, done=done)

        here = await resolver.user(request, corp_id, user_id, forward=passed_on)
        try:
            # A browser that reconnects sends the header with the address that it was first given.
            resume = place_of(found) if (found := last_event_id or after) else None
        except BrokenEventId as error:
            raise BadQuery(str(error)) from error
        reader = missed()
        if reader is None:
            raise NotNow("this worker is starting")
        may_go_on = resolver.access.lasting(here.caller, corp_id, user_id, now=now)
        try:
            subscription = hub.subscribe(corp_id, user_id, here.partition, now=now, may_go_on=may_go_on)
        except TooManyOfPerson as error:
            raise TooManyQueries(str(error), retry_after_s=_LATER_S) from error
        except OperatorError as error:
            raise NotNow(str(error), retry_after_s=2) from error
        return EventStream(Writer(hub, reader, subscription, resume))

    return router
