"""Decides, for each record, between Kafka and the spool: at one place, on the event loop, so that order holds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from edge.durability import Durability
from edge.spool.errors import SpoolBroken
from service.kafka import DeliveryFailed, QueueFull

if TYPE_CHECKING:
    from edge.kafka_path import KafkaPath
    from edge.spool.keeper import SpoolKeeper
    from edge.spool.record import Record

_LAST_FEW = 250
_HOLD_S = 0.25
_LOOK_S = 0.002


class Outbox:
    """Keeps a record in Kafka, or else in the spool.

    Directly to Kafka only while nothing waits in any spool of the folder: a record must not overtake those that were
    answered before it.
    """

    def __init__(self, kafka: KafkaPath, spools: SpoolKeeper, *, timeout_s: float) -> None:
        self._kafka = kafka
        self._spools = spools
        self._timeout_s = timeout_s
        self._almost_empty: asyncio.Task[bool] | None = None

    async def keep(self, record: Record) -> Durability:
        """Return once the record is durable.

        Raises:
            NotDurable: it is not, or that is not known.
        """
        if self._spools.broken is not None:
            raise SpoolBroken(self._spools.broken)
        # Directly where nothing waits, which is nearly always: no step more than that takes.
        if (
            self._kafka.usable
            and self._kafka.can_frame(record.schema)
            and (not self._spools.anything_waits() or await self._are_last_few_through())
        ):
            try:
                await self._kafka.send_within(record, timeout_s=self._timeout_s)
            except (DeliveryFailed, QueueFull):
                # Perhaps it arrived all the same. It counts as undelivered: twice is allowed, never is not.
                pass
            else:
                return Durability.KAFKA
        await self._spools.own.put(record)
        return Durability.SPOOL

    @property
    def can_keep(self) -> bool:
        """Whether a record could be kept now."""
        if self._spools.broken is not None:
            return False
        return not self._spools.full or (self._kafka.usable and not self._spools.anything_waits())

    async def _are_last_few_through(self) -> bool:
        """Whether what waits is so little that it has left by now."""
        if self._spools.waiting > _LAST_FEW:
            return False
        # Were each callback spooled that comes while the last few leave, the spool would never be empty.
        if self._almost_empty is None or self._almost_empty.done():
            self._almost_empty = asyncio.create_task(self._until_empty())
        emptied = await asyncio.shield(self._almost_empty)
        return emptied and self._kafka.usable and not self._spools.anything_waits()

    async def _until_empty(self) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _HOLD_S
        while self._kafka.usable and loop.time() < deadline:
            if not self._spools.anything_waits():
                return True
            await asyncio.sleep(_LOOK_S)
        return False
