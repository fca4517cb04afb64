"""Commits changes of people's lists as the follower does, for tests of live updates."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import delete, insert

from taskbridge.center.tables import about, change_counters, changes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from taskbridge.center.database import Database

EPOCH = "e0"
CORP = "corp"

_numbers = itertools.count()


def set_epoch(database: Database, epoch: str = EPOCH) -> None:
    """As at the first start, or when lists are dropped."""
    with database.write() as connection:
        connection.execute(delete(about).where(about.c.name == "epoch"))
        connection.execute(insert(about).values(name="epoch", value=epoch))


def add_changes(
    connection: Connection,
    database: Database,
    user_id: str,
    count: int = 1,
    *,
    corp_id: str = CORP,
    instance_id: str = "I-1",
    data: Mapping[str, Any] | None = None,
) -> list[str]:
    """In a transaction of the caller's; returns the notifications' ids."""
    user_id = user_id.replace("\0", "\ufffd")
    counter = database.insert(change_counters).values(corp_id=corp_id, user_id=user_id, last_seq=count)
    counter = counter.on_conflict_do_update(
        index_elements=["corp_id", "user_id"], set_={"last_seq": change_counters.c.last_seq + count}
    )
    last = connection.execute(counter.returning(change_counters.c.last_seq)).scalar_one()
    ids = [f"{user_id}-{next(_numbers)}" for _ in range(count)]
    rows = [
        {
            "corp_id": corp_id,
            "user_id": user_id,
            "seq": last - count + 1 + at,
            "at": 0,
            "instance_id": instance_id,
            "data": msgspec.json.encode({"notification_id": each, **(data or {})}),
        }
        for at, each in enumerate(ids)
    ]
    connection.execute(insert(changes), rows)
    return ids


def commit_changes(database: Database, user_id: str, count: int = 1, **more: Any) -> list[str]:
    """As one transaction, without waking anybody."""
    with database.write() as connection:
        return add_changes(connection, database, user_id, count, **more)


def purge_changes(database: Database, user_id: str, *, before: int) -> None:
    """As retention does."""
    with database.write() as connection:
        connection.execute(delete(changes).where(changes.c.user_id == user_id, changes.c.seq < before))


def renumber(database: Database, epoch: str = "e1") -> None:
    """As when lists are dropped."""
    with database.write() as connection:
        connection.execute(delete(changes))
        connection.execute(delete(change_counters))
    set_epoch(database, epoch)
