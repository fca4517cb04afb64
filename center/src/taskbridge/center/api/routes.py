"""The read API: ``Access`` finds the caller, ``Queries`` answers from the database."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the handlers' annotations
from starlette.responses import Response

from taskbridge.center.access.access import TOKEN
from taskbridge.center.access.refusals import EventsBehind, Filling, Forbidden
from taskbridge.center.api import models
from taskbridge.center.api.json_forms import to_json
from taskbridge.center.api.queries import LIMIT_DEFAULT, LIMIT_MAX, PageQuery
from taskbridge.center.tables import now_ms

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.center.access.access import Access, Caller
    from taskbridge.center.api.queries import Queries
    from taskbridge.center.threads import Threads

ID_MAX = 256
Q_MAX = 200
CURSOR_MAX = 2_000
_FILLING_S = 5.0
_EVENTS_S, _EVENTS_TRIES = 0.1, 20
_PREFIX = "/v1"
_OF_USER = "/corps/{corp_id}/users/{user_id}"

CorpId = Annotated[str, Path(max_length=ID_MAX, examples=["ding5d17e3add038d445"])]
UserId = Annotated[str, Path(max_length=ID_MAX, examples=["manager02"])]
InstanceId = Annotated[str, Path(max_length=ID_MAX, examples=["f30233fb-72e1-4af4-8cb8-c7e0ea9ee530"])]
_View = Annotated[models.ViewName, Query(description="One of the four views.")]
_AppType = Annotated[str | None, Query(max_length=ID_MAX, description="Only entries of this app.")]
_Source = Annotated[
    str | None, Query(max_length=ID_MAX, description="Only entries of this sending system.", examples=["yida"])
]
_Q = Annotated[
    str,
    Query(
        max_length=Q_MAX,
        description="Only entries with this text in the title, the process name, the originator's name or the "
        "serial number, ignoring case. "
        "One query searches at most 10,000 entries of the view; `next_cursor` continues after them.",
        examples=["请假"],
    ),
]
_Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Maximum number of items.")]
_Cursor = Annotated[
    str | None,
    Query(
        max_length=CURSOR_MAX, description="`next_cursor` of the previous page, for the same user, view and filters."
    ),
]


class JsonAnswer(Response):
    """JSON that is written already. No cache on the way may store it."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body, headers={"cache-control": "no-store"}, media_type="application/json")


def json_answer(content: object) -> Response:
    return JsonAnswer(to_json(content))


def callers_router(access: Access, queries: Queries, threads: Threads) -> APIRouter:
    """``/v1/me``, and the search of people."""
    router = APIRouter(prefix=_PREFIX, tags=["task center"], dependencies=[TOKEN])

    @router.get(
        "/me",
        summary="Identity of the caller",
        response_model=models.MeOut,
        responses=models.problems(401, 403, 429, 503),
    )
    async def me(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        caller = await access.caller_of(request)
        name = None
        if caller.corp_id is not None and caller.user_id is not None:
            name = await threads.run(queries.name_of, caller.corp_id, caller.user_id)
        return json_answer(_me(caller, name))

    @router.get(
        "/people",
        summary="Search people",
        description="Returns imported people of the caller's corps with `q` in name, department or user id, ignoring "
        "case. Without `q` it returns the first of all. Not available with single sign-on, where everybody sees their "
        "own lists.",
        response_model=models.PeopleOut,
        responses=models.problems(400, 401, 403, 429, 503),
    )
    async def people(  # pyright: ignore[reportUnusedFunction]
        request: Request,
        q: Annotated[str, Query(max_length=Q_MAX, examples=["王"])] = "",
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Maximum number of people.")] = LIMIT_DEFAULT,
    ) -> Response:
        caller = await access.caller_of(request)
        if caller.mode == "sso":
            raise Forbidden("signed-in people see their own lists only")
        return JsonAnswer(await threads.run(queries.people, q, caller.corps, limit))

    return router


def lists_router(access: Access, queries: Queries, threads: Threads, is_complete: Callable[[], bool]) -> APIRouter:
    """What users and instances have. ``is_complete``: whether the lists are filled."""
    router = APIRouter(prefix=_PREFIX, tags=["task center"], dependencies=[TOKEN])
    of_user: dict[str, Any] = {"responses": models.problems(400, 401, 403, 429, 503)}
    of_instance: dict[str, Any] = {"responses": models.problems(400, 401, 403, 404, 429, 503)}

    async def caller_of(request: Request, corp_id: str | None = None, user_id: str | None = None) -> Caller:
        """Who may make the query.

        Raises:
            Refused: nobody may, or there is nothing complete to answer it from.
        """
        caller = await access.caller_of(request)
        if corp_id is not None and user_id is not None:
            caller.check(corp_id, user_id)
        if not is_complete():
            raise Filling("the lists are being filled from the topics: see /readyz", retry_after_s=_FILLING_S)
        return caller

    @router.get(
        _OF_USER + "/tasks", summary="Entries of a view, newest first", response_model=models.PageOut, **of_user
    )
    async def tasks(  # pyright: ignore[reportUnusedFunction]
        request: Request,
        *,
        corp_id: CorpId,
        user_id: UserId,
        view: _View,
        app_type: _AppType = None,
        source: _Source = None,
        q: _Q = "",
        limit: _Limit = LIMIT_DEFAULT,
        cursor: _Cursor = None,
    ) -> Response:
        await caller_of(request, corp_id, user_id)
        query = PageQuery(corp_id, user_id, view, app_type, source, q, limit, cursor)
        return JsonAnswer(await threads.run(queries.page, query))

    @router.get(
        _OF_USER + "/counts", summary="Number of entries in each view", response_model=models.CountsOut, **of_user
    )
    async def counts(  # pyright: ignore[reportUnusedFunction]
        request: Request, corp_id: CorpId, user_id: UserId
    ) -> Response:
        await caller_of(request, corp_id, user_id)
        return JsonAnswer(await threads.run(queries.counts, corp_id, user_id))

    @router.get(
        _OF_USER + "/apps",
        summary="Apps of the entries",
        description="Returns the apps and process names of this person's newest entries: 500 of each view, 2,000 in "
        "all. An app occurs once per process, and without a name only if none is known.",
        response_model=models.AppsOut,
        **of_user,
    )
    async def apps(  # pyright: ignore[reportUnusedFunction]
        request: Request, corp_id: CorpId, user_id: UserId
    ) -> Response:
        await caller_of(request, corp_id, user_id)
        return JsonAnswer(await threads.run(queries.apps, corp_id, user_id))

    # An instance id may have any character: also a slash, which comes here decoded.

    @router.get(
        "/instances/{instance_id:path}/history",
        summary="Events and form of an instance",
        response_model=models.HistoryOut,
        **of_instance,
    )
    async def history(  # pyright: ignore[reportUnusedFunction]
        request: Request, instance_id: InstanceId
    ) -> Response:
        caller = await caller_of(request)
        given = partial(queries.history, now_ms=now_ms()), instance_id, caller
        # States and events are read side by side: a page that was just notified may come too early.
        for _ in range(_EVENTS_TRIES):
            with suppress(EventsBehind):
                return JsonAnswer(await threads.run(*given))
            await asyncio.sleep(_EVENTS_S)
        return JsonAnswer(await threads.run(*given))

    @router.get(
        "/instances/{instance_id:path}",
        summary="State of an instance",
        response_model=models.InstanceOut,
        **of_instance,
    )
    async def instance(  # pyright: ignore[reportUnusedFunction]
        request: Request, instance_id: InstanceId
    ) -> Response:
        caller = await caller_of(request)
        return JsonAnswer(await threads.run(queries.instance, instance_id, caller))

    return router


def _me(caller: Caller, user_name: str | None) -> dict[str, Any]:
    return {
        "mode": caller.mode,
        "name": caller.name,
        "corps": list(caller.corps) if caller.corp_id is None else [caller.corp_id],
        "corp_id": caller.corp_id,
        "user_id": caller.user_id,
        "user_name": user_name,
        "operator": caller.is_operator,
    }
