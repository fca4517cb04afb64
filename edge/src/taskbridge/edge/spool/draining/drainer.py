"""Empties a spool file into Kafka, one class whose steps share what is at hand.

Oldest first, one record per instance under way, deleted when acknowledged. What Kafka does not take now is left
behind, on the disk: only what belongs to the same partition waits with it.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

import structlog

from taskbridge.edge.spool.draining.blocked import BlockedQueues
from taskbridge.edge.spool.draining.chains import Chain, chains_of, while_they_get_on
from taskbridge.edge.spool.draining.turns import Turns
from taskbridge.edge.spool.errors import SpoolBroken
from taskbridge.edge.spool.metrics import SpoolMetrics
from taskbridge.edge.spool.store import DAMAGED
from taskbridge.runtime.producer import DeliveryFailed
from taskbridge.schemas.errors import TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from taskbridge.edge.kafka.path import KafkaPath, Place
    from taskbridge.edge.kafka.record import SpooledRecord
    from taskbridge.edge.spool.draining.chains import Sending
    from taskbridge.edge.spool.files import Occupancy
    from taskbridge.edge.spool.writer import Spool

_BATCH_COUNT = 500
_BATCH_BYTES = 4 << 20
_UNCOMMITTED_S = 0.002
_TURN_S = 0.005
_RETRY_S = 0.2
_REGISTRY_RETRY_S = 1.0
_MAX_PAUSE_S = 0.2
_OF_SCHEMA = -2
"""In a queue's name, where the number of a partition would be."""

_log = structlog.stdlib.get_logger(__name__)


class Drainer:
    """Drains one spool until it is cancelled, or the spool breaks.

    Order over several files: a record waits while an older one of its key is in another file, whoever drains that.
    """

    def __init__(
        self, spool: Spool, kafka: KafkaPath, occupancy: Occupancy, metrics: SpoolMetrics | None = None
    ) -> None:
        self._spool = spool
        self._kafka = kafka
        self._metrics = metrics or SpoolMetrics()
        self._turns = Turns(spool.claim, occupancy)
        self._blocked = BlockedQueues(freed=lambda: spool.hold(self._blocked.count))
        self._cursor = -1
        self._pending: list[SpooledRecord] = []
        self._reads_again = False
        self._one_by_one = False
        self._stopping = False

    @property
    def behind(self) -> Collection[Place]:
        """The partitions that records of this file wait for."""
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
                    # Whatever it is, the records must not wait for a restart.
                    _log.exception("drainer_failed")
                    await asyncio.sleep(_RETRY_S)
        except SpoolBroken:
            return
        finally:
            await asyncio.gather(*self._blocked.cancel(), return_exceptions=True)

    async def _step(self) -> None:
        start = self._blocked.rewind()
        if start is not None:
            # What waits for its turn may stand before what became free.
            start = min([start, *(each.position for each in self._pending[:1])])
            self._cursor, self._pending, self._reads_again = start - 1, [], True
            self._spool.hold(0)
        if not self._pending:
            await self._spool.until_moving()
            self._one_by_one = False
            self._pending = await self._spool.read(self._cursor, count=_BATCH_COUNT, max_bytes=_BATCH_BYTES)
            self._reads_again = False
            if not self._pending:
                await asyncio.sleep(_UNCOMMITTED_S)
                return
            self._cursor = self._pending[-1].position
        self._tell_oldest()
        await self._until_answers()
        await self._set_unknown_aside()
        if self._blocked.is_one_free:
            return  # what came behind those that waited must not overtake them
        self._leave_behind()
        if not self._pending:
            return
        window = await self._turns.among(self._pending)
        if not window:
            await asyncio.sleep(_TURN_S)
            return
        await self._drain(window[:1] if self._one_by_one else window)

    def _leave_behind(self) -> None:
        """Set aside, in memory, what cannot go now; it is read again when it can."""
        going: list[SpooledRecord] = []
        for record in self._pending:
            place, of_schema = self._kafka.place_of(record), (record.schema, _OF_SCHEMA)
            if place in self._blocked or self._kafka.is_failing(place) or not self._kafka.has(record.topic):
                self._wait_for(place, record)
            elif not self._kafka.can_frame(record.schema):
                if of_schema not in self._blocked:
                    self._blocked.begin(of_schema, record, partial(self._until_framed, record.schema))
                self._blocked.add(of_schema, record)
            else:
                going.append(record)
        if len(going) < len(self._pending):
            self._pending = going
            self._spool.hold(self._blocked.count)
            self._tell_oldest()

    def _wait_for(self, place: Place, record: SpooledRecord, late: Sending | None = None) -> None:
        if place not in self._blocked:
            self._blocked.begin(place, record, partial(self._until_taken, place, late))
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
        of_place: dict[Place, Sending] = {}
        for task, chain in late.items():
            of_place.setdefault(self._kafka.place_of(chain.left[0]), {})[task] = chain
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
        self._tell_oldest()
        self._metrics.drained(delivered)
        await removed
        for record in (*delivered, *(chain.left[0] for chain in never.values())):
            self._kafka.succeed(record)

    async def _until_taken(self, place: Place, late: Sending | None) -> None:
        """Return once the partition takes records again: its first is tried until it is through."""
        if late:
            await asyncio.gather(*late)
            await self._settle(list(late.values()), alone=False)
            return  # what is left of them is read again, and may wait again
        while True:
            await self._until_answers()
            if self._kafka.has(place[0]):
                first = self._blocked.first(place)
                found = await self._spool.read(first.position - 1, count=1, max_bytes=_BATCH_BYTES)
                if not self._kafka.is_failing(place) or not found or found[0].position != first.position:
                    return
                is_its_turn = bool(await self._turns.among(found))
                if is_its_turn and (self._kafka.can_frame(first.schema) or await self._learn(first.schema)):
                    chain = Chain(found)
                    await chain.run(self._kafka)
                    await self._settle([chain], alone=True)
                    # Nothing is awaited between the success and the end, so that nobody overtakes what waited.
                    if not self._kafka.is_failing(place):
                        return
            await asyncio.sleep(_RETRY_S)

    async def _until_answers(self) -> None:
        if not self._kafka.answers:
            await self._kafka.until_answers()
            self._turns.forget()

    async def _until_framed(self, key: str) -> None:
        while not await self._learn(key):  # noqa: ASYNC110 - the registry has no event for it
            await asyncio.sleep(_REGISTRY_RETRY_S)

    async def _learn(self, key: str) -> bool:
        texts = await asyncio.to_thread(self._spool.schema_texts)
        try:
            return await self._kafka.learn(key, texts)
        except TaskbridgeError as error:
            _log.warning("spool_waits_for_schema_id", problem=str(error))
            return False

    def _tell_oldest(self) -> None:
        oldest = [
            each for each in (self._pending[0].created_at if self._pending else None, self._blocked.oldest) if each
        ]
        # What is being read again is in neither of them, and may be older.
        if oldest and not self._reads_again:
            self._spool.oldest_is(min(oldest))
