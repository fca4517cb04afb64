"""What people mark in their lists: entries that were read, that are pinned, or hidden for a while.

A mark exists for an entry only: those of entries that are gone are deleted. A person's pinned and hidden entries are
few, and next to each other in the primary key, so that a page can show them wherever they are in the list.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ColumnElement, and_, bindparam, delete, exists, or_, select

from taskbridge.center.api.waits_for import waits_for_columns
from taskbridge.center.tables import (
    CODES_BY_NAME,
    HIDDEN,
    PINNED,
    READ_MARK,
    WHOLE_INSTANCE,
    among_its_entries,
    entries,
    instances,
    lock_of,
    marks,
    of_instance,
    people,
)
from taskbridge.runtime.database import Database, Upsert, clean, now_ms
from taskbridge.runtime.follow.positions import is_filled
from taskbridge.schemas.cloudevents import iso
from taskbridge.schemas.events import Status, View
from taskbridge.schemas.topics import TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import BindParameter, Label, RowMapping, Select

    from taskbridge.center.api.models import MarksOut
    from taskbridge.center.tables import Complete, Person
    from taskbridge.schemas.views import Entry

LISTED_MAX = 400
"""Pinned and hidden entries of a view that are listed."""
OWN_VIEWS = _CREATED, _HANDLED = View.CREATED.lower(), View.HANDLED.lower()
"""Of what the person did: such an entry may be read without a mark."""
UNREAD = 0
"""The value of a READ_MARK of an entry that is unread."""
_OPEN = (Status.PENDING, Status.ACTIVE)

_PUT = Upsert(marks)
_CORP: BindParameter[str] = bindparam("corp_id")
_OF_VIEW = marks.c.corp_id == _CORP, marks.c.user_id == bindparam("user_id"), marks.c.view == bindparam("view")
_ITS_KEY = [f"its_{each.name}" for each in marks.primary_key.columns]
_UNMARK = delete(marks).where(
    *(column == bindparam(name) for column, name in zip(marks.primary_key.columns, _ITS_KEY, strict=True))
)
_KEPT = marks.c.kind.in_([PINNED, HIDDEN])


def _its_entry() -> ColumnElement[bool]:
    """Joins each mark to its entry, by the key of its instance."""
    same = {name: marks.c[name] for name in ("corp_id", "user_id", "view", "task_id")}
    return and_(of_instance(marks.c.instance_id), among_its_entries(**same))


def mark_columns(instance_id: ColumnElement[str], task_id: ColumnElement[str]) -> list[Label[Any]]:
    """What the person of the query has marked about an entry of its view, by kind."""
    its = marks.alias()
    same = [its.c[each] == bindparam(each) for each in ("corp_id", "user_id", "view")]
    of = *same, its.c.instance_id == instance_id, its.c.task_id == task_id
    return [
        select(its.c.value).where(*of, its.c.kind == kind).scalar_subquery().label(kind)
        for kind in (READ_MARK, PINNED, HIDDEN)
    ]


_NAME = select(people.c.name).where(
    people.c.corp_id == marks.c.corp_id, people.c.user_id == entries.c.unnamed_originator
)


@lru_cache
def listed_statement(*, waits_for: bool) -> Select[*tuple[Any, ...]]:
    """The pinned and the hidden entries of a view; one that is both occurs twice."""
    its = marks.c.instance_id, marks.c.task_id
    more = waits_for_columns(_CORP, entries.c.instance) if waits_for else []
    name = _NAME.scalar_subquery().label("name")
    return (
        select(*its, entries.c.entered_at, entries.c.item, name, *mark_columns(*its), *more)
        .where(*_OF_VIEW, _KEPT, or_(marks.c.kind == PINNED, marks.c.value > bindparam("now")), _its_entry())
        .order_by(marks.c.kind, *its)
        .limit(LISTED_MAX)
    )


def orphaned(now: int) -> ColumnElement[bool]:
    """Marks of entries that are gone, and those that no longer hide; none while lists are filled.

    One condition, and so one snapshot: while lists are dropped, the entry of every mark is gone.
    """
    return and_(
        or_(and_(marks.c.kind == HIDDEN, marks.c.value < now), ~exists().where(_its_entry())),
        is_filled(TASK_STATES.name),
    )


class MarkChange(NamedTuple):
    """What to change about one entry."""

    view: str
    instance_id: str
    task_id: str | None
    changes: dict[str, int | None]
    """By kind, the new value; None removes the mark."""


def _is_own_doing(view: str, entry: Entry) -> bool:
    """Whether the person decided it, or filed it and it has not ended: it is no news."""
    if view == _HANDLED:
        return entry.decided_by is None
    return view == _CREATED and entry.status in _OPEN and entry.finished_at is None


def marks_json(row: RowMapping, view: str, entry: Entry, now: int) -> MarksOut:
    """As an item shows its ``mark_columns``. An entry that has changed since it was read is unread."""
    read, pinned, until = (row[each] for each in (READ_MARK, PINNED, HIDDEN))
    unmarked = entry.updated_at if _is_own_doing(view, entry) else UNREAD
    return {
        "read": (unmarked if read is None else read) == entry.updated_at,
        "pinned": pinned is not None,
        "hidden_until": iso(until) if (until or 0) > now else None,
    }


class MarksStore:
    """Every method blocks, and raises DatabaseUnavailable if the database does not answer."""

    def __init__(self, database: Database, complete: Complete) -> None:
        self._database, self._complete = database, complete
        named = select(entries.c.view, instances.c.instance_id, entries.c.task_id)
        self._present = named.join_from(instances, entries, entries.c.instance == instances.c.id).where(
            database.among(instances.c.instance_id),
            among_its_entries(corp_id=bindparam("corp_id"), user_id=bindparam("user_id")),
        )

    def change(self, person: Person, changed: Sequence[MarkChange]) -> None:
        """Mark entries. What is not in the person's lists any more has no marks, and is left out."""
        given = {"corp_id": clean(person[0]), "user_id": clean(person[1])}
        wanted: dict[tuple[Any, ...], int | None] = {}
        with self._database.write() as connection, self._complete(connection):
            self._database.lock(connection, lock_of(person))
            keys = self._database.keys({clean(each.instance_id) for each in changed})
            present = {tuple(row) for row in connection.execute(self._present, given | keys)}
            for each in changed:
                entry = CODES_BY_NAME[each.view], clean(each.instance_id), clean(each.task_id or WHOLE_INSTANCE)
                if entry in present:
                    key = *given.values(), entry[0]
                    wanted |= {(*key, kind, *entry[1:]): value for kind, value in each.changes.items()}
            put = [(*key, value) for key, value in wanted.items() if value is not None]
            self._database.put(connection, _PUT, put)
            if gone := [dict(zip(_ITS_KEY, key, strict=True)) for key, value in wanted.items() if value is None]:
                connection.execute(_UNMARK, gone)

    def purge(self) -> int:
        """Delete the marks of entries that are gone, and those that no longer hide; returns how many."""
        return self._database.purge(marks, orphaned(now_ms()))
