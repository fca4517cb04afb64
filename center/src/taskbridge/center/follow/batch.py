"""Writes a batch of records: their rows and the new positions in one transaction."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import structlog
from sqlalchemy import text

from taskbridge.center.database import Upsert
from taskbridge.center.follow.positions import advance
from taskbridge.center.follow.topic import Writing, clean
from taskbridge.center.tables import skipped
from taskbridge.schemas.topics import TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from confluent_kafka import Message
    from sqlalchemy import Connection

    from taskbridge.center.database import Database
    from taskbridge.center.follow.positions import Place, Position
    from taskbridge.center.follow.topic import FollowedTopic, Person, Record

log = structlog.get_logger(__name__)

CHANNEL = "taskbridge_changes"
"""On which PostgreSQL notifies replicas of people whose lists changed: JSON, a list of corp and user."""
_PAYLOAD_BYTES = 7_900
_NOTIFY = text(f"SELECT pg_notify('{CHANNEL}', :payload)")
_REASON_CHARACTERS = 500
_PUT_SKIPPED = Upsert(skipped, [each.name for each in skipped.columns], only_new=True)


class PositionLost(Exception):
    """A position is not where it was: another replica has the partition, or the rows were dropped."""


class Item(NamedTuple):
    """A message: its record, or why it is skipped. Neither, where it has nothing for the database."""

    message: Message
    topic: FollowedTopic
    record: Record | None
    problem: str | None

    @property
    def place(self) -> Place:
        return self.topic.topic.name, self.message.partition() or 0


class Assigned:
    """A partition that this replica reads."""

    def __init__(self, position: Position) -> None:
        self.stored = position
        self.reached = position.next_offset
        """Everything before it was read; what is not stored yet is in the batch."""
        self.at_end = False
        """Whether nothing came after it."""

    @property
    def is_complete(self) -> bool:
        return self.stored.next_offset >= self.stored.fill_end

    def moved(self, next_offset: int) -> Position:
        """The position to store. A filling counts as of its beginning until it is complete."""
        is_current = self.at_end and next_offset >= self.stored.fill_end
        return self.stored._replace(next_offset=next_offset, at=now_ms() if is_current else self.stored.at)


def write_batch(
    database: Database, items: Sequence[Item], assigned: Mapping[Place, Assigned], partitions: Mapping[str, int]
) -> Collection[Person]:
    """Write the records, and move the positions after them; returns the people whose lists changed.

    Without items, positions move to what was reached. ``partitions``: how many each topic has.

    Raises:
        PositionLost: Nothing was written.
        DatabaseUnavailable: Nothing was written, as far as is known.
    """
    ends = {each.place: (each.message.offset() or 0) + 1 for each in items}
    ends = ends or {place: each.reached for place, each in assigned.items()}
    # A partition that was revoked while the batch was read is another replica's.
    if not ends.keys() <= assigned.keys():
        raise PositionLost
    moves = {place: (assigned[place].stored, assigned[place].moved(end)) for place, end in ends.items()}
    records: dict[FollowedTopic, list[Record]] = {}
    for each in items:
        if each.record is not None:
            records.setdefault(each.topic, []).append(each.record)
    # A filling that is lost is read again. But no number of a change that a client has may be given to another one.
    is_live = any(place[0] == TASK_STATES.name and assigned[place].is_complete for place in ends)
    people: set[Person] = set()
    with database.write(durable=is_live) as connection:
        if not advance(connection, moves):
            raise PositionLost
        for topic in sorted(records, key=lambda each: each.topic.name):
            name = topic.topic.name
            complete = {place[1] for place in ends if place[0] == name and assigned[place].is_complete}
            people |= set(topic.write(Writing(connection, partitions[name], complete), records[topic]))
        _skip(database, connection, [each for each in items if each.problem is not None])
        if people and not database.is_sqlite:
            _notify(connection, people)
    for place, (_, position) in moves.items():
        assigned[place].stored = position
    return people


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _skip(database: Database, connection: Connection, items: Sequence[Item]) -> None:
    rows: list[tuple[object, ...]] = []
    for each in items:
        key = clean((each.message.key() or b"").decode("utf-8", "replace"))
        offset, problem = each.message.offset() or 0, clean(each.problem or "")[:_REASON_CHARACTERS]
        log.warning("record_skipped", topic=each.place[0], partition=each.place[1], offset=offset, problem=problem)
        rows.append((*each.place, offset, key, problem, now_ms()))
    database.put(connection, _PUT_SKIPPED, rows)


def _notify(connection: Connection, people: Collection[Person]) -> None:
    """Wake other replicas, when this transaction is committed."""
    payload = ""
    for each in people:
        pair = msgspec.json.encode(each).decode()
        if payload and len((payload + pair).encode()) + 3 > _PAYLOAD_BYTES:
            connection.execute(_NOTIFY, {"payload": f"[{payload}]"})
            payload = ""
        payload = f"{payload},{pair}" if payload else pair
    connection.execute(_NOTIFY, {"payload": f"[{payload}]"})
