"""``/v1/corps`` and ``/v1/corps/{corp_id}/waiting``: what waits for whom, for those who answer for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import Query
from starlette.requests import Request  # noqa: TC002 - FastAPI resolves the handlers' annotations
from starlette.responses import Response  # noqa: TC002

from taskbridge.center.api import models
from taskbridge.center.api.guard import CorpId, Known, guarded_router
from taskbridge.center.api.models import ID_MAX
from taskbridge.center.api.routes import JsonAnswer
from taskbridge.center.reminders.waiting import Counts, corps, waiting
from taskbridge.runtime.database import Database, Threads, clean, now_ms
from taskbridge.runtime.refusals import Forbidden
from taskbridge.runtime.remembered import Remembered
from taskbridge.runtime.tokens import ALL_CORPS
from taskbridge.schemas.cloudevents import iso

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import APIRouter

    from taskbridge.center.access.access import Access, Caller
    from taskbridge.center.reminders.file import Reminders
    from taskbridge.center.tables import Complete

_FRESH_S = 5.0
"""How long an answer is shown again: to count takes seconds where much waits."""

_AppType = Annotated[
    str | None, Query(max_length=ID_MAX, description="Only this app. Required of people who only own apps.")
]
_Process = Annotated[
    str | None, Query(max_length=ID_MAX, description="Only this process; empty for entries without one.")
]


def waiting_router(  # noqa: PLR0917 - the parts
    database: Database,
    threads: Threads,
    access: Access,
    complete: Complete,
    reminders: Callable[[], Reminders],
    now: Callable[[], int] = now_ms,
) -> APIRouter:
    """``reminders`` is the version of the file that is in force."""
    router = guarded_router(access, "task center")
    remembered = Remembered[models.WaitingOut](_FRESH_S)

    def read(corp_id: str, app_type: str | None, process: str | None) -> models.WaitingOut:
        with database.read() as connection, complete(connection):
            found = waiting(connection, reminders().due, now(), corp_id, app_type=app_type, process=process)
        processes: list[models.WaitingProcessOut] = [
            {"app_type": app, "process_name": name, **_shown(counts)} for (app, name), counts in found.processes
        ]
        people: list[models.WaitingPersonOut] = [
            {"user_id": user, "name": name, **_shown(counts)} for (user, name), counts in found.people
        ]
        return {"processes": processes, "people": people, "complete": found.is_complete}

    def check() -> None:
        with database.read() as connection, complete(connection):
            pass

    def read_corps() -> list[str]:
        with database.read() as connection, complete(connection):
            return corps(connection)

    @router.get("/corps", summary="Corps that the caller may see", response_model=models.CorpsOut)
    async def known_corps(caller: Known) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Those of the token, or of the signed-in person. Of all corps, the first 200 that have entries, in order."""
        found = list(caller.corps) if caller.corp_id is None else [caller.corp_id]
        if ALL_CORPS in caller.corps:
            found = await threads.run(read_corps)
        answer: models.CorpsOut = {"items": found}
        return JsonAnswer(answer)

    @router.get(
        "/corps/{corp_id}/waiting", summary="What waits for whom, and for how long", response_model=models.WaitingOut
    )
    async def answer(  # pyright: ignore[reportUnusedFunction]
        request: Request, caller: Known, corp_id: CorpId, app_type: _AppType = None, process_name: _Process = None
    ) -> Response:
        """Pending entries by process and by person, the most overdue first: at most 200 of each.

        For operators, for tokens with this corp, and of an app for its owners in CENTER_REMINDERS_FILE.
        """
        if not _may_see(caller, reminders(), corp_id, app_type):
            raise Forbidden("operators, tokens for this corp and owners of this app only")
        await access.record_read(request, caller, f"waiting {corp_id} {app_type or ''}".rstrip())
        names = [None if each is None else clean(each) for each in (app_type, process_name)]
        asked = corp_id, *names
        found = await remembered.of(asked, lambda: threads.run(read, *asked))
        await threads.run(check)  # also what is remembered: the lists may have been dropped since
        return JsonAnswer(found)

    return router


def _may_see(caller: Caller, reminders: Reminders, corp_id: str, app_type: str | None) -> bool:
    if ALL_CORPS in caller.corps or corp_id in caller.corps:
        return True
    is_own = caller.user_id is not None and caller.corp_id == corp_id
    return is_own and (caller.corp_id, caller.user_id) in reminders.owners.get(app_type or "", ())


def _shown(counts: Counts) -> models.CountedOut:
    return {"pending": counts.pending, "overdue": counts.overdue, "oldest_at": iso(counts.oldest_at)}
