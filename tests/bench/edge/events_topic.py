"""The events topic from outside: the number of its records, and the content of one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import OffsetSpec
from msgspec.structs import replace

from taskbridge.runtime.kafka import admin_client, consumer_config
from taskbridge.schemas.codec import task_event_codec
from taskbridge.schemas.topics import DEFAULT_PARTITIONS, TASK_EVENTS

if TYPE_CHECKING:
    from concurrent.futures import Future

    from confluent_kafka import Message

    from taskbridge.schemas.events import TaskEvent
    from taskbridge.schemas.registry import Registry

_SETTLED_S = 0.15
_READ_S = 10.0


class EventsTopic:
    """Counts and reads; writes nothing."""

    def __init__(self, bootstrap_servers: str, registry: Registry) -> None:
        self._admin = admin_client(bootstrap_servers)
        self._consumer = Consumer(consumer_config(bootstrap_servers, "bench"))
        self._codec = task_event_codec(registry)

    def ends(self) -> list[int]:
        """The end of each partition now."""
        latest = cast("OffsetSpec", OffsetSpec.latest())
        partitions = {TopicPartition(TASK_EVENTS.name, each): latest for each in range(DEFAULT_PARTITIONS)}
        found = cast("dict[TopicPartition, Future[Any]]", self._admin.list_offsets(partitions))
        return [found[each].result(_READ_S).offset for each in partitions]

    def settled_count(self) -> int:
        """The number of records ever written, once writing has ended."""
        count = sum(self.ends())
        while True:
            time.sleep(_SETTLED_S)
            before, count = count, sum(self.ends())
            if count == before:
                return count

    def find(self, event_id: str, *, after: list[int]) -> tuple[TaskEvent, dict[str, bytes], bytes | None, int]:
        """The record with that id, behind the given ends: event, headers, key, partition. Time of receipt is 0.

        Raises:
            AssertionError: there is none.
        """
        self._consumer.assign([TopicPartition(TASK_EVENTS.name, *each) for each in enumerate(after)])
        deadline = time.monotonic() + _READ_S
        while time.monotonic() < deadline:
            message = self._consumer.poll(0.2)
            if message is not None and message.error() is None:
                headers = _headers(message)
                if headers.get("ce_id") == event_id.encode():
                    event = self._codec.decode(message.value())
                    partition = message.partition()
                    assert partition is not None
                    return replace(event, received_at=0), headers, message.key(), partition
        raise AssertionError(f"no record with the id {event_id}")

    def close(self) -> None:
        self._consumer.close()


def _headers(message: Message) -> dict[str, bytes]:
    return {name: value for name, value in message.headers() or [] if isinstance(value, bytes)}
