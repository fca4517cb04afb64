"""Queues of chunks: one partition's begin and end in order, those of several partitions run concurrently.

A chunk is folded, and ends some milliseconds later with a group commit. Meanwhile the next ones are folded on top of
it, for the commit that follows. Chunks that arrive while the loop is busy are joined: under load chunks become larger,
and with little load nothing waits for anything but the commit in progress.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine

    from taskbridge.streams.engine.transport import ChunkMessage
    from taskbridge.streams.records import Chunk

_WAITING = 16
"""Chunks that may wait in all queues together; more would only be memory, and work to drop at a rebalance."""
_UNDER_WAY = 4
"""Chunks of one partition that may be folded and not committed yet."""
_RECORDS = 1000
_BYTES = 4 << 20
"""Maximum size of joined chunks, which is that of a single one."""

log = structlog.get_logger(__name__)


class Waiting(NamedTuple):
    message: ChunkMessage
    records: Chunk

    @property
    def size(self) -> int:
        return sum(len(each.value or b"") for each in self.records)


@dataclass(slots=True)
class _PartitionQueue:
    waiting: deque[Waiting] = field(default_factory=deque["Waiting"])
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_UNDER_WAY))
    task: asyncio.Task[None] | None = None
    last: asyncio.Task[None] | None = None


class PartitionQueues:
    def __init__(
        self,
        begin: Callable[[ChunkMessage, Chunk], Coroutine[Any, Any, None] | None],
        *,
        failed: Callable[[Exception], Awaitable[None]],
    ) -> None:
        """``begin`` returns the chunk's end, which is awaited in the order of the partition's chunks.

        ``failed`` is called with the first error; afterwards no queue begins or ends anything.
        """
        self._begin = begin
        self._failed = failed
        self._queues: dict[int, _PartitionQueue] = {}
        self._room = asyncio.Semaphore(_WAITING)
        self._stopped = False

    async def follow(self, stream: Any) -> None:
        async for event in stream.events():
            for message in (event.message, *event.message.others):
                await self.put(message, message.value)

    async def put(self, message: ChunkMessage, records: Chunk) -> None:
        await self._room.acquire()
        queue = self._queue(message.partition)
        queue.waiting.append(Waiting(message, records))
        if queue.task is not None and not queue.task.done():
            return
        if queue.turn.locked() or queue.room.locked():
            queue.task = asyncio.create_task(self._drive(queue))
        else:
            # Without a task, which takes as long as to fold an event.
            await self._drive(queue)

    @asynccontextmanager
    async def turn(self, partition: int) -> AsyncGenerator[None]:
        """Exclude chunks of the partition in progress, to change its instances otherwise."""
        queue = self._queue(partition)
        async with queue.turn:
            if queue.last is not None:
                await asyncio.wait([queue.last])
            yield

    def _queue(self, partition: int) -> _PartitionQueue:
        queue = self._queues.get(partition)
        if queue is None:
            queue = self._queues[partition] = _PartitionQueue()
        return queue

    async def _drive(self, queue: _PartitionQueue) -> None:
        try:
            while queue.waiting and not self._stopped:
                async with queue.turn:
                    await queue.room.acquire()
                    end = self._begin(*self._next(queue))
                    if end is None:
                        queue.room.release()
                    else:
                        queue.last = asyncio.create_task(self._end(queue, queue.last, end))
                # Let the loop do other work, which a full queue would otherwise block.
                await asyncio.sleep(0)
        except Exception as error:  # noqa: BLE001 - nothing is skipped
            await self._fail(error)

    async def _end(
        self, queue: _PartitionQueue, before: asyncio.Task[None] | None, end: Coroutine[Any, Any, None]
    ) -> None:
        try:
            if before is not None:
                await before
            if not self._stopped:
                await end
        except Exception as error:  # noqa: BLE001
            await self._fail(error)
        finally:
            end.close()  # without effect after its end
            queue.room.release()

    async def _fail(self, error: Exception) -> None:
        if not self._stopped:
            self._stopped = True
            log.error("chunk_failed", exc_info=error)
            await self._failed(error)

    def _next(self, queue: _PartitionQueue) -> Waiting:
        """The chunks that wait, joined up to the maximum of one; never with chunks that may be fetched again."""
        message, records = queue.waiting.popleft()
        self._room.release()
        size = 0
        while queue.waiting and queue.waiting[0].message.era == message.era:
            more = queue.waiting[0]
            size = (size or Waiting(message, records).size) + more.size
            if len(records) + len(more.records) > _RECORDS or size > _BYTES:
                break
            queue.waiting.popleft()
            self._room.release()
            # The position of the last one is done when all are done.
            message, records = more.message, [*records, *more.records]
        return Waiting(message, records)
