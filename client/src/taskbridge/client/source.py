"""The source of notifications: Kafka, or a fake in tests, and the reader that decodes its records.

The reader works in a thread, so that it never blocks the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message, TopicPartition

from taskbridge.schemas.codec import Undecodable, task_notification_codec
from taskbridge.schemas.errors import ConfigurationError, OperatorError
from taskbridge.schemas.registry import PROPERTY_PREFIX, Registry, RegistryUnavailable
from taskbridge.schemas.topics import TASK_NOTIFICATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from taskbridge.schemas.events import TaskNotification

_TOPIC = TASK_NOTIFICATIONS.name
_METADATA_S = 5
_LOOK_FOR_PARTITIONS_S = 60
_SILENT_S = 15.0
"""After this silence a member requests metadata; after twice this silence without an answer it gets a new consumer.
librdkafka forgets the brokers that an answer does not name: all of them, while all are fenced (its issue 5301)."""
_ANSWER_S = 1.0
_WAIT_S = 0.5
_REGISTRY_AGAIN_S = 1.0
_LACKS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: f"Read on topic {TASK_NOTIFICATIONS.name}",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "Read on its group, or for an inbox Describe on group taskbridge-client",
}
_REFUSALS = (*_LACKS, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
_LOST_COORDINATOR = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)
"""After one of these errors librdkafka never requests its start positions again (its issue 5586)."""

_log = logging.getLogger("taskbridge.client")
_librdkafka = logging.getLogger("taskbridge.client.librdkafka")


class Consumer(Protocol):
    """The used part of confluent_kafka's consumer. Every method but ``store_offsets`` blocks."""

    def consume(self, num_messages: int, timeout: float) -> list[Message]: ...
    def store_offsets(self, *, offsets: list[TopicPartition]) -> None: ...
    def seek(self, partition: TopicPartition) -> None: ...
    def assignment(self) -> list[TopicPartition]: ...
    def close(self) -> None: ...


class Source(Protocol):
    """The notifications topic: ``Kafka``, or ``taskbridge.client.testing.FakeKafka``."""

    def open_registry(self) -> Registry:
        """The reader closes it."""
        ...

    def member(self, group: str) -> Consumer:
        """A member of a group. The group shares the partitions and continues at its positions."""
        ...

    def whole(self) -> Consumer:
        """A consumer of every partition from its first record, in no group."""
        ...


@dataclass(frozen=True)
class Kafka:
    """Kafka and the schema registry of a bridge. It opens no connection before the first read.

    ``properties`` are those of librdkafka, mainly for TLS and SASL (``security.protocol``, ``sasl.username`` …). Those
    with the prefix ``schema.registry.`` are for the registry's client (``schema.registry.ssl.ca.location``,
    ``schema.registry.basic.auth.user.info``). The properties that the guarantees need (``isolation.level`` and those of
    commits) cannot be changed. With Apicurio the registry's URL ends in ``/apis/ccompat/v7``.
    """

    bootstrap_servers: str
    registry_url: str
    properties: Mapping[str, object] = field(default_factory=dict[str, object], repr=False)

    def open_registry(self) -> Registry:
        return Registry(self.registry_url, properties=self.properties)

    def member(self, group: str) -> Consumer:
        config = {
            "group.id": group,
            "enable.auto.commit": True,
            "auto.commit.interval.ms": 1000,
            # Reading a record does not process it: only an ack stores its offset, and stored offsets are committed.
            "enable.auto.offset.store": False,
        }
        return _Member(lambda: self._consumer(config, is_member=True))

    def whole(self) -> Consumer:
        config = {"group.id": "taskbridge-client", "enable.auto.commit": False, "enable.partition.eof": True}
        return _WholeTopic(lambda: self._consumer(config))

    def _consumer(self, fixed: Mapping[str, object], *, is_member: bool = False) -> confluent_kafka.Consumer:
        config: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap_servers,
            "auto.offset.reset": "earliest",
            # When a member joins or leaves, only the partitions that move are interrupted.
            "partition.assignment.strategy": "cooperative-sticky",
            "queued.max.messages.kbytes": 16 << 10,
            # A broker that returns is found within a second, instead of the default ten.
            "reconnect.backoff.max.ms": 1000,
            "socket.keepalive.enable": True,
            **{name: each for name, each in self.properties.items() if not name.startswith(PROPERTY_PREFIX)},
            **fixed,
            "isolation.level": "read_committed",
        }
        try:
            consumer = confluent_kafka.Consumer(config, logger=_librdkafka)
        except KafkaException as error:
            raise ConfigurationError(f"librdkafka rejects these properties: {error.args[0].str()}") from error
        if is_member:
            consumer.subscribe([_TOPIC])
        return consumer


class _Member:
    """A consumer of a group. It is replaced if no broker answers it for long."""

    def __init__(self, make: Callable[[], confluent_kafka.Consumer]) -> None:
        self._make = make
        self._heard_at = monotonic()
        self._consumer = make()

    def consume(self, num_messages: int, timeout: float) -> list[Message]:
        messages = self._consumer.consume(num_messages, timeout)
        if messages:
            self._heard_at = monotonic()
        elif monotonic() - self._heard_at >= _SILENT_S:
            self._check_brokers()
        return messages

    def store_offsets(self, *, offsets: list[TopicPartition]) -> None:
        self._consumer.store_offsets(offsets=offsets)

    def seek(self, partition: TopicPartition) -> None:
        self._consumer.seek(partition)

    def assignment(self) -> list[TopicPartition]:
        return self._consumer.assignment()

    def close(self) -> None:
        self._consumer.close()

    def _check_brokers(self) -> None:
        try:
            self._consumer.list_topics(_TOPIC, timeout=_ANSWER_S)
        except KafkaException as error:
            if monotonic() - self._heard_at < 2 * _SILENT_S:
                return
            _log.warning("kafka_consumer_replaced error=%s", error.args[0].str())
            self._replace()
        self._heard_at = monotonic()

    def _replace(self) -> None:
        self._consumer.close()
        self._consumer = self._make()


class _WholeTopic(_Member):
    """A consumer in no group. Each partition is assigned from its beginning once it is known, also a later one."""

    def __init__(self, make: Callable[[], confluent_kafka.Consumer]) -> None:
        self._partitions: set[int] = set()
        self._next_look = 0.0
        super().__init__(make)

    def consume(self, num_messages: int, timeout: float) -> list[Message]:
        if monotonic() >= self._next_look:
            self._assign_new()
        return super().consume(num_messages, timeout)

    def _replace(self) -> None:
        """Continue after the last returned record of each partition, or at its beginning."""
        reached = self._consumer.position([TopicPartition(_TOPIC, each) for each in self._partitions])
        super()._replace()
        self._consumer.assign(
            [TopicPartition(_TOPIC, at.partition, max(at.offset, OFFSET_BEGINNING)) for at in reached]
        )

    def _assign_new(self) -> None:
        try:
            found = self._consumer.list_topics(_TOPIC, timeout=_METADATA_S).topics[_TOPIC].partitions
        except KafkaException:
            return  # no answer: the assigned partitions continue later, and this is tried again
        new = set(found) - self._partitions
        if new:
            self._consumer.incremental_assign([TopicPartition(_TOPIC, each, OFFSET_BEGINNING) for each in new])
            self._partitions |= new
        if self._partitions:
            self._next_look = monotonic() + _LOOK_FOR_PARTITIONS_S


class KafkaRefused(OperatorError):
    """Kafka denies this client access. Waiting does not help."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the topic, with its decoded content."""

    partition: int
    offset: int
    content: TaskNotification | Undecodable
    message: Message


class Reader:
    """Returns the decoded records of a consumer, in the order of each partition. Use it with ``async with``.

    It waits for brokers and the registry, and stays a member of its group meanwhile. It joins the group again if no
    broker answers for half a minute.
    """

    def __init__(self, open_consumer: Callable[[], Consumer], registry: Registry, *, batch: int = 1) -> None:
        """The reader closes the registry."""
        self._open = open_consumer
        self._registry = registry
        self._codec = task_notification_codec(registry)
        self._batch = batch
        self._consumer: Consumer | None = None
        self._thread = ThreadPoolExecutor(1, "taskbridge-client")
        self._at_end: set[int] = set()
        self._waits_for_registry = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Commit all stored positions and leave the group, even if this is cancelled."""
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)
        await asyncio.shield(closing)

    @property
    def is_at_end(self) -> bool:
        """Whether the end of every partition was reached once. For ``Source.whole`` only."""
        assigned = self._consumer.assignment() if self._consumer is not None else []
        return bool(assigned) and {each.partition for each in assigned} <= self._at_end

    async def read(self) -> list[Record]:
        """The next records, at most ``batch``; none if none came for half a second. Raises KafkaRefused."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read)

    def store(self, positions: dict[int, int]) -> None:
        """Store these positions for the next commit, which is within a second or at the end."""
        if self._consumer is None:
            return  # the reader has left the group, and these records come again
        try:
            self._consumer.store_offsets(offsets=[TopicPartition(_TOPIC, *each) for each in positions.items()])
        except KafkaException as error:
            if error.args[0].code() != KafkaError._STATE:  # noqa: SLF001 - how the library names its codes
                raise
            # These partitions have another owner now, which reads the uncommitted records again.

    def _read(self) -> list[Record]:
        consumer = self._consumer = self._consumer or self._open()
        messages = consumer.consume(1, _WAIT_S)
        if messages and self._batch > 1:
            messages += consumer.consume(self._batch - 1, 0)
        records: list[Record] = []
        for at, message in enumerate(messages):
            if (error := message.error()) is not None:
                self._handle(error, message)
                if error.code() in _LOST_COORDINATOR:
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
            records.append(Record(cast("int", message.partition()), cast("int", message.offset()), content, message))
        return records

    def _handle(self, error: KafkaError, message: Message) -> None:
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
            self._at_end.add(cast("int", message.partition()))
        elif error.fatal() or error.code() in _REFUSALS:
            lacks = _LACKS.get(error.code())
            why = f"{error.str()}: this Kafka user lacks {lacks}" if lacks else error.str()
            raise KafkaRefused(f"Kafka refuses: {why}") from KafkaException(error)
        else:
            _log.warning("kafka_error error=%s", error.str())

    def _wait_for_registry(self, error: RegistryUnavailable, unread: Sequence[Message]) -> None:
        """Seek back, so that these are read again. A member that only waits would be expelled from the group."""
        if not self._waits_for_registry:
            _log.warning("registry_unreachable error=%s", error)
        self._waits_for_registry = True
        first: dict[int, Message] = {}
        for each in unread:
            if each.error() is None:
                first.setdefault(cast("int", each.partition()), each)
        assert self._consumer is not None
        for partition, each in first.items():
            with suppress(KafkaException):  # the partition has another owner now
                self._consumer.seek(TopicPartition(_TOPIC, partition, cast("int", each.offset())))
        time.sleep(_REGISTRY_AGAIN_S)

    def _leave(self) -> None:
        """Leave the group. The next read joins it again."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _close(self) -> None:
        self._registry.close()
        self._leave()
