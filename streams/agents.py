"""The task agent: a chunk in, states and notifications out, and nothing acknowledged before all of it is durable."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import structlog

from schemas.cloudevents import notification_headers
from schemas.events import Lifecycle, notification_key
from schemas.topics import TASK_EVENTS_DLQ, TASK_NOTIFICATIONS, TASK_STATES
from streams.bulk_producer import last_offset
from streams.chunk import fold_chunk
from streams.dead_letters import dead_letter, reason_code
from streams.lanes import Lanes
from streams.outgoing import Outgoing
from streams.stored_instance import pack, unpack
from streams.views import show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import faust
    from faust.types import Message

    from schemas.codec import Codec
    from schemas.events import TaskEvent, TaskNotification, TaskState
    from streams.bulk_producer import BulkProducer, type_outgoing, type_reports, type_with_headers
    from streams.chunk import ChunkResult, Rejected
    from streams.fenced_producers import FencedProducers
    from streams.live_instances import LiveInstances
    from streams.metrics import Metrics
    from streams.store import Store
    from streams.transport import ChunkConsumer, type_chunk
    from streams.views import Shown

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

    async def _process(self, message: Message, records: type_chunk) -> ChunkResult | None:
        """Fold, deliver, store; None where a rebalance came before the end.

        The partition may have moved then: its new owner reads the changelog, and folds the chunk again.
        """
        partition, generation = message.partition, message.generation_id
        assert generation is not None, "the transport gives it to every chunk"
        if generation != self._app.consumer_generation_id:
            return None
        outgoing = self._fold(records, lambda key: self._load(partition, key, generation))
        result, stored = outgoing.result, outgoing.stored
        producer = self._producers.of(partition)
        reports = self._send(producer, partition, outgoing)
        await producer.delivered()
        if generation != self._app.consumer_generation_id:
            log.info("a rebalance overtook a chunk", partition=partition, records=len(records))
            return None
        if stored:
            self._store.write_chunk(partition, stored, changelog_offset=last_offset(reports))
            self._live.keep(result.instances, generation=generation)
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
                self._live.forget(gone)
        return len(gone)

    def _fold(self, records: type_chunk, load: Callable[[bytes], Shown | None]) -> Outgoing:
        """What the chunk comes to, as far as it fits into records.

        Of an instance's events that together do not, the largest are set aside, twice as many each time.
        """
        too_large: set[int] = set()
        count = 1
        while True:
            result = fold_chunk(records, decode=self._events.decode, load=load, too_large=too_large)
            outgoing = self._encode(result)
            found = outgoing.too_large()
            if not found:
                return outgoing
            for key in found:
                theirs = [each for each in records if each.key == key and each.offset not in too_large]
                theirs.sort(key=lambda each: len(each.value or b""), reverse=True)
                too_large.update(each.offset for each in theirs[:count])
            count *= 2

    def _encode(self, result: ChunkResult) -> Outgoing:
        now_ms = time.time_ns() // 1_000_000
        stored: dict[bytes, bytes] = {}
        states: list[type_outgoing] = []
        for key, shown in result.instances.items():
            instance = shown.instance
            state = self._states.encode(instance.state)
            stored[key] = pack(state, instance, now_ms=now_ms)
            deleted = instance.state.lifecycle is Lifecycle.DELETED
            states.append({"key": key, "value": None if deleted else state})
        return Outgoing(result, stored, states, [self._told(each) for each in result.notifications])

    def _send(self, producer: BulkProducer, partition: int, outgoing: Outgoing) -> type_reports:
        """Hand all that the chunk came to over to Kafka; the changelog's reports."""
        changelog: list[type_outgoing] = [{"key": key, "value": value} for key, value in outgoing.stored.items()]
        reports = producer.send(self._changelog, changelog, partition=partition)
        producer.send(TASK_STATES.name, outgoing.states)
        producer.send_with_headers(TASK_NOTIFICATIONS.name, outgoing.notifications)
        if outgoing.result.rejected:
            _park(producer, outgoing.result.rejected)
        return reports

    def _load(self, partition: int, key: bytes, generation: int) -> Shown | None:
        shown = self._live.get(key, generation=generation)
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
    producer.send_with_headers(TASK_EVENTS_DLQ.name, [dead_letter(each, now_ms=now_ms) for each in rejected])
