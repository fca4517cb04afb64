"""Chunks are ordered within a partition and concurrent between partitions, and nothing begins after a failure."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from taskbridge.streams.instances.partition_queues import PartitionQueues

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

    from taskbridge.streams.engine.transport import ChunkMessage
    from taskbridge.streams.records import Chunk


def chunk(partition: int, *offsets: int, era: int = 1, size: int = 1) -> tuple[ChunkMessage, Chunk]:
    message = SimpleNamespace(partition=partition, offset=offsets[-1], era=era)
    records = [SimpleNamespace(offset=each, value=b"x" * size) for each in offsets]
    return cast("Any", message), cast("Any", records)


class Work:
    """Chunks that end when the test says so."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, list[int], int]] = []
        self.ended: list[int] = []
        self.ends: list[asyncio.Event] = []
        self.errors: list[Exception] = []
        self.queues = PartitionQueues(self._begin, failed=self._failed)
        self.fails = False

    def _begin(self, message: ChunkMessage, records: Chunk) -> Coroutine[Any, Any, None] | None:
        self.begun.append((message.partition, [each.offset for each in records], message.offset))
        end = asyncio.Event()
        self.ends.append(end)
        return self._end(message.offset, end)

    async def _end(self, offset: int, end: asyncio.Event) -> None:
        await end.wait()
        if self.fails:
            raise ValueError("no")
        self.ended.append(offset)

    async def _failed(self, error: Exception) -> None:
        self.errors.append(error)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_waiting_chunks_are_joined_and_begin_before_the_first_ends() -> None:
    work = Work()
    async with work.queues.turn(0):
        for offsets in ((0,), (1, 2), (3,)):
            await work.queues.put(*chunk(0, *offsets))
    await settle()
    await work.queues.put(*chunk(0, 4))
    await settle()
    assert work.begun == [(0, [0, 1, 2, 3], 3), (0, [4], 4)]


@pytest.mark.parametrize(
    ("counts", "size", "joined"),
    [
        ((600, 400, 1), 1, [1000, 1]),
        ((600, 401), 1, [600, 401]),
        ((1, 1, 1), 2 << 20, [2, 1]),
        ((1, 1), (2 << 20) + 1, [1, 1]),
    ],
)
async def test_waiting_chunks_are_joined_up_to_the_maximum_of_a_chunk(
    counts: tuple[int, ...], size: int, joined: list[int]
) -> None:
    work = Work()
    begin = 0
    async with work.queues.turn(0):
        for count in counts:
            await work.queues.put(*chunk(0, *range(begin, begin + count), size=size))
            begin += count
    await settle()
    assert [len(offsets) for _, offsets, _ in work.begun] == joined


async def test_a_stream_is_followed_with_all_chunks_of_a_poll() -> None:
    def message(partition: int, offset: int) -> Any:
        made, records = chunk(partition, offset)
        return SimpleNamespace(**vars(made), value=records, others=())

    async def polls() -> AsyncGenerator[Any]:
        for offset in range(2):
            first = message(0, offset)
            first.others = [message(1, offset), message(0, offset + 10)]
            yield SimpleNamespace(message=first)

    work = Work()
    await work.queues.follow(SimpleNamespace(events=polls))
    begun = [(partition, offset) for partition, _, offset in work.begun]
    assert begun == [(0, 0), (1, 0), (0, 10), (0, 1), (1, 1), (0, 11)]


async def test_chunks_of_one_partition_end_in_the_order_in_which_they_began() -> None:
    work = Work()
    for offset in range(3):
        await work.queues.put(*chunk(0, offset))
        await settle()
    for end in reversed(work.ends):
        end.set()
        await settle()
    assert work.ended == [0, 1, 2]


async def test_the_chunks_of_one_partition_in_progress_are_limited() -> None:
    work = Work()
    for offset in range(6):
        await work.queues.put(*chunk(0, offset))
        await settle()
    assert [offset for _, _, offset in work.begun] == [0, 1, 2, 3]
    work.ends[0].set()
    await settle()
    assert work.begun[4:] == [(0, [4, 5], 5)]


async def test_chunks_from_before_and_after_a_rebalance_are_not_joined() -> None:
    work = Work()
    async with work.queues.turn(0):
        await work.queues.put(*chunk(0, 1))
        await work.queues.put(*chunk(0, 1, era=2))
    await settle()
    assert [offsets for _, offsets, _ in work.begun] == [[1], [1]]


async def test_after_a_failure_nothing_begins_or_ends() -> None:
    work = Work()
    work.fails = True
    await work.queues.put(*chunk(0, 0))
    await settle()
    await work.queues.put(*chunk(0, 1))
    await settle()
    for end in work.ends:
        end.set()
    await settle()
    await work.queues.put(*chunk(1, 0))
    await settle()
    assert [type(each) for each in work.errors] == [ValueError]
    assert work.begun == [(0, [0], 0), (0, [1], 1)]
    assert work.ended == []


async def test_a_turn_waits_for_chunks_in_progress_and_delays_the_next() -> None:
    work = Work()
    await work.queues.put(*chunk(0, 0))
    await settle()
    turn = work.queues.turn(0)
    entering = asyncio.ensure_future(turn.__aenter__())
    await settle()
    assert not entering.done()
    work.ends[0].set()
    await entering
    await work.queues.put(*chunk(0, 1))
    await settle()
    assert len(work.begun) == 1
    await turn.__aexit__(None, None, None)
    await settle()
    assert len(work.begun) == 2


async def test_sixteen_chunks_may_wait_and_again_after_they_were_joined() -> None:
    work = Work()
    for begin in (0, 100):
        async with work.queues.turn(0):
            for offset in range(begin, begin + 16):
                async with asyncio.timeout(60):
                    await work.queues.put(*chunk(0, offset))
            one_more = asyncio.create_task(work.queues.put(*chunk(0, begin + 16)))
            await settle()
            assert not one_more.done()
        await settle()
        assert one_more.done()
        for end in work.ends:
            end.set()
        await settle()
    assert [offset for _, _, offset in work.begun] == [15, 16, 115, 116]


class Begun:
    """Chunks of which nothing is left to be awaited, or that cannot even be begun."""

    def __init__(self, error: Exception | None = None) -> None:
        self.partitions: list[int] = []
        self.errors: list[Exception] = []
        self._error = error
        self.queues = PartitionQueues(self._begin, failed=self._failed)

    def _begin(self, message: ChunkMessage, _records: Chunk) -> None:
        self.partitions.append(message.partition)
        if self._error is not None:
            raise self._error

    async def _failed(self, error: Exception) -> None:
        self.errors.append(error)


async def test_a_chunk_without_an_end_needs_no_room() -> None:
    work = Begun()
    for offset in range(6):
        await work.queues.put(*chunk(0, offset))
        await settle()
    assert work.partitions == [0] * 6


async def test_a_full_queue_lets_others_run_in_between() -> None:
    work = Begun()
    async with work.queues.turn(0):
        for number in range(3):  # no two of them fit into one
            await work.queues.put(*chunk(0, *range(number * 600, number * 600 + 600)))
    await asyncio.sleep(0)
    await work.queues.put(*chunk(1, 0))
    await settle()
    assert work.partitions == [0, 1, 0, 0]


async def test_a_chunk_that_fails_to_begin_stops_all_queues() -> None:
    work = Begun(ValueError("no"))
    for partition in (0, 0, 1):
        await work.queues.put(*chunk(partition, 0))
        await settle()
    assert work.partitions == [0]
    assert [str(each) for each in work.errors] == ["no"]
