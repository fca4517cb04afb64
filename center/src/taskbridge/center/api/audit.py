"""The audit trail for auditors: as JSON, page by page, and as a whole for a spreadsheet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Query
from sqlalchemy import select
from starlette.responses import Response, StreamingResponse

from taskbridge.center.access.audit import FILE_OPENED, READ, Audit, AuditQuery
from taskbridge.center.actions.store import ENDED, SENT
from taskbridge.center.actions.targets import ACTIONS, AGENTS, OF_NO_TASK, REASSIGN, TALK
from taskbridge.center.api import models
from taskbridge.center.api.guard import Auditor, guarded_router
from taskbridge.center.api.models import ID_MAX
from taskbridge.center.api.routes import JsonAnswer
from taskbridge.center.api.spreadsheet import csv_documented, csv_headers, csv_lines
from taskbridge.center.tables import actions, instances, read_state

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

    from fastapi import APIRouter

    from taskbridge.center.access.access import Access
    from taskbridge.runtime.database import Database, Threads

    Entries = Sequence[models.AuditEntryOut]

_PART = 1000
_COLUMNS = tuple(models.AuditEntryOut.__annotations__)
_CSV = csv_documented("All these entries, newest first, after a line of column names.", f"{','.join(_COLUMNS)}\r\n")


async def _filters(
    person: Annotated[
        str | None,
        Query(
            pattern="^[^/]+/.",
            max_length=2 * ID_MAX + 1,
            description="Only entries by this person or about them: corp, slash, user id.",
            examples=["ding5d17e3add038d445/manager02"],
        ),
    ] = None,
    action: Annotated[
        str | None, Query(max_length=ID_MAX, description="Only entries of this action.", examples=["signed_in"])
    ] = None,
    since: Annotated[
        models.Moment, Query(description="Only entries from this time on.", examples=[models.MOMENT])
    ] = None,
    until: Annotated[models.Moment, Query(description="Only entries before this time.")] = None,
) -> AuditQuery:
    """What both routes have in common."""
    corp_id, _, user_id = (person or "").partition("/")
    times = (None if each is None else int(each.timestamp() * 1000) for each in (since, until))
    return AuditQuery(_PART, None, (corp_id, user_id) if user_id else None, action, *times)


_Filters = Annotated[AuditQuery, Depends(_filters)]


def audit_router(audit: Audit, access: Access, database: Database, threads: Threads) -> APIRouter:
    """``/v1/audit`` and ``/v1/audit.csv``."""
    router = guarded_router(access, "audit")

    async def page(query: AuditQuery) -> Entries:
        return await threads.run(_described, database, await audit.page(query))

    @router.get("/audit", summary="Audit trail, newest first", response_model=models.AuditOut)
    async def entries(  # pyright: ignore[reportUnusedFunction]
        _: Auditor,
        filters: _Filters,
        before: Annotated[int | None, Query(ge=1, le=1 << 62, description="Only entries before this number.")] = None,
        limit: Annotated[int, Query(ge=1, le=_PART, description="Maximum number of entries.")] = 100,
    ) -> Response:
        answer: models.AuditOut = {"items": await page(filters._replace(before=before, limit=limit))}
        return JsonAnswer(answer)

    @router.get("/audit.csv", summary="Audit trail for a spreadsheet", response_class=Response, responses=_CSV)
    async def spreadsheet(_: Auditor, filters: _Filters) -> Response:  # pyright: ignore[reportUnusedFunction]
        """All these entries, newest first."""
        return StreamingResponse(_csv(page, filters), headers=csv_headers("audit.csv"), media_type="text/csv")

    return router


async def _csv(
    page: Callable[[AuditQuery], Awaitable[Sequence[Mapping[str, object]]]], query: AuditQuery
) -> AsyncGenerator[str]:
    yield csv_lines([_COLUMNS])
    while found := await page(query):
        yield csv_lines([entry[each] for each in _COLUMNS] for entry in found)
        query = query._replace(before=found[-1]["seq"])


def _described(database: Database, found: Sequence[dict[str, Any]]) -> Entries:
    """The entries, with the action and the instance that each is about, where it is about one."""
    subjects = [_subject(each) for each in found]
    with database.read() as connection:
        its = actions.c.action_id, actions.c.action, actions.c.status, actions.c.instance_id, actions.c.task_id
        query = select(*its).where(database.among(actions.c.action_id))
        ids = {each["action_id"] for each in subjects} - {None}
        known = {row["action_id"]: dict(row) for row in connection.execute(query, database.keys(ids)).mappings()}
        subjects = [{**each, **known.get(each["action_id"], {})} for each in subjects]
        of = select(instances.c.instance_id, instances.c.state).where(database.among(instances.c.instance_id))
        ids = {each["instance_id"] for each in subjects} - {None}
        titles = {row[0]: read_state(row[1]).title for row in connection.execute(of, database.keys(ids))}
    return [
        {
            "seq": entry["seq"],
            "at": entry["at"],
            "corp_id": entry["corp_id"],
            "actor": entry["actor"],
            "action": entry["action"],
            "subject": entry["subject"],
            "address": entry["address"],
            "session": entry["session"],
            "sha256": entry["sha256"],
            "actor_name": entry["actor_name"],
            "subject_name": entry["subject_name"],
            "action_id": subject["action_id"],
            "decision": subject["action"],
            "status": subject["status"],
            "instance_id": None if subject["action"] in AGENTS else subject["instance_id"],
            "task_id": None if subject["action"] in OF_NO_TASK else subject["task_id"] or None,
            "title": titles.get(subject["instance_id"]),
        }
        for entry, subject in zip(found, subjects, strict=True)
    ]


def _subject(entry: dict[str, Any]) -> dict[str, Any]:
    """What the text says: it is all that is known of an action after a month."""
    found = dict[str, Any](action_id=None, action=None, status=None, instance_id=None, task_id=None)
    action, subject = entry["action"], entry["subject"]
    if action in (*ACTIONS, REASSIGN, *TALK):
        before, _, found["action_id"] = subject.rpartition(" ")
        found["instance_id"], _, found["task_id"] = before.rpartition(" ")
        found["action"] = action
    elif action in AGENTS:
        found |= {"action_id": subject, "action": action}
    elif action in (SENT, ENDED):
        found["action_id"], _, found["status"] = subject.partition(" ")
    elif action == READ and not entry["is_about_person"] and not subject.startswith("waiting "):
        found["instance_id"] = subject
    elif action == FILE_OPENED:
        found["instance_id"] = subject.rpartition(" ")[0]
    return found
