"""What was fetched and dropped, as by a rebalance, comes again."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from confluent_kafka import Producer

from taskbridge.runtime.kafka import producer_config
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas.topics import Topic
from taskbridge.streams.engine.consumer_thread import seek_to_committed

if TYPE_CHECKING:
    from taskbridge.cli.connection import Connection

pytestmark = pytest.mark.integration

NEVER, AT_FIRST, LATER = range(3)
"""The committed position of each partition."""


def test_it_comes_again_from_what_is_committed_and_from_the_beginning_where_nothing_is(connection: Connection) -> None:
    topic = f"sought-{uuid.uuid4()}"
    apply_topics(connection.admin(), [Topic(topic, None, {"cleanup.policy": "delete"})], partitions=3)
    config: Any = producer_config(connection.bootstrap_servers)
    producer = Producer(config)
    for partition in (NEVER, AT_FIRST, LATER):
        for _ in range(3):
            producer.produce(topic, b"", partition=partition)
    producer.flush()

    async def fetched(consumer: Any, records: int) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {NEVER: [], AT_FIRST: [], LATER: []}
        while sum(map(len, found.values())) < records:
            async with asyncio.timeout(60):
                record = await consumer.getone()
            found[record.partition].append(record.offset)
        return found

    async def scenario() -> None:
        consumer: Any = AIOKafkaConsumer(
            topic,
            bootstrap_servers=connection.bootstrap_servers,
            group_id=topic,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        try:
            await fetched(consumer, 9)
            await consumer.commit({TopicPartition(topic, AT_FIRST): 0, TopicPartition(topic, LATER): 2})
            committed = await seek_to_committed(consumer, ())
            assert {tp.partition: offset for tp, offset in committed.items()} == {NEVER: None, AT_FIRST: 0, LATER: 2}
            assert await fetched(consumer, 7) == {NEVER: [0, 1, 2], AT_FIRST: [0, 1, 2], LATER: [2]}
        finally:
            await consumer.stop()

    asyncio.run(scenario())
