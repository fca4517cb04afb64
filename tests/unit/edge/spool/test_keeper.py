"""Spools are tended whatever happens to one: orphans are delivered, and a broken file is followed by a new one."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError

from edge.spool.asked_back import ask_back, is_asked_back
from edge.spool.errors import SpoolBroken, SpoolFull, classified
from edge.spool.keeper import SpoolKeeper
from edge.spool.metrics import SpoolMetrics
from edge.spool.store import Store
from service.kafka import DeliveryFailed
from spool_bench import SCHEMA, TestProducer, open_path, open_spool, record, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("keeper._TEND_S", "unopened._FIRST_PAUSE_S", "unopened._LAST_PAUSE_S"):
        monkeypatch.setattr(f"edge.spool.{name}", 0.02)


@asynccontextmanager
async def kept(folder: Path, producer: TestProducer) -> AsyncGenerator[SpoolKeeper]:
    keeper = SpoolKeeper(folder, [SCHEMA], await open_path(producer), max_bytes=1 << 30, metrics=SpoolMetrics())
    await keeper.start()
    tending = asyncio.create_task(keeper.tend())
    try:
        yield keeper
    finally:
        tending.cancel()
        await asyncio.gather(tending, return_exceptions=True)
        await keeper.close()


async def leave(folder: Path, files: int) -> None:
    """So many files with a record each: 0.db holds record 0, and so on."""
    if files == 0:
        return
    async with open_spool(folder) as spool:
        await spool.put(record(spool.claim.number))
        await leave(folder, files - 1)


def fail_once(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    original, failed = Store.write, list[int]()

    def write(self: Store, *arguments: Any, **keywords: Any) -> None:
        if failed:
            return original(self, *arguments, **keywords)
        failed.append(1)
        with classified():
            raise error

    monkeypatch.setattr(Store, "write", write)


def io_error() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    return error


def test_an_orphan_that_cannot_be_opened_holds_up_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        await leave(tmp_path, 4)
        unreadable, aside = tmp_path / "2.db", tmp_path / "kept"
        unreadable.rename(aside)
        unreadable.mkdir()
        producer = TestProducer()
        async with kept(tmp_path, producer) as keeper:
            await until(lambda: sorted(producer.delivered) == [0, 1, 3])
            assert list(keeper.unopened) == [2]
            assert not keeper.anything_moves(), "nobody waits for what nobody can read"
            unreadable.rmdir()
            aside.rename(unreadable)
            await until(lambda: sorted(producer.delivered) == [0, 1, 2, 3])
            await until(lambda: not keeper.unopened)

    asyncio.run(scenario())


def test_its_own_file_that_cannot_be_opened_is_passed_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "0.db").mkdir()
        producer = TestProducer()
        async with kept(tmp_path, producer) as keeper:
            await until(lambda: keeper.problem is None)
            await keeper.own.put(record(7))
            await until(lambda: producer.delivered == [7])

    asyncio.run(scenario())


def test_after_an_io_error_a_new_file_is_begun_and_nothing_acknowledged_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        producer = TestProducer()
        producer.reachable = False
        async with kept(tmp_path, producer) as keeper:
            await keeper.own.put(record(1))
            fail_once(monkeypatch, io_error())
            with pytest.raises(SpoolBroken):
                await keeper.own.put(record(2))
            await until(lambda: keeper.broken is None)
            assert keeper.full is False
            await keeper.own.put(record(3))
            producer.reachable = True
            await keeper._kafka.check()  # pyright: ignore[reportPrivateUsage]
            await until(lambda: {1, 3} <= set(producer.delivered))
            await until(lambda: not keeper.unopened)

    asyncio.run(scenario())
    assert list(tmp_path.glob("*.db.damaged-*")), "it is moved aside, not deleted"


def test_a_broken_orphan_does_not_keep_new_records_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        await leave(tmp_path, 2)
        producer = TestProducer()
        original, failed = Store.read, list[int]()

        def read(self: Store, *arguments: Any, **keywords: Any) -> list[Any]:
            if self.path.name == "1.db" and not failed:
                failed.append(1)
                with classified():
                    raise io_error()
            return original(self, *arguments, **keywords)

        monkeypatch.setattr(Store, "read", read)
        async with kept(tmp_path, producer) as keeper:
            await until(lambda: bool(failed))
            await keeper.own.put(record(7))
            await until(lambda: {0, 1, 7} <= set(producer.delivered))

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("unforeseen")])
def test_whatever_stops_the_writer_nobody_waits_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    async def scenario() -> None:
        producer = TestProducer()
        async with kept(tmp_path, producer) as keeper:
            fail_once(monkeypatch, error)
            with pytest.raises(SpoolBroken):
                await asyncio.wait_for(keeper.own.put(record(1)), 10)
            await until(lambda: keeper.broken is None)
            await keeper.own.put(record(2))
            await until(lambda: 2 in producer.delivered)

    asyncio.run(scenario())


def test_a_file_that_another_process_has_locked_is_written_once_it_lets_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.spool.connections.BUSY_S", 0.01)
    monkeypatch.setattr("edge.spool.store.BUSY_S", 0.01)
    monkeypatch.setattr("edge.spool.commits._RETRY_S", 0.01)

    async def scenario() -> None:
        producer = TestProducer()
        producer.reachable = False
        async with kept(tmp_path, producer) as keeper:
            await keeper.own.put(record(1))
            other = sqlite3.connect(tmp_path / "0.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(SpoolFull, match="another process has locked"):
                await keeper.own.put(record(2))
            assert (keeper.broken, keeper.full) == (None, True)
            assert "locked" in str(keeper.problem)
            with pytest.raises(SpoolFull):  # at once: it knows
                keeper.own.put(record(3))
            other.execute("ROLLBACK")
            other.close()
            await until(lambda: not keeper.full)
            await keeper.own.put(record(4))
            producer.reachable = True
            await keeper._kafka.check()  # pyright: ignore[reportPrivateUsage]
            await until(lambda: producer.delivered == [1, 4])

    asyncio.run(scenario())


def test_a_lock_at_its_start_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.spool.connections.BUSY_S", 0.01)

    async def scenario() -> None:
        await leave(tmp_path, 1)
        producer = TestProducer()
        other = sqlite3.connect(tmp_path / "0.db", isolation_level=None)
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN IMMEDIATE")
        async with kept(tmp_path, producer) as keeper:
            await until(lambda: list(keeper.unopened) == [0])
            other.execute("ROLLBACK")
            other.close()
            await until(lambda: producer.delivered == [0])

    asyncio.run(scenario())
    assert not list(tmp_path.glob("*damaged*"))


def test_what_was_refused_is_taken_back_while_new_records_always_have_somewhere_to_go(tmp_path: Path) -> None:
    async def scenario() -> None:
        producer = TestProducer()
        producer.failing = {1: DeliveryFailed("too large", KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))}
        async with kept(tmp_path, producer) as keeper:
            await keeper.own.put(record(1))
            await until(lambda: keeper.set_aside == 1)
            producer.failing = {}
            done = asyncio.Event()

            async def puts() -> int:
                count = 1
                while not done.is_set():
                    count += 1
                    await keeper.own.put(record(count))
                return count

            putting = asyncio.create_task(puts())
            ask_back(tmp_path / "0.db")
            await until(lambda: 1 in producer.delivered)
            assert not is_asked_back(tmp_path / "0.db")
            done.set()
            count = await putting
            await until(lambda: set(range(1, count + 1)) <= set(producer.delivered))
            assert keeper.set_aside == 0

    asyncio.run(scenario())


def test_what_is_taken_back_and_refused_again_is_set_aside_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        producer = TestProducer()
        producer.failing = {1: DeliveryFailed("too large", KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))}
        async with kept(tmp_path, producer) as keeper:
            await keeper.own.put(record(1))
            await until(lambda: keeper.set_aside == 1)
            asked = len(producer.sent)
            ask_back(tmp_path / "0.db")
            await until(lambda: len(producer.sent) > asked and keeper.set_aside == 1)
            assert keeper.waiting == 0

    asyncio.run(scenario())
