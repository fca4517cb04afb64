"""The inbox agent: applies chunks of notifications to people's inboxes, and passes them to listeners first."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from taskbridge.schemas.errors import RecordError
from taskbridge.schemas.topics import TASK_EVENTS_DLQ
from taskbridge.streams.engine.app import consumer_of
from taskbridge.streams.fold.rejections import Rejected, dead_letter
from taskbridge.streams.inbox.changes import check, inbox_changes, keys_read
from taskbridge.streams.inbox.layout import APPLIED_KEY, Applied, read_applied, user_part, write_applied
from taskbridge.streams.inbox.told_ahead import ToldAhead
from taskbridge.streams.instances.chunk_traces import follow, trace_of
from taskbridge.streams.instances.partition_queues import PartitionQueues
from taskbridge.streams.tables.store import PartitionNotHeld, explaining_unreadable
from taskbridge.streams.transactions.group_commit import Batch, Overtaken

if TYPE_CHECKING:
    import faust

    from taskbridge.runtime.otel import Tracing
    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import TaskNotification
    from taskbridge.streams.engine.transport import ChunkMessage
    from taskbridge.streams.instances.chunk_traces import ChunkTrace
    from taskbridge.streams.monitoring.metrics import Metrics
    from taskbridge.streams.records import Chunk, RecordWithHeaders
    from taskbridge.streams.tables.store import Store
    from taskbridge.streams.transactions.group_commit import GroupCommit

log = structlog.get_logger(__name__)

Listener = Callable[
    [int, tuple[int, int], Sequence[tuple[int, "TaskNotification"]], Mapping[int, Callable[[], None]]], None
]
ComesAgain = Callable[[int, int], None]


@dataclass(eq=False)
class InboxAgent:
    """Folds chunks of notifications into inboxes.

    The order in a chunk: decode → changes → changelog, dead letters and the position behind the chunk on their way to
    Kafka → listeners → these *committed* → local store → done. The store says up to which notification it holds them,
    so a repeated notification is not applied again, at any position of the group: a view never goes back in time.
    Listeners need not wait for the commit: a notification that is read is Kafka's, and ``told_ahead`` has a look at a
    list wait that would be answered from before it.
    """

    app: faust.App
    store: Store
    changelog: str
    group_commit: GroupCommit
    topic_id: str
    """The id of the notifications topic that this worker depends on: records of another topic are not applied."""
    notifications: Codec[TaskNotification]
    metrics: Metrics
    tracing: Tracing | None = None

    def __post_init__(self) -> None:
        self.told_ahead = ToldAhead()
        self._listeners: list[tuple[Listener, ComesAgain]] = []
        self._queues = PartitionQueues(self._take, failed=self.app.crash)

    def listen(self, told: Listener, comes_again: ComesAgain) -> None:
        """Have ``told`` called, in this loop, with a partition, the offsets that just came, and what is at them.

        And with what it is to call, by offset, when it has sent somebody a notification that is traced.
        ``comes_again``: with a partition and an offset, where what was told from there on could not be applied.
        """
        self._listeners.append((told, comes_again))

    def next_offset(self, partition: int) -> int | None:
        """Behind the last notification of this partition that was told: from there on, listeners will be told.

        None where the partition is not held here.
        """
        try:
            return max(self._applied(partition) + 1, self.told_ahead.next_offset(partition))
        except PartitionNotHeld:
            return None

    async def run(self, stream: Any) -> None:
        """Take chunks for ever. An error that is not the fault of a record stops the worker: nothing is skipped."""
        await self._queues.follow(stream)

    async def _take(self, message: ChunkMessage, records: Chunk) -> None:
        consumer = consumer_of(self.app)
        started = time.perf_counter()
        trace = None if self.tracing is None else follow(self.tracing, message.tp, records)
        with consumer.working(), trace or nullcontext():
            told = await self._process(message, records, trace)
            if told is None:
                return
            consumer.done(message)
        if trace is not None and told:
            trace.committed()
        self.metrics.inbox_chunk(told, time.perf_counter() - started)

    async def _process(self, message: ChunkMessage, records: Chunk, trace: ChunkTrace | None) -> int | None:
        """How many were applied; None where a rebalance came before the end: the new owner applies the chunk then."""
        partition, generation = message.partition, message.generation_id
        assert generation is not None, "the transport gives it to every chunk"
        if not consumer_of(self.app).is_current(message):
            return None
        with explaining_unreadable(self.changelog, partition):
            applied = self._applied(partition)
        if records[-1].offset <= applied:
            return 0
        told, rejected = self._decode(records, behind=applied)
        with explaining_unreadable(self.changelog, partition):
            changes = self._changes(partition, [each for _, each in told])
        changes[APPLIED_KEY] = write_applied(Applied(self.topic_id, records[-1].offset))
        batches = [
            Batch(self.changelog, [(key, value, []) for key, value in changes.items()], partition),
            Batch(TASK_EVENTS_DLQ.name, _letters(rejected)),
        ]
        try:
            committed = self.group_commit.submit(
                message.tp, message.offset + 1, batches, generation=generation, more_follow=message.more_follow
            )
            with self._telling(partition, (applied + 1, records[-1].offset + 1), told, trace):
                written, *_ = await committed
                if generation != self.app.consumer_generation_id:
                    raise Overtaken("a rebalance came while a chunk was committed")  # noqa: TRY301
                self.store.write_chunk(partition, changes, changelog_offset=written)
        except Overtaken:
            log.info("notifications_aborted_by_rebalance", partition=partition, records=len(records))
            return None
        return len(told)

    @contextmanager
    def _telling(
        self,
        partition: int,
        offsets: tuple[int, int],
        told: Sequence[tuple[int, TaskNotification]],
        trace: ChunkTrace | None,
    ) -> Generator[None]:
        """Tells, at once; around what brings the lists there. ``offsets``: from, and to before, which it tells."""
        people = {user_part(each.corp_id, each.recipient_id) for _, each in told}
        self.told_ahead.begin(partition, offsets[1], people)
        for listener, _ in self._listeners:
            listener(partition, offsets, told, {} if trace is None else trace.written())
        try:
            yield
        except BaseException:
            self.told_ahead.end(partition, stored=False)
            for _, comes_again in self._listeners:
                comes_again(partition, offsets[0])
            raise
        self.told_ahead.end(partition, stored=True)

    def _applied(self, partition: int) -> int:
        """The offset of the last notification that this partition's inboxes hold; -1 for none."""
        stored = self.store.read(partition, APPLIED_KEY)
        applied = None if stored is None else read_applied(stored)
        return applied.offset if applied is not None and applied.topic_id == self.topic_id else -1

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
