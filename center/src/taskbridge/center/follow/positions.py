"""How far each partition was read: rows in the same transaction as what was read from it.

A replica moves a position only from where it found it. One that lost the partition to another replica without
knowing moves none, and its rows are rolled back: every record counts once, without transactions of Kafka.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import bindparam, delete, func, select, text, update

from taskbridge.center.tables import EPOCH, FOLLOWED, about, entries, entries_page, positions
from taskbridge.schemas.topics import TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy import Connection

    from taskbridge.center.database import Database

Place = tuple[str, int]
"""Topic and partition."""

_PAGE_INDEX_LOCK = 0x70616765


class Position(NamedTuple):
    topic_id: str
    """Kafka's id of the topic: in a recreated one, offsets begin again."""
    next_offset: int
    fill_end: int
    """The partition's rows are complete once they were read up to here."""
    at: int
    """When it was last known that nothing after ``next_offset`` was missing, in milliseconds."""


class Progress(NamedTuple):
    """How far a topic was read, by all replicas."""

    complete: bool
    """Whether the rows are those of the whole topic, as it was when reading began, at least."""
    read: int
    of: int


def progress(connection: Connection, topic: str = TASK_STATES.name) -> Progress:
    found = connection.execute(_PROGRESS, {"topic": topic}).all()
    read = sum(min(each.next_offset, each.fill_end) for each in found)
    complete = bool(found) and all(each.next_offset >= each.fill_end for each in found)
    return Progress(complete, read, sum(each.fill_end for each in found))


def epoch(connection: Connection) -> str:
    """Changes whenever rows of lists are dropped: until they are read again, ids of events mean nothing."""
    return connection.execute(SELECT_EPOCH).scalar_one()


IS_COMPLETE = positions.c.next_offset >= positions.c.fill_end
_PROGRESS = select(positions.c.next_offset, positions.c.fill_end).where(positions.c.topic == bindparam("topic"))
SELECT_EPOCH = select(about.c.value).where(about.c.name == EPOCH)
_ADVANCE = (
    update(positions)
    .where(
        positions.c.topic == bindparam("its_topic"),
        positions.c.partition == bindparam("its_partition"),
        positions.c.topic_id == bindparam("its_topic_id"),
        positions.c.next_offset == bindparam("expected"),
    )
    .values(next_offset=bindparam("new"), at=bindparam("now"))
)


def read_positions(connection: Connection, topics: Collection[str]) -> dict[Place, Position]:
    found = connection.execute(select(positions).where(positions.c.topic.in_(topics)))
    return {
        (each.topic, each.partition): Position(each.topic_id, each.next_offset, each.fill_end, each.at)
        for each in found
    }


def add_positions(database: Database, connection: Connection, added: dict[Place, Position]) -> None:
    """Insert those that are not there."""
    statement = database.insert(positions).on_conflict_do_nothing()
    connection.execute(statement, [_row(place, position) for place, position in sorted(added.items())])


def drop_position(connection: Connection, place: Place) -> None:
    connection.execute(delete(positions).where(positions.c.topic == place[0], positions.c.partition == place[1]))


def advance(connection: Connection, moves: Mapping[Place, tuple[Position, Position]]) -> bool:
    """Move each position from where it was found; False if one is elsewhere now, so that all must be rolled back.

    The rows stay locked until the transaction ends: of two replicas that read one partition, one waits, and fails.
    """
    for (topic, partition), (found, new) in sorted(moves.items()):
        values = {
            "its_topic": topic,
            "its_partition": partition,
            "its_topic_id": found.topic_id,
            "expected": found.next_offset,
            "new": new.next_offset,
            "now": new.at,
        }
        if connection.execute(_ADVANCE, values).rowcount != 1:
            return False
    return True


def adapt_page_index(database: Database, connection: Connection) -> None:
    """Drop the index of pages while an empty table is filled, and create it when lists are complete.

    To fill it row by row takes a third of the time of a filling, and nobody reads pages before the end.
    """
    if not database.is_sqlite:
        # Of two replicas that end with their shares at once, the second one must see the share of the first.
        connection.execute(select(func.pg_advisory_xact_lock(_PAGE_INDEX_LOCK)))
    if progress(connection).complete:
        entries_page.create(connection, checkfirst=True)
    elif connection.execute(select(entries.c.id).limit(1)).first() is None:
        entries_page.drop(connection, checkfirst=True)


def renew_epoch(connection: Connection) -> None:
    connection.execute(update(about).where(about.c.name == EPOCH).values(value=secrets.token_hex(8)))


def rebuild(database: Database) -> dict[str, int]:
    """Drop what follows the topics, so that it is read again; returns the number of rows by table.

    People's own data stays. Replicas may run meanwhile: they begin again, too.

    Raises:
        DatabaseUnavailable: Nothing was dropped.
    """
    with database.write() as connection:
        # First, so that no replica can write any more.
        connection.execute(delete(positions))
        connection.execute(delete(about).where(about.c.name != EPOCH))
        renew_epoch(connection)
        counts = {
            each.name: connection.execute(select(func.count()).select_from(each)).scalar_one() for each in FOLLOWED
        }
        if database.is_sqlite:
            for each in FOLLOWED:
                connection.execute(delete(each))
        else:
            connection.execute(text(f"TRUNCATE {', '.join(counts)}"))
        return counts


def _row(place: Place, position: Position) -> dict[str, object]:
    return {"topic": place[0], "partition": place[1], **position._asdict()}
