"""The read API: ``guard`` finds the caller, ``Queries`` answers from the database."""

# pyright: reportUnusedFunction=false

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal
from zoneinfo import ZoneInfo

from fastapi import Depends, Query
from pydantic import AfterValidator
from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the handlers' annotations
from starlette.responses import Response, StreamingResponse

from taskbridge.center.access.audit import EXPORTED
from taskbridge.center.access.refusals import EventsBehind
from taskbridge.center.api import models
from taskbridge.center.api.current_form import NewestForms, add_form_route
from taskbridge.center.api.files import add_files_route
from taskbridge.center.api.guard import CorpId, InstanceId, InstanceReader, Known, Own, Reader, UserId, guarded_router
from taskbridge.center.api.models import ID_MAX
from taskbridge.center.api.queries import LIMIT_DEFAULT, LIMIT_MAX, PageQuery, Queries
from taskbridge.center.api.spreadsheet import (
    BYTE_ORDER_MARK,
    csv_documented,
    csv_headers,
    csv_lines,
    headings,
    items_shown,
)
from taskbridge.center.reminders.file import zone_name
from taskbridge.runtime.database import Threads, now_ms
from taskbridge.runtime.refusals import Forbidden
from taskbridge.schemas.json_forms import to_json

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from fastapi import APIRouter

    from taskbridge.center.access.access import Access
    from taskbridge.center.api.files import FileOpener
    from taskbridge.center.tables import Person

Q_MAX = 200
CURSOR_MAX = 2_000
_EVENTS_S, _EVENTS_TRIES = 0.1, 20

_View = Annotated[models.ViewName, Query(description="One of the four views.")]
_AppType = Annotated[str | None, Query(max_length=ID_MAX, description="Only entries of this app.")]
_Source = Annotated[
    str | None, Query(max_length=ID_MAX, description="Only entries of this sending system.", examples=["yida"])
]
Q = Annotated[
    str,
    Query(
        max_length=Q_MAX,
        description="Only entries with this text in the title, the process name, the originator's name or the "
        "serial number, ignoring case. "
        "One query searches at most 10,000 entries of the view; `next_cursor` continues after them.",
        examples=["请假"],
    ),
]
_Overdue = Annotated[
    bool, Query(description="Only entries of the view pending whose due time has passed, like `q` within 10,000.")
]
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Maximum number of items.")]
_Cursor = Annotated[
    str | None,
    Query(
        max_length=CURSOR_MAX, description="`next_cursor` of the previous page, for the same user, view and filters."
    ),
]
_Marks = Annotated[bool, Query(description="Add to each item what the person marked. For the person only.")]
_Language = Annotated[Literal["en", "zh-CN"], Query(description="Of the first line, and of statuses and decisions.")]
_TimeZone = Annotated[
    str,
    AfterValidator(zone_name),
    Query(max_length=64, description="Of the times: a name of the IANA database.", examples=["Asia/Shanghai"]),
]
_CSV = csv_documented(
    "All entries of the view that match, newest first. The first line names the columns. UTF-8 with a byte order mark.",
    "\ufefftitle,…\r\n",
)


async def _list_query(
    corp_id: CorpId,
    user_id: UserId,
    view: _View,
    *,
    app_type: _AppType = None,
    source: _Source = None,
    q: Q = "",
    overdue: _Overdue = False,
) -> PageQuery:
    return PageQuery(corp_id, user_id, view, app_type, source, q, overdue)


_ListQuery = Annotated[PageQuery, Depends(_list_query)]


class JsonAnswer(Response):
    """No cache on the way may store it."""

    media_type = "application/json"

    def __init__(self, content: object) -> None:
        super().__init__(content, headers={"cache-control": "no-store"})

    def render(self, content: object) -> bytes:
        return to_json(content)


def lists_router(  # noqa: C901 - one handler after the other
    access: Access,
    queries: Queries,
    threads: Threads,
    *,
    apps_of: Callable[[Person], list[str]] = lambda _: [],
    file_opener: FileOpener = lambda _corp, _source, _app: None,
    forms: NewestForms,
    has_forms: Callable[[str], bool] = lambda _corp: False,
) -> APIRouter:
    """What callers may know of themselves, of users and of instances.

    ``apps_of``: which apps a person owns. ``has_forms``: whether people of a corp have forms to start.
    """
    router = guarded_router(access, "task center")
    # An instance id may have any character: also a slash, which comes here decoded.
    user, of_instance = "/corps/{corp_id}/users/{user_id}", "/instances/{instance_id:path}"

    async def answer(query: Callable[..., object], *arguments: object) -> Response:
        return JsonAnswer(await threads.run(query, *arguments))

    async def page(query: PageQuery) -> models.PageOut:
        return await threads.run(queries.page, query, is_search=bool(query.q))

    @router.get("/me", summary="Identity of the caller", response_model=models.MeOut)
    async def me(caller: Known) -> Response:
        name, preferences, owned_apps = None, None, list[str]()
        if caller.corp_id is not None and caller.user_id is not None:
            person = caller.corp_id, caller.user_id
            owned_apps = apps_of(person)
            name, preferences = await threads.run(queries.name_and_preferences_of, *person)
        found: models.MeOut = {
            "mode": caller.mode,
            "name": caller.name,
            "corps": caller.corps if caller.corp_id is None else [caller.corp_id],
            "corp_id": caller.corp_id,
            "user_id": caller.user_id,
            "user_name": name,
            "operator": caller.is_operator,
            "auditor": caller.is_auditor,
            "session": caller.session is not None,
            "preferences": preferences,
            "owned_apps": owned_apps,
            "start_forms": caller.corp_id is not None and has_forms(caller.corp_id),
        }
        return JsonAnswer(found)

    @router.get("/people", summary="Search people", response_model=models.PeopleOut)
    async def people(
        caller: Known,
        q: Annotated[str, Query(max_length=Q_MAX, examples=["王"])] = "",
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Maximum number of people.")] = LIMIT_DEFAULT,
    ) -> Response:
        """Returns imported people of the caller's corps with `q` in name, department or user id, ignoring case.

        Without `q`, returns the first of all. Of signed-in people, only operators may use it.
        """
        if caller.mode == "sso" and not caller.is_operator:
            raise Forbidden("signed-in people see their own lists only")
        return await answer(queries.people, q, caller.corps, limit)

    @router.get(f"{user}/tasks", summary="Entries of a view, newest first", response_model=models.PageOut)
    async def tasks(
        caller: Reader,
        query: _ListQuery,
        *,
        limit: Limit = LIMIT_DEFAULT,
        cursor: _Cursor = None,
        marks: _Marks = False,
    ) -> Response:
        if marks:
            caller.check_own(*query[:2])
        return JsonAnswer(await page(query._replace(limit=limit, cursor=cursor, marks=marks)))

    @router.get(f"{user}/marked", summary="Pinned and hidden entries of a view", response_model=models.MarkedOut)
    async def marked(_: Own, corp_id: CorpId, user_id: UserId, view: _View) -> Response:
        """Returns the entries that the person pinned, or hid until later: newest first, at most 400. Others get 403."""
        return await answer(queries.marked, (corp_id, user_id), view)

    @router.get(f"{user}/counts", summary="Number of entries in each view", response_model=models.CountsOut)
    async def counts(_: Reader, corp_id: CorpId, user_id: UserId) -> Response:
        return await answer(queries.counts, corp_id, user_id)

    @router.get(f"{user}/apps", summary="Apps of the entries", response_model=models.AppsOut)
    async def apps(_: Reader, corp_id: CorpId, user_id: UserId) -> Response:
        """Returns the apps and process names of this person's newest entries: 500 of each view, 2,000 in all.

        An app occurs once per process, and without a name only if none is known.
        """
        return await answer(queries.apps, corp_id, user_id)

    @router.get(
        f"{of_instance}/history",
        summary="Events and form of an instance",
        response_model=models.HistoryOut,
        responses=models.problems(404),
    )
    async def history(caller: InstanceReader, instance_id: InstanceId) -> Response:
        given = partial(queries.history, now_ms=now_ms()), instance_id, caller
        # States and events are read side by side: a page that was just notified may come too early.
        for _ in range(_EVENTS_TRIES):
            with suppress(EventsBehind):
                return await answer(*given)
            await asyncio.sleep(_EVENTS_S)
        return await answer(*given)

    add_files_route(router, access, queries, threads, file_opener)
    add_form_route(router, queries, threads, forms)

    @router.get(
        of_instance, summary="State of an instance", response_model=models.InstanceOut, responses=models.problems(404)
    )
    async def instance(caller: InstanceReader, instance_id: InstanceId) -> Response:
        return await answer(queries.instance, instance_id, caller)

    @router.get(
        f"{user}/tasks.csv", summary="Entries of a view for a spreadsheet", response_class=Response, responses=_CSV
    )
    async def spreadsheet(
        request: Request,
        caller: Reader,
        query: _ListQuery,
        language: _Language = "en",
        time_zone: _TimeZone = "Asia/Shanghai",
    ) -> Response:
        """Returns the whole view. An operator who exports somebody else's is recorded each time."""
        person, query = query[:2], query._replace(limit=LIMIT_MAX)
        if caller.mode == "sso" and not caller.is_person(*person):
            await access.record(request, caller, EXPORTED, person)
        # Read before the answer begins: what is wrong is answered as a problem.
        first, zone = await page(query), ZoneInfo(time_zone)

        async def lines() -> AsyncGenerator[str]:
            """Page by page: a connection that ends early is one that the client sees."""
            found = first
            yield BYTE_ORDER_MARK + csv_lines([headings(language, zone)])
            while True:
                yield csv_lines(items_shown(found["items"], language, zone))
                if found["next_cursor"] is None:
                    return
                found = await page(query._replace(cursor=found["next_cursor"]))

        return StreamingResponse(lines(), headers=csv_headers(f"tasks-{query.view}.csv"), media_type="text/csv")

    return router
