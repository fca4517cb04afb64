"""The task agent: a chunk in, states and notifications out, and nothing acknowledged before all of it is durable."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import structlog

from schemas.cloudevents import notification_headers
from schemas.events import Lifecycle, notification_key
from schemas.topics import TASK_EVENTS_DLQ, TASK_NOTIFICATIONS, TASK_STATES
from streams.bulk_producer import last_offset
from streams.chunk import fold_chunk
from streams.dead_letters import dead_letter_headers, reason_code
from streams.stored_instance import pack, unpack
from streams.views import show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import faust
    from faust.types import Message

    from schemas.codec import Codec
    from schemas.events import TaskEvent, TaskNotification, TaskState
    from streams.bulk_producer import BulkProducer, type_outgoing, type_with_headers
    from streams.chunk import ChunkResult, Rejected
    from streams.fenced_producers import FencedProducers
    from streams.live_instances import LiveInstances
    from streams.metrics import Metrics
    from streams.store import Store
    from streams.transport import ChunkConsumer, type_chunk
    from streams.views import Shown

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Outcome:
    """What a chunk comes to, as it goes to Kafka and into the store."""

    result: ChunkResult
    generation: int
    """Of the group, when the chunk was fetched: the partition is this worker's as long as it stays the same."""
    stored: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])
    states: list[type_outgoing] = field(default_factory=list["type_outgoing"])
    told: list[type_with_headers] = field(default_factory=list["type_with_headers"])


class TaskAgent:
    """Folds chunks of task events into instances.

    The order in a chunk: decode → fold → changelog, states, notifications and dead letters to Kafka and *delivered* →
    local store → done. Whatever dies in between, the chunk comes again, and folding it again changes nothing.

    While one chunk is being delivered the next one is folded already, on what the first one came to; it is handed over
    only when the first one is done. So the order holds, and nobody waits for Kafka with nothing to do.
    """

    def __init__(
        self,
        app: faust.App,
        *,
        store: Store,
        changelog: str,
        live: LiveInstances,
        producers: FencedProducers,
        events: Codec[TaskEvent],
        states: Codec[TaskState],
        notifications: Codec[TaskNotification],
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._store = store
        self._changelog = changelog
        self._live = live
        self._producers = producers
        self._events = events
        self._states = states
        self._notifications = notifications
        self._metrics = metrics
        self._turn = asyncio.Lock()
        """Held by whoever folds, or changes the store otherwise."""
        self._under_way: asyncio.Task[None] | None = None
        self._delivering: Outcome | None = None
        """What the chunk under way came to: newer than what the store has."""

    async def run(self, stream: Any) -> None:
        """Take chunks for ever. An error that is not the fault of a record stops the worker: nothing is skipped."""
        async for event in stream.events():
            message = event.message
            try:
                async with self._turn:
                    await self._take(message, event.value)
            except Exception as error:
                log.exception("stopping: a chunk could not be processed", partition=message.partition)
                await self._stop(error)

    async def _take(self, message: Message, records: type_chunk) -> None:
        consumer = cast("ChunkConsumer", self._app.consumer)
        started = time.perf_counter()
        with consumer.working():
            outcome = self._fold(message.partition, records, _generation(message))
            await self._previous_done()
            self._delivering = outcome
            self._under_way = asyncio.create_task(self._finish(message, records, outcome, started))

    async def _finish(self, message: Message, records: type_chunk, outcome: Outcome, started: float) -> None:
        consumer = cast("ChunkConsumer", self._app.consumer)
        try:
            with consumer.working():
                if await self._keep(message.partition, outcome):
                    consumer.done(message)
                    seconds = time.perf_counter() - started
                    self._metrics.chunk(message.partition, records, outcome.result, seconds)
        except Exception as error:
            log.exception("stopping: a chunk could not be delivered", partition=message.partition)
            await self._stop(error)
        finally:
            self._delivering = None

    async def _previous_done(self) -> None:
        if self._under_way is not None:
            await self._under_way

    async def _stop(self, error: Exception) -> None:
        """Never returns: that would let the chunks behind the one that failed be taken."""
        await self._app.crash(error)
        await asyncio.Event().wait()

    async def forget(
        self, partition: int, keys: Iterable[bytes], farewell: Callable[[bytes], list[TaskNotification] | None]
    ) -> int:
        """Let go of instances, as durably as a chunk is kept; returns how many went.

        ``farewell`` is asked about each as it is stored now: what to tell people, or None to keep it.
        """
        consumer = cast("ChunkConsumer", self._app.consumer)
        async with self._turn:
            await self._previous_done()
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
                self._live.forget(gone)
        return len(gone)

    def _fold(self, partition: int, records: type_chunk, generation: int) -> Outcome:
        """What the chunk comes to, and the records that say so."""
        result = fold_chunk(
            records, decode=self._events.decode, load=lambda key: self._load(partition, key, generation)
        )
        now_ms = time.time_ns() // 1_000_000
        outcome = Outcome(result, generation)
        for key, shown in result.instances.items():
            instance = shown.instance
            state = self._states.encode(instance.state)
            outcome.stored[key] = pack(state, instance, now_ms=now_ms)
            deleted = instance.state.lifecycle is Lifecycle.DELETED
            outcome.states.append({"key": key, "value": None if deleted else state})
        outcome.told = [self._told(each) for each in result.notifications]
        return outcome

    async def _keep(self, partition: int, outcome: Outcome) -> bool:
        """Deliver, then store; False where a rebalance came before the end.

        The partition may have moved then: its new owner reads the changelog, and folds the chunk again.
        """
        generation = outcome.generation
        if generation != self._app.consumer_generation_id:
            return False
        producer = self._producers.of(partition)
        changelog: list[type_outgoing] = [{"key": key, "value": value} for key, value in outcome.stored.items()]
        reports = producer.send(self._changelog, changelog, partition=partition)
        producer.send(TASK_STATES.name, outcome.states)
        producer.send_with_headers(TASK_NOTIFICATIONS.name, outcome.told)
        if outcome.result.rejected:
            _park(producer, outcome.result.rejected)
        await producer.delivered()
        if generation != self._app.consumer_generation_id:
            log.info("a rebalance overtook a chunk", partition=partition)
            return False
        if outcome.stored:
            self._store.write_chunk(partition, outcome.stored, changelog_offset=last_offset(reports))
            self._live.keep(outcome.result.instances, generation=generation)
        return True

    def _load(self, partition: int, key: bytes, generation: int) -> Shown | None:
        shown = self._live.get(key, generation=generation)
        if self._delivering is not None and self._delivering.generation == generation:
            shown = self._delivering.result.instances.get(key, shown)
        if shown is None:
            stored = self._store.read(partition, key)
            shown = None if stored is None else show(unpack(stored, self._states))
        return shown

    def _told(self, notification: TaskNotification) -> type_with_headers:
        return (
            notification_key(notification.corp_id, notification.recipient_id),
            self._notifications.encode(notification),
            notification_headers(notification),
        )


def _generation(message: Message) -> int:
    assert message.generation_id is not None, "the transport gives it to every chunk"
    return message.generation_id


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
