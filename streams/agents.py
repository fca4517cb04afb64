"""The task agent: a chunk in, states and notifications out, and nothing acknowledged before all of it is durable."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import structlog

from schemas.cloudevents import notification_headers
from schemas.events import notification_key
from schemas.topics import TASK_EVENTS_DLQ, TASK_NOTIFICATIONS, TASK_STATES
from streams.bulk_producer import last_offset
from streams.dead_letters import dead_letter_headers, reason_code
from streams.lanes import Lanes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import faust
    from faust.types import Message

    from schemas.codec import Codec
    from schemas.events import TaskNotification
    from streams.bulk_producer import BulkProducer, type_outgoing, type_reports, type_with_headers
    from streams.chunk import Rejected
    from streams.fenced_producers import FencedProducers
    from streams.folding import Folded, Folding
    from streams.metrics import Metrics
    from streams.store import Store
    from streams.transport import ChunkConsumer, type_chunk

log = structlog.get_logger(__name__)


class TaskAgent:
    """Folds chunks of task events into instances.

    The order in a chunk: decode → fold → changelog, states, notifications and dead letters to Kafka and *delivered* →
    local store → done. Whatever dies in between, the chunk comes again, and folding it again changes nothing.

    One chunk of a partition is in work at a time; while it is being delivered, other partitions' chunks are folded.
    """

    def __init__(
        self,
        app: faust.App,
        *,
        store: Store,
        changelog: str,
        folding: Folding,
        producers: FencedProducers,
        notifications: Codec[TaskNotification],
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._store = store
        self._changelog = changelog
        self._folding = folding
        self._producers = producers
        self._notifications = notifications
        self._metrics = metrics
        self._lanes = Lanes(self._take, failed=app.crash)

    async def run(self, stream: Any) -> None:
        """Take chunks for ever. An error that is not the fault of a record stops the worker: nothing is skipped."""
        async for event in stream.events():
            await self._lanes.put(event.message, event.value)

    async def _take(self, message: Message, records: type_chunk) -> None:
        consumer = cast("ChunkConsumer", self._app.consumer)
        started = time.perf_counter()
        with consumer.working():
            result = await self._process(message, records)
            if result is not None:
                consumer.done(message)
                self._metrics.chunk(message.partition, records, result, time.perf_counter() - started)

    async def _process(self, message: Message, records: type_chunk) -> Folded | None:
        """Fold, deliver, store; None where a rebalance came before the end.

        The partition may have moved then: its new owner reads the changelog, and folds the chunk again.
        """
        partition, generation = message.partition, message.generation_id
        assert generation is not None, "the transport gives it to every chunk"
        if generation != self._app.consumer_generation_id:
            return None
        result = self._folding.fold(records, partial(self._store.read, partition), generation=generation)
        producer = self._producers.of(partition)
        reports = self._send(producer, partition, result)
        await producer.delivered()
        if generation != self._app.consumer_generation_id:
            log.info("a rebalance overtook a chunk", partition=partition, records=len(records))
            return None
        if result.stored:
            self._store.write_chunk(partition, result.stored, changelog_offset=last_offset(reports))
            self._folding.keep(result, generation=generation)
        return result

    async def forget(
        self, partition: int, keys: Iterable[bytes], farewell: Callable[[bytes], list[TaskNotification] | None]
    ) -> int:
        """Let go of instances, as durably as a chunk is kept; returns how many went.

        ``farewell`` is asked about each as it is stored now: what to tell people, or None to keep it.
        """
        consumer = cast("ChunkConsumer", self._app.consumer)
        async with self._lanes.turn(partition):
            generation = self._app.consumer_generation_id
            with consumer.working():
                stored = {key: self._store.read(partition, key) for key in keys}
                told = {key: farewell(value) for key, value in stored.items() if value is not None}
                gone = [key for key, notifications in told.items() if notifications is not None]
                if not gone:
                    return 0
                producer = self._producers.of(partition)
                tombstones: list[type_outgoing] = [{"key": key, "value": None} for key in gone]
                reports = producer.send(self._changelog, tombstones, partition=partition)
                producer.send(TASK_STATES.name, [{"key": key, "value": None} for key in gone])
                producer.send_with_headers(
                    TASK_NOTIFICATIONS.name,
                    [self._told(each) for notifications in told.values() for each in notifications or ()],
                )
                await producer.delivered()
                if generation != self._app.consumer_generation_id:
                    return 0
                self._store.write_chunk(partition, dict.fromkeys(gone), changelog_offset=last_offset(reports))
                self._folding.forget(gone)
        return len(gone)

    def _send(self, producer: BulkProducer, partition: int, result: Folded) -> type_reports:
        """Hand all that the chunk came to over to Kafka; the changelog's reports."""
        reports = producer.send(self._changelog, result.changelog, partition=partition)
        producer.send(TASK_STATES.name, result.states)
        producer.send_with_headers(TASK_NOTIFICATIONS.name, result.notifications)
        if result.rejected:
            _park(producer, result.rejected)
        return reports

    def _told(self, notification: TaskNotification) -> type_with_headers:
        return (
            notification_key(notification.corp_id, notification.recipient_id),
            self._notifications.encode(notification),
            notification_headers(notification),
        )


def _park(producer: BulkProducer, rejected: Sequence[Rejected]) -> None:
    now_ms = time.time_ns() // 1_000_000
    for each in rejected:
        log.warning(
            "a record goes to the dead-letter topic",
            partition=each.record.partition,
            offset=each.record.offset,
            reason=reason_code(each.reason),
            detail=str(each.reason),
        )
    producer.send_with_headers(
        TASK_EVENTS_DLQ.name,
        [(each.record.key, each.record.value, dead_letter_headers(each, now_ms=now_ms)) for each in rejected],
    )
