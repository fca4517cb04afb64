"""The forms with which people of a corp start requests: links into the system that has them.

The system's list of each app is read again after hours, when somebody looks, by one replica for all; a failure leaves
what was read before. No person costs a call: the system's own page says who may not start a form.
"""

# pyright: reportUnusedFunction=false

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import structlog
from sqlalchemy import select, update
from starlette.responses import Response  # noqa: TC002 - FastAPI resolves the handlers' annotations

from taskbridge.center.actions.systems import OPEN_S, Away, Busy, StartForm, answered
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
    from collections.abc import Callable, Mapping, Sequence

    from fastapi import APIRouter

    from taskbridge.center.access.access import Access
    from taskbridge.center.actions.systems import Start
    from taskbridge.center.api.queries import Queries
    from taskbridge.center.tables import Person
    from taskbridge.runtime.database import Database, Threads

_HOUR_MS = 3_600_000
_FORMS_MS, _NAMES_MS = 4 * _HOUR_MS, 24 * _HOUR_MS
"""How long the forms of an app are shown again, and the names of all apps."""
_RETRY_MS = _HOUR_MS // 4
"""For one replica to read a list, and after a failure: four times as long after the next one, then 4 hours."""
_QUADRUPLED = 2
_LIST_S = 60.0
"""For all pages of a list: nobody waits for it so long."""
_SHOWN_MS = 7 * 24 * _HOUR_MS
"""How long the forms of an app that cannot be read any more are shown."""
_STORED_MS = 30 * 24 * _HOUR_MS
_LOOKED_S = 60.0
"""After a replica has read what was due, it looks for more no sooner."""
_TEXT_MOST, _FORMS_MOST = 200, 2_000
_NAMES = ""
"""In place of an app: of all of a system."""

log = structlog.get_logger(__name__)


class Listed(msgspec.Struct, frozen=True):
    """The forms of an app, or the names of all apps, as they were read the last time: 0 is never."""

    read_at: int = 0
    failures: int = 0
    """Since then."""
    forms: tuple[StartForm, ...] = ()
    is_complete: bool = False
    names: dict[str, str] = {}


_NEVER = Listed()
_listed_in = msgspec.json.Decoder(Listed).decode


class _List(NamedTuple):
    due_at: int = 0
    listed: Listed = _NEVER


class StartLists:
    """What was listed, for all replicas. Every method blocks, and raises DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, corp_id: str) -> dict[str, _List]:
        """By system and app: see ``_key``."""
        shown = start_lists.c.app_type, start_lists.c.due_at, start_lists.c.data
        its = select(*shown).where(start_lists.c.corp_id == clean(corp_id))
        with self._database.read() as connection:
            rows = connection.execute(its).all()
        return {each.app_type: _List(each.due_at, _listed_in(each.data) if each.data else _NEVER) for each in rows}

    def claim(self, corp_id: str, key: str, *, now: int) -> bool:
        """Whether the caller is to read this list, alone for some minutes."""
        row = {"corp_id": clean(corp_id), "app_type": clean(key), "due_at": now + _RETRY_MS}
        claim = self._database.insert(start_lists).values(row)
        claim = claim.on_conflict_do_update(
            index_elements=["corp_id", "app_type"],
            set_={"due_at": row["due_at"]},
            where=start_lists.c.due_at <= now,
        )
        with self._database.write() as connection:
            return connection.execute(claim.returning(start_lists.c.due_at)).first() is not None

    def store(self, corp_id: str, key: str, listed: Listed, *, due_at: int) -> None:
        its = start_lists.c.corp_id == clean(corp_id), start_lists.c.app_type == clean(key)
        with self._database.write() as connection:
            new = {"due_at": due_at, "data": msgspec.json.encode(listed)}
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
    starts_of: Callable[[str], Mapping[str, Start]],
) -> APIRouter:
    """``…/users/{user_id}/forms``, for the person themself."""
    router = guarded_router(access, "task center")
    found = Remembered[_Found](_LOOKED_S)

    async def find(starts: Mapping[str, Start], corp_id: str) -> _Found:
        for each in starts:
            await read_due(each, starts[each], corp_id, lists, threads)
        return await threads.run(_find, starts, corp_id, lists, queries)

    def answer(found: _Found, person: Person) -> Response:
        used = queries.last_started(person)
        items: list[models.StartFormOut] = [
            {**each, "used_at": iso(used[each["form_uuid"]]) if each["form_uuid"] in used else None}
            for each in found.forms
        ]
        shown: models.StartFormsOut = {"items": items, "complete": found.is_complete}
        return JsonAnswer(shown)

    @router.get(
        "/corps/{corp_id}/users/{user_id}/forms",
        summary="Forms with which the person may start a request",
        response_model=models.StartFormsOut,
        responses=models.problems(404),
    )
    async def forms(_: InPerson, corp_id: CorpId, user_id: UserId) -> Response:
        """As the system lists them for the organisation: read again after four hours, and shown to everybody.

        The system says who may not start one, when it is opened. Returns 2,000 at most. 404 without credentials for the
        system's apps, 503 while no list could be read.
        """
        if not (starts := starts_of(corp_id)):
            raise Unknown("no forms of this organisation are listed here")
        try:
            async with asyncio.timeout(OPEN_S):
                shown = await found.of(corp_id, partial(find, starts, corp_id))
        except TimeoutError:
            # It goes on, and is shown the next time.
            shown = await threads.run(_find, starts, corp_id, lists, queries)
        if not shown.is_known:
            raise NotNow("the forms cannot be listed now: try again later", retry_after_s=60)
        return await threads.run(answer, shown, (corp_id, user_id))

    return router


async def read_due(source: str, start: Start, corp_id: str, lists: StartLists, threads: Threads) -> None:
    """Read what is due of a system: first what did not fail, and of that what was due longest ago.

    A refused app hides no other, and uses up no calls of the others.
    """
    stored = await threads.run(lists.of, corp_id)
    lists_of = (*((_NAMES,) if start.has_names else ()), *start.app_types)
    due = {each: stored.get(_key(source, each), _List()) for each in lists_of}
    is_away = False
    for app_type in sorted(due, key=lambda each: (due[each].listed.failures > 0, due[each].due_at)):
        now, key, before = now_ms(), _key(source, app_type), due[app_type].listed
        if due[app_type].due_at > now or not await threads.write(partial(lists.claim, corp_id, key, now=now)):
            continue
        if is_away:
            continue  # it is due again with those that were tried
        try:
            listed = await answered(_read(start, app_type, again=before.failures > 0), within_s=_LIST_S)
        except OperatorError as error:
            log.warning("start_forms_not_read", corp_id=corp_id, app_type=app_type, problem=str(error))
            is_away = isinstance(error, Away)
            if isinstance(error, Busy):
                continue
            listed = msgspec.structs.replace(before, failures=before.failures + 1)
        lasts_ms = _FORMS_MS if app_type else _NAMES_MS
        if listed.failures > 0:
            lasts_ms = _RETRY_MS << 2 * min(listed.failures - 1, _QUADRUPLED)
        await threads.write(partial(lists.store, corp_id, key, listed, due_at=now_ms() + lasts_ms))


def _key(source: str, app_type: str) -> str:
    return f"{source} {app_type}"


async def _read(start: Start, app_type: str, *, again: bool) -> Listed:
    if app_type:
        forms, is_complete = await start.forms(app_type, again=again)
        cut = (each._replace(title=_cut(each.title), title_en=_cut(each.title_en)) for each in forms)
        return Listed(now_ms(), forms=(*cut,), is_complete=is_complete)
    names = await start.names(again=again)
    return Listed(now_ms(), names={each: names[each][:_TEXT_MOST] for each in start.app_types if each in names})


class _Found(NamedTuple):
    """The forms of a corp, without what a person used."""

    forms: Sequence[models.StartFormOut]
    is_complete: bool
    is_known: bool
    """Whether any list was read, or named."""


def _find(starts: Mapping[str, Start], corp_id: str, lists: StartLists, queries: Queries) -> _Found:
    stored, since = lists.of(corp_id), now_ms() - _SHOWN_MS
    listed: list[tuple[str, str | None, StartForm]] = []
    is_complete, is_known = True, False
    for source, start in starts.items():
        names = stored.get(_key(source, _NAMES), _List()).listed.names
        for app_type in start.app_types:
            its = stored.get(_key(source, app_type), _List()).listed
            is_read = its.read_at > since
            listed += (
                (app_type, names.get(app_type), each) for each in (its.forms if is_read else start.named(app_type))
            )
            is_complete, is_known = is_complete and is_read and its.is_complete, is_known or is_read
    shown = listed[:_FORMS_MOST]
    untitled = [each.form_uuid for *_, each in shown if not (each.title or each.title_en)]
    titles = queries.form_titles(corp_id, untitled) if untitled else {}
    return _Found(
        [_shown(*each, titles) for each in shown],
        is_complete=is_complete and len(shown) == len(listed),
        is_known=is_known or bool(listed),
    )


def _shown(app_type: str, name: str | None, form: StartForm, titles: Mapping[str, str]) -> models.StartFormOut:
    return {
        "app_type": app_type,
        "app_name": name,
        "form_uuid": form.form_uuid,
        "title": _cut(form.title or titles.get(form.form_uuid)),
        "title_en": form.title_en,
        "url": form.url,
        "used_at": None,
    }


def _cut(text: str | None) -> str | None:
    return None if text is None else text[:_TEXT_MOST]
