"""How much shares a transaction, how much of the disk is left free, and what is told of each commit."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest

from support.edge.spool import Disk, open_spool, record, until
from taskbridge.edge.kafka.record import row_of
from taskbridge.edge.spool.commits import Put, Remove, Work
from taskbridge.edge.spool.errors import SpoolBroken, SpoolFull
from taskbridge.edge.spool.metrics import SpoolMetrics
from taskbridge.edge.spool.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from taskbridge.edge.kafka.record import Row

MIB = 1 << 20
NOBODY = cast("asyncio.Future[None]", None)


def put(size: int = 1) -> Put:
    return Put(row_of(record(), position=1, created_at=1), size, NOBODY)


def remove(size: int = 1) -> Remove:
    return Remove([1], (), size, NOBODY)


def test_a_transaction_takes_a_thousand_pieces_of_work_or_16_mib_that_are_put() -> None:
    work = Work()
    for _ in range(999):
        work.add(put())
    assert not work.is_large
    work.add(remove())
    assert work.is_large
    assert (len(work.puts), len(work.removals), work.size, work.stop) == (999, 1, 999, False)

    work = Work()
    work.add(put(16 * MIB - 1))
    work.add(remove(MIB))
    assert not work.is_large
    work.add(put(1))
    assert work.is_large


def test_the_end_is_work_too() -> None:
    work = Work()
    assert not work.stop
    work.add(None)
    assert work.stop


@pytest.mark.parametrize(("total", "floor"), [(100 * MIB, 5 * MIB), (1 << 40, 64 * MIB)])
def test_so_much_of_the_disk_is_left_free_and_not_a_byte_more(tmp_path: Path, total: int, floor: int) -> None:
    """Beside it goes what is written twice: into the log, and from the log into the file."""

    async def scenario() -> None:
        disk = Disk()
        disk.total = total
        async with open_spool(tmp_path, disk=disk) as spool:
            await spool.put(record(1))
            log_bytes = spool._store.log_bytes  # pyright: ignore[reportPrivateUsage]
            assert log_bytes > 0
            disk.free = floor + 2 * record(2).size + log_bytes
            await spool.put(record(2))
            disk.free = floor + 2 * record(3).size + spool._store.log_bytes - 1  # pyright: ignore[reportPrivateUsage]
            with pytest.raises(SpoolFull, match="disk"):
                await spool.put(record(3))

    asyncio.run(scenario())


def test_what_the_disk_has_is_asked_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with open_spool(tmp_path) as spool:
            committer = spool._committer  # pyright: ignore[reportPrivateUsage]
            found = os.statvfs(tmp_path)
            free, total = committer._free_bytes_of_disk()  # pyright: ignore[reportPrivateUsage]
            assert total == found.f_blocks * found.f_frsize
            assert 0 < free <= total

            def unreadable(_: object) -> None:
                raise OSError("unplugged")

            monkeypatch.setattr("taskbridge.edge.spool.commits.os.statvfs", unreadable)
            with pytest.raises(SpoolBroken, match="unplugged"):
                committer._free_bytes_of_disk()  # pyright: ignore[reportPrivateUsage]

    asyncio.run(scenario())


def test_a_commit_of_rows_is_told_and_one_of_removals_is_not(tmp_path: Path) -> None:
    told: list[int] = []

    class Observer(SpoolMetrics):
        def committed(self, *, seconds: float, rows: int) -> None:
            assert 0 < seconds < 60
            told.append(rows)

        def row_damaged(self) -> None:
            raise AssertionError

    async def scenario() -> None:
        async with open_spool(tmp_path, metrics=Observer()) as spool:
            await asyncio.gather(*(spool.put(record(number)) for number in range(3)))
            await spool.remove(await spool.read(0, count=9, max_bytes=MIB))
            await spool.put(record(4))

    asyncio.run(scenario())
    # Rows that are put together may be committed by one or by several transactions.
    assert (sum(told[:-1]), told[-1]) == (3, 1)


def test_an_emptied_file_gives_its_log_back_and_one_with_records_left_keeps_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_spool(tmp_path) as spool:
            await asyncio.gather(*(spool.put(record(number)) for number in range(3)))
            found = await spool.read(0, count=9, max_bytes=MIB)
            await spool.remove(found[:2])
            await spool.remove(())  # behind the checkpoint of the one before
            assert spool._store.log_bytes > 0  # pyright: ignore[reportPrivateUsage]
            await spool.remove(found[2:])
            await spool.remove(())
            assert spool._store.log_bytes == 0  # pyright: ignore[reportPrivateUsage]
        async with open_spool(tmp_path) as spool:
            await asyncio.gather(spool.put(record(5)), spool.put(record(6)))
        async with open_spool(tmp_path) as spool:
            await spool.put(record(7))
            await spool.remove(await spool.read(0, count=2, max_bytes=MIB))
            await spool.remove(())
            assert spool._store.log_bytes > 0  # pyright: ignore[reportPrivateUsage]
            await spool.remove(await spool.read(0, count=2, max_bytes=MIB))
            await spool.remove(())
            assert spool._store.log_bytes == 0  # pyright: ignore[reportPrivateUsage]

    asyncio.run(scenario())


class Rows(SpoolMetrics):
    """How many rows each commit had."""

    def __init__(self) -> None:
        super().__init__()
        self.of_each: list[int] = []

    def committed(self, *, seconds: float, rows: int) -> None:  # noqa: ARG002 - the overridden signature
        self.of_each.append(rows)

    def row_damaged(self) -> None:
        raise AssertionError


def test_what_waits_while_a_commit_is_under_way_shares_the_next_one_up_to_what_that_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, may_go_on, write = threading.Event(), threading.Event(), Store.write

    def slow(self: Store, *arguments: Any, **what: Any) -> None:
        under_way.set()
        assert may_go_on.wait(10)
        write(self, *arguments, **what)

    monkeypatch.setattr(Store, "write", slow)

    async def scenario() -> list[int]:
        rows = Rows()
        async with open_spool(tmp_path, metrics=rows) as spool:
            puts = [spool.put(record(0))]
            await until(under_way.is_set)
            puts += [spool.put(record(number)) for number in range(2500)]
            may_go_on.set()
            await asyncio.gather(*puts)
        return rows.of_each

    assert asyncio.run(scenario()) == [1, 1000, 1000, 500]


def test_a_commit_waits_a_moment_for_whoever_comes_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskbridge.edge.spool.commits._LINGER_S", 0.2)

    async def scenario() -> list[int]:
        rows = Rows()
        async with open_spool(tmp_path, metrics=rows) as spool:
            waiting = spool._committer._queue  # pyright: ignore[reportPrivateUsage]
            first = spool.put(record(1))
            await until(waiting.empty)
            await asyncio.gather(first, spool.put(record(2)))
        return rows.of_each

    assert asyncio.run(scenario()) == [2]


def test_while_nothing_is_handed_over_nothing_is_done_and_no_thread_keeps_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskbridge.edge.spool.commits._LINGER_S", 0)

    async def scenario() -> None:
        async with open_spool(tmp_path) as spool:
            assert spool._committer._thread.daemon  # pyright: ignore[reportPrivateUsage]
            done: list[bool] = []

            def checkpoint(_: Store, *, emptied: bool) -> None:
                done.append(emptied)

            monkeypatch.setattr(Store, "checkpoint", checkpoint)
            await spool.put(record(1))
            for _ in range(20):
                await spool.read(0, count=1, max_bytes=MIB)
            assert done == [False]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "said"),
    [(SpoolBroken("the disk is gone"), "the disk is gone"), (MemoryError(), "its writer failed: MemoryError()")],
)
def test_it_is_told_what_stopped_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, said: str
) -> None:
    def write(*_: object, **__: object) -> None:
        raise error

    async def scenario() -> None:
        async with open_spool(tmp_path) as spool:
            monkeypatch.setattr(Store, "write", write)
            with pytest.raises(SpoolBroken) as caught:
                await spool.put(record(1))
            assert str(caught.value) == said

    asyncio.run(scenario())


def test_what_is_delivered_goes_in_one_transaction_also_where_nothing_new_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        disk, writes = Disk(), list[int]()
        async with open_spool(tmp_path, disk=disk) as spool:
            await asyncio.gather(*(spool.put(record(number)) for number in range(3)))
            found = await spool.read(0, count=9, max_bytes=MIB)
            write = Store.write

            def counted(self: Store, rows: Sequence[Row], **what: Any) -> None:
                writes.append(len(what["delete"]))
                write(self, rows, **what)

            monkeypatch.setattr(Store, "write", counted)
            await spool.remove(found[:1])
            assert writes == [1]
            disk.free = 0
            with pytest.raises(SpoolFull):
                await spool.put(record(4))
            await spool.remove(found[1:])
            assert writes == [1, 2]
            assert not spool._unremoved  # pyright: ignore[reportPrivateUsage]
            assert spool.size == 0
            await spool.remove(())
            assert spool._store.log_bytes == 0, "it is empty, whatever was refused"  # pyright: ignore[reportPrivateUsage]

    asyncio.run(scenario())


def test_a_file_whose_removals_had_to_wait_is_empty_when_they_are_done_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskbridge.edge.spool.commits._RETRY_S", 0.01)

    def no_room(*_: object, **__: object) -> None:
        raise SpoolFull("no room")

    async def scenario() -> None:
        async with open_spool(tmp_path) as spool:
            await asyncio.gather(*(spool.put(record(number)) for number in range(3)))
            found = await spool.read(0, count=9, max_bytes=MIB)
            with monkeypatch.context() as context:
                context.setattr(Store, "write", no_room)
                await spool.remove(found[:2])
            await until(lambda: not spool._unremoved)  # pyright: ignore[reportPrivateUsage]
            assert spool.size == record().size
            await spool.remove(found[2:])
            assert spool.size == 0

    asyncio.run(scenario())
