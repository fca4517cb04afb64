"""A batch of records: how they are read, and how their rows and the new positions are written in one transaction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import structlog

from taskbridge.runtime.database import Upsert, clean, now_ms
from taskbridge.runtime.follow.positions import advance
from taskbridge.runtime.follow.tables import skipped
from taskbridge.schemas.codec import Undecodable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from confluent_kafka import Message
    from sqlalchemy import Connection

    from taskbridge.runtime.database import Database
    from taskbridge.runtime.follow.positions import Place, Position
    from taskbridge.schemas.registry import Registry
    from taskbridge.schemas.topics import Topic

log = structlog.get_logger(__name__)

_REASON_CHARACTERS = 500
_BATCH_S = 60
"""How long a batch may take that changes no index: it takes less than a second."""
_PUT_SKIPPED = Upsert(skipped, only_new=True)


class PositionLost(Exception):
    """A position is not where it was: another replica has the partition, or rows were dropped."""


class Assigned:
    def __init__(self, place: Place, stored: Position) -> None:
        self.place = place
        self.stored = stored
        self.reached = stored.next_offset
        """Everything before it was read; what is not stored yet is in the batch."""
        self.seen_end, self.seen_at = stored.fill_end, stored.at

    @property
    def is_complete(self) -> bool:
        return self.stored.next_offset >= self.stored.fill_end

    def moved(self, next_offset: int) -> Position:
        at = self.seen_at if next_offset >= self.seen_end else self.stored.at
        return self.stored._replace(next_offset=next_offset, at=at)


class Record(NamedTuple):
    """A record that was read. ``value`` is None for a tombstone, and where there is a problem: why it is skipped."""

    assigned: Assigned
    message: Message
    key: str
    value: Any
    problem: str | None = None

    @property
    def partition(self) -> int:
        return self.assigned.place[1]

    @property
    def offset(self) -> int:
        return self.message.offset() or 0

    @property
    def at(self) -> int:
        return self.message.timestamp()[1]


class FollowedTopic(ABC):
    """A topic, and which rows its records leave.

    ``write`` and ``drop`` are called within a transaction, and again after it failed.
    """

    topic: ClassVar[Topic]
    make_codec: ClassVar[Callable[[Registry], Any]]
    begins_at_end: ClassVar[bool] = False
    """Whether a new database leaves out the records that were there before it."""

    def __init__(self, database: Database, registry: Registry) -> None:
        self.database = database
        self.codec = type(self).make_codec(registry)

    @property
    def is_compacted(self) -> bool:
        """Whether the topic has the latest record of every key for ever, so that rows without one must go."""
        return self.topic.settings["cleanup.policy"] == "compact"

    @abstractmethod
    def read(self, message: Message) -> tuple[str, Any]:
        """Decode and check a record; returns its key and value.

        Raises:
            RecordError: It is not a record of this topic.
            RegistryUnavailable: Its schema must be read first.
        """

    @abstractmethod
    def write(self, connection: Connection, records: Sequence[Record]) -> Collection[Any]:
        """Change the rows; returns whom or what ``on_change`` of the follower gets."""

    def lock(self, connection: Connection, /) -> None:  # noqa: B027 - most topics need none
        """Called first in a transaction, for a lock that comes before those of positions and rows."""

    def drop(self, connection: Connection, partition: int, /) -> None:  # noqa: B027 - most topics have rows of no partition
        """Delete the rows of a partition that will be read again from its beginning.

        By default nothing: a topic that ends after its retention has no record of rows that stay.
        """

    def adapt(self, connection: Connection, /) -> None:  # noqa: B027 - most topics have nothing to adapt
        """Called when a filling begins, and when a partition is complete."""

    def purge(self, now_ms: int, /) -> int:  # noqa: ARG002 - most topics have nothing to purge
        """Delete rows that are too old; returns how many. Called every hour, outside of any transaction."""
        return 0


def key_of(message: Message) -> str:
    """Raises Undecodable if the key is not UTF-8."""
    try:
        return clean((message.key() or b"").decode())
    except UnicodeDecodeError as error:
        raise Undecodable("its key is not UTF-8") from error


def write_batch(
    database: Database,
    topics: Mapping[str, FollowedTopic],
    records: Sequence[Record],
    ends: Mapping[Assigned, int],
) -> Collection[Any]:
    """Write the records, and move positions to their ``ends``; returns whom or what ``on_change`` of the follower gets.

    Raises:
        PositionLost: Nothing was written.
        DatabaseUnavailable: Nothing was written, as far as is known.
    """
    moves = {each.place: (each.stored, each.moved(end)) for each, end in ends.items()}
    readable: dict[str, list[Record]] = {}
    for each in records:
        if each.problem is None:
            readable.setdefault(each.assigned.place[0], []).append(each)
    people: set[Any] = set()
    completed = {each.place[0] for each, end in ends.items() if not each.is_complete and end >= each.stored.fill_end}
    # To adapt a topic may take minutes, at the end of a filling.
    with database.write(within_s=None if completed else _BATCH_S) as connection:
        for name in sorted(readable):
            topics[name].lock(connection)
        if not advance(connection, moves):
            raise PositionLost
        for name in sorted(readable):
            people |= set(topics[name].write(connection, readable[name]))
        for name in sorted(completed):
            topics[name].adapt(connection)
        _skip(database, connection, [each for each in records if each.problem is not None])
    for each in ends:
        each.stored = moves[each.place][1]
    return people


def _skip(database: Database, connection: Connection, records: Sequence[Record]) -> None:
    rows: list[tuple[object, ...]] = []
    for each in records:
        (topic, partition), problem = each.assigned.place, clean(each.problem or "")[:_REASON_CHARACTERS]
        log.warning("record_skipped", topic=topic, partition=partition, offset=each.offset, problem=problem)
        key = clean((each.message.key() or b"").decode("utf-8", "replace"))
        rows.append((topic, partition, each.offset, key, problem, now_ms()))
    database.put(connection, _PUT_SKIPPED, rows)
