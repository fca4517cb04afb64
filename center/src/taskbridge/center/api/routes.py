"""The read API: ``guard`` finds the caller, ``Queries`` answers from the database."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import ZoneInfo

from fastapi import Depends, Query
from pydantic import AfterValidator
from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the handlers' annotations
from starlette.responses import Response, StreamingResponse

from taskbridge.center.access.audit import EXPORTED
from taskbridge.center.access.refusals import EventsBehind
from taskbridge.center.api import models
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
    from taskbridge.center.api.marks import MarksStore
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
    """JSON that is written already. No cache on the way may store it."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body, headers={"cache-control": "no-store"}, media_type="application/json")


class Api:
    """Answers what callers may know of themselves, of users and of instances."""

    def __init__(
        self,
        access: Access,
        queries: Queries,
        marks: MarksStore,
        threads: Threads,
        check_filled: Callable[[], None],
        *,
        apps_of: Callable[[Person], list[str]] = lambda _: [],
    ) -> None:
        """``check_filled`` raises Filling while lists are known to be incomplete.

        ``apps_of``: which apps a person owns.
        """
        self._access, self._queries, self._marks = access, queries, marks
        self._threads, self._check_filled, self._apps_of = threads, check_filled, apps_of

    def router(self) -> APIRouter:
        router = guarded_router(self._access, "task center", check_filled=self._check_filled)
        user, instance = "/corps/{corp_id}/users/{user_id}", "/instances/{instance_id:path}"
        for path, answer, summary, model, statuses in (
            ("/me", self.me, "Identity of the caller", models.MeOut, ()),
            ("/people", self.people, "Search people", models.PeopleOut, (400,)),
            (f"{user}/tasks", self.tasks, "Entries of a view, newest first", models.PageOut, (400,)),
            (f"{user}/marked", self.marked, "Pinned and hidden entries of a view", models.MarkedOut, (400,)),
            (f"{user}/counts", self.counts, "Number of entries in each view", models.CountsOut, (400,)),
            (f"{user}/apps", self.apps, "Apps of the entries", models.AppsOut, (400,)),
            # An instance id may have any character: also a slash, which comes here decoded.
            (f"{instance}/history", self.history, "Events and form of an instance", models.HistoryOut, (400, 404)),
            (instance, self.instance, "State of an instance", models.InstanceOut, (400, 404)),
        ):
            responses = models.problems(*statuses, 401, 403, 429, 503)
            router.add_api_route(path, answer, summary=summary, response_model=model, responses=responses)
        router.add_api_route(
            f"{user}/tasks.csv",
            self.spreadsheet,
            summary="Entries of a view for a spreadsheet",
            response_class=Response,
            responses={**models.problems(400, 401, 403, 429, 503), **_CSV},
        )
        return router

    async def me(self, caller: Known) -> Response:
        name, preferences, owned_apps = None, None, list[str]()
        if caller.corp_id is not None and caller.user_id is not None:
            person = caller.corp_id, caller.user_id
            owned_apps = self._apps_of(person)
            name, preferences = await self._threads.run(self._queries.name_and_preferences_of, *person)
        shown = {
            "mode": caller.mode,
            "name": caller.name,
            "corps": list(caller.corps) if caller.corp_id is None else [caller.corp_id],
            "corp_id": caller.corp_id,
            "user_id": caller.user_id,
            "user_name": name,
            "operator": caller.is_operator,
            "auditor": caller.is_auditor,
            "session": caller.session is not None,
            "preferences": preferences,
            "owned_apps": owned_apps,
        }
        return JsonAnswer(to_json(shown))

    async def people(
        self,
        caller: Known,
        q: Annotated[str, Query(max_length=Q_MAX, examples=["王"])] = "",
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Maximum number of people.")] = LIMIT_DEFAULT,
    ) -> Response:
        """Returns imported people of the caller's corps with `q` in name, department or user id, ignoring case.

        Without `q`, returns the first of all. Of signed-in people, only operators may use it.
        """
        if caller.mode == "sso" and not caller.is_operator:
            raise Forbidden("signed-in people see their own lists only")
        return await self._answer(self._queries.people, q, caller.corps, limit)

    async def tasks(
        self,
        caller: Reader,
        query: _ListQuery,
        *,
        limit: Limit = LIMIT_DEFAULT,
        cursor: _Cursor = None,
        marks: _Marks = False,
    ) -> Response:
        if marks:
            caller.check_own(*query[:2])
        return await self._answer(self._queries.page, query._replace(limit=limit, cursor=cursor, marks=marks))

    async def marked(self, _: Own, corp_id: CorpId, user_id: UserId, view: _View) -> Response:
        """Returns the entries that the person pinned, or hid until later: newest first, at most 400. Others get 403."""
        return await self._answer(self._marks.listed, (corp_id, user_id), view)

    async def spreadsheet(
        self,
        request: Request,
        caller: Reader,
        query: _ListQuery,
        language: _Language = "en",
        time_zone: _TimeZone = "Asia/Shanghai",
    ) -> Response:
        """Returns the whole view. An operator who exports somebody else's is recorded each time."""
        person, query = query[:2], query._replace(limit=LIMIT_MAX)
        if caller.mode == "sso" and not caller.is_person(*person):
            await self._access.record(request, caller, EXPORTED, person)
        # Read before the answer begins: what is wrong is answered as a problem.
        first = await self._threads.run(self._queries.items, query)
        lines = self._csv(query, first, language, ZoneInfo(time_zone))
        return StreamingResponse(lines, headers=csv_headers(f"tasks-{query.view}.csv"), media_type="text/csv")

    async def _csv(
        self, query: PageQuery, page: tuple[list[dict[str, Any]], str | None], language: str, zone: ZoneInfo
    ) -> AsyncGenerator[str]:
        """Page by page: a connection that ends early is one that the client sees."""
        yield BYTE_ORDER_MARK + csv_lines([headings(language, zone)])
        while True:
            items, cursor = page
            yield csv_lines(items_shown(items, language, zone))
            if cursor is None:
                return
            page = await self._threads.run(self._queries.items, query._replace(cursor=cursor))

    async def counts(self, _: Reader, corp_id: CorpId, user_id: UserId) -> Response:
        return await self._answer(self._queries.counts, corp_id, user_id)

    async def apps(self, _: Reader, corp_id: CorpId, user_id: UserId) -> Response:
        """Returns the apps and process names of this person's newest entries: 500 of each view, 2,000 in all.

        An app occurs once per process, and without a name only if none is known.
        """
        return await self._answer(self._queries.apps, corp_id, user_id)

    async def history(self, caller: InstanceReader, instance_id: InstanceId) -> Response:
        given = partial(self._queries.history, now_ms=now_ms()), instance_id, caller
        # States and events are read side by side: a page that was just notified may come too early.
        for _ in range(_EVENTS_TRIES):
            with suppress(EventsBehind):
                return await self._answer(*given)
            await asyncio.sleep(_EVENTS_S)
        return await self._answer(*given)

    async def instance(self, caller: InstanceReader, instance_id: InstanceId) -> Response:
        return await self._answer(self._queries.instance, instance_id, caller)

    async def _answer(self, query: Callable[..., bytes], *arguments: object) -> Response:
        return JsonAnswer(await self._threads.run(query, *arguments))
