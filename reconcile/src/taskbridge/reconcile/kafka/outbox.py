"""Repairs onto ``taskbridge.task-events.v1``, as the edge puts callbacks there, and no faster than is allowed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from taskbridge.runtime.kafka import producer_config
from taskbridge.runtime.producing.producer import AsyncProducer
from taskbridge.schemas.cloudevents import event_headers
from taskbridge.schemas.codec import task_event_codec
from taskbridge.schemas.topics import TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taskbridge.reconcile.clock import Clock
    from taskbridge.schemas.events import TaskEvent
    from taskbridge.schemas.registry import Registry


class KafkaOutbox:
    """To be made and used within one event loop."""

    def __init__(
        self,
        bootstrap_servers: str,
        properties: Mapping[str, str],
        registry: Registry,
        clock: Clock,
        *,
        records_per_second: float,
    ) -> None:
        self._producer = AsyncProducer(producer_config(bootstrap_servers, properties))
        self._codec = task_event_codec(registry)
        self._clock = clock
        self._pause_ms = 1000 / records_per_second
        self._free_at_ms = 0.0

    async def publish(self, events: Sequence[TaskEvent]) -> None:
        """Return once all in-sync replicas have all of them, in this order.

        Raises:
            OperatorError: Kafka does not take them, or the schema's id is not known. Some may be there.
        """
        await self._wait_turn(len(events))
        deliveries = [
            self._producer.produce(
                TASK_EVENTS.name,
                key=event.instance_id.encode(),
                value=self._codec.encode(event),
                headers=event_headers(event),
            )
            for event in events
        ]
        for outcome in await asyncio.gather(*deliveries, return_exceptions=True):
            if outcome is not None:
                raise outcome

    async def close(self) -> None:
        await self._producer.close()

    async def _wait_turn(self, count: int) -> None:
        now_ms = self._clock.now_ms()
        turn_ms = max(self._free_at_ms, now_ms)
        self._free_at_ms = turn_ms + count * self._pause_ms
        if turn_ms > now_ms:
            await self._clock.sleep((turn_ms - now_ms) / 1000)
