"""What waits for whom, and for how long: counts of pending entries, from an index that has all that is counted.

A task that waits for several people counts once for each.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Connection, Integer, Select, and_, bindparam, case, func, literal_column, select, tuple_

from taskbridge.center.reminders.due import DueRules, RuleKeys, is_overdue
from taskbridge.center.tables import NEVER_DUE, VIEW_CODES, Person, entries, people
from taskbridge.runtime.database import clean
from taskbridge.schemas.events import View

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import ColumnElement, FromClause

COUNTED_MAX = 200_000
"""Entries that one query counts."""
SHOWN_MAX = 200

# As a constant: with a parameter, SQLite would not know that it may use the indexes of pending entries alone.
_PENDING, _NEVER_DUE = (literal_column(str(each), Integer) for each in (VIEW_CODES[View.PENDING], NEVER_DUE))


def is_waiting(of: FromClause) -> ColumnElement[bool]:
    """Whether an entry is pending, and not of an instance that has ended, whose tasks wait for nobody."""
    return and_(of.c.view == _PENDING, func.coalesce(of.c.due_at, 0) != _NEVER_DUE)


IS_WAITING = is_waiting(entries)
_PERSON = entries.c.corp_id, entries.c.user_id
_NAMES_AT_ONCE = 500
_NAMES = select(people.c.user_id, people.c.name).where(
    people.c.corp_id == bindparam("corp_id"),
    people.c.user_id.in_(bindparam("user_ids", expanding=True)),
    people.c.name.is_not(None),
)


class Counts(NamedTuple):
    """Of pending entries."""

    pending: int
    overdue: int
    oldest_at: int


class Waiting(NamedTuple):
    """By process (app and name) and by person (user id and name), the most overdue first."""

    processes: Sequence[tuple[tuple[str, str | None], Counts]]
    people: Sequence[tuple[tuple[str, str | None], Counts]]
    is_complete: bool
    """False if there is more than is counted or shown."""


def waiting(
    connection: Connection,
    due: DueRules,
    now: int,
    corp_id: str,
    *,
    app_type: str | None = None,
    process: str | None = None,
    limit: int = SHOWN_MAX,
) -> Waiting:
    """The pending entries of a corp, of one of its apps, or of a process; an empty name is no name."""
    corp_id = clean(corp_id)
    given = {"corp_id": corp_id, "app_type": app_type, "process": process, "rows": limit + 1, **due.given(now)}
    filters = {"app": app_type is not None, "process": None if process is None else bool(process)}
    by_process = connection.execute(_grouped(due.keys, by="process", **filters), given).all()
    by_person = connection.execute(_grouped(due.keys, by="person", **filters), given).all()
    processes = [((app, name), Counts(*counts)) for app, name, *counts, _ in by_process]
    users = [(user, Counts(*counts)) for user, *counts, _ in by_person]
    names = names_of(connection, corp_id, [user for user, _ in users])
    counted = not by_process or by_process[0][-1] <= COUNTED_MAX
    return Waiting(
        processes[:limit],
        [((user, names.get(user)), counts) for user, counts in users[:limit]],
        counted and len(processes) <= limit and len(users) <= limit,
    )


def corps(connection: Connection, limit: int = SHOWN_MAX) -> list[str]:
    """Those with entries, in order: a query each, which finds the next one in the index."""
    found = [""]
    while len(found) <= limit:
        later = select(entries.c.corp_id).where(entries.c.corp_id > found[-1]).order_by(entries.c.corp_id).limit(1)
        if (corp_id := connection.execute(later).scalar()) is None:
            break
        found.append(corp_id)
    return found[1:]


def people_after(connection: Connection, after: Person | None, limit: int) -> Sequence[Person]:
    """The next people with pending entries, in the order of the index."""
    found = select(*_PERSON).where(IS_WAITING).group_by(*_PERSON).order_by(*_PERSON).limit(limit)
    if after is not None:
        # The first condition is the one by which SQLite enters the index.
        found = found.where(entries.c.corp_id >= after[0], tuple_(*_PERSON) > tuple_(*after))
    return [(row[0], row[1]) for row in connection.execute(found)]


def counts_of(connection: Connection, due: DueRules, now: int, person: Person) -> Counts | None:
    """Of one person; None without any."""
    given = {"corp_id": person[0], "user_id": person[1], **due.given(now)}
    row = connection.execute(_of_person(due.keys), given).one()
    return Counts(*row) if row[0] else None


def _late(keys: RuleKeys) -> Any:
    return case((is_overdue(keys), 1), else_=0).label("late")


@lru_cache
def _of_person(keys: RuleKeys) -> Select[*tuple[Any, ...]]:
    of_person = entries.c.corp_id == bindparam("corp_id"), entries.c.user_id == bindparam("user_id")
    columns = select(_late(keys), entries.c.entered_at).where(IS_WAITING, *of_person).limit(COUNTED_MAX).subquery()
    return select(func.count(), func.sum(columns.c.late), func.min(columns.c.entered_at))


@lru_cache
def _grouped(keys: RuleKeys, *, by: str, app: bool, process: bool | None) -> Select[*tuple[Any, ...]]:
    where = [IS_WAITING, entries.c.corp_id == bindparam("corp_id")]
    if app:
        where.append(entries.c.app_type == bindparam("app_type"))
    if process is not None:
        where.append(entries.c.process_name == bindparam("process") if process else entries.c.process_name.is_(None))
    columns = entries.c.user_id, entries.c.app_type, entries.c.process_name, entries.c.entered_at
    found = select(*columns, _late(keys)).where(*where).limit(COUNTED_MAX + 1).subquery()
    groups = (found.c.app_type, found.c.process_name) if by == "process" else (found.c.user_id,)
    number, late, oldest = func.count(), func.sum(found.c.late), func.min(found.c.entered_at)
    counted = select(*groups, number, late, oldest, func.sum(number).over()).group_by(*groups)
    return counted.order_by(late.desc(), oldest, *groups).limit(bindparam("rows"))


def names_of(connection: Connection, corp_id: str, user_ids: Iterable[str]) -> dict[str, str]:
    """The names of a corp's users, as far as they are known."""
    users = list(set(user_ids))
    found: dict[str, str] = {}
    for begin in range(0, len(users), _NAMES_AT_ONCE):
        given = {"corp_id": corp_id, "user_ids": users[begin : begin + _NAMES_AT_ONCE]}
        found.update((row[0], row[1]) for row in connection.execute(_NAMES, given))
    return found
