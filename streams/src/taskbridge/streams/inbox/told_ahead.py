"""Notifications published before their lists are committed to Kafka, and how a query for such a list waits.

A notification is Kafka's by the time it is read, so it may be told at once; the list follows a transaction later. Who
was told, and asks for the list within these milliseconds, gets one that has the line: see ``docs/adr/0022``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from taskbridge.streams.tables.store import PartitionNotHeld

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

_AT_MOST_S = 1.0
"""After this time a list is answered as stored, although its commit to Kafka is not complete."""


class _Chunk(NamedTuple):
    next_offset: int
    people: AbstractSet[bytes]
    end: asyncio.Future[bool]


class ToldAhead:
    """The chunks of notifications that are published and not stored yet, one per partition. For one event loop."""

    def __init__(self) -> None:
        self._chunks: dict[int, _Chunk] = {}

    def begin(self, partition: int, next_offset: int, people: AbstractSet[bytes]) -> None:
        """All before ``next_offset`` is published, and these people's notifications are not in their lists yet.

        ``people`` as in the keys of their lists.
        """
        self._chunks[partition] = _Chunk(next_offset, people, asyncio.get_running_loop().create_future())

    def end(self, partition: int, *, stored: bool) -> None:
        """The lists have it; or it comes again, here or at another worker."""
        self._chunks.pop(partition).end.set_result(stored)

    def next_offset(self, partition: int) -> int:
        """Of the first notification that is not published yet; 0 if all published ones are stored."""
        chunk = self._chunks.get(partition)
        return 0 if chunk is None else chunk.next_offset

    async def stored(self, partition: int, person: bytes) -> bool:
        """Return when this person's lists have all published notifications, or after a second; whether it waited.

        Raises:
            PartitionNotHeld: a rebalance came between.
        """
        chunk = self._chunks.get(partition)
        if chunk is None or person not in chunk.people:
            return False
        done, _ = await asyncio.wait([chunk.end], timeout=_AT_MOST_S)
        if done and not chunk.end.result():
            raise PartitionNotHeld("a rebalance came before these lists had the notifications")
        return True
