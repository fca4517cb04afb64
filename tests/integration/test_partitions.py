"""The producers of the edge and of the streams service put every key where Kafka's Java client puts it."""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from taskbridge.runtime.kafka import producer_config
from taskbridge.runtime.producer import AsyncProducer
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas.topics import Topic
from taskbridge.streams.engine.joint_producer import JointProducer

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Message

    from taskbridge.cli.connection import Connection

pytestmark = pytest.mark.integration

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "partition-vectors.json").read_text("utf-8")
)


async def by_the_edge(connection: Connection, topic: str, keys: list[bytes]) -> None:
    producer = AsyncProducer(producer_config(connection.bootstrap_servers))
    await asyncio.gather(*(producer.produce(topic, key=key, value=b"edge") for key in keys))
    await producer.close()


def by_the_streams(connection: Connection, topic: str, keys: list[bytes]) -> None:
    """Both of its ways: states go in a batch, notifications with their headers."""
    config = producer_config(connection.bootstrap_servers)
    with closing(JointProducer(config, f"taskbridge-streams-{uuid.uuid4()}")) as producer:
        producer.claim()
        with producer.transaction():
            producer.send(topic, [(key, b"states", []) for key in keys])
            producer.send(topic, [(key, b"notifications", [("x", b"")]) for key in keys])


@pytest.mark.parametrize("partitions", [1, 3, 12])
def test_a_key_has_the_same_partition_from_every_writer(
    connection: Connection, read_topic: Callable[[str], list[Message]], partitions: int
) -> None:
    topic = Topic(f"partitions-{uuid.uuid4()}", None, {"cleanup.policy": "delete"})
    apply_topics(connection.admin(), [topic], partitions=partitions)
    keys = [bytes.fromhex(each["key"]) for each in VECTORS]
    asyncio.run(by_the_edge(connection, topic.name, keys))
    by_the_streams(connection, topic.name, keys)
    expected = {
        (bytes.fromhex(each["key"]), who, each["partitions"][str(partitions)])
        for each in VECTORS
        for who in (b"edge", b"states", b"notifications")
    }
    found = {(each.key(), each.value(), each.partition()) for each in read_topic(topic.name)}
    assert found == expected
