"""The read API: ``OwnerResolver`` finds the caller and the owner of the data; the owner answers from its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the handlers' annotations
from starlette.responses import Response  # noqa: TC002 - as above

from taskbridge.center.access.access import TOKEN
from taskbridge.center.api.json_forms import state_json
from taskbridge.center.access.refusals import Forbidden
from taskbridge.streams.query import models
from taskbridge.streams.query.answers import (
    LIMIT_DEFAULT,
    LIMIT_MAX,
    PageQuery,
    counts_answer,
    json_answer,
    page_answer,
    person_here,
)
from taskbridge.center.api.search import text_matcher

if TYPE_CHECKING:
    from taskbridge.center.access.access import Caller
    from taskbridge.streams.query.answers import ApiContext

ID_MAX = 256
Q_MAX = 200
CURSOR_MAX = 2_000
_PREFIX = "/v1"
_TASKS, _COUNTS = "/corps/{corp_id}/users/{user_id}/tasks", "/corps/{corp_id}/users/{user_id}/counts"
TASKS_PATH, COUNTS_PATH = _PREFIX + _TASKS, _PREFIX + _COUNTS

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
        description="Only entries with this text in the title, the process name or the originator's "
        "name, ignoring case. "
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


def build_router(context: ApiContext) -> APIRouter:
    """``/v1/me``, and the queries about users."""
    resolver = context.resolver
    router = APIRouter(prefix=_PREFIX, tags=["task center"], dependencies=[TOKEN])
    of_user: dict[str, Any] = {"responses": models.problems(400, 401, 403, 429, 503)}

    @router.get(
        "/me",
        summary="Identity of the caller",
        response_model=models.MeOut,
        responses=models.problems(401, 403, 429, 503),
    )
    async def me(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        caller = await resolver.access.caller_of(request)
        signed_in = caller.identity
        name = None if signed_in is None else context.readers.names(*signed_in)
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
        caller = await resolver.access.caller_of(request)
        if caller.mode == "sso":
            raise Forbidden("signed-in people see their own lists only")
        matches = text_matcher(q)
        found = await context.readers.people.search(q.strip(), matches, caller.may_see, limit=limit)
        shown = [
            {"corp_id": corp_id, "user_id": user_id, "name": person.name, "department": person.department}
            for corp_id, user_id, person in found
        ]
        return json_answer({"items": shown})

    @router.get(
        _TASKS,
        summary="Entries of a view, newest first",
        response_model=models.PageOut,
        **of_user,
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
        asked = PageQuery(corp_id, user_id, view, app_type, source, q, limit, cursor)
        return await page_answer(context, request, asked)

    @router.get(
        _COUNTS,
        summary="Number of entries in each view",
        response_model=models.CountsOut,
        **of_user,
    )
    async def counts(  # pyright: ignore[reportUnusedFunction]
        request: Request,
        corp_id: CorpId,
        user_id: UserId,
    ) -> Response:
        return await counts_answer(context, request, corp_id, user_id)

    @router.get(
        "/corps/{corp_id}/users/{user_id}/apps",
        summary="Apps of the entries",
        description="Returns the apps and process names of this person's newest entries: 500 of each view, 2,000 in "
        "all. An app occurs once per process, and without a name only if none is known.",
        response_model=models.AppsOut,
        **of_user,
    )
    async def apps(  # pyright: ignore[reportUnusedFunction]
        request: Request,
        corp_id: CorpId,
        user_id: UserId,
    ) -> Response:
        here, user = await person_here(context, request, corp_id, user_id)
        found = await context.readers.inboxes.apps(here.partition, user)
        resolver.check_still_here(here)
        return json_answer({"items": [each._asdict() for each in found]})

    return router


def build_instances_router(context: ApiContext) -> APIRouter:
    """The queries about one instance."""
    resolver = context.resolver
    router = APIRouter(prefix="/v1/instances", tags=["task center"], dependencies=[TOKEN])
    refused: dict[str, Any] = {"responses": models.problems(400, 401, 403, 404, 429, 503)}

    # An id may have any character: also a slash, which comes here decoded.

    @router.get(
        "/{instance_id:path}/history",
        summary="Events and form of an instance",
        response_model=models.HistoryOut,
        **refused,
    )
    async def history(  # pyright: ignore[reportUnusedFunction]
        request: Request,
        instance_id: InstanceId,
    ) -> Response:
        here = await resolver.instance(request, instance_id)
        found, offsets = context.readers.instances.find(here.partition, instance_id, here.caller)
        return json_answer(await context.readers.histories.of(here.partition, found.state, offsets))

    @router.get("/{instance_id:path}", summary="State of an instance", response_model=models.InstanceOut, **refused)
    async def instance(  # pyright: ignore[reportUnusedFunction]
        request: Request,
        instance_id: InstanceId,
    ) -> Response:
        here = await resolver.instance(request, instance_id)
        readers = context.readers
        found, _ = readers.instances.find(here.partition, instance_id, here.caller)
        return json_answer(state_json(found, readers.names, readers.forms))

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
