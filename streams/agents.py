"""The task agent: a chunk in, states and notifications out, and nothing acknowledged before all of it is durable."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, cast

import structlog

from schemas.cloudevents import notification_headers
from schemas.events import Lifecycle, notification_key
from schemas.topics import TASK_EVENTS_DLQ, TASK_NOTIFICATIONS, TASK_STATES
from streams.chunk import fold_chunk
from streams.dead_letters import dead_letter_headers, reason_code
from streams.stored_instance import pack, unpack

if TYPE_CHECKING:
    import faust
    from faust.types import TP

    from schemas.codec import Codec
    from schemas.events import TaskEvent, TaskNotification, TaskState
    from service.kafka import AsyncProducer, Delivered
    from streams.chunk import ChunkResult
    from streams.lifecycle import Instance
    from streams.metrics import Metrics
    from streams.store import Store
    from streams.transport import ChunkConsumer, type_chunk

log = structlog.get_logger(__name__)


class TaskAgent:
    """Folds chunks of task events into instances.

    The order in a chunk: decode → fold → changelog, states, notifications and dead letters to Kafka and *delivered* →
    local store → done. Whatever dies in between, the chunk comes again, and folding it again changes nothing.
    """

    def __init__(
        self,
        app: faust.App,
        *,
        store: Store,
        changelog: str,
        producer: AsyncProducer,
        events: Codec[TaskEvent],
        states: Codec[TaskState],
        notifications: Codec[TaskNotification],
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._store = store
        self._changelog = changelog
        self._producer = producer
        self._events = events
        self._states = states
        self._notifications = notifications
        self._metrics = metrics

    async def run(self, stream: Any) -> None:
        """Take chunks for ever. An error that is not the fault of a record stops the worker: nothing is skipped."""
        consumer = cast("ChunkConsumer", self._app.consumer)
        async for event in stream.events():
            message = event.message
            try:
                with consumer.working():
                    await self._process(message.tp, event.value, message.generation_id)
                    consumer.done(message)
            except Exception as error:
                log.exception("stopping: a chunk could not be processed", partition=message.tp.partition)
                await self._app.crash(error)
                # Leaving the loop would let Faust start the agent again, behind the chunk that failed.
                await asyncio.Event().wait()

    async def _process(self, tp: TP, records: type_chunk, generation: int) -> None:
        started = time.perf_counter()
        result = fold_chunk(records, decode=self._events.decode, load=lambda key: self._load(tp.partition, key))
        stored, changelog_offset = await self._deliver(tp.partition, result)
        if generation != self._app.consumer_generation_id:
            # The partition may have moved meanwhile: its new owner reads the changelog, and folds the chunk again.
            log.info("a rebalance overtook a chunk", partition=tp.partition, records=len(records))
            return
        if stored:
            self._store.write_chunk(tp.partition, stored, changelog_offset=changelog_offset)
        self._metrics.chunk(tp.partition, records, result, time.perf_counter() - started)

    def _load(self, partition: int, key: bytes) -> Instance | None:
        stored = self._store.read(partition, key)
        return None if stored is None else unpack(stored, self._states)

    async def _deliver(self, partition: int, result: ChunkResult) -> tuple[dict[bytes, bytes], int]:
        """Send all that the chunk came to; returns once Kafka has it all, with the stored values and their offset."""
        produce = self._producer.produce
        stored: dict[bytes, bytes] = {}
        changelog: list[asyncio.Future[Delivered]] = []
        others: list[asyncio.Future[Delivered]] = []
        for key, instance in result.instances.items():
            state = self._states.encode(instance.state)
            stored[key] = pack(state, instance.marks)
            changelog.append(produce(self._changelog, key=key, value=stored[key], partition=partition))
            deleted = instance.state.lifecycle is Lifecycle.DELETED
            others.append(produce(TASK_STATES.name, key=key, value=None if deleted else state))
        others += [
            produce(
                TASK_NOTIFICATIONS.name,
                key=notification_key(each.corp_id, each.recipient_id),
                value=self._notifications.encode(each),
                headers=notification_headers(each),
            )
            for each in result.notifications
        ]
        for each in result.rejected:
            log.warning(
                "a record goes to the dead-letter topic",
                partition=each.record.partition,
                offset=each.record.offset,
                reason=reason_code(each.reason),
                detail=str(each.reason),
            )
            headers = dead_letter_headers(each, now_ms=time.time_ns() // 1_000_000)
            others.append(produce(TASK_EVENTS_DLQ.name, key=each.record.key, value=each.record.value, headers=headers))
        delivered = await asyncio.gather(*changelog, *others)
        return stored, max((each.offset for each in delivered[: len(changelog)]), default=-1)
