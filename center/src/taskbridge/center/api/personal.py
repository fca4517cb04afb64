"""What people change about their own pages: marks on entries, and preferences.

Not in the audit trail: nobody else sees it, and it changes nothing about a task.
"""

# pyright: reportUnusedFunction=false

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from taskbridge.center.api import models
from taskbridge.center.api.guard import CorpId, Known, Own, UserId, guarded_router
from taskbridge.center.api.marks import OWN_VIEWS, UNREAD, MarkChange, MarksStore
from taskbridge.center.tables import HIDDEN, PINNED, READ_MARK, preferences
from taskbridge.runtime.database import Database, Threads, Upsert, clean, now_ms
from taskbridge.runtime.refusals import Forbidden
from taskbridge.schemas.json_forms import to_json

if TYPE_CHECKING:
    from datetime import datetime

    from fastapi import APIRouter

    from taskbridge.center.access.access import Access

_PUT = Upsert(preferences)


def personal_router(access: Access, marks: MarksStore, database: Database, threads: Threads) -> APIRouter:
    """``PUT /v1/corps/…/marks`` and ``PUT /v1/me/preferences``."""
    router = guarded_router(access, "task center")

    @router.put("/corps/{corp_id}/users/{user_id}/marks", summary="Mark entries", status_code=204)
    async def mark(_: Own, corp_id: CorpId, user_id: UserId, body: models.MarksIn) -> Response:
        """Marks entries as read, pinned, or hidden until a time.

        Only for the person, or a program that may read the person's lists. Entries that are not in the lists any more
        are left out.
        """
        await threads.write(marks.change, (corp_id, user_id), [_mark_change(each) for each in body.items])
        return Response(status_code=204)

    @router.put("/me/preferences", summary="Set preferences", status_code=204)
    async def prefer(caller: Known, body: models.Preferences) -> Response:
        """Stores what a signed-in person chose for the pages, instead of what was chosen before. `/v1/me` has it."""
        if caller.corp_id is None or caller.user_id is None:
            raise Forbidden("only people who signed in have preferences")
        row = clean(caller.corp_id), clean(caller.user_id), to_json({**models.NO_PREFERENCES, **body})

        def write() -> None:
            with database.write() as connection:
                database.put(connection, _PUT, [row])

        await threads.write(write)
        return Response(status_code=204)

    return router


def _mark_change(given: models.MarkIn) -> MarkChange:
    # Without a mark, what the person did is read.
    unread = UNREAD if given.view in OWN_VIEWS else None
    read = unread if given.read is None else _ms(given.read)
    values = {READ_MARK: read, PINNED: now_ms() if given.pinned else None, HIDDEN: _ms(given.hidden_until)}
    fields = {READ_MARK: "read", PINNED: "pinned", HIDDEN: "hidden_until"}
    changes = {kind: value for kind, value in values.items() if fields[kind] in given.model_fields_set}
    return MarkChange(given.view, given.instance_id, given.task_id, changes)


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)
