"""On real Kafka: a commit tells where the last record stands, and fails where any other was not delivered."""

from __future__ import annotations

import random
import uuid
from typing import TYPE_CHECKING

import pytest

from taskbridge.runtime.kafka import producer_config
from taskbridge.runtime.producer import DeliveryFailed
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas.topics import Topic
from taskbridge.streams.transactions.bulk_producer import BulkProducer

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Message

    from taskbridge.cli.connection import Connection

pytestmark = pytest.mark.integration

PARTITIONS = 2
MOST_BYTES = 1000


@pytest.fixture
def topic(connection: Connection) -> str:
    made = Topic(f"bulk-{uuid.uuid4()}", None, {"max.message.bytes": str(MOST_BYTES)})
    apply_topics(connection.admin(), [made], partitions=PARTITIONS)
    return made.name


@pytest.fixture
def producer(connection: Connection, topic: str) -> BulkProducer:
    return claimed(connection, topic)


def claimed(connection: Connection, name: str) -> BulkProducer:
    producer = BulkProducer(producer_config(connection.bootstrap_servers), name)
    producer.claim()
    return producer


def test_after_the_commit_the_last_offset_is_there_and_no_sooner_than_what_was_sent_before(
    producer: BulkProducer, topic: str
) -> None:
    records = [{"key": b"%d" % number, "value": b"v"} for number in range(50)]
    producer.begin()
    first = producer.send(topic, records, partition=1)
    second = producer.send_with_headers(topic, [(b"k", b"v", [("h", b"1")])] * 3, partition=1)
    nothing = producer.send(topic, [], partition=0)
    producer.commit()
    assert [each.last_offset for each in (first, second, nothing)] == [49, 52, -1]


@pytest.mark.parametrize("has_headers", [False, True])
def test_one_that_kafka_does_not_take_fails_all_though_it_is_not_the_last(
    connection: Connection,
    producer: BulkProducer,
    topic: str,
    read_topic: Callable[[str], list[Message]],
    *,
    has_headers: bool,
) -> None:
    producer.begin()
    # The bound is of what is left after compression.
    large, small = random.randbytes(10 * MOST_BYTES), b"v"
    if has_headers:
        producer.send_with_headers(topic, [(b"k", large, [])], partition=0)
        producer.send_with_headers(topic, [(b"k", small, [])], partition=1)
    else:
        producer.send(topic, [{"key": b"k", "value": large}], partition=0)
        producer.send(topic, [{"key": b"k", "value": small}], partition=1)
    with pytest.raises(DeliveryFailed):
        producer.commit()
    claimed(connection, topic)  # which undoes what is open
    assert read_topic(topic) == []
