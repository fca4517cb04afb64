"""Mark quarantined callbacks and dead letters as replayed, on their own topic."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from taskbridge.runtime.producer import DeliveryFailed, QueueFull
from taskbridge.schemas.dead_letters import replay_headers

if TYPE_CHECKING:
    from taskbridge.cli.terminal import Progress
    from taskbridge.runtime.producer import AsyncProducer
    from taskbridge.schemas.topics import Topic


async def mark_replayed(
    producer: AsyncProducer, topic: Topic, entry_id: str, key: bytes | None, progress: Progress
) -> None:
    """Returns also if Kafka refuses the mark: the next replay finds the entry published, and marks it."""
    headers = replay_headers(entry_id, time.time_ns() // 1_000_000)
    try:
        await producer.produce(topic.name, key=key, value=None, headers=headers)
    except (DeliveryFailed, QueueFull) as error:
        progress(f"{entry_id} was replayed, but not marked as replayed ({error}): replay it again to mark it")
