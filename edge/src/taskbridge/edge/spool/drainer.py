"""Empties a spool file into Kafka.

Oldest first, one record per instance at a time, deleted when acknowledged. A record that Kafka does not accept now
stays on the disk: only records of the same partition wait with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from taskbridge.edge.spool.metrics import SpoolMetrics
from taskbridge.edge.spool.store import REFUSED, TOO_LARGE, SpoolBroken
from taskbridge.runtime.producer import DeliveryFailed, QueueFull
from taskbridge.schemas.errors import TaskbridgeError
from taskbridge.schemas.topics import TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

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

    async def run(self, kafka: KafkaClient) -> None:
        while self.left:
            try:
                # No time limit of its own: sent once more, a record that is only late would be there twice.
                await kafka.send(self.left[0])
            except (DeliveryFailed, QueueFull) as error:
                self.error = error
                return
            except Exception as error:  # noqa: BLE001 - the records must not wait for a restart
                _log.exception("drainer_failed")
                self.error = DeliveryFailed(repr(error))
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


async def wait_for_progress(sending: Sending) -> set[asyncio.Task[None]]:
    """Return once all are through, or none progressed for a while; returns those that are not through."""
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


@dataclass(slots=True)
class Blocked:
    """The records of a partition that accepts none now."""

    first: SpooledRecord
    """The oldest. It is tried alone until it is through; then all are read again."""
    count: int = 0
    late: Sending = field(default_factory=Sending)
    """Sent together, and without an outcome yet."""
    trial: Sending = field(default_factory=Sending)
    """The first, sent alone."""
    retry_at: float = 0.0


class Drainer:
    """Drains one spool until it is cancelled, or the spool breaks. The files of a folder do not wait for each other."""

    def __init__(self, spool: Spool, kafka: KafkaClient, metrics: SpoolMetrics | None = None) -> None:
        self._spool = spool
        self._kafka = kafka
        self._metrics = metrics or SpoolMetrics()
        self._blocked: dict[Partition, Blocked] = {}
        self._cursor = -1
        self._reads_again = False
        self._registry_at: dict[str, float] = {}
        """By schema, when the registry may be requested again."""
        self._stopping = False

    @property
    def behind(self) -> Collection[Partition]:
        return set(self._blocked)

    def stop(self) -> None:
        """Start nothing new; ``run`` returns when what is under way is done."""
        self._stopping = True

    def read_again(self) -> None:
        """Read the file from its beginning: something there may be sent now."""
        self._reads_again = True
        self._spool.hold(0)

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
                    self.read_again()
                    await asyncio.sleep(_RETRY_S)
        except SpoolBroken:
            return
        finally:
            tasks = [task for each in self._blocked.values() for task in (*each.late, *each.trial)]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _step(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RETRY_S if self._blocked else None):
                await self._spool.until_moving()
        await self._kafka.until_answers()
        for place in list(self._blocked):
            await self._try_again(place)
        if self._reads_again:
            self._reads_again, self._cursor = False, -1
            for each in self._blocked.values():
                each.count = 0
            self._hold()
        records = await self._spool.read(self._cursor, count=_BATCH_COUNT, max_bytes=_BATCH_BYTES)
        if not records:
            await asyncio.sleep(_UNCOMMITTED_S)
            return
        self._cursor = records[-1].position
        going: list[SpooledRecord] = []
        for record in records:
            place = self._kafka.partition_of(record)
            is_open = self._kafka.has(record.topic) and self._kafka.can_frame(record.schema)
            if place in self._blocked or self._kafka.is_failing(place) or not is_open:
                self._block(record)
            else:
                going.append(record)
        self._hold(going)
        if going:
            await self._drain(going)

    async def _drain(self, records: Sequence[SpooledRecord]) -> None:
        started, waiting = time.monotonic(), self._spool.waiting
        sending = {asyncio.create_task(chain.run(self._kafka)): chain for chain in chains_of(records)}
        late = await wait_for_progress(sending)
        for task in late:
            queue = self._block(*sending[task].left)
            queue.late[task] = sending[task]
            self._kafka.fail(queue.first, DeliveryFailed("no acknowledgement in time"))
        await self._settle(list(sending.values()), alone=len(records) == 1)
        failed = [chain for task, chain in sending.items() if task not in late and chain.left]
        for chain in failed:
            self._block(*chain.left).retry_at = time.monotonic() + (0 if chain.is_refused else _RETRY_S)
            if chain.is_refused:
                await self._try_again(self._kafka.partition_of(chain.left[0]))
        self._hold()
        if not failed and self._spool.waiting and self._spool.waiting < waiting:
            # Half of the time belongs to what arrives, unless that comes in faster than it goes out.
            await asyncio.sleep(min(time.monotonic() - started, _MAX_PAUSE_S))

    def _block(self, *records: SpooledRecord) -> Blocked:
        """Leave records of one partition on the disk; they are read again when it accepts records."""
        queue = self._blocked.setdefault(self._kafka.partition_of(records[0]), Blocked(records[0]))
        queue.first = min(queue.first, records[0], key=lambda each: each.position)
        queue.count += len(records)
        return queue

    async def _try_again(self, place: Partition) -> None:
        queue = self._blocked[place]
        if not all(task.done() for task in (*queue.late, *queue.trial)):
            return
        if queue.late or self._kafka.partition_of(queue.first) != place:
            # What is left of them is read again, and may wait again, perhaps for another partition.
            self._free(place)
            await self._settle([*queue.late.values(), *queue.trial.values()], alone=False)
            return
        chain = next(iter(queue.trial.values()), None)
        if chain is not None:
            queue.trial, queue.retry_at = Sending(), time.monotonic() + _RETRY_S
            if chain.delivered or chain.is_refused:
                # Before the partition counts as open, so that no new record overtakes those that waited.
                self._free(place)
            await self._settle([chain], alone=True)
        elif time.monotonic() >= queue.retry_at and self._kafka.has(place[0]):
            chain = Chain([queue.first])
            trial = asyncio.create_task(self._send_alone(chain))
            trial.add_done_callback(lambda _: self._hold())  # which ends the wait for a record that may move
            queue.trial = {trial: chain}

    async def _send_alone(self, chain: Chain) -> None:
        schema = chain.left[0].schema
        if self._kafka.can_frame(schema) or await self._learn(schema):
            await chain.run(self._kafka)

    def _free(self, place: Partition) -> None:
        del self._blocked[place]
        self.read_again()

    async def _settle(self, chains: Sequence[Chain], *, alone: bool) -> None:
        """Forget what is delivered, set aside what never can be, and note how Kafka is doing."""
        refused: list[SpooledRecord] = []
        set_aside: list[tuple[int, str]] = []
        for chain in chains:
            if isinstance(chain.error, DeliveryFailed) and not chain.error.is_final:
                self._kafka.replace_if_dead()
                self._kafka.fail(chain.left[0], chain.error)
            # Only a record that went out alone is known to be the one that is refused.
            elif alone and chain.is_refused:
                record = chain.left.pop(0)
                refused.append(record)
                set_aside.append((record.position, chain.refusal))
                self._metrics.row_refused()
                problem = str(chain.error)
                _log.error("spool_record_refused", topic=record.topic, position=record.position, problem=problem)
        delivered = [record for chain in chains for record in chain.delivered]
        for chain in chains:
            chain.delivered = []
        removed = self._spool.remove(delivered, set_aside)
        self._metrics.drained(delivered)
        await removed
        for record in (*delivered, *refused):
            self._kafka.succeed(record)

    async def _learn(self, schema: str) -> bool:
        """Request the id of a schema from the registry, at most once a second."""
        if time.monotonic() < self._registry_at.get(schema, 0):
            return False
        self._registry_at[schema] = time.monotonic() + _REGISTRY_RETRY_S
        texts = await asyncio.to_thread(self._spool.schema_texts)
        try:
            return await self._kafka.fetch_id(schema, texts)
        except TaskbridgeError as error:
            _log.warning("spool_waits_for_schema_id", problem=str(error))
            return False

    def _hold(self, going: Sequence[SpooledRecord] = ()) -> None:
        """Say how many records wait for their partition, and which is the oldest."""
        self._spool.hold(sum(each.count for each in self._blocked.values()))
        oldest = [each.created_at for each in (*going[:1], *(queue.first for queue in self._blocked.values()))]
        if oldest:
            self._spool.oldest_is(min(oldest))
