"""Reads what a topic holds now, from its beginning or from a time on, and ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from taskbridge.local.progress import Heartbeat, call_with_heartbeat
from taskbridge.runtime.kafka import LIBRDKAFKA, consumer_config, no_answer
from taskbridge.schemas.errors import ConfigurationError, OperatorError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from confluent_kafka import Message

    from taskbridge.cli.connection import Connection
    from taskbridge.local.progress import Progress

_GROUP = "taskbridge-operator"
_METADATA_S = 5
_BATCH = 500
_WAIT_S = 0.2
_STALLED_S = 30
_TRANSIENT = (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._PARTITION_EOF)  # noqa: SLF001


def open_consumer(connection: Connection, group: str, **settings: object) -> Consumer:
    """A consumer that joins no group, commits nothing, and keeps librdkafka's log to itself."""
    config: dict[str, Any] = consumer_config(connection.bootstrap_servers, group, connection.kafka_properties)
    return Consumer(config | settings, logger=LIBRDKAFKA)


def partitions_of(connection: Connection, consumer: Consumer, topic: str) -> list[int]:
    """The topic's partitions.

    Raises:
        ConfigurationError: there is no such topic.
        OperatorError: Kafka does not answer.
    """
    try:
        found = consumer.list_topics(topic, timeout=_METADATA_S).topics[topic]
    except KafkaException as error:
        raise OperatorError(no_answer(consumer, connection.bootstrap_servers, error)) from error
    if found.error is not None:
        raise ConfigurationError(f"there is no topic {topic}: 'taskbridge topics apply' makes those of the contract")
    return sorted(found.partitions)


def read_to_end(
    connection: Connection, topic: str, *, progress: Progress, since_ms: int | None = None
) -> Iterator[Message]:
    """Every record that is there at the start of the call, each partition in order; with ``since_ms`` from then on.

    Raises:
        ConfigurationError: there is no such topic.
        OperatorError: Kafka does not answer, or stops answering.
    """
    consumer = open_consumer(connection, _GROUP)
    try:
        starts, ends = call_with_heartbeat(
            lambda: _bounds(connection, consumer, topic, since_ms),
            progress,
            f"waiting for Kafka at {connection.bootstrap_servers}",
        )
        consumer.assign(starts)
        heartbeat, count, moved = Heartbeat(progress), 0, time.monotonic()
        # A position moves past what retention removed, so it reaches the end whatever records are left.
        while any(at.offset < ends[at.partition] for at in consumer.position(consumer.assignment())):
            messages = consumer.consume(_BATCH, _WAIT_S)
            if messages:
                moved = time.monotonic()
            elif time.monotonic() - moved > _STALLED_S:
                raise OperatorError(f"reading {topic}: Kafka gives no more records")
            for message in messages:
                error = message.error()
                if error is None:
                    count += 1
                    yield message
                elif error.code() not in _TRANSIENT:
                    raise OperatorError(f"reading {topic}: {error.str()}")
            heartbeat.beat(f"reading {topic}: {count} records")
    finally:
        consumer.close()


def read_one(connection: Connection, topic: str, partition: int, offset: int) -> Message | None:
    """The record of this place; None where it is no longer kept.

    Raises:
        OperatorError: Kafka does not answer.
    """
    consumer = open_consumer(connection, _GROUP, **{"auto.offset.reset": "error"})
    try:
        consumer.assign([TopicPartition(topic, partition, offset)])
        deadline = time.monotonic() + _STALLED_S
        while time.monotonic() < deadline:
            for message in consumer.consume(1, _WAIT_S):
                error = message.error()
                if error is None:
                    return message if message.offset() == offset else None
                if error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001 - how the library names its codes
                    return None
                if error.code() not in _TRANSIENT:
                    raise OperatorError(f"reading {topic}: {error.str()}")
        raise OperatorError(f"reading {topic}: Kafka gives no more records")
    finally:
        consumer.close()


def _bounds(
    connection: Connection, consumer: Consumer, topic: str, since_ms: int | None
) -> tuple[list[TopicPartition], dict[int, int]]:
    """Where to start in each partition that has something to read, and where each ends."""
    starts: list[TopicPartition] = []
    ends: dict[int, int] = {}
    try:
        for number in partitions_of(connection, consumer, topic):
            first, ends[number] = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_METADATA_S)
            starts.append(TopicPartition(topic, number, first))
        if since_ms is not None:
            times = [TopicPartition(topic, at.partition, max(0, since_ms)) for at in starts]
            starts = consumer.offsets_for_times(times, timeout=_METADATA_S)
    except KafkaException as error:
        raise OperatorError(no_answer(consumer, connection.bootstrap_servers, error)) from error
    return [at for at in starts if 0 <= at.offset < ends[at.partition]], ends
