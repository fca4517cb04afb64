"""Callbacks share commits, are answered only after theirs, and a disk without room is no broken disk."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from support.edge.spool import Disk, number_of, numbers, open_spool, record, until
from taskbridge.edge.spool.metrics import SpoolMetrics
from taskbridge.edge.spool.store import BROKEN_MARK, REFUSED, SpoolBroken, SpoolFull, Store, classified

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskbridge.edge.kafka.record import Row


MIB = 1 << 20


def damaged(folder: Path) -> list[Path]:
    return list(folder.glob("*damaged*"))


class Commits(SpoolMetrics):
    """Counts what each commit was about."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def committed(self, *, seconds: float, rows: int) -> None:
        assert seconds > 0
        self.rows.append(rows)

    def row_damaged(self) -> None:
        raise AssertionError


@pytest.mark.parametrize(("total", "floor"), [(100 * MIB, 5 * MIB), (1 << 40, 64 * MIB)])
async def test_so_much_of_the_disk_is_left_free_and_not_a_byte_more(tmp_path: Path, total: int, floor: int) -> None:
    """In addition, some bytes are written twice: into the log, and from the log into the file."""
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


def test_what_waits_while_a_commit_is_under_way_shares_the_next_one_up_to_what_that_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, may_go_on, write = threading.Event(), threading.Event(), Store.write

    def slow(self: Store, *arguments: Any, **what: Any) -> None:
        under_way.set()
        assert may_go_on.wait(60)
        write(self, *arguments, **what)

    monkeypatch.setattr(Store, "write", slow)

    async def scenario() -> list[int]:
        rows = Commits()
        async with open_spool(tmp_path, metrics=rows) as spool:
            puts = [spool.put(record(0))]
            await until(under_way.is_set)
            puts += [spool.put(record(number)) for number in range(2500)]
            may_go_on.set()
            await asyncio.gather(*puts)
        return rows.rows

    assert asyncio.run(scenario()) == [1, 1000, 1000, 500]


async def test_what_is_delivered_goes_in_one_transaction_also_where_nothing_new_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        assert spool._store.log_bytes == 0, "it is empty, though records were refused"  # pyright: ignore[reportPrivateUsage]


def failing(code: int) -> Callable[..., None]:
    def write(*_: object, **__: object) -> None:
        error = sqlite3.OperationalError("injected")
        error.sqlite_errorcode = code
        with classified():
            raise error

    return write


async def test_what_is_put_is_read_back_in_order_by_the_next_owner(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as spool:
        await asyncio.gather(*(spool.put(record(number, size=number * 700)) for number in range(20)))
        assert spool.waiting == 20
    async with open_spool(tmp_path) as spool:
        assert spool.waiting == 20
        found = await spool.read(-1, count=100, max_bytes=1 << 30)
        assert numbers(found) == list(range(20))
        assert [each.body for each in found] == [record(number, size=number * 700).body for number in range(20)]
        await spool.remove(found[:5])
        await spool.put(record(20))
        left = await spool.read(-1, count=100, max_bytes=1 << 30)
        assert numbers(left) == list(range(5, 21))


async def test_below_the_floor_of_free_space_it_refuses_and_recovers_by_itself(tmp_path: Path) -> None:
    disk = Disk()
    async with open_spool(tmp_path, disk=disk) as spool:
        await spool.put(record(1))
        disk.free = 1 << 20
        with pytest.raises(SpoolFull):
            await spool.put(record(2))
        assert (spool.refused is not None, spool.waiting) == (True, 1)
        with pytest.raises(SpoolFull):  # at once: it knows
            spool.put(record(3))
        disk.free = 1 << 40
        await until(lambda: spool.refused is None)
        await spool.put(record(4))
        assert numbers(await spool.read(-1, count=9, max_bytes=1 << 30)) == [1, 4]


async def test_a_full_disk_rolls_the_transaction_back_and_removals_wait_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_spool(tmp_path) as spool:
        await asyncio.gather(*(spool.put(record(number)) for number in range(4)))
        found = await spool.read(-1, count=2, max_bytes=1 << 30)
        with monkeypatch.context() as context:
            context.setattr(Store, "write", failing(sqlite3.SQLITE_FULL))
            refused = spool.put(record(9))
            await spool.remove(found)
            with pytest.raises(SpoolFull):
                await refused
            assert spool.broken is None
            assert spool.waiting == 2
            left = await spool.read(-1, count=9, max_bytes=1 << 30)
            assert numbers(left) == [2, 3], "what is delivered is not read again"
        await until(lambda: spool.refused is None)
        await spool.put(record(5))
        await until(lambda: spool.size == record().size * 3)
        assert not spool._unremoved  # pyright: ignore[reportPrivateUsage]
    async with open_spool(tmp_path) as spool:
        assert numbers(await spool.read(-1, count=9, max_bytes=1 << 30)) == [2, 3, 5]


@pytest.mark.parametrize(
    "code", [sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR]
)
async def test_an_io_error_is_final_and_the_next_start_makes_a_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    broken_marks: list[Path] = []
    calls: list[int] = []
    async with open_spool(tmp_path) as spool:
        await spool.put(record(1))

        def broken(*arguments: Any, **keywords: Any) -> None:
            calls.append(1)
            failing(code)(*arguments, **keywords)

        with monkeypatch.context() as context:
            context.setattr(Store, "write", broken)
            with pytest.raises(SpoolBroken):
                await spool.put(record(2))
        assert spool.broken is not None
        with pytest.raises(SpoolBroken):
            spool.put(record(3))
        with pytest.raises(SpoolBroken):
            await spool.remove(())
        assert calls == [1], "never try again, and believe"
        assert spool.moving == 0
    broken_marks.extend(await asyncio.to_thread(lambda: list(tmp_path.glob(f"*{BROKEN_MARK}"))))
    async with open_spool(tmp_path) as spool:
        assert numbers(await spool.read(-1, count=9, max_bytes=1 << 30)) == [1]
        await spool.put(record(4))
    assert broken_marks
    assert not damaged(tmp_path), "SQLite read all of it"
    assert not (tmp_path / f"0.db{BROKEN_MARK}").exists()


async def test_an_error_of_the_checkpoint_breaks_it_too_after_the_commit_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_spool(tmp_path) as spool:
        monkeypatch.setattr("taskbridge.edge.spool.store._CHECKPOINT_BYTES", 1)
        monkeypatch.setattr(Store, "checkpoint", failing(sqlite3.SQLITE_IOERR_FSYNC))
        await spool.put(record(1))
        await until(lambda: spool.broken is not None)


async def test_a_row_with_a_wrong_checksum_is_set_aside_and_the_others_go_on(tmp_path: Path) -> None:
    class Damages(Commits):
        def row_damaged(self) -> None:
            self.rows.append(-1)

    async with open_spool(tmp_path) as spool:
        await asyncio.gather(*(spool.put(record(number)) for number in range(3)))
    with sqlite3.connect(tmp_path / "0.db") as connection:
        connection.execute("UPDATE records SET body = 'nonsense' WHERE position = 2")
    connection.close()
    seen = Damages()
    async with open_spool(tmp_path, metrics=seen) as spool:
        assert numbers(await spool.read(-1, count=9, max_bytes=1 << 30)) == [0, 2]
        assert (spool.waiting, spool.set_aside, seen.rows) == (2, 1, [-1])
    async with open_spool(tmp_path) as spool:
        assert (spool.waiting, spool.set_aside) == (2, 1)


async def test_an_emptied_spool_gives_its_room_back(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as spool:
        await asyncio.gather(*(spool.put(record(number, size=4000)) for number in range(2000)))
        assert (tmp_path / "0.db").stat().st_size + (tmp_path / "0.db-wal").stat().st_size > 8_000_000
        while found := await spool.read(-1, count=500, max_bytes=1 << 30):
            assert number_of(found[0]) % 500 == 0
            await spool.remove(found)
        await until(lambda: (tmp_path / "0.db-wal").stat().st_size == 0)
        assert (tmp_path / "0.db").stat().st_size < 100_000
        assert (spool.waiting, spool.size) == (0, 0)


async def test_the_folder_and_its_parents_are_synced_when_a_file_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    original = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)

    data = tmp_path / "data"
    data.mkdir()
    async with open_spool(data / "edge" / "spool"):
        pass
    # Another process may have made its parents: 'up' makes the data folder before the edge is started.
    assert {str(each) for each in (tmp_path, data, data / "edge", data / "edge" / "spool")} <= set(synced)


async def test_a_disk_whose_size_cannot_be_read_is_broken(tmp_path: Path) -> None:
    class NoDisk(Disk):
        def __call__(self) -> tuple[int, int]:
            raise SpoolBroken(os.strerror(errno.EIO))

    async with open_spool(tmp_path, disk=NoDisk()) as spool:
        with pytest.raises(SpoolBroken):
            await spool.put(record())


async def test_a_read_is_bounded_in_bytes_and_a_record_that_is_larger_comes_alone(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as spool:
        await asyncio.gather(*(spool.put(record(number)) for number in range(3)))
        size = record().size
        for max_bytes, read in ((1, [0]), (2 * size - 1, [0]), (2 * size, [0, 1]), (3 * size, [0, 1, 2])):
            assert numbers(await spool.read(0, count=9, max_bytes=max_bytes)) == read
        assert numbers(await spool.read(1, count=1, max_bytes=1 << 30)) == [1]
        await asyncio.gather(spool.put(record(3, size=1000)), spool.put(record(4)))
        assert numbers(await spool.read(2, count=9, max_bytes=2 * size)) == [2], "nothing overtakes"


async def test_up_to_its_very_bound_records_are_accepted_and_a_smaller_one_clears_the_refusal(tmp_path: Path) -> None:
    small, large = record(size=100), record(size=1000)
    async with open_spool(tmp_path, max_bytes=2 * small.size) as spool:
        assert not spool.is_over_bound
        await spool.put(small)
        with pytest.raises(SpoolFull):
            spool.put(large)
        assert spool.is_over_bound
        await spool.put(small)
        assert not spool.is_over_bound
        with pytest.raises(SpoolFull):
            spool.put(small)
        await spool.remove(await spool.read(0, count=1, max_bytes=1 << 30))
        assert not spool.is_over_bound, "it would fit now"


async def test_who_drains_waits_while_all_that_is_there_is_held(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as spool:

        async def moves() -> bool:
            waiting = asyncio.create_task(spool.until_moving())
            for _ in range(3):
                await asyncio.sleep(0)
            waiting.cancel()
            return waiting.done()

        assert not await moves()
        await spool.put(record(1))
        await spool.put(record(2))
        assert await moves()
        spool.hold(2)
        assert not await moves()
        waiting = asyncio.create_task(spool.until_moving())
        await asyncio.sleep(0)
        spool.hold(1)
        async with asyncio.timeout(60):
            await waiting
        spool.hold(2)
        waiting = asyncio.create_task(spool.until_moving())
        await asyncio.sleep(0)
        done = spool.put(record(3))
        async with asyncio.timeout(60):
            await waiting
        await done


async def test_a_closed_spool_accepts_nothing_and_a_removal_is_left_to_the_next_owner(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as spool:
        await spool.put(record(1))
        found = await spool.read(0, count=9, max_bytes=1 << 30)
    with pytest.raises(SpoolBroken, match="closed"):
        spool.put(record(2))
    async with asyncio.timeout(60):
        await spool.remove(found)
    async with open_spool(tmp_path) as spool:
        assert numbers(await spool.read(0, count=9, max_bytes=1 << 30)) == [1]


async def test_a_file_is_removed_at_its_end_only_on_request_and_when_empty(tmp_path: Path) -> None:
    path, log = tmp_path / "0.db", tmp_path / "0.db-wal"
    async with open_spool(tmp_path):
        pass
    assert (path.exists(), log.exists()) == (True, False)
    async with open_spool(tmp_path, remove=True) as spool:
        await spool.put(record(1))
    assert path.exists()
    async with open_spool(tmp_path, remove=True) as spool:
        await spool.remove(await spool.read(0, count=9, max_bytes=1 << 30))
    assert not path.exists()


async def test_all_that_wait_when_it_breaks_get_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_spool(tmp_path) as spool:
        await spool.put(record(1))
        found = await spool.read(0, count=9, max_bytes=1 << 30)
        monkeypatch.setattr(Store, "write", failing(sqlite3.SQLITE_IOERR))
        put, removed, given_up = spool.put(record(2)), spool.remove(found), spool.put(record(3))
        given_up.cancel()
        for each in (put, removed):
            with pytest.raises(SpoolBroken, match="injected"):
                await each
        waiting = asyncio.create_task(spool.until_moving())
        await asyncio.sleep(0)
        assert (spool.moving, spool.size > 0) == (0, True), "nothing leaves a broken file, so nothing waits for it"
        async with asyncio.timeout(60):
            await waiting


@pytest.mark.parametrize("reading", ["read", "schema_texts"])
async def test_an_error_of_reading_breaks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reading: str) -> None:
    async with open_spool(tmp_path) as spool:
        await spool.put(replace(record(1), schema="not seen before"))
        monkeypatch.setattr(Store, reading, failing(sqlite3.SQLITE_IOERR))
        with pytest.raises(SpoolBroken, match="injected"):
            await spool.read(0, count=9, max_bytes=1 << 30)
        assert "injected" in str(spool.broken)
        with pytest.raises(SpoolBroken, match="injected"):
            spool.put(record(2))
        with pytest.raises(SpoolBroken, match="injected"):
            await spool.remove(())


async def test_it_says_how_much_it_holds_and_since_when(tmp_path: Path) -> None:
    size = record().size
    async with open_spool(tmp_path) as spool:
        assert (spool.waiting, spool.moving, spool.size, spool.oldest) == (0, 0, 0, 0)
        puts = [spool.put(record(number)) for number in range(3)]
        assert (spool.waiting, spool.moving, spool.size) == (3, 3, 3 * size), "from the moment it is accepted"
        assert 0 < time.time_ns() - spool.oldest < 60e9
        await asyncio.gather(*puts)
        found = await spool.read(-1, count=9, max_bytes=1 << 30)
        assert spool.oldest == found[0].created_at
        spool.hold(2)
        spool.oldest_is(found[1].created_at)
        assert (spool.waiting, spool.moving, spool.oldest) == (3, 1, found[1].created_at)
        removed = spool.remove(found[:1], [(found[1].position, REFUSED)])
        assert (spool.waiting, spool.moving) == (1, 0), "from this moment on"
        await removed
        assert (spool.waiting, spool.set_aside, spool.size) == (1, 1, 2 * size)
    async with open_spool(tmp_path) as spool:
        assert (spool.waiting, spool.set_aside, spool.oldest) == (1, 1, found[2].created_at), "as it was left"
        async with asyncio.timeout(60):
            await spool.until_moving()
        await spool.remove(found[2:])
        assert (spool.waiting, spool.oldest) == (0, 0)
        assert 0 < spool.size < 2 * size, "what is set aside may be requeued"
        assert await spool.requeue() == 1
        assert (spool.waiting, spool.set_aside) == (1, 0)
        assert numbers(await spool.read(-1, count=9, max_bytes=1 << 30)) == [1]


async def test_what_an_earlier_process_left_counts_no_longer_than_it_is_there(tmp_path: Path) -> None:
    """Its size is an estimate, which is larger than what goes with each delivery."""
    headers = [("ce_id", b"0" * 36), ("ce_type", b"taskbridge.task.created.v1")]
    async with open_spool(tmp_path) as spool:
        await asyncio.gather(*(spool.put(replace(record(each), headers=headers)) for each in range(50)))
        first, *_ = await spool.read(-1, count=1, max_bytes=1 << 30)
        await spool.remove((), [(first.position, REFUSED)])
    async with open_spool(tmp_path) as spool:
        await spool.remove(await spool.read(-1, count=50, max_bytes=1 << 30))
        await until(lambda: first.size <= spool.size < 2 * first.size)
        await spool.put(record(50))
        assert first.size + record(50).size <= spool.size < 2 * first.size + record(50).size
