"""The task agent: a chunk of events in, states and notifications out, nothing acknowledged before all is durable."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import structlog
from faust.types import TP

from taskbridge.schemas.topics import TASK_EVENTS, TASK_EVENTS_DLQ, TASK_NOTIFICATIONS, TASK_STATES
from taskbridge.streams.engine.app import consumer_of
from taskbridge.streams.fold.core import Core, Folded, fold_within_limits, split_by_partition
from taskbridge.streams.fold.rejections import Rejected, dead_letter
from taskbridge.streams.fold.stored_instance import StoreUnreadable
from taskbridge.streams.instances.chunk_traces import ChunkTrace, follow, trace_of
from taskbridge.streams.instances.partition_queues import PartitionQueues
from taskbridge.streams.tables.store import Store, explaining_unreadable
from taskbridge.streams.transactions.group_commit import Batch, GroupCommit, Overtaken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence

    import faust

    from taskbridge.runtime.otel import Tracing
    from taskbridge.streams.engine.transport import ChunkMessage
    from taskbridge.streams.instances.pending_notifications import InstanceChanges, PendingInstances
    from taskbridge.streams.monitoring.metrics import Metrics
    from taskbridge.streams.records import Chunk, RecordWithHeaders


log = structlog.get_logger(__name__)


class PendingWrites:
    """What chunks in progress will write to the store, which the next chunks must read.

    By generation of the group and partition: chunks of a former generation count for nothing. The chunks remain
    separate, because they begin and end as a whole, are few, and are rarely read.
    """

    def __init__(self) -> None:
        self._chunks: dict[tuple[int, int], list[Mapping[bytes, bytes | None]]] = {}

    def reader(
        self, partition: int, read: Callable[[int, list[bytes]], list[bytes | None]], *, generation: int
    ) -> Callable[[list[bytes]], list[bytes | None]]:
        """A reader of keys as they will be after all pending writes; it calls ``read`` once, for the other keys."""
        chunks = self._chunks.get((generation, partition), [])

        def latest(keys: list[bytes]) -> list[bytes | None]:
            found: dict[bytes, bytes | None] = {key: chunk[key] for chunk in chunks for key in keys if key in chunk}
            left = [key for key in keys if key not in found]
            found.update(zip(left, read(partition, left), strict=True))
            return [found[key] for key in keys]

        return latest

    def add(self, partition: int, stored: Mapping[bytes, bytes | None], *, generation: int) -> None:
        self._chunks.setdefault((generation, partition), []).append(stored)

    def remove(self, partition: int, stored: Mapping[bytes, bytes | None], *, generation: int) -> None:
        """The chunk wrote these, or never will. A later chunk's writes to the same keys remain."""
        chunks = self._chunks.get((generation, partition), [])
        chunks[:] = [each for each in chunks if each is not stored]
        if not chunks:
            self._chunks.pop((generation, partition), None)


@dataclass(frozen=True, slots=True)
class _ChunkInProgress:
    message: ChunkMessage
    records: Chunk
    folded: Folded
    stored: Mapping[bytes, bytes | None]
    started: float
    working: ExitStack
    trace: ChunkTrace | None


@dataclass(eq=False)
class TaskAgent:
    """Folds chunks of task events into instances.

    The order for a chunk: decode, fold, commit to Kafka (changelog, states, notifications, dead letters, and the
    position after the chunk), write to the local store, done. If the worker dies before the commit, the chunk is read
    again, and no reader saw any of it. If it dies afterwards, the changelog has what the store lacks.

    During a commit, the next chunks are folded on top of it: they read the store with the pending writes. If a commit
    fails, the worker stops, and nothing of the later chunks is committed.
    """

    app: faust.App
    store: Store
    changelog: str
    partitions: int
    core: Core
    group_commit: GroupCommit
    pending: PendingInstances
    notification_bytes: int
    metrics: Metrics
    tracing: Tracing | None = None

    def __post_init__(self) -> None:
        self._pending_writes = PendingWrites()
        self._queues = PartitionQueues(self._begin, failed=self.app.crash)

    async def run(self, stream: Any) -> None:
        """Process chunks for ever. An error that no record caused stops the worker: nothing is skipped."""
        await self._queues.follow(stream)

    def _begin(self, message: ChunkMessage, records: Chunk) -> Coroutine[Any, Any, None] | None:
        """Fold a chunk and submit the results; the returned coroutine ends it. None if there is nothing to do."""
        consumer = consumer_of(self.app)
        started = time.perf_counter()
        records = consumer.new_records(message, records)
        if not records:
            return None
        partition, generation = message.partition, cast("int", message.generation_id)
        ours, away = split_by_partition(records, partition, self.partitions)
        with ExitStack() as stack:
            stack.enter_context(consumer.working())
            if (trace := follow(self.tracing, message.tp, ours)) is not None:
                stack.enter_context(trace)
            read = self._pending_writes.reader(partition, self._read, generation=generation)
            read_any = self._pending_writes.reader(partition, self.store.read_many, generation=generation)
            with explaining_unreadable(self.changelog, partition):
                first = self.pending.of(partition, (each.key for each in ours if each.key), read_any)
                folded = fold_within_limits(
                    partial(self.core.fold, ours, read), ours, notification_bytes=self.notification_bytes
                )
            if trace is not None:
                trace.pass_on(folded)
            batches = self._batches(partition, first, folded)
            # In the transaction with the position, so that each is forwarded once.
            batches += [Batch(TASK_EVENTS.name, forwarded, target) for target, forwarded in away.items()]
            try:
                committed = self.group_commit.submit(
                    message.tp, message.offset + 1, batches, generation=generation, more_follow=message.more_follow
                )
            except Overtaken:
                log.info("chunk_aborted_by_rebalance", partition=partition, records=len(records))
                return None
            stored = {**dict.fromkeys(first.gone), **folded.stored}
            self._pending_writes.add(partition, stored, generation=generation)
            chunk = _ChunkInProgress(message, records, folded, stored, started, stack.pop_all(), trace)
            return self._end(chunk, committed)

    async def _end(self, chunk: _ChunkInProgress, committed: Awaitable[list[int]]) -> None:
        """Write the chunk to the store once it is committed.

        Not after a rebalance: the partition may have moved, and its owner reads the changelog.
        """
        message = chunk.message
        partition, generation = message.partition, cast("int", message.generation_id)
        stored = chunk.stored
        with chunk.working:
            try:
                written, *_ = await committed
                if chunk.trace is not None:
                    chunk.trace.committed()
                if generation == self.app.consumer_generation_id:
                    if stored:
                        self.store.write_chunk(partition, stored, changelog_offset=written)
                    consumer_of(self.app).done(message)
                    seconds = time.perf_counter() - chunk.started
                    self.metrics.chunk(partition, chunk.records, chunk.folded, seconds)
            finally:
                self._pending_writes.remove(partition, stored, generation=generation)

    async def write_changes(self, partition: int, decide: Callable[[], InstanceChanges]) -> bool:
        """Write changes without an event, as durably as a chunk; False if another worker has the partition now.

        ``decide`` is called while no chunk is in progress, so that its result is right for what is stored then.
        """
        consumer = consumer_of(self.app)
        async with self._queues.turn(partition):
            generation = self.app.consumer_generation_id
            if not consumer.flow_active:
                return False
            with consumer.working():
                changes = decide()
                if not changes.gone:
                    return True
                source = TP(TASK_EVENTS.name, partition)
                try:
                    written, *_ = await self.group_commit.submit(
                        source,
                        # The current position: the group's coordinator then refuses all of it from a former owner.
                        consumer.position_of(source),
                        [
                            Batch(self.changelog, _tombstones(changes.gone), partition),
                            Batch(TASK_STATES.name, changes.states),
                            Batch(TASK_NOTIFICATIONS.name, changes.notifications),
                        ],
                        generation=generation,
                    )
                except Overtaken:
                    return False
                if generation != self.app.consumer_generation_id:
                    return False
                self.store.write_chunk(partition, dict.fromkeys(changes.gone), changelog_offset=written)
        return True

    def _read(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
        found = self.store.read_many(partition, keys)
        for key, value in zip(keys, found, strict=True):
            # A state contains its instance's id.
            if value is not None and key not in value:
                raise StoreUnreadable(f"key {key!r} holds a different instance")
        return found

    def _batches(self, partition: int, first: InstanceChanges, folded: Folded) -> list[Batch]:
        return [
            Batch(self.changelog, _joined(_tombstones(first.gone), folded.changelog), partition),
            Batch(TASK_STATES.name, _joined(first.states, folded.states)),
            Batch(TASK_NOTIFICATIONS.name, _joined(first.notifications, folded.notifications)),
            Batch(TASK_EVENTS_DLQ.name, _parked(folded.rejected)),
        ]


def _joined(first: Sequence[RecordWithHeaders], encoded: Sequence[RecordWithHeaders]) -> Sequence[RecordWithHeaders]:
    """Both. ``first`` is nearly always empty, and encoded records cost nothing until they are read."""
    return [*first, *encoded] if first else encoded


def _tombstones(keys: Iterable[bytes]) -> list[RecordWithHeaders]:
    return [(key, None, []) for key in keys]


def _parked(rejected: Sequence[Rejected]) -> list[RecordWithHeaders]:
    now_ms = time.time_ns() // 1_000_000
    for each in rejected:
        log.warning(
            "record_parked",
            partition=each.record.partition,
            offset=each.record.offset,
            reason=each.reason.dlq_reason,
            detail=str(each.reason),
            **trace_of(each.record),
        )
    return [dead_letter(each, now_ms=now_ms) for each in rejected]
