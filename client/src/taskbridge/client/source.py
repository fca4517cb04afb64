"""Where notifications come from: Kafka, or what stands in for it in tests."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, KafkaException, TopicPartition

from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.registry import PROPERTY_PREFIX, Registry
from taskbridge.schemas.topics import TASK_NOTIFICATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from confluent_kafka import Message


_TOPIC = TASK_NOTIFICATIONS.name
_METADATA_S = 5
_LOOK_FOR_PARTITIONS_S = 60
_SILENT_S = 15.0
"""After that much silence a broker is asked; after as much again without an answer another consumer is made. librdkafka
forgets each broker that an answer does not name; where none is named, because all are fenced for a moment, it may know
nobody to ask any more, for ever (its issue 5301)."""
_ANSWER_S = 1.0

_log = logging.getLogger("taskbridge.client")
_librdkafka = logging.getLogger("taskbridge.client.librdkafka")


class Consumer(Protocol):
    """What of confluent_kafka's consumer is used. Every method but ``store_offsets`` blocks."""

    def consume(self, num_messages: int, timeout: float) -> list[Message]: ...
    def store_offsets(self, *, offsets: list[TopicPartition]) -> None: ...
    def seek(self, partition: TopicPartition) -> None: ...
    def assignment(self) -> list[TopicPartition]: ...
    def close(self) -> None: ...


class Source(Protocol):
    """The notifications topic: ``Kafka``, or ``taskbridge.client.testing.FakeKafka``."""

    def open_registry(self) -> Registry:
        """To be closed by who reads."""
        ...

    def member(self, group: str) -> Consumer:
        """One of a group that shares the partitions, and goes on where the group has come to."""
        ...

    def whole(self) -> Consumer:
        """Reads every partition from its first record, in no group."""
        ...


@dataclass(frozen=True)
class Kafka:
    """Kafka and the schema registry of a bridge. Opens nothing until somebody reads.

    ``properties`` are librdkafka's, for TLS and SASL above all (``security.protocol``, ``sasl.username`` …); they reach
    every connection to the brokers. Those that begin with ``schema.registry.`` are for the registry's client
    (``schema.registry.ssl.ca.location``, ``schema.registry.basic.auth.user.info``). Those that the guarantees rest on
    (``isolation.level``, who commits and when) stay as they are. With Apicurio the registry's URL ends in
    ``/apis/ccompat/v7``.
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
            # What was read is not done: only what was acknowledged is stored, and what is stored is committed.
            "enable.auto.offset.store": False,
        }
        return _Member(lambda: self._consumer(config))

    def whole(self) -> Consumer:
        config = {"group.id": "taskbridge-client", "enable.auto.commit": False, "enable.partition.eof": True}
        return _WholeTopic(lambda: self._consumer(config))

    def _consumer(self, fixed: Mapping[str, object]) -> confluent_kafka.Consumer:
        config: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap_servers,
            "auto.offset.reset": "earliest",
            # A member that joins or leaves stops only what moves.
            "partition.assignment.strategy": "cooperative-sticky",
            "queued.max.messages.kbytes": 16 << 10,
            # A broker that comes back is found within a second, not after the default ten.
            "reconnect.backoff.max.ms": 1000,
            "socket.keepalive.enable": True,
            **{name: each for name, each in self.properties.items() if not name.startswith(PROPERTY_PREFIX)},
            **fixed,
            "isolation.level": "read_committed",
        }
        try:
            return confluent_kafka.Consumer(config, logger=_librdkafka)
        except KafkaException as error:
            raise ConfigurationError(f"librdkafka does not take these properties: {error.args[0].str()}") from error


class _Member:
    """A consumer of a group, made anew where no broker has answered it for long."""

    def __init__(self, make: Callable[[], confluent_kafka.Consumer]) -> None:
        self._make = make
        self._heard_at = monotonic()
        self._consumer = make()
        self._start()

    def consume(self, num_messages: int, timeout: float) -> list[Message]:
        messages = self._consumer.consume(num_messages, timeout)
        if messages:
            self._heard_at = monotonic()
        elif monotonic() - self._heard_at >= _SILENT_S:
            self._ask()
        return messages

    def store_offsets(self, *, offsets: list[TopicPartition]) -> None:
        self._consumer.store_offsets(offsets=offsets)

    def seek(self, partition: TopicPartition) -> None:
        self._consumer.seek(partition)

    def assignment(self) -> list[TopicPartition]:
        return self._consumer.assignment()

    def close(self) -> None:
        self._consumer.close()

    def _start(self) -> None:
        self._consumer.subscribe([_TOPIC])

    def _ask(self) -> None:
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
        self._start()


class _WholeTopic(_Member):
    """In no group: each partition is assigned from its beginning, also those that are added later."""

    def __init__(self, make: Callable[[], confluent_kafka.Consumer]) -> None:
        self._partitions: set[int] = set()
        self._look_at = 0.0
        super().__init__(make)

    def consume(self, num_messages: int, timeout: float) -> list[Message]:
        if monotonic() >= self._look_at:
            self._assign_new()
        return super().consume(num_messages, timeout)

    def _start(self) -> None:
        """Partitions are assigned when they are known."""

    def _replace(self) -> None:
        """Go on behind what was given; a partition of which nothing was, from its beginning."""
        reached = self._consumer.position([TopicPartition(_TOPIC, each) for each in self._partitions])
        super()._replace()
        self._consumer.assign(
            [TopicPartition(_TOPIC, at.partition, max(at.offset, OFFSET_BEGINNING)) for at in reached]
        )

    def _assign_new(self) -> None:
        try:
            found = self._consumer.list_topics(_TOPIC, timeout=_METADATA_S).topics[_TOPIC].partitions
        except KafkaException:
            return  # it is away: those that are assigned come when it is back, and this is asked again
        new = set(found) - self._partitions
        if new:
            self._consumer.incremental_assign([TopicPartition(_TOPIC, each, OFFSET_BEGINNING) for each in new])
            self._partitions |= new
        if self._partitions:
            self._look_at = monotonic() + _LOOK_FOR_PARTITIONS_S
