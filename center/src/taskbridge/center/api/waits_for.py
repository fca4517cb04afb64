"""Whom requests wait for, as a list of one's own requests shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import distinct, func, select

from taskbridge.center.reminders.waiting import is_waiting
from taskbridge.center.tables import entries, people

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Label, RowMapping

    from taskbridge.center.api.models import WaitsForOut

_USER_ID, _NAME, _PEOPLE = "waits_for_id", "waits_for_name", "waits_for_people"


def waits_for_columns(corp_id: ColumnElement[str], instance: ColumnElement[int]) -> list[Label[Any]]:
    """Of an instance with pending tasks, one person who has one, their name, and how many people have one."""
    its = entries.alias()
    waiting = its.c.instance == instance, is_waiting(its)
    # Of the row, however deep they are nested.
    person = select(func.min(its.c.user_id)).where(*waiting).correlate_except(its).scalar_subquery()
    count = select(func.count(distinct(its.c.user_id))).where(*waiting).correlate_except(its).scalar_subquery()
    named = people.c.corp_id == corp_id, people.c.user_id == person
    name = select(people.c.name).where(*named).correlate_except(people).scalar_subquery()
    return [person.label(_USER_ID), name.label(_NAME), count.label(_PEOPLE)]


def waits_for_json(row: RowMapping) -> WaitsForOut | None:
    """As an item shows it; None if nobody has a pending task."""
    user_id = row[_USER_ID]
    return None if user_id is None else {"user_id": user_id, "name": row[_NAME], "others": row[_PEOPLE] - 1}
