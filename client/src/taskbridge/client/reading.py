"""Notifications as they come, read and decoded in a thread, so that nothing here holds up the event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, cast

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from taskbridge.schemas.codec import Undecodable, task_notification_codec
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.registry import RegistryUnavailable
from taskbridge.schemas.topics import TASK_NOTIFICATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from confluent_kafka import Message

    from taskbridge.client.source import Consumer
    from taskbridge.schemas.events import TaskNotification
    from taskbridge.schemas.registry import Registry

_WAIT_S = 0.5
_REGISTRY_AGAIN_S = 1.0
_LACKS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: f"Read on topic {TASK_NOTIFICATIONS.name}",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "Read on its group, or for an inbox Describe on group taskbridge-client",
}
_REFUSALS = (*_LACKS, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
_LEFT_BEHIND = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)
"""Where librdkafka hears one of these when it asks from where to read, it never asks again (its issue 5586)."""

_log = logging.getLogger("taskbridge.client")


class KafkaRefused(OperatorError):
    """Kafka does not let this client read, or not any more: to wait changes nothing."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the topic, and what it says."""

    partition: int
    offset: int
    content: TaskNotification | Undecodable
    message: Message


class Reader:
    """Gives what the consumer reads, in the order of each partition. To be closed: ``async with``.

    What it needs and is away it waits for, brokers and registry alike, and stays a member of its group meanwhile; it
    joins anew where no broker answers for half a minute.
    """

    def __init__(self, open_consumer: Callable[[], Consumer], registry: Registry, *, batch: int = 1) -> None:
        """The registry is this reader's, and is closed with it."""
        self._open = open_consumer
        self._registry = registry
        self._codec = task_notification_codec(registry)
        self._topic = ""
        self._batch = batch
        self._consumer: Consumer | None = None
        self._thread = ThreadPoolExecutor(1, "taskbridge-client")
        self._at_end: set[int] = set()
        self._waits_for_registry = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the group, with everything that was stored committed; also when cancelled once more meanwhile."""
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)
        await asyncio.shield(closing)

    @property
    def is_at_end(self) -> bool:
        """Whether all that was there when it came to the end of each partition was given. Of a whole topic only."""
        assigned = self._consumer.assignment() if self._consumer is not None else []
        return bool(assigned) and {each.partition for each in assigned} <= self._at_end

    async def read(self) -> list[Record]:
        """The next records, as many as the batch at most; none where none came for half a second.

        Raises:
            ConfigurationError: librdkafka does not take its properties.
            KafkaRefused: Kafka does not let us read.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read)

    def store(self, positions: dict[int, int]) -> None:
        """Let the next commit, within a second or at the end, say that all before these offsets is done."""
        if self._consumer is None:
            return  # it has left the group, and these come again
        topic = self._topic
        try:
            self._consumer.store_offsets(offsets=[TopicPartition(topic, *each) for each in positions.items()])
        except KafkaException as error:
            if error.args[0].code() != KafkaError._STATE:  # noqa: SLF001 - how the library names its codes
                raise
            # All of these partitions have another owner now, who reads again what was not committed.

    def _read(self) -> list[Record]:
        consumer = self._consumer = self._consumer or self._open()
        messages = consumer.consume(1, _WAIT_S)
        if messages and self._batch > 1:
            messages += consumer.consume(self._batch - 1, 0)
        records: list[Record] = []
        for at, message in enumerate(messages):
            if (error := message.error()) is not None:
                self._heard(error, message)
                if error.code() in _LEFT_BEHIND:
                    self._leave()
                    break
                continue
            try:
                content = self._codec.decode(message.value())
            except Undecodable as undecodable:
                content = undecodable
            except RegistryUnavailable as unavailable:
                self._wait_for_registry(unavailable, messages[at:])
                break
            self._waits_for_registry = False
            self._topic = cast("str", message.topic())
            records.append(Record(cast("int", message.partition()), cast("int", message.offset()), content, message))
        return records

    def _heard(self, error: KafkaError, message: Message) -> None:
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
            self._at_end.add(cast("int", message.partition()))
        elif error.fatal() or error.code() in _REFUSALS:
            lacks = _LACKS.get(error.code())
            why = f"{error.str()}: this Kafka user lacks {lacks}" if lacks else error.str()
            raise KafkaRefused(f"Kafka refuses: {why}") from KafkaException(error)
        else:
            _log.warning("kafka_error error=%s", error.str())

    def _wait_for_registry(self, error: RegistryUnavailable, unread: Sequence[Message]) -> None:
        """Give them back, to be read again: who only held them would be taken for dead by the group."""
        if not self._waits_for_registry:
            _log.warning("registry_unreachable error=%s", error)
        self._waits_for_registry = True
        first: dict[int, Message] = {}
        for each in unread:
            if each.error() is None:
                first.setdefault(cast("int", each.partition()), each)
        assert self._consumer is not None
        for partition, each in first.items():
            with suppress(KafkaException):  # it has another owner now
                self._consumer.seek(TopicPartition(cast("str", each.topic()), partition, cast("int", each.offset())))
        time.sleep(_REGISTRY_AGAIN_S)

    def _leave(self) -> None:
        """Leave the group; to read more is to join it anew."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _close(self) -> None:
        self._registry.close()
        self._leave()
