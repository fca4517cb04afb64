"""The inbox agent: a chunk of notifications in, people's inboxes brought up to date, and whoever listens is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from taskbridge.schemas.errors import RecordError
from taskbridge.schemas.topics import TASK_EVENTS_DLQ, TASK_NOTIFICATIONS
from taskbridge.streams.engine.parts import consumer_of
from taskbridge.streams.fold.chunk import Rejected
from taskbridge.streams.fold.dead_letters import dead_letter
from taskbridge.streams.inbox.changes import check, inbox_changes, keys_read
from taskbridge.streams.inbox.layout import APPLIED_KEY, Applied, read_applied, write_applied
from taskbridge.streams.processing.chunk_traces import follow, trace_of
from taskbridge.streams.processing.partition_queues import PartitionQueues
from taskbridge.streams.tables.store import PartitionNotHeld
from taskbridge.streams.tables.unreadable import naming
from taskbridge.streams.transactions.delivery import Batch
from taskbridge.streams.transactions.group_commit import Overtaken

if TYPE_CHECKING:
    import faust

    from taskbridge.runtime.tracing.tracing import Tracing
    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import TaskNotification
    from taskbridge.streams.engine.chunks import ChunkMessage
    from taskbridge.streams.monitoring.metrics import Metrics
    from taskbridge.streams.positions.offsets import Offsets
    from taskbridge.streams.records import Chunk, RecordWithHeaders
    from taskbridge.streams.tables.store import Store
    from taskbridge.streams.transactions.group_commit import GroupCommit

log = structlog.get_logger(__name__)

Listener = Callable[[int, Sequence[tuple[int, "TaskNotification"]], Mapping[int, Callable[[], None]]], None]


@dataclass(eq=False)
class InboxAgent:
    """Folds chunks of notifications into inboxes.

    The order in a chunk: decode → changes → changelog, dead letters and the position behind the chunk to Kafka and
    *committed* → local store → done → listeners. The store says up to which notification it holds them, so what
    comes again, whatever the group's position says, is not applied again: a view never goes back in time.
    """

    app: faust.App
    store: Store
    changelog: str
    group_commit: GroupCommit
    offsets: Offsets
    notifications: Codec[TaskNotification]
    metrics: Metrics
    tracing: Tracing | None = None

    def __post_init__(self) -> None:
        self._topic_id = ""
        self._listeners: list[Listener] = []
        self._queues = PartitionQueues(self._take, failed=self.app.crash)

    def listen(self, told: Listener) -> None:
        """Have ``told`` called, in this loop, with a partition and what was just applied, each with its offset.

        And with what it is to call, by offset, when it has sent somebody a notification that is traced.
        """
        self._listeners.append(told)

    def next_offset(self, partition: int) -> int | None:
        """Behind the last notification that this partition's inboxes hold: from there on, listeners will be told.

        None where the partition is not held here.
        """
        try:
            stored = self.store.read(partition, APPLIED_KEY)
        except PartitionNotHeld:
            return None
        applied = None if stored is None else read_applied(stored)
        if applied is None or (self._topic_id and applied.topic_id != self._topic_id):
            return 0
        return applied.offset + 1

    async def run(self, stream: Any) -> None:
        """Take chunks for ever. An error that is not the fault of a record stops the worker: nothing is skipped."""
        async for event in stream.events():
            await self._queues.put(event.message, event.value)

    async def _take(self, message: ChunkMessage, records: Chunk) -> None:
        consumer = consumer_of(self.app)
        started = time.perf_counter()
        trace = None if self.tracing is None else follow(self.tracing, message.tp, records)
        with consumer.working(), trace or nullcontext():
            told = await self._process(message, records)
            if told is None:
                return
            consumer.done(message)
        if trace is not None and told:
            trace.committed()
        self.metrics.inbox_chunk(len(told), time.perf_counter() - started)
        for listener in self._listeners:
            listener(message.partition, told, {} if trace is None else trace.written())

    async def _process(self, message: ChunkMessage, records: Chunk) -> list[tuple[int, TaskNotification]] | None:
        """What was applied; None where a rebalance came before the end: the new owner applies the chunk then."""
        partition, generation = message.partition, message.generation_id
        assert generation is not None, "the transport gives it to every chunk"
        if not consumer_of(self.app).is_current(message):
            return None
        if not self._topic_id:
            self._topic_id = await asyncio.to_thread(self.offsets.topic_id, TASK_NOTIFICATIONS.name)
        with naming(self.changelog, partition):
            applied = self._applied(partition)
        if records[-1].offset <= applied:
            return []
        told, rejected = self._decode(records, behind=applied)
        with naming(self.changelog, partition):
            changes = self._changes(partition, [each for _, each in told])
        changes[APPLIED_KEY] = write_applied(Applied(self._topic_id, records[-1].offset))
        batches = [
            Batch(self.changelog, [(key, value, []) for key, value in changes.items()], partition),
            Batch(TASK_EVENTS_DLQ.name, _letters(rejected)),
        ]
        try:
            written, *_ = await self.group_commit.hand_over(
                message.tp, message.offset + 1, batches, generation=generation, more_follow=message.more_follow
            )
        except Overtaken:
            log.info("notifications_overtaken", partition=partition, records=len(records))
            return None
        if generation != self.app.consumer_generation_id:
            return None
        self.store.write_chunk(partition, changes, changelog_offset=written)
        return told

    def _applied(self, partition: int) -> int:
        """The offset of the last notification that this partition's inboxes hold; -1 for none."""
        stored = self.store.read(partition, APPLIED_KEY)
        applied = None if stored is None else read_applied(stored)
        return applied.offset if applied is not None and applied.topic_id == self._topic_id else -1

    def _changes(self, partition: int, notifications: list[TaskNotification]) -> dict[bytes, bytes | None]:
        keys = keys_read(notifications)
        stored = dict(zip(keys, self.store.read_many(partition, keys), strict=True))
        return inbox_changes(notifications, stored=stored.__getitem__)

    def _decode(self, records: Chunk, *, behind: int) -> tuple[list[tuple[int, TaskNotification]], list[Rejected]]:
        told: list[tuple[int, TaskNotification]] = []
        rejected: list[Rejected] = []
        for record in records:
            if record.offset <= behind:
                continue
            try:
                notification = self.notifications.decode(record.value)
                check(notification, record.key, size=len(record.value or b""))
            except RecordError as reason:
                log.warning(
                    "notification_parked",
                    partition=record.partition,
                    offset=record.offset,
                    reason=reason.dlq_reason,
                    detail=str(reason),
                    **trace_of(record),
                )
                self.metrics.parked(reason)
                rejected.append(Rejected(record, reason))
            else:
                told.append((record.offset, notification))
        return told, rejected


def _letters(rejected: Sequence[Rejected]) -> list[RecordWithHeaders]:
    now_ms = time.time_ns() // 1_000_000
    return [dead_letter(each, now_ms=now_ms) for each in rejected]
