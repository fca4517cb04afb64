"""Empties a spool file into Kafka.

Oldest first, one record per instance at a time, deleted when acknowledged. A record that Kafka does not accept now
stays on the disk: only records of the same partition wait with it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from taskbridge.edge.spool.metrics import SpoolMetrics
from taskbridge.edge.spool.store import DAMAGED, REFUSED, TOO_LARGE, SpoolBroken
from taskbridge.runtime.producer import DeliveryFailed, QueueFull
from taskbridge.schemas.errors import TaskbridgeError
from taskbridge.schemas.topics import TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence

    from taskbridge.edge.kafka.client import KafkaClient, Partition
    from taskbridge.edge.kafka.record import SpooledRecord
    from taskbridge.edge.spool.writer import Spool

_log = structlog.stdlib.get_logger(__name__)


_PATIENCE_S = 2.0
_BATCH_COUNT = 500
_BATCH_BYTES = 4 << 20
_UNCOMMITTED_S = 0.002
_RETRY_S = 0.2
_REGISTRY_RETRY_S = 1.0
_MAX_PAUSE_S = 0.2
_OF_SCHEMA = -2
"""In a queue's name, where the number of a partition would be."""


@dataclass(slots=True)
class BlockedQueue:
    """Records that wait for the same: a partition to take records, or a schema to get its id."""

    first: SpooledRecord
    """The oldest of them. It is tried until it is through, and the others are read again then."""
    watch: asyncio.Task[None]
    count: int = 0


class BlockedQueues:
    """The blocked queues of one spool file. All counts are of records behind the last rewind."""

    def __init__(self, *, freed: Callable[[], None]) -> None:
        """``freed`` is called whenever there is something to rewind to."""
        self._freed_callback = freed
        self._blocked: dict[Partition, BlockedQueue] = {}
        self._freed: SpooledRecord | None = None

    def __contains__(self, name: object) -> bool:
        return name in self._blocked

    def __iter__(self) -> Iterator[Partition]:
        return iter(self._blocked)

    def first(self, name: Partition) -> SpooledRecord:
        return self._blocked[name].first

    @property
    def count(self) -> int:
        return sum(each.count for each in self._blocked.values())

    @property
    def oldest(self) -> int | None:
        firsts = [each.first for each in self._blocked.values()]
        # What has become free still waits, until it is read again.
        return min((each.created_at for each in (*firsts, self._freed) if each is not None), default=None)

    def add(self, name: Partition, record: SpooledRecord) -> None:
        queue = self._blocked[name]
        queue.count += 1
        if record.position < queue.first.position:
            queue.first = record

    def open(self, name: Partition, first: SpooledRecord, watch: Callable[[], Awaitable[None]]) -> None:
        """Open a queue; ``watch`` ends when what its records wait for has come."""
        self._blocked[name] = BlockedQueue(first, asyncio.create_task(self._until(name, watch)))

    @property
    def is_one_free(self) -> bool:
        return self._freed is not None

    def rewind(self) -> int | None:
        """From where on to read again, since a queue is free; None where none has become so."""
        if self._freed is None:
            return None
        start = min([self._freed.position, *(each.first.position for each in self._blocked.values())])
        for each in self._blocked.values():
            each.count = 0
        self._freed = None
        return start

    def cancel(self) -> list[asyncio.Task[None]]:
        tasks = [each.watch for each in self._blocked.values()]
        for each in tasks:
            each.cancel()
        return tasks

    async def _until(self, name: Partition, watch: Callable[[], Awaitable[None]]) -> None:
        try:
            await watch()
        except Exception:  # noqa: BLE001 - the records must not wait for a restart
            _log.exception("spool_queue_failed")
        freed = self._blocked.pop(name).first
        if self._freed is None or freed.position < self._freed.position:
            self._freed = freed
        self._freed_callback()


class Chain:
    """Records that go one after the other; behind a failure, none of the later ones is sent."""

    def __init__(self, records: list[SpooledRecord]) -> None:
        self.left = records
        self.error: DeliveryFailed | QueueFull | None = None
        self.delivered: list[SpooledRecord] = []

    @property
    def is_refused(self) -> bool:
        """The next one, or another that went out together with it, will never be accepted."""
        return isinstance(self.error, DeliveryFailed) and self.error.is_final

    @property
    def refusal(self) -> str:
        return TOO_LARGE if isinstance(self.error, DeliveryFailed) and self.error.too_large else REFUSED

    def so_far(self) -> Chain:
        """What is through already, as a chain of its own."""
        found = Chain([])
        found.delivered, self.delivered = self.delivered, []
        return found

    async def run(self, kafka: KafkaClient) -> None:
        while self.left:
            try:
                # No time limit of its own: sent once more, a record that is only late would be there twice.
                await kafka.send(self.left[0])
            except (DeliveryFailed, QueueFull) as error:
                self.error = error
                return
            self.delivered.append(self.left.pop(0))


Sending = dict["asyncio.Task[None]", Chain]


def chains_of(window: Sequence[SpooledRecord]) -> list[Chain]:
    """Events of one instance go one after the other, all else side by side."""
    chains: dict[object, list[SpooledRecord]] = {}
    for record in window:
        ordered = record.topic == TASK_EVENTS.name
        chains.setdefault((record.topic, record.key) if ordered else record.position, []).append(record)
    return [Chain(records) for records in chains.values()]


async def while_they_get_on(sending: Sending) -> set[asyncio.Task[None]]:
    """Return once all are through, or none has got on for a while; returns those that are not through."""
    waiting = set(sending)
    try:
        while waiting:
            before = sum(len(chain.delivered) for chain in sending.values())
            _, waiting = await asyncio.wait(waiting, timeout=_PATIENCE_S)
            if sum(len(chain.delivered) for chain in sending.values()) == before:
                break
    except asyncio.CancelledError:
        for task in sending:
            task.cancel()
        raise
    return waiting


class Drainer:
    """Drains one spool until it is cancelled, or the spool breaks. The files of a folder do not wait for each other."""

    def __init__(self, spool: Spool, kafka: KafkaClient, metrics: SpoolMetrics | None = None) -> None:
        self._spool = spool
        self._kafka = kafka
        self._metrics = metrics or SpoolMetrics()
        self._blocked = BlockedQueues(freed=lambda: spool.hold(self._blocked.count))
        self._cursor = -1
        self._pending: list[SpooledRecord] = []
        self._one_by_one = False
        self._stopping = False

    @property
    def behind(self) -> Collection[Partition]:
        return set(self._blocked)

    def stop(self) -> None:
        """Start nothing new; ``run`` returns when what is under way is done."""
        self._stopping = True

    async def run(self) -> None:
        try:
            while not self._stopping and self._spool.broken is None:
                try:
                    await self._step()
                except SpoolBroken:
                    raise
                except Exception:  # noqa: BLE001
                    # The records must not wait for a restart.
                    _log.exception("drainer_failed")
                    await asyncio.sleep(_RETRY_S)
        except SpoolBroken:
            return
        finally:
            await asyncio.gather(*self._blocked.cancel(), return_exceptions=True)

    async def _step(self) -> None:
        start = self._blocked.rewind()
        if start is not None:
            start = min([start, *(each.position for each in self._pending[:1])])
            self._cursor, self._pending = start - 1, []
            self._spool.hold(0)
        if not self._pending:
            await self._spool.until_moving()
            self._one_by_one = False
            self._pending = await self._spool.read(self._cursor, count=_BATCH_COUNT, max_bytes=_BATCH_BYTES)
            if not self._pending:
                await asyncio.sleep(_UNCOMMITTED_S)
                return
            self._cursor = self._pending[-1].position
        self._report_oldest()
        await self._kafka.until_answers()
        await self._set_unknown_aside()
        if self._blocked.is_one_free:
            return  # what came behind those that waited must not overtake them
        self._leave_behind()
        if not self._pending:
            return
        await self._drain(self._pending[:1] if self._one_by_one else self._pending)

    def _leave_behind(self) -> None:
        """Set aside, in memory, what cannot go now; it is read again when it can."""
        going: list[SpooledRecord] = []
        for record in self._pending:
            place, of_schema = self._kafka.partition_of(record), (record.schema, _OF_SCHEMA)
            if place in self._blocked or self._kafka.is_failing(place) or not self._kafka.has(record.topic):
                self._wait_for(place, record)
            elif not self._kafka.can_frame(record.schema):
                if of_schema not in self._blocked:
                    self._blocked.open(of_schema, record, partial(self._until_framed, record.schema))
                self._blocked.add(of_schema, record)
            else:
                going.append(record)
        if len(going) < len(self._pending):
            self._pending = going
            self._spool.hold(self._blocked.count)
            self._report_oldest()

    def _wait_for(self, place: Partition, record: SpooledRecord, late: Sending | None = None) -> None:
        if place not in self._blocked:
            self._blocked.open(place, record, partial(self._until_taken, place, late))
        self._blocked.add(place, record)

    async def _set_unknown_aside(self) -> None:
        """Nobody can give the id of a schema whose text is not there."""
        unknown = {
            record.schema
            for record in self._pending
            if not self._kafka.can_frame(record.schema) and (record.schema, _OF_SCHEMA) not in self._blocked
        }
        if not unknown:
            return
        unknown -= (await asyncio.to_thread(self._spool.schema_texts)).keys()
        lost = [record for record in self._pending if record.schema in unknown]
        if lost:
            _log.error("spool_schema_unknown", schemas=sorted(unknown), records=len(lost))
            self._pending = [record for record in self._pending if record.schema not in unknown]
            await self._spool.remove((), [(record.position, DAMAGED) for record in lost])

    async def _drain(self, window: Sequence[SpooledRecord]) -> None:
        started, waiting = time.monotonic(), self._spool.waiting
        sending = {asyncio.create_task(chain.run(self._kafka)): chain for chain in chains_of(window)}
        late = {task: sending[task] for task in await while_they_get_on(sending)}
        done = [chain for task, chain in sending.items() if task not in late and task.result() is None]
        self._leave_to_their_queues(late)
        await self._settle([*done, *(chain.so_far() for chain in late.values())], alone=len(window) == 1)
        self._one_by_one = any(chain.is_refused for chain in done)
        if any(chain.error is not None for chain in done) and not self._one_by_one:
            await asyncio.sleep(_RETRY_S)
        elif self._spool.waiting and self._spool.waiting < waiting:
            # Half of the time belongs to what arrives, unless that comes in faster than it goes out.
            await asyncio.sleep(min(time.monotonic() - started, _MAX_PAUSE_S))

    def _leave_to_their_queues(self, late: Sending) -> None:
        of_place: dict[Partition, Sending] = {}
        for task, chain in late.items():
            of_place.setdefault(self._kafka.partition_of(chain.left[0]), {})[task] = chain
        for place, sending in of_place.items():
            for record in (each for chain in sending.values() for each in chain.left):
                self._wait_for(place, record, sending)
            self._kafka.fail(self._blocked.first(place), DeliveryFailed("no acknowledgement in time"))
        waiting = {record.position for chain in late.values() for record in chain.left}
        self._pending = [record for record in self._pending if record.position not in waiting]
        self._spool.hold(self._blocked.count)

    async def _settle(self, chains: Sequence[Chain], *, alone: bool) -> None:
        """Forget what is delivered, set aside what never can be, and note how Kafka is doing."""
        # Only a record that went out alone is known to be the one that is refused.
        never = {chain.left[0].position: chain for chain in chains if alone and chain.is_refused}
        for chain in never.values():
            record, problem = chain.left[0], str(chain.error)
            self._metrics.row_refused()
            _log.error("spool_record_refused", topic=record.topic, position=record.position, problem=problem)
        for chain in chains:
            if isinstance(chain.error, DeliveryFailed) and not chain.error.is_final:
                self._kafka.replace_if_dead()
                self._kafka.fail(chain.left[0], chain.error)
        delivered = [record for chain in chains for record in chain.delivered]
        gone = {record.position for record in delivered} | never.keys()
        self._pending = [record for record in self._pending if record.position not in gone]
        set_aside = [(position, chain.refusal) for position, chain in never.items()]
        removed = self._spool.remove(delivered, set_aside)
        self._report_oldest()
        self._metrics.drained(delivered)
        await removed
        for record in (*delivered, *(chain.left[0] for chain in never.values())):
            self._kafka.succeed(record)

    async def _until_taken(self, place: Partition, late: Sending | None) -> None:
        """Return once the partition accepts records again: its first is sent until it is acknowledged."""
        if late:
            await asyncio.gather(*late)
            await self._settle(list(late.values()), alone=False)
            return  # what is left of them is read again, and may wait again
        while True:
            await self._kafka.until_answers()
            if self._kafka.has(place[0]):
                first = self._blocked.first(place)
                found = await self._spool.read(first.position - 1, count=1, max_bytes=_BATCH_BYTES)
                if not self._kafka.is_failing(place) or not found or found[0].position != first.position:
                    return
                if self._kafka.can_frame(first.schema) or await self._learn(first.schema):
                    chain = Chain(found)
                    await chain.run(self._kafka)
                    await self._settle([chain], alone=True)
                    # Nothing is awaited between the success and the end, so that no record overtakes those that waited.
                    if not self._kafka.is_failing(place):
                        return
            await asyncio.sleep(_RETRY_S)

    async def _until_framed(self, key: str) -> None:
        while not await self._learn(key):  # noqa: ASYNC110 - the registry has no event for it
            await asyncio.sleep(_REGISTRY_RETRY_S)

    async def _learn(self, key: str) -> bool:
        texts = await asyncio.to_thread(self._spool.schema_texts)
        try:
            return await self._kafka.fetch_id(key, texts)
        except TaskbridgeError as error:
            _log.warning("spool_waits_for_schema_id", problem=str(error))
            return False

    def _report_oldest(self) -> None:
        oldest = [
            each for each in (self._pending[0].created_at if self._pending else None, self._blocked.oldest) if each
        ]
        if oldest:
            self._spool.oldest_is(min(oldest))
