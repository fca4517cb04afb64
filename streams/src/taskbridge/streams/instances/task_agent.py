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
from taskbridge.streams.cores.core import fold_within_limits, split_by_partition
from taskbridge.streams.engine.app import consumer_of
from taskbridge.streams.fold.rejections import dead_letter
from taskbridge.streams.fold.stored_instance import StoreUnreadable
from taskbridge.streams.instances.chunk_traces import follow, trace_of
from taskbridge.streams.instances.partition_queues import PartitionQueues
from taskbridge.streams.tables.store import naming
from taskbridge.streams.transactions.group_commit import Batch, Overtaken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence

    import faust

    from taskbridge.runtime.otel import Tracing
    from taskbridge.streams.cores.core import Core, Folded
    from taskbridge.streams.engine.transport import ChunkMessage
    from taskbridge.streams.fold.rejections import Rejected
    from taskbridge.streams.instances.chunk_traces import ChunkTrace
    from taskbridge.streams.instances.upkeep import Beside, UntoldInstances
    from taskbridge.streams.monitoring.metrics import Metrics
    from taskbridge.streams.records import Chunk, RecordWithHeaders
    from taskbridge.streams.tables.store import Store
    from taskbridge.streams.transactions.group_commit import GroupCommit


class PendingWrites:
    """By generation of the group and partition: what was under way in an earlier generation counts for nothing.

    The chunks stay apart, since they come and go as a whole, are few, and are rarely asked.
    """

    def __init__(self) -> None:
        self._chunks: dict[tuple[int, int], list[Mapping[bytes, bytes | None]]] = {}

    def reader(
        self, partition: int, read: Callable[[int, list[bytes]], list[bytes | None]], *, generation: int
    ) -> Callable[[list[bytes]], list[bytes | None]]:
        """Reads keys as they will be once all that is under way is written; ``read`` is asked once for those left."""
        chunks = self._chunks.get((generation, partition), [])

        def latest(keys: list[bytes]) -> list[bytes | None]:
            found: dict[bytes, bytes | None] = {key: chunk[key] for chunk in chunks for key in keys if key in chunk}
            left = [key for key in keys if key not in found]
            found.update(zip(left, read(partition, left), strict=True))
            return [found[key] for key in keys]

        return latest

    def add(self, partition: int, stored: Mapping[bytes, bytes | None], *, generation: int) -> None:
        """A chunk will write these; None takes a key away."""
        self._chunks.setdefault((generation, partition), []).append(stored)

    def remove(self, partition: int, stored: Mapping[bytes, bytes | None], *, generation: int) -> None:
        """It has, or never will. What a later chunk will write of the same keys stays."""
        chunks = self._chunks.get((generation, partition), [])
        chunks[:] = [each for each in chunks if each is not stored]
        if not chunks:
            self._chunks.pop((generation, partition), None)


log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A chunk that is folded and handed over."""

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

    The order in a chunk: decode → fold → changelog, states, notifications, dead letters and the position behind the
    chunk to Kafka and *committed* → local store → done. Whatever dies before the commit, the chunk comes again, and
    nobody saw anything of it; whatever dies after it, the changelog has what the store lacks.

    While a chunk is being committed, the next ones are folded upon it: what they read is the store with what the chunks
    before will write. Should one of those fail, the worker stops, and nothing of the later ones is committed.
    """

    app: faust.App
    store: Store
    changelog: str
    partitions: int
    core: Core
    group_commit: GroupCommit
    untold: UntoldInstances
    notification_bytes: int
    metrics: Metrics
    tracing: Tracing | None = None

    def __post_init__(self) -> None:
        self._pending = PendingWrites()
        self._queues = PartitionQueues(self._begin, failed=self.app.crash)

    async def run(self, stream: Any) -> None:
        """Take chunks for ever. An error that is not the fault of a record stops the worker: nothing is skipped."""
        await self._queues.follow(stream)

    def _begin(self, message: ChunkMessage, records: Chunk) -> Coroutine[Any, Any, None] | None:
        """Fold a chunk and hand over what it comes to; what is returned ends it. None where there is nothing to do."""
        consumer = consumer_of(self.app)
        started = time.perf_counter()
        records = consumer.take(message, records)
        if not records:
            return None
        partition, generation = message.partition, cast("int", message.generation_id)
        ours, away = split_by_partition(records, partition, self.partitions)
        with ExitStack() as stack:
            stack.enter_context(consumer.working())
            if (trace := follow(self.tracing, message.tp, ours)) is not None:
                stack.enter_context(trace)
            read = self._pending.reader(partition, self._read, generation=generation)
            read_any = self._pending.reader(partition, self.store.read_many, generation=generation)
            with naming(self.changelog, partition):
                first = self.untold.of(partition, (each.key for each in ours if each.key), read_any)
                folded = fold_within_limits(
                    partial(self.core.fold, ours, read, generation=generation),
                    ours,
                    notification_bytes=self.notification_bytes,
                )
            if trace is not None:
                trace.hand_on(folded)
            batches = self._batches(partition, first, folded)
            # With the position behind them, so that each is sent on once.
            batches += [Batch(TASK_EVENTS.name, sent_on, home) for home, sent_on in away.items()]
            try:
                committed = self.group_commit.hand_over(
                    message.tp, message.offset + 1, batches, generation=generation, more_follow=message.more_follow
                )
            except Overtaken:
                log.info("chunk_aborted_by_rebalance", partition=partition, records=len(records))
                return None
            self.core.cache(folded, generation=generation)
            stored = {**dict.fromkeys(first.gone), **folded.stored}
            self._pending.add(partition, stored, generation=generation)
            under_way = _UnderWay(message, records, folded, stored, started, stack.pop_all(), trace)
            return self._end(under_way, committed)

    async def _end(self, chunk: _UnderWay, committed: Awaitable[list[int]]) -> None:
        """Store the chunk once it is committed.

        Not where a rebalance came meanwhile: its partition may have moved, and whoever has it reads the changelog.
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
                self._pending.remove(partition, stored, generation=generation)

    async def write_beside(self, partition: int, decide: Callable[[], Beside]) -> bool:
        """Write what comes of no event, as durably as a chunk; False where it was not: the partition is another's now.

        ``decide`` is asked what that is while no chunk is under way, so that it holds of what is stored then.
        """
        consumer = consumer_of(self.app)
        async with self._queues.turn(partition):
            generation = self.app.consumer_generation_id
            if not consumer.flow_active:
                return False
            with consumer.working():
                beside = decide()
                if not beside.gone:
                    return True
                source = TP(TASK_EVENTS.name, partition)
                try:
                    written, *_ = await self.group_commit.hand_over(
                        source,
                        # Where it stands already: the group's coordinator then refuses all of it to a former owner.
                        consumer.position_of(source),
                        [
                            Batch(self.changelog, _tombstones(beside.gone), partition),
                            Batch(TASK_STATES.name, beside.states),
                            Batch(TASK_NOTIFICATIONS.name, beside.notifications),
                        ],
                        generation=generation,
                    )
                except Overtaken:
                    return False
                if generation != self.app.consumer_generation_id:
                    return False
                self.store.write_chunk(partition, dict.fromkeys(beside.gone), changelog_offset=written)
                self.core.forget(beside.gone)
        return True

    def _read(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
        found = self.store.read_many(partition, keys)
        for key, value in zip(keys, found, strict=True):
            # A state has its instance's id in it.
            if value is not None and key not in value:
                raise StoreUnreadable(f"key {key!r} holds a different instance")
        return found

    def _batches(self, partition: int, first: Beside, folded: Folded) -> list[Batch]:
        """All that the chunk came to, for Kafka; the changelog first. ``first`` is what was untold of its instances."""
        return [
            Batch(self.changelog, _behind(_tombstones(first.gone), folded.changelog), partition),
            Batch(TASK_STATES.name, _behind(first.states, folded.states)),
            Batch(TASK_NOTIFICATIONS.name, _behind(first.notifications, folded.notifications)),
            Batch(TASK_EVENTS_DLQ.name, _parked(folded.rejected)),
        ]


def _behind(first: Sequence[RecordWithHeaders], encoded: Sequence[RecordWithHeaders]) -> Sequence[RecordWithHeaders]:
    """Both. Hardly ever is anything first, and what is encoded costs nothing as long as nobody looks at it."""
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
