"""On real Kafka: a commit returns the last record's offset, and fails when any record was not delivered."""

from __future__ import annotations

import random
import uuid
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from taskbridge.runtime.kafka import producer_config
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas.topics import Topic
from taskbridge.streams.engine.joint_producer import Fenced, JointProducer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from confluent_kafka import Message

    from taskbridge.cli.connection import Connection
    from taskbridge.streams.engine.transaction_requests import Sent
    from taskbridge.streams.records import RecordWithHeaders

    Make = Callable[[str], JointProducer]

pytestmark = pytest.mark.integration

PARTITIONS = 2
MOST_BYTES = 1000


@pytest.fixture
def topic(connection: Connection) -> str:
    made = Topic(f"bulk-{uuid.uuid4()}", None, {"max.message.bytes": str(MOST_BYTES)})
    apply_topics(connection.admin(), [made], partitions=PARTITIONS)
    return made.name


@pytest.fixture
def make(connection: Connection) -> Iterator[Make]:
    made: list[JointProducer] = []

    def claimed(name: str) -> JointProducer:
        made.append(JointProducer(producer_config(connection.bootstrap_servers), name))
        made[-1].claim()
        return made[-1]

    yield claimed
    for producer in made:
        producer.close()


@pytest.fixture
def producer(make: Make, topic: str) -> JointProducer:
    return make(topic)


def test_after_the_commit_the_last_offset_is_there_and_no_sooner_than_what_was_sent_before(
    producer: JointProducer, topic: str
) -> None:
    records: list[RecordWithHeaders] = [(b"%d" % number, b"v", []) for number in range(50)]
    with producer.transaction():
        first = producer.send(topic, records, partition=1)
        second = producer.send(topic, [(b"k", b"v", [("h", b"1")])] * 3, partition=1)
        nothing = producer.send(topic, [], partition=0)
    assert [each.last_offset for each in (first, second, nothing)] == [49, 52, -1]


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_a_topic_that_accepts_only_smaller_batches_gets_the_same_records_in_those(
    connection: Connection, topic: str, read_topic: Callable[[str], list[Message]], codec: str
) -> None:
    config = producer_config(connection.bootstrap_servers, {"compression.type": codec})
    with closing(JointProducer(config, topic)) as producer:
        producer.claim()
        values = [[random.randbytes(90 if number % 7 else 700) for number in range(40)] for _ in range(2)]
        sent: list[Sent] = []
        for theirs in values:
            with producer.transaction():
                for begin in (0, 20):
                    some: list[RecordWithHeaders] = [
                        (b"k", each, [("name", b"header")]) for each in theirs[begin:][:20]
                    ]
                    sent.append(producer.send(topic, some))
    found = read_topic(topic)
    assert [each.value() for each in found] == [*values[0], *values[1]]
    assert all(each.headers() == [("name", b"header")] for each in found)
    offsets = [each.offset() for each in found]
    assert [each.last_offset for each in sent] == [offsets[at] for at in (19, 39, 59, 79)]


def test_the_previous_owner_of_the_name_cannot_write_any_more(make: Make, topic: str) -> None:
    former, present = make(topic), make(topic)
    with pytest.raises(Fenced), former.transaction():
        former.send(topic, [(b"k", b"v", [])], partition=0)
    with present.transaction():
        present.send(topic, [(b"k", b"v", [])], partition=0)
