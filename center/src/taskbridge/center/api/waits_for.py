"""Whom requests wait for, as a list of one's own requests shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, distinct, func, select

from taskbridge.center.reminders.waiting import IS_WAITING, names_of
from taskbridge.center.tables import entries, instances

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from taskbridge.runtime.database import Database

    WaitsFor = Callable[[Connection, str, Collection[str]], dict[str, dict[str, Any]]]


def waits_for(database: Database) -> WaitsFor:
    """Finds for each of a corp's instances with pending tasks one person who has one, and how many others do."""
    person, people = func.min(entries.c.user_id), func.count(distinct(entries.c.user_id))
    pending = (
        select(instances.c.instance_id, person, people)
        .join_from(instances, entries, entries.c.instance == instances.c.id)
        .where(database.among(instances.c.instance_id), IS_WAITING)
        .group_by(instances.c.instance_id)
    )

    def find(connection: Connection, corp_id: str, instance_ids: Collection[str]) -> dict[str, dict[str, Any]]:
        if not instance_ids:
            return {}
        rows = connection.execute(pending, database.keys(instance_ids)).all()
        names = names_of(connection, corp_id, [user_id for _, user_id, _ in rows])
        return {
            instance_id: {"user_id": user_id, "name": names.get(user_id), "others": count - 1}
            for instance_id, user_id, count in rows
        }

    return find
