"""What a drainer has left behind: records that Kafka does not take now, by what they wait for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from taskbridge.edge.kafka.path import Place
    from taskbridge.edge.kafka.record import SpooledRecord


_log = structlog.stdlib.get_logger(__name__)


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
        self._tell_freed = freed
        self._blocked: dict[Place, BlockedQueue] = {}
        self._freed: SpooledRecord | None = None

    def __contains__(self, name: object) -> bool:
        return name in self._blocked

    def __iter__(self) -> Iterator[Place]:
        return iter(self._blocked)

    def first(self, name: Place) -> SpooledRecord:
        return self._blocked[name].first

    @property
    def count(self) -> int:
        return sum(each.count for each in self._blocked.values())

    @property
    def oldest(self) -> int | None:
        firsts = [each.first for each in self._blocked.values()]
        # What has become free still waits, until it is read again.
        return min((each.created_at for each in (*firsts, self._freed) if each is not None), default=None)

    def add(self, name: Place, record: SpooledRecord) -> None:
        queue = self._blocked[name]
        queue.count += 1
        if record.position < queue.first.position:
            queue.first = record

    def begin(self, name: Place, first: SpooledRecord, watch: Callable[[], Awaitable[None]]) -> None:
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

    async def _until(self, name: Place, watch: Callable[[], Awaitable[None]]) -> None:
        try:
            await watch()
        except Exception:  # noqa: BLE001 - whatever it is, the records must not wait for a restart
            _log.exception("spool_queue_failed")
        freed = self._blocked.pop(name).first
        if self._freed is None or freed.position < self._freed.position:
            self._freed = freed
        self._tell_freed()
