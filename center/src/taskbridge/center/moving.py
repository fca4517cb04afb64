"""Copying what people entered from one database to another. Lists are not copied: the topics fill them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, select, text

from taskbridge.center.tables import FOLLOWED, day_calls, metadata, proposals, replicas, sign_ins, start_lists
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from taskbridge.runtime.database import Database

_BRIEF = replicas, sign_ins, day_calls, start_lists, proposals
"""They last minutes or a day."""
OWN = tuple(each for each in metadata.sorted_tables if each not in (*FOLLOWED, *_BRIEF))
"""What people entered, and who they are in the audit trail."""
_AT_ONCE = 5_000


def copy_own(source: Database, target: Database, report: Callable[[str], None]) -> dict[str, int]:
    """Copy all rows of OWN, as they are at one moment, in one transaction; returns how many, by table.

    The audit trail keeps its numbers and hashes. ``report`` is called with a line after each batch.

    Raises:
        ConfigurationError: The target has such rows already.
        DatabaseUnavailable: Nothing was copied.
    """
    rows = dict.fromkeys((each.name for each in OWN), 0)
    with source.read() as old, target.write(durable=True) as new:
        _lock_empty(new, target)
        for table in OWN:
            found = old.execution_options(yield_per=_AT_ONCE).execute(select(table))
            for batch in found.mappings().partitions():
                new.execute(insert(table), [dict(each) for each in batch])
                rows[table.name] += len(batch)
                report(f"{table.name}: {rows[table.name]:,} rows")
    return rows


def _lock_empty(connection: Connection, target: Database) -> None:
    """Keep replicas from writing to these tables until the transaction ends; refuse if one of them has rows."""
    if not target.is_sqlite:
        connection.execute(text(f"LOCK TABLE {', '.join(each.name for each in OWN)} IN EXCLUSIVE MODE"))
    filled = [each.name for each in OWN if connection.execute(select(each).limit(1)).first() is not None]
    if filled:
        raise ConfigurationError(
            f"the database to copy to has rows in {', '.join(filled)} already, and nothing was copied: give an empty"
            " one, after 'taskbridge center --migrate'"
        )
