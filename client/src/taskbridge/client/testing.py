"""Kafka and the registry in memory, for tests of subscribers."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from zlib import crc32

from confluent_kafka import KafkaError, Message, TopicPartition

from taskbridge.schemas.codec import task_notification_codec
from taskbridge.schemas.events import SOURCE_YIDA, Change, Status, TaskNotification, View, notification_key
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.schemas.topics import TASK_NOTIFICATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.client.source import Consumer
    from taskbridge.schemas.registry import Registry

_TOPIC = TASK_NOTIFICATIONS.name


class FakeKafka:
    """A source of the notifications of ``tell``. The guarantees of ``subscribe`` and ``Inbox`` hold for it too.

    It encodes and decodes records, and has partitions, groups with positions, and members with partitions. Positions
    are committed at once. A cancelled member leaves its group.
    """

    def __init__(self, *, partitions: int = 3) -> None:
        self.registry = FakeRegistry()
        """While ``registry.away``, it has no answer for an unknown schema."""
        self._codec = task_notification_codec(self.registry)
        self._topic = _Topic([[] for _ in range(partitions)])
        self._groups: defaultdict[str, _Group] = defaultdict(_Group)

    def tell(self, *notifications: TaskNotification) -> None:
        """Publish these notifications, in this order."""
        for each in notifications:
            self.put(notification_key(each.corp_id, each.recipient_id), self._codec.encode(each))

    def put(self, key: bytes, value: bytes | None) -> None:
        """Publish any bytes, such as a record that cannot be decoded."""
        with self._topic.changed:
            self._topic.records[crc32(key) % len(self._topic.records)].append(value)
            self._topic.changed.notify_all()

    def rewind(self, group: str) -> None:
        """Return uncommitted records again, as after Kafka expelled the members."""
        with self._topic.changed:
            for member in self._groups[group].members:
                member.positions.update({each: self._groups[group].committed[each] for each in member.positions})
            self._topic.changed.notify_all()

    async def done(self, group: str, *, within_s: float = 10) -> None:
        """Return when the group has processed all records.

        Raises:
            TimeoutError: It has not, within this time.
        """

        def wait() -> bool:
            with self._topic.changed:
                return self._topic.changed.wait_for(lambda: self.left(group) == 0, within_s)

        if not await asyncio.to_thread(wait):
            raise TimeoutError(f"{group} has {self.left(group)} records left")

    def left(self, group: str) -> int:
        """The number of records that the group has not processed yet."""
        with self._topic.changed:
            done = self._groups[group].committed
            return sum(len(each) - done[partition] for partition, each in enumerate(self._topic.records))

    def open_registry(self) -> Registry:
        return self.registry

    def member(self, group: str) -> Consumer:
        return _Member(self._topic, self._groups[group])

    def whole(self) -> Consumer:
        return _Member(self._topic, _Group(), reports_ends=True)


def notification(*, occurred_at: int = 1_700_000_000_000, **changed: Any) -> TaskNotification:
    """A notification of a pending task; ``changed`` are its other fields. It gets a random id."""
    fields: dict[str, Any] = {
        "notification_id": str(uuid.uuid4()),
        "corp_id": "ding1",
        "recipient_id": "u-1",
        "view": View.PENDING,
        "change": Change.ADDED,
        "instance_id": "i-1",
        "task_id": "t-1",
        "title": "Leave",
        "url": None,
        "app_type": "APP_1",
        "originator": None,
        "actor_id": None,
        "status": Status.PENDING,
        "event_id": str(uuid.uuid4()),
        "entered_at": occurred_at,
        "updated_at": occurred_at,
        "source": SOURCE_YIDA,
    }
    return TaskNotification(occurred_at=occurred_at, **{**fields, **changed})


@dataclass
class _Topic:
    records: list[list[bytes | None]]
    """The records of each partition."""
    changed: threading.Condition = field(default_factory=threading.Condition)


class _Group:
    def __init__(self) -> None:
        self.committed: defaultdict[int, int] = defaultdict(int)
        self.members: list[_Member] = []
        self.owned: set[int] = set()


class _Member:
    def __init__(self, topic: _Topic, group: _Group, *, reports_ends: bool = False) -> None:
        self.positions: dict[int, int] = {}
        """The next offset of each partition that it owns."""
        self._topic = topic
        self._group = group
        self._ended: set[int] | None = set() if reports_ends else None
        with self._topic.changed:
            group.members.append(self)
            self._topic.changed.notify_all()

    def consume(self, num_messages: int, timeout: float) -> list[Message]:
        until = time.monotonic() + timeout
        with self._topic.changed:
            found: list[Message] = []
            while len(found) < num_messages:
                self._claim_share()
                message = self._next()
                if message is not None:
                    found.append(message)
                elif found or not self._topic.changed.wait(max(0.0, until - time.monotonic())):
                    break
            return found

    def store_offsets(self, *, offsets: list[TopicPartition]) -> None:
        with self._topic.changed:
            self._group.committed.update(
                {each.partition: each.offset for each in offsets if each.partition in self.positions}
            )
            self._topic.changed.notify_all()

    def seek(self, partition: TopicPartition) -> None:
        with self._topic.changed:
            if partition.partition in self.positions:
                self.positions[partition.partition] = partition.offset

    def assignment(self) -> list[TopicPartition]:
        with self._topic.changed:
            return [TopicPartition(_TOPIC, each) for each in self.positions]

    def close(self) -> None:
        with self._topic.changed:
            self._group.members.remove(self)
            self._own(set())

    def _claim_share(self) -> None:
        """Claim an equal share of the partitions. Each is free once its owner reads again or leaves."""
        members = self._group.members
        self._own(set(range(members.index(self), len(self._topic.records), len(members))))

    def _own(self, share: set[int]) -> None:
        given_up, free = self.positions.keys() - share, share - self._group.owned
        for each in given_up:
            del self.positions[each]
        self.positions.update({each: self._group.committed[each] for each in free})
        if given_up or free:
            self._group.owned = (self._group.owned - given_up) | free
            self._topic.changed.notify_all()

    def _next(self) -> Message | None:
        make = cast("Callable[..., Message]", Message)
        for partition, offset in self.positions.items():
            if offset < len(self._topic.records[partition]):
                self.positions[partition] += 1
                value = self._topic.records[partition][offset]
                return make(topic=_TOPIC, partition=partition, offset=offset, value=value)
            if self._ended is not None and partition not in self._ended:
                self._ended.add(partition)
                end = KafkaError(KafkaError._PARTITION_EOF)  # noqa: SLF001 - how the library names its codes
                return make(topic=_TOPIC, partition=partition, offset=offset, error=end)
        return None
