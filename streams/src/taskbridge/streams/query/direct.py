"""A page and the counts, answered before the layers of the framework: they took most of what such a query cost.

Only plain queries. An unusual query goes on to the framework's routes, which answer the same, or say
what is wrong with it: see ``docs/adr/0018``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl

from starlette.requests import Request

from taskbridge.streams.api.refusals import Refused, refusal_answer
from taskbridge.streams.api.resolver import AnsweredElsewhere
from taskbridge.streams.query.answers import LIMIT_DEFAULT, LIMIT_MAX, VIEW_NAMES, PageQuery, counts_answer, page_answer
from taskbridge.streams.query.routes import COUNTS_PATH, CURSOR_MAX, ID_MAX, Q_MAX, TASKS_PATH
from taskbridge.streams.tables.store import PartitionNotHeld

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from taskbridge.streams.query.answers import ApiContext

_PATH = re.compile(rf"/v1/corps/([^/]{{1,{ID_MAX}}})/users/([^/]{{1,{ID_MAX}}})/(tasks|counts)")
_LIMIT = re.compile(r"[1-9][0-9]{0,2}")


class _Declared(NamedTuple):
    """Stands in the scope for the framework's route: queries are measured by its path."""

    path: str


_TASKS, _COUNTS = _Declared(TASKS_PATH), _Declared(COUNTS_PATH)


class DirectQueries:
    """Innermost of what stands around the framework's routes, so all that is done for every query is done for these."""

    def __init__(self, app: ASGIApp, context: ApiContext) -> None:
        self._app = app
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = self._asked(scope)
        if asked is None:
            await self._app(scope, receive, send)
            return
        try:
            answer = await asked
        except AnsweredElsewhere as elsewhere:
            answer = elsewhere.answer
        except (Refused, PartitionNotHeld) as error:
            answer = refusal_answer(error)
        await answer(scope, receive, send)

    def _asked(self, scope: Scope) -> Awaitable[Response] | None:
        """What answers it; None where the framework does."""
        if scope["type"] != "http" or scope["method"] != "GET":
            return None
        found = _PATH.fullmatch(scope["path"])
        if found is None:
            return None
        corp_id, user_id, what = found.groups()
        if what == "counts":
            scope["route"] = _COUNTS
            return counts_answer(self._context, Request(scope), corp_id, user_id)
        asked = page_query(corp_id, user_id, scope["query_string"])
        if asked is None:
            return None
        scope["route"] = _TASKS
        return page_answer(self._context, Request(scope), asked)


def page_query(corp_id: str, user_id: str, query_string: bytes) -> PageQuery | None:
    """What is asked for; None where it has to be looked at more closely, and where something is wrong with it."""
    # As the framework has it: of a name that stands more than once the last counts, and one that is not known never.
    given = dict(parse_qsl(query_string.decode("latin-1"), keep_blank_values=True))
    view, q, cursor = given.get("view"), given.get("q", ""), given.get("cursor")
    limit = given.get("limit", f"{LIMIT_DEFAULT}")
    app_type, source = given.get("app_type"), given.get("source")
    if view not in VIEW_NAMES or len(q) > Q_MAX or not _LIMIT.fullmatch(limit) or int(limit) > LIMIT_MAX:
        return None
    if len(app_type or "") > ID_MAX or len(source or "") > ID_MAX or len(cursor or "") > CURSOR_MAX:
        return None
    return PageQuery(corp_id, user_id, view, app_type, source, q, int(limit), cursor)
