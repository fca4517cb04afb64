"""A topic as the follower sees it: how a record is read, and which rows it leaves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

from confluent_kafka import murmur2

from taskbridge.schemas.codec import Undecodable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from confluent_kafka import Message
    from sqlalchemy import Connection

    from taskbridge.center.database import Database
    from taskbridge.schemas.registry import Registry
    from taskbridge.schemas.topics import Topic

Person = tuple[str, str]
"""Corp and user."""

target_partition = cast("Callable[[bytes, int], int]", murmur2)
"""The partition of a key among so many."""


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
    partitions: int
    """How many the topic has."""
    complete: Collection[int]
    """Those whose rows were complete before this batch: their changes are published."""


class FollowedTopic(ABC):
    """``write`` and ``drop`` are called within a transaction, and again after it failed."""

    topic: ClassVar[Topic]

    def __init__(self, database: Database, _registry: Registry, /) -> None:
        self.database = database

    @property
    def is_compacted(self) -> bool:
        """Whether the topic has the latest record of every key for ever, so that rows without one must go."""
        return self.topic.settings["cleanup.policy"] == "compact"

    @abstractmethod
    def read(self, message: Message) -> Record | None:
        """The record; None if it has nothing for the database.

        Raises:
            RecordError: It is not a record of this topic.
            RegistryUnavailable: Its schema must be read first.
        """

    @abstractmethod
    def write(self, writing: Writing, records: Sequence[Record]) -> Collection[Person]:
        """Change the rows; returns the people whose lists changed."""

    @abstractmethod
    def drop(self, connection: Connection, partition: int) -> None:
        """Delete the rows of a partition that will be read again from its beginning."""


def record_of(message: Message, value: Any) -> Record:
    """Raises Undecodable if the key is not UTF-8."""
    try:
        key = (message.key() or b"").decode()
    except UnicodeDecodeError as error:
        raise Undecodable("its key is not UTF-8") from error
    return keyed(message, clean(key), value)


def keyed(message: Message, key: str, value: Any) -> Record:
    return Record(message.partition() or 0, message.offset() or 0, message.timestamp()[1], key, value, message)


def clean(text: str) -> str:
    """Without U+0000, which PostgreSQL cannot store."""
    return text.replace("\0", "\ufffd") if "\0" in text else text
