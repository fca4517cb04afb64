"""Chunks of one partition are processed one after the other, those of several partitions side by side.

Each chunk ends with a transaction, which takes some milliseconds whatever is in it. Meanwhile the other partitions are
worked on, and what comes for this one waits and is then taken together: the more there is, the larger the chunks, and
where there is little, nothing waits for anything but the chunk before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from faust.types import Message

    from streams.transport import type_chunk

_WAITING = 16
"""How many chunks may wait in all lanes together; more would only be memory, and work to drop at a rebalance."""
_RECORDS = 1000
_BYTES = 4 << 20
"""What chunks are put together up to: a chunk's own bounds."""

log = structlog.get_logger(__name__)


class Waiting(NamedTuple):
    """A chunk as it was fetched."""

    message: Message
    records: type_chunk

    @property
    def size(self) -> int:
        return sum(len(each.value or b"") for each in self.records)


@dataclass(slots=True)
class _Lane:
    waiting: deque[Waiting] = field(default_factory=deque["Waiting"])
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    task: asyncio.Task[None] | None = None


class Lanes:
    """One lane a partition."""

    def __init__(
        self,
        process: Callable[[Message, type_chunk], Awaitable[None]],
        *,
        failed: Callable[[Exception], Awaitable[None]],
    ) -> None:
        """``failed`` is told the first error of ``process``; no lane begins anything after that."""
        self._process = process
        self._failed = failed
        self._lanes: dict[int, _Lane] = {}
        self._room = asyncio.Semaphore(_WAITING)
        self._stopped = False

    async def put(self, message: Message, records: type_chunk) -> None:
        """Hand over a chunk; returns as soon as there is room for it to wait."""
        await self._room.acquire()
        lane = self._lane(message.partition)
        lane.waiting.append(Waiting(message, records))
        if lane.task is None or lane.task.done():
            lane.task = asyncio.create_task(self._drive(lane))

    def turn(self, partition: int) -> asyncio.Lock:
        """Held while a chunk of the partition is processed; whoever else changes its instances takes it too."""
        return self._lane(partition).turn

    def _lane(self, partition: int) -> _Lane:
        return self._lanes.setdefault(partition, _Lane())

    async def _drive(self, lane: _Lane) -> None:
        try:
            while lane.waiting and not self._stopped:
                async with lane.turn:
                    message, records = self._next(lane)
                    await self._process(message, records)
        except Exception as error:
            self._stopped = True
            log.exception("stopping: a chunk could not be processed")
            await self._failed(error)

    def _next(self, lane: _Lane) -> Waiting:
        """The chunks that wait, as one, up to the bounds of one; of one generation of the group only."""
        message, records = lane.waiting.popleft()
        self._room.release()
        size = 0
        while lane.waiting and lane.waiting[0].message.generation_id == message.generation_id:
            more = lane.waiting[0]
            size = (size or Waiting(message, records).size) + more.size
            if len(records) + len(more.records) > _RECORDS or size > _BYTES:
                break
            lane.waiting.popleft()
            self._room.release()
            # The last one's place is what is done when all is done.
            message, records = more.message, [*records, *more.records]
        return Waiting(message, records)
