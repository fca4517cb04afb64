"""The forms with which people of a corp start requests: links into the system that has them.

The system's list of each app is read again after hours, when somebody looks, by one replica for all. No person costs a
call: the system's own page says who may not start a form.
"""

# pyright: reportUnusedFunction=false

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import structlog
from sqlalchemy import select, update
from starlette.responses import Response  # noqa: TC002 - FastAPI resolves the handlers' annotations

from taskbridge.center.actions.systems import OPEN_S, Away, StartForm, answered
from taskbridge.center.api import models
from taskbridge.center.api.guard import CorpId, InPerson, UserId, guarded_router
from taskbridge.center.api.routes import JsonAnswer
from taskbridge.center.tables import start_lists
from taskbridge.runtime.database import clean, now_ms
from taskbridge.runtime.refusals import NotNow, Unknown
from taskbridge.runtime.remembered import Remembered
from taskbridge.schemas.cloudevents import iso
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastapi import APIRouter

    from taskbridge.center.access.access import Access
    from taskbridge.center.actions.systems import Start
    from taskbridge.center.api.queries import Queries
    from taskbridge.runtime.database import Database, Threads

_HOUR_MS = 3_600_000
_FORMS_MS, _NAMES_MS = 4 * _HOUR_MS, 24 * _HOUR_MS
"""How long the forms of an app are shown again, and the names of all apps."""
_RETRY_MS = _HOUR_MS // 4
"""For one replica to read a list, and after a failure that passes."""
_STORED_MS = 30 * 24 * _HOUR_MS
_LOOKED_S = 60.0
"""After a replica has read what was due, it looks for more no sooner."""
_TEXT_MOST = 200
_NAMES = ""
"""In place of an app."""

_forms_in = msgspec.json.Decoder(list[StartForm]).decode
_names_in = msgspec.json.Decoder(dict[str, str]).decode

log = structlog.get_logger(__name__)


class _List(NamedTuple):
    due_at: int
    data: bytes | None


class StartLists:
    """What was listed, for all replicas. Every method blocks, and raises DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, corp_id: str) -> dict[str, _List]:
        """By app."""
        shown = start_lists.c.app_type, start_lists.c.due_at, start_lists.c.data
        its = select(*shown).where(start_lists.c.corp_id == clean(corp_id))
        with self._database.read() as connection:
            return {row.app_type: _List(row.due_at, row.data) for row in connection.execute(its)}

    def claim(self, corp_id: str, app_type: str, *, now: int) -> bool:
        """Whether the caller is to read this list, alone for some minutes."""
        row = {"corp_id": clean(corp_id), "app_type": clean(app_type), "due_at": now + _RETRY_MS}
        claim = self._database.insert(start_lists).values(row)
        claim = claim.on_conflict_do_update(
            index_elements=["corp_id", "app_type"],
            set_={"due_at": row["due_at"]},
            where=start_lists.c.due_at <= now,
        )
        with self._database.write() as connection:
            return connection.execute(claim.returning(start_lists.c.due_at)).first() is not None

    def store(self, corp_id: str, app_type: str, data: bytes | None, *, due_at: int) -> None:
        """What was read; None leaves what there is."""
        its = start_lists.c.corp_id == clean(corp_id), start_lists.c.app_type == clean(app_type)
        new: dict[str, Any] = {"due_at": due_at} if data is None else {"due_at": due_at, "data": data}
        with self._database.write() as connection:
            connection.execute(update(start_lists).where(*its).values(new))

    def purge(self) -> int:
        """Delete what nobody has looked at for a month; returns how many."""
        return self._database.purge(start_lists, start_lists.c.due_at < now_ms() - _STORED_MS)


def start_router(
    access: Access,
    queries: Queries,
    threads: Threads,
    lists: StartLists,
    *,
    start_of: Callable[[str], Start | None],
) -> APIRouter:
    """``…/users/{user_id}/forms``, for the person themself."""
    router = guarded_router(access, "task center")
    reading = Remembered[None](_LOOKED_S)

    @router.get(
        "/corps/{corp_id}/users/{user_id}/forms",
        summary="Forms with which the person may start a request",
        response_model=models.StartFormsOut,
        responses=models.problems(404),
    )
    async def forms(_: InPerson, corp_id: CorpId, user_id: UserId) -> Response:
        """As the system lists them for the organisation: read again after four hours, and shown to everybody.

        The system says who may not start one, when it is opened. 404 without credentials for the system's apps, 503
        while no list could be read.
        """
        if (start := start_of(corp_id)) is None:
            raise Unknown("no forms of this organisation are listed here")
        # What takes longer goes on, and is shown the next time.
        with suppress(TimeoutError):
            async with asyncio.timeout(OPEN_S):
                await reading.of(corp_id, partial(read_due, start, corp_id, lists, threads))
        stored = await threads.run(lists.of, corp_id)
        known = {each: data for each in start.app_types if (data := stored[each].data if each in stored else None)}
        if not known:
            raise NotNow("the forms cannot be listed now: try again later", retry_after_s=60)
        app_names = _names_in(stored[_NAMES].data or b"{}") if _NAMES in stored else {}
        listed = [(app_type, each) for app_type, data in known.items() for each in _forms_in(data)]
        untitled = [each.form_uuid for _, each in listed if not (each.title or each.title_en)]
        titles = await threads.run(queries.form_titles, corp_id, untitled) if untitled else {}
        used = await threads.run(queries.last_started, (corp_id, user_id))
        answer: models.StartFormsOut = {
            "items": [_shown(app_type, app_names, each, titles, used) for app_type, each in listed],
            "complete": len(known) == len(start.app_types),
        }
        return JsonAnswer(answer)

    return router


async def read_due(start: Start, corp_id: str, lists: StartLists, threads: Threads) -> None:
    """Read what is due, first what was read longest ago. A refused app hides no other."""
    stored = await threads.run(lists.of, corp_id)
    due = {each: stored[each].due_at if each in stored else 0 for each in (_NAMES, *start.app_types)}
    for app_type in sorted(due, key=due.__getitem__):
        now = now_ms()
        if due[app_type] > now or not await threads.write(partial(lists.claim, corp_id, app_type, now=now)):
            continue
        lasts_ms, data = (_FORMS_MS if app_type else _NAMES_MS), None
        try:
            found = await answered(start.forms(app_type) if app_type else start.names())
            data = msgspec.json.encode(found)
        except Away as error:
            log.warning("start_forms_not_read", corp_id=corp_id, app_type=app_type, problem=str(error))
            return
        except OperatorError as error:
            log.warning("start_forms_not_read", corp_id=corp_id, app_type=app_type, problem=str(error))
        await threads.write(partial(lists.store, corp_id, app_type, data, due_at=now_ms() + lasts_ms))


def _shown(
    app_type: str, names: Mapping[str, str], form: StartForm, titles: Mapping[str, str], used: Mapping[str, int]
) -> models.StartFormOut:
    used_at = used.get(form.form_uuid)
    return {
        "app_type": app_type,
        "app_name": _cut(names.get(app_type)),
        "form_uuid": form.form_uuid,
        "title": _cut(form.title or titles.get(form.form_uuid)),
        "title_en": _cut(form.title_en),
        "url": form.url,
        "used_at": None if used_at is None else iso(used_at),
    }


def _cut(text: str | None) -> str | None:
    return None if text is None else text[:_TEXT_MOST]
