"""How far each partition was read: rows in the same transaction as what was read from it.

A replica moves a position only from where it found it. One that lost the partition to another replica without
knowing moves none, and its rows are rolled back: every record counts once, without transactions of Kafka.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import and_, bindparam, delete, exists, func, select, text, update

from taskbridge.runtime.database import Upsert
from taskbridge.runtime.follow.tables import EPOCH, about, positions

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy import BindParameter, ColumnElement, Connection, ScalarSelect, Table

    from taskbridge.runtime.database import Database

Place = tuple[str, int]
"""Topic and partition."""

_BOOT = "boot"


class Position(NamedTuple):
    topic_id: str
    """Kafka's id of the topic: in a recreated one, offsets begin again."""
    next_offset: int
    fill_end: int
    """The partition's rows are complete once they were read up to here."""
    at: int
    """When it was last known that nothing before was missing, in milliseconds: while filling, when that began."""


class Progress(NamedTuple):
    complete: bool
    """Whether the rows are those of the whole topic, as it was when reading began, at least."""
    read: int
    of: int


def progress(connection: Connection, topic: str) -> Progress:
    found = connection.execute(_PROGRESS, {"topic": topic}).all()
    read = sum(min(each.next_offset, each.fill_end) for each in found)
    complete = bool(found) and all(each.next_offset >= each.fill_end for each in found)
    return Progress(complete, read, sum(each.fill_end for each in found))


def epoch(connection: Connection) -> str:
    """Changes whenever rows of lists are dropped: until they are read again, ids of events mean nothing."""
    return connection.execute(SELECT_EPOCH).scalar_one()


def is_filled(topic: BindParameter[str] | str) -> ColumnElement[bool]:
    """Whether the rows are those of the whole topic: within one statement, and so of one state of the database."""
    of_topic = positions.c.topic == topic
    return and_(exists().where(of_topic), ~exists().where(of_topic, ~_IS_COMPLETE))


def filled_epoch(topic: str) -> ScalarSelect[str]:
    """As ``epoch_if_filled``, as a column: a statement that has it sees the rows of that epoch."""
    return SELECT_EPOCH.where(is_filled(topic)).scalar_subquery()


def epoch_if_filled(connection: Connection, topic: str) -> str | None:
    """The epoch where the rows are those of the whole topic.

    If it is the same before and after a query, the query has seen all rows.
    """
    return connection.execute(_EPOCH_IF_FILLED, {"topic": topic}).scalar()


_IS_COMPLETE = positions.c.next_offset >= positions.c.fill_end
_PROGRESS = select(positions.c.next_offset, positions.c.fill_end).where(positions.c.topic == bindparam("topic"))
SELECT_EPOCH = select(about.c.value).where(about.c.name == EPOCH)
_EPOCH_IF_FILLED = SELECT_EPOCH.where(is_filled(bindparam("topic")))
_PUT_NEW, _PUT_ABOUT = Upsert(positions, only_new=True), Upsert(about)
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
    return {(topic, partition): Position(*rest) for topic, partition, *rest in found}


def add_positions(database: Database, connection: Connection, added: Mapping[Place, Position]) -> None:
    database.put(connection, _PUT_NEW, [(*place, *position) for place, position in sorted(added.items())])


def drop_position(connection: Connection, place: Place) -> None:
    connection.execute(delete(positions).where(positions.c.topic == place[0], positions.c.partition == place[1]))


def advance(connection: Connection, moves: Mapping[Place, tuple[Position, Position]]) -> bool:
    """Move each position from where it was found; False if one is elsewhere now, so that all must be rolled back.

    The rows stay locked until the transaction ends: of two replicas that read one partition, one waits, and fails.
    """
    for (topic, partition), (found, new) in sorted(moves.items()):
        its = {"its_topic": topic, "its_partition": partition, "its_topic_id": found.topic_id}
        values = {**its, "expected": found.next_offset, "new": new.next_offset, "now": new.at}
        if connection.execute(_ADVANCE, values).rowcount != 1:
            return False
    return True


def renew_epoch(connection: Connection) -> None:
    connection.execute(update(about).where(about.c.name == EPOCH).values(value=secrets.token_hex(8)))


def note_boot(database: Database) -> None:
    """Renew the epoch if the machine has started again: SQLite may have lost its latest transactions.

    Their records are read again. But no number of a change that a client has may be given to another one.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with database.write() as connection:
        if connection.execute(select(about.c.value).where(about.c.name == _BOOT)).scalar() != boot:
            database.put(connection, _PUT_ABOUT, [(_BOOT, boot)])
            renew_epoch(connection)


def rebuild(database: Database, tables: Collection[Table]) -> dict[str, int]:
    """Drop what follows the topics, so that it is read again; returns the number of rows by table.

    Replicas may run meanwhile: they begin again, too.

    Raises:
        DatabaseUnavailable: Nothing was dropped.
    """
    with database.write() as connection:
        # First, so that no replica can write any more.
        connection.execute(delete(positions))
        connection.execute(delete(about).where(about.c.name != EPOCH))
        renew_epoch(connection)
        counts = {each.name: connection.execute(select(func.count()).select_from(each)).scalar_one() for each in tables}
        if database.is_sqlite:
            for each in tables:
                connection.execute(delete(each))
        else:
            connection.execute(text(f"TRUNCATE {', '.join(counts)}"))
        return counts
