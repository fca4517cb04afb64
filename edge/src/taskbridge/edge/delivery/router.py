"""Decides, for each record, between Kafka and the spool: at one place, on the event loop, so that order holds."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING

from taskbridge.edge.errors import NotDurable
from taskbridge.edge.spool.errors import SpoolFull
from taskbridge.runtime.producer import DeliveryFailed, QueueFull
from taskbridge.schemas.topics import TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.edge.kafka.path import KafkaPath
    from taskbridge.edge.kafka.record import Record
    from taskbridge.edge.spool.keeper import SpoolKeeper

_LAST_FEW = 250
_HOLD_S = 0.25
_LOOK_S = 0.002


class Durability(StrEnum):
    """What keeps an event when its callback is answered."""

    KAFKA = "kafka"
    """All in-sync replicas have acknowledged it."""
    SPOOL = "spool"
    """It is fsynced on our own disk, and goes to Kafka as soon as that is possible."""


class Router:
    """Keeps a record in Kafka, or else in the spool; where that has no room, in Kafka all the same.

    Directly to Kafka only while nothing is on its way from any spool of the folder: a record should not overtake those
    that were answered before it. What comes of events does not depend on their order, so that is no reason to refuse.
    """

    def __init__(self, kafka: KafkaPath, spools: SpoolKeeper, *, timeout_s: float) -> None:
        self._kafka = kafka
        self._spools = spools
        self._timeout_s = timeout_s
        self._almost_empty: asyncio.Task[None] | None = None

    async def keep(self, record: Record, *, may_spool: bool = True) -> Durability:
        """Return once the record is durable.

        Raises:
            NotDurable: it is not, or that is not known.
        """
        tried = False
        # Directly where nothing waits, which is nearly always: no step more than that takes.
        if self._kafka.takes(record) and (
            not self._spools.anything_moves() or await self._are_last_few_through(record)
        ):
            if await self._sent(record):
                return Durability.KAFKA
            tried = True
        try:
            if not may_spool:
                raise SpoolFull("the spool has room only for verified callbacks")
            await self._spools.own.put(record)
        except NotDurable:
            if not tried and self._kafka.takes(record) and await self._sent(record):
                return Durability.KAFKA
            raise
        return Durability.SPOOL

    def is_direct(self, topic: str, schema: str) -> bool:
        """Whether a record that is sent now will probably be in Kafka soon, whatever its key, and overtakes none."""
        return self._kafka.takes_all_of(topic, schema) and not self._spools.anything_moves()

    def send(self, record: Record, then: Callable[[Exception | None], None]) -> None:
        """Send a record where ``is_direct``; ``then`` is called with None once it is durable.

        Else with DeliveryFailed or QueueFull: it counts as undelivered, and is for ``spool``.
        """
        self._kafka.send_then(record, then, timeout_s=self._timeout_s)

    async def spool(self, record: Record) -> Durability:
        """Return once the record is durable that Kafka did not take.

        Raises:
            NotDurable: it is not, or that is not known.
        """
        await self._spools.own.put(record)
        return Durability.SPOOL

    @property
    def can_keep(self) -> bool:
        """Whether an event could be kept now."""
        return (self._spools.broken is None and not self._spools.full) or self._kafka.takes_any_of(TASK_EVENTS.name)

    async def _sent(self, record: Record) -> bool:
        try:
            await self._kafka.send_within(record, timeout_s=self._timeout_s)
        except (DeliveryFailed, QueueFull):
            # Perhaps it arrived all the same. It counts as undelivered: twice is allowed, never is not.
            return False
        return True

    async def _are_last_few_through(self, record: Record) -> bool:
        """Whether what is on its way is so little that it has left by now."""
        if self._spools.moving > _LAST_FEW:
            return False
        # Were each callback spooled that comes while the last few leave, the spool would never be empty.
        if self._almost_empty is None or self._almost_empty.done():
            self._almost_empty = asyncio.create_task(self._until_empty())
        await asyncio.shield(self._almost_empty)
        return self._kafka.takes(record) and not self._spools.anything_moves()

    async def _until_empty(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _HOLD_S
        # Other processes hold some of it: no event tells.
        while self._kafka.answers and self._spools.anything_moves() and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)
