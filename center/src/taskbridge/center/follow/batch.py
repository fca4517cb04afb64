"""A batch of records: how they are read, and how their rows and the new positions are written in one transaction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import msgspec
import structlog
from sqlalchemy import text

from taskbridge.center.database import Upsert
from taskbridge.center.follow.positions import adapt_page_index, advance
from taskbridge.center.tables import CHANGES_CHANNEL, clean, now_ms, skipped
from taskbridge.schemas.codec import Undecodable
from taskbridge.schemas.topics import TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from confluent_kafka import Message
    from sqlalchemy import Connection

    from taskbridge.center.database import Database
    from taskbridge.center.follow.positions import Place, Position
    from taskbridge.center.tables import Person
    from taskbridge.schemas.registry import Registry
    from taskbridge.schemas.topics import Topic

log = structlog.get_logger(__name__)

_PAYLOAD_BYTES = 7_900
_NOTIFY = text(f"SELECT pg_notify('{CHANGES_CHANNEL}', :payload)")
_REASON_CHARACTERS = 500
_PUT_SKIPPED = Upsert(skipped, [each.name for each in skipped.columns], only_new=True)


class PositionLost(Exception):
    """A position is not where it was: another replica has the partition, or the rows were dropped."""


class Record(NamedTuple):
    """A record that was read. ``value`` is None for a tombstone."""

    partition: int
    offset: int
    at: int
    key: str
    value: Any
    message: Message


class Writing(NamedTuple):
    """What the rows of a batch may depend on."""

    connection: Connection
    complete: Collection[int]
    """Those whose rows were complete before this batch: their changes are published."""


class FollowedTopic(ABC):
    """A topic, and which rows its records leave.

    ``write`` and ``drop`` are called within a transaction, and again after it failed.
    """

    topic: ClassVar[Topic]
    make_codec: ClassVar[Callable[[Registry], Any]]

    def __init__(self, database: Database, registry: Registry) -> None:
        self.database = database
        self.codec = type(self).make_codec(registry)

    @property
    def is_compacted(self) -> bool:
        """Whether the topic has the latest record of every key for ever, so that rows without one must go."""
        return self.topic.settings["cleanup.policy"] == "compact"

    @abstractmethod
    def read(self, message: Message) -> Record:
        """Decode and check a record.

        Raises:
            RecordError: It is not a record of this topic.
            RegistryUnavailable: Its schema must be read first.
        """

    @abstractmethod
    def write(self, writing: Writing, records: Sequence[Record]) -> Collection[Person]:
        """Change the rows; returns the people whose lists changed."""

    def drop(self, connection: Connection, partition: int, /) -> None:  # noqa: B027 - most topics have rows of no partition
        """Delete the rows of a partition that will be read again from its beginning.

        By default nothing: a topic that ends after its retention has no record of rows that stay.
        """


def record_of(message: Message, value: Any) -> Record:
    """Raises Undecodable if the key is not UTF-8."""
    try:
        key = (message.key() or b"").decode()
    except UnicodeDecodeError as error:
        raise Undecodable("its key is not UTF-8") from error
    return keyed(message, clean(key), value)


def keyed(message: Message, key: str, value: Any) -> Record:
    return Record(message.partition() or 0, message.offset() or 0, message.timestamp()[1], key, value, message)


class Item(NamedTuple):
    """A message: its record, or why it is skipped."""

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


def write_batch(database: Database, items: Sequence[Item], assigned: Mapping[Place, Assigned]) -> Collection[Person]:
    """Write the records, and move the positions after them; returns the people whose lists changed.

    Without items, positions move to what was reached.

    Raises:
        PositionLost: Nothing was written.
        DatabaseUnavailable: Nothing was written, as far as is known.
    """
    ends = {each.place: (each.message.offset() or 0) + 1 for each in items}
    ends = ends or {place: each.reached for place, each in assigned.items()}
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
            complete = {place[1] for place in ends if place[0] == topic.topic.name and assigned[place].is_complete}
            people |= set(topic.write(Writing(connection, complete), records[topic]))
        if any(
            place[0] == TASK_STATES.name and old.next_offset < old.fill_end <= new.next_offset
            for place, (old, new) in moves.items()
        ):
            adapt_page_index(database, connection)
        _skip(database, connection, [each for each in items if each.problem is not None])
        if people and not database.is_sqlite:
            _notify(connection, people)
    for place, (_, position) in moves.items():
        assigned[place].stored = position
    return people


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
