"""Read a topic from its beginning or from a time on, up to its present end."""

from __future__ import annotations

import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from taskbridge.cli.terminal import Heartbeat, call_with_heartbeat
from taskbridge.runtime.kafka import consumer_config, is_denied, no_answer, not_allowed
from taskbridge.runtime.partition_reader import OutOfRange, PartitionReader
from taskbridge.schemas.errors import ConfigurationError, OperatorError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from confluent_kafka import Consumer, Message

    from taskbridge.cli.connection import Connection
    from taskbridge.cli.terminal import Progress

GROUP = "taskbridge-operator"
_METADATA_S = 5
_STALLED_S = 30
_LEADERLESS_S = 10
_LEADERLESS = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
_LOOK_S = 0.1


def reader_of(connection: Connection, **properties: object) -> PartitionReader:
    """A reader that joins no group, commits nothing, and does not log librdkafka's messages."""
    config = consumer_config(connection.bootstrap_servers, GROUP, connection.kafka_properties)
    return PartitionReader({**config, **properties})


def partitions_of(connection: Connection, consumer: Consumer, topic: str) -> list[int]:
    """The topic's partitions.

    Raises:
        ConfigurationError: the topic does not exist.
        OperatorError: Kafka does not answer.
    """
    try:
        found = consumer.list_topics(topic, timeout=_METADATA_S).topics[topic]
    except KafkaException as error:
        raise OperatorError(no_answer(consumer, connection.bootstrap_servers, error)) from error
    if found.error is not None and is_denied(found.error):
        raise OperatorError(not_allowed(f"Read on topic {topic}"))
    if found.error is not None:
        raise ConfigurationError(
            f"topic {topic} does not exist: create the topics of the contract with 'taskbridge topics apply'"
        )
    return sorted(found.partitions)


def read_to_end(
    connection: Connection, topic: str, *, progress: Progress, since_ms: int | None = None
) -> Iterator[Message]:
    """Every record on the topic at the time of the call, each partition in order; only from ``since_ms`` on if given.

    Raises:
        ConfigurationError: the topic does not exist.
        OperatorError: Kafka does not answer, or stops answering.
    """
    with closing(reader_of(connection)) as reader:
        starts, ends = call_with_heartbeat(
            lambda: _bounds(connection, reader.consumer, topic, since_ms),
            progress,
            f"waiting for Kafka at {connection.bootstrap_servers}",
        )
        heartbeat, count = Heartbeat(progress), 0
        for batch in reader.read(topic, starts, ends, quiet_s=_STALLED_S):
            count += len(batch)
            yield from batch
            heartbeat.beat(f"reading {topic}: {count} records")


def read_one(connection: Connection, topic: str, partition: int, offset: int) -> Message | None:
    """The record at this offset; None if it is no longer stored.

    Raises:
        OperatorError: Kafka does not answer.
    """
    with closing(reader_of(connection, **{"auto.offset.reset": "error"})) as reader, suppress(OutOfRange):
        for batch in reader.read(topic, {partition: offset}, {partition: offset + 1}, quiet_s=_STALLED_S):
            for message in batch:
                return message
    return None


def _bounds(
    connection: Connection, consumer: Consumer, topic: str, since_ms: int | None
) -> tuple[dict[int, int], dict[int, int]]:
    """The start offset of each partition that has records to read, and the end offset of each."""
    starts: list[TopicPartition] = []
    ends: dict[int, int] = {}
    try:
        for number in partitions_of(connection, consumer, topic):
            first, ends[number] = _watermarks(consumer, TopicPartition(topic, number))
            starts.append(TopicPartition(topic, number, first))
        if since_ms is not None:
            times = [TopicPartition(topic, at.partition, max(0, since_ms)) for at in starts]
            starts = consumer.offsets_for_times(times, timeout=_METADATA_S)
    except KafkaException as error:
        raise OperatorError(no_answer(consumer, connection.bootstrap_servers, error)) from error
    return {at.partition: at.offset for at in starts if 0 <= at.offset < ends[at.partition]}, ends


def _watermarks(consumer: Consumer, at: TopicPartition) -> tuple[int, int]:
    """The first and end offset of the partition. A new topic gets its leaders a moment after its creation."""
    deadline = time.monotonic() + _LEADERLESS_S
    while True:
        try:
            return consumer.get_watermark_offsets(at, timeout=_METADATA_S)
        except KafkaException as error:
            if error.args[0].code() not in _LEADERLESS or time.monotonic() > deadline:
                raise
        time.sleep(_LOOK_S)
