"""Real Kafka: transactions that are committed, aborted and open, ends without a record, offsets that are gone."""

from __future__ import annotations

import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import OFFSET_BEGINNING, Producer, TopicPartition

from taskbridge.runtime.kafka import consumer_config, producer_config
from taskbridge.runtime.partition_reader import OutOfRange, PartitionReader, TimeLimit
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas.topics import Topic

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from taskbridge.cli.connection import Connection

pytestmark = pytest.mark.integration

WITHIN_S = 60


@pytest.fixture
def topic(connection: Connection) -> Generator[str]:
    name = f"partitions-{uuid.uuid4()}"
    admin = connection.admin()
    apply_topics(admin, [Topic(name, None, {})], partitions=2)
    yield name
    admin.delete_topics([name])[name].result()


@pytest.fixture
def producer(connection: Connection) -> Producer:
    config: dict[str, Any] = producer_config(connection.bootstrap_servers)
    producer = Producer({**config, "transactional.id": str(uuid.uuid4())})
    producer.init_transactions(30)
    return producer


def begin(producer: Producer, topic: str, partition: int, count: int) -> None:
    """Of a transaction: its records are on Kafka, and it is open."""
    producer.begin_transaction()
    for _ in range(count):
        producer.produce(topic, value=b"value", partition=partition)
    producer.flush(30)


def config_of(connection: Connection, reset: str = "error") -> dict[str, object]:
    return {**consumer_config(connection.bootstrap_servers, "tests"), "auto.offset.reset": reset}


def offsets(reader: PartitionReader, topic: str, start: int, end: int | None) -> list[int | None]:
    """The offsets of partition 0 that are read."""
    ends: Mapping[int, int] | None = None if end is None else {0: end}
    return [each.offset() for batch in reader.read(topic, {0: start}, ends, within_s=WITHIN_S) for each in batch]


def test_only_what_is_committed_is_read_up_to_ends_that_may_have_no_record(
    connection: Connection, topic: str, producer: Producer
) -> None:
    begin(producer, topic, 0, 3)
    producer.commit_transaction(30)
    begin(producer, topic, 0, 2)
    producer.abort_transaction(30)
    with closing(PartitionReader(config_of(connection))) as reader:
        for start, end, there in [(0, 7, [0, 1, 2]), (OFFSET_BEGINNING, None, [0, 1, 2]), (1, 6, [1, 2]), (4, 6, [])]:
            assert offsets(reader, topic, start, end) == there
            assert reader.reached == {0: 7 if end is None else end}
        assert offsets(reader, topic, 1, 2) == [1]
        assert offsets(reader, topic, 7, None) == [], "from its end"


def test_an_open_transaction_ends_a_partition_unless_its_records_are_requested(
    connection: Connection, topic: str, producer: Producer
) -> None:
    begin(producer, topic, 0, 2)
    producer.commit_transaction(30)
    begin(producer, topic, 0, 2)
    with closing(PartitionReader(config_of(connection))) as reader:
        assert offsets(reader, topic, 0, None) == [0, 1]
        assert reader.reached == {0: 3}
        with pytest.raises(TimeLimit):
            list(reader.read(topic, {0: 0, 1: OFFSET_BEGINNING}, {0: 5, 1: 0}, quiet_s=1))
        found: list[int | None] = []
        is_open = True
        for batch in reader.read(topic, {0: 0}, {0: 5}, within_s=WITHIN_S):
            if is_open and not batch and found:
                producer.commit_transaction(30)
                is_open = False
            found += [each.offset() for each in batch]
        assert found == [0, 1, 3, 4]


def test_deleted_offsets_are_reported_or_skipped_and_never_read_backwards(
    connection: Connection, topic: str, producer: Producer
) -> None:
    begin(producer, topic, 0, 5)
    producer.commit_transaction(30)
    admin = cast("Any", connection.admin())
    for answer in admin.delete_records([TopicPartition(topic, 0, 3)]).values():
        answer.result(30)
    with closing(PartitionReader(config_of(connection))) as strict:
        for start in (0, 100):
            with pytest.raises(OutOfRange, match=topic):
                offsets(strict, topic, start, start + 5)
        assert offsets(strict, topic, 3, 6) == [3, 4], "it reads on after an error"
    with closing(PartitionReader(config_of(connection, "earliest"))) as lenient:
        assert offsets(lenient, topic, 0, 6) == [3, 4]
        with pytest.raises(OutOfRange, match="offset 100"):
            offsets(lenient, topic, 100, 105)
