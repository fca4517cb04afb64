"""Spools are maintained though one fails: orphans are delivered, and a new file follows a broken one."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError
from prometheus_client import CollectorRegistry

from support.edge.spool import SCHEMA, TestProducer, open_client, open_spool, record, until
from taskbridge.cli.spool_files import replay
from taskbridge.edge.spool.folder import SpoolFolder
from taskbridge.edge.spool.metrics import SpoolMetrics
from taskbridge.edge.spool.recovery import open_or_recover
from taskbridge.edge.spool.spools import Spools, is_requeue_requested, request_requeue
from taskbridge.edge.spool.store import REFUSED, SpoolBroken, SpoolFull, Store, classified
from taskbridge.runtime.producer import DeliveryFailed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from taskbridge.edge.spool.recovery import Opened
    from taskbridge.schemas.registry import SchemaRef

BY_POLICY = DeliveryFailed("by policy", KafkaError(KafkaError.INVALID_RECORD))


def damaged(folder: Path) -> list[Path]:
    return list(folder.glob("*damaged*"))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("spools._MAINTAIN_S", "spools._UNOPENED_S"):
        monkeypatch.setattr(f"taskbridge.edge.spool.{name}", 0.02)


async def spools_in(
    folder: Path, producer: TestProducer, *, max_bytes: int = 1 << 30, metrics: SpoolMetrics | None = None
) -> Spools:
    kafka = await open_client(producer)
    return Spools(folder, [SCHEMA], kafka, max_bytes=max_bytes, metrics=metrics or SpoolMetrics())


@asynccontextmanager
async def running_spools(folder: Path, producer: TestProducer) -> AsyncGenerator[Spools]:
    spools = await spools_in(folder, producer)
    await spools.start()
    maintaining = asyncio.create_task(spools.maintain())
    try:
        yield spools
    finally:
        maintaining.cancel()
        await asyncio.gather(maintaining, return_exceptions=True)
        await spools.close()


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


async def test_an_orphan_that_cannot_be_opened_holds_up_no_other(tmp_path: Path) -> None:
    await leave(tmp_path, 4)
    unreadable, aside = tmp_path / "2.db", tmp_path / "moved"
    unreadable.rename(aside)
    unreadable.mkdir()
    producer = TestProducer()
    async with running_spools(tmp_path, producer) as spools:
        await until(lambda: sorted(producer.delivered) == [0, 1, 3])
        assert list(spools.unopened) == [2]
        # No worker waits for an unreadable file.
        await until(lambda: (spools.waiting, spools.size, spools.moving) == (0, 0, 0))
        unreadable.rmdir()
        aside.rename(unreadable)
        await until(lambda: sorted(producer.delivered) == [0, 1, 2, 3])
        await until(lambda: not spools.unopened)


async def test_after_an_io_error_a_new_file_is_begun_and_nothing_acknowledged_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = TestProducer()
    producer.reachable = False
    async with running_spools(tmp_path, producer) as spools:
        await spools.own.put(record(1))
        fail_once(monkeypatch, io_error())
        with pytest.raises(SpoolBroken):
            await spools.own.put(record(2))
        await until(lambda: spools.broken is None)
        assert spools.full is False
        assert spools.own.claim.number == 1, "the broken one is left to adoption"
        await spools.own.put(record(3))
        producer.reachable = True
        await spools._kafka.check()  # pyright: ignore[reportPrivateUsage]
        await until(lambda: {1, 3} <= set(producer.delivered))
        await until(lambda: not spools.unopened)
    assert not damaged(tmp_path), "SQLite read all of it"


async def test_a_broken_orphan_does_not_keep_new_records_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    async with running_spools(tmp_path, producer) as spools:
        await until(lambda: bool(failed))
        await spools.own.put(record(7))
        await until(lambda: {0, 1, 7} <= set(producer.delivered))


async def test_a_file_that_another_process_has_locked_is_written_once_it_lets_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskbridge.edge.spool.store.BUSY_S", 0.01)
    monkeypatch.setattr("taskbridge.edge.spool.writer._RETRY_S", 0.01)
    producer = TestProducer()
    producer.reachable = False
    async with running_spools(tmp_path, producer) as spools:
        await spools.own.put(record(1))
        other = sqlite3.connect(tmp_path / "0.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SpoolFull, match="another process has locked"):
            await spools.own.put(record(2))
        assert (spools.broken, spools.full) == (None, True)
        assert "locked" in str(spools.problem)
        with pytest.raises(SpoolFull):  # at once: it knows
            spools.own.put(record(3))
        other.execute("ROLLBACK")
        other.close()
        await until(lambda: not spools.full)
        await spools.own.put(record(4))
        producer.reachable = True
        await spools._kafka.check()  # pyright: ignore[reportPrivateUsage]
        await until(lambda: producer.delivered == [1, 4])


async def test_a_lock_at_its_start_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskbridge.edge.spool.store.BUSY_S", 0.01)
    await leave(tmp_path, 1)
    producer = TestProducer()
    other = sqlite3.connect(tmp_path / "0.db", isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN IMMEDIATE")
    async with running_spools(tmp_path, producer) as spools:
        await until(lambda: list(spools.unopened) == [0])
        other.execute("ROLLBACK")
        other.close()
        await until(lambda: producer.delivered == [0])
    assert not damaged(tmp_path)


async def test_what_was_refused_is_requeued_on_request_while_new_records_are_stored(tmp_path: Path) -> None:
    producer = TestProducer()
    producer.failing = {1: DeliveryFailed("too large", KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))}
    async with running_spools(tmp_path, producer) as spools:
        await spools.own.put(record(1))
        await until(lambda: spools.set_aside == 1)
        done = asyncio.Event()

        async def puts() -> int:
            count = 1
            while not done.is_set():
                count += 1
                await spools.own.put(record(count))
            return count

        putting = asyncio.create_task(puts())
        before = producer.sent.count(1)
        request_requeue(tmp_path / "0.db")
        await until(lambda: producer.sent.count(1) > before and spools.set_aside == 1)  # it is refused again
        producer.failing = {}
        # The refusal may not be stored yet: then there is nothing to requeue, as for an operator who is early.
        await until(lambda: 1 in producer.delivered or request_requeue(tmp_path / "0.db"))
        await until(lambda: not is_requeue_requested(tmp_path / "0.db"))
        done.set()
        count = await putting
        await until(lambda: set(range(1, count + 1)) <= set(producer.delivered))
        assert spools.set_aside == 0


async def test_a_replay_says_how_many_records_kafka_refuses_again(tmp_path: Path) -> None:
    producer = TestProducer()
    producer.failing = {1: BY_POLICY}
    async with running_spools(tmp_path, producer) as spools:
        await spools.own.put(record(1))
        await until(lambda: spools.set_aside == 1)

        async def replayed() -> int:
            folder = SpoolFolder(tmp_path)
            return await asyncio.to_thread(replay, folder, progress=lambda _: None, stopped=lambda: False)

        assert await replayed() == 1
        producer.failing = {}
        assert await replayed() == 0
        assert producer.delivered == [1]


async def test_records_that_are_requeued_count_for_the_bound_after_a_restart_too(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as spool:
        await spool.put(record(1))
        (found,) = await spool.read(0, count=1, max_bytes=1 << 20)
        await spool.remove((), [(found.position, REFUSED)])
    producer = TestProducer()
    producer.reachable = False
    async with running_spools(tmp_path, producer) as spools:
        request_requeue(tmp_path / "0.db")
        await until(lambda: spools.waiting == 1)
        assert spools.size >= record(1).size
        producer.reachable = True
        await spools._kafka.check()  # pyright: ignore[reportPrivateUsage]
        await until(lambda: (spools.waiting, spools.size) == (0, 0))


async def test_metrics_cover_the_whole_folder(tmp_path: Path) -> None:
    registry, producer = CollectorRegistry(), TestProducer()
    metrics = SpoolMetrics(registry)
    spools = await spools_in(tmp_path, producer, metrics=metrics)

    def gauges() -> dict[str, float | None]:
        names = ("depth", "bytes", "set_aside_records", "full", "broken", "unopened_files")
        return {name: registry.get_sample_value(f"taskbridge_edge_spool_{name}") for name in names}

    nothing = dict.fromkeys(gauges(), 0)
    assert gauges() == nothing | {"full": 1}
    (tmp_path / "0.db").mkdir()
    await spools.start()
    assert gauges() == nothing | {"full": 1, "unopened_files": 1}
    await spools.start()
    producer.failing = {1: BY_POLICY}
    await spools.own.put(record(1))
    aside = nothing | {"bytes": record().size, "set_aside_records": 1, "unopened_files": 1}
    await until(lambda: gauges() == aside)
    producer.held = True
    await spools.own.put(record(2))
    assert gauges() == aside | {"depth": 1, "bytes": 2 * record().size}
    await until(lambda: (registry.get_sample_value("taskbridge_edge_spool_oldest_seconds") or 0) > 0)
    producer.held = False
    producer.release()
    await spools.close()


async def test_before_the_start_and_after_the_end_nothing_can_be_stored(tmp_path: Path) -> None:
    spools = await spools_in(tmp_path / "spool", TestProducer())

    def known() -> tuple[object, ...]:
        return spools.problem, spools.broken, spools.full, spools.set_aside

    counts = (spools.waiting, spools.size, spools.oldest_age_s, spools.moving)
    assert counts == (0, 0, 0, 0)
    assert (known(), spools.unopened) == (("is not open yet", None, True, 0), {})
    with pytest.raises(SpoolFull, match="the spool: is not open yet"):
        _ = spools.own
    await spools.start()
    assert (known(), spools.unopened) == ((None, None, False, 0), {})
    assert spools.own.claim.number == 0
    await spools.close()
    assert known() == ("is closed", None, True, 0)
    with pytest.raises(SpoolFull, match="is closed"):
        _ = spools.own


async def test_what_waits_is_counted_over_all_files_with_the_oldest_first(tmp_path: Path) -> None:
    producer = TestProducer()
    producer.reachable = False
    await leave(tmp_path, 2)
    since_s = time.time()
    async with running_spools(tmp_path, producer) as spools:
        await until(lambda: spools.waiting == 2)
        await spools.own.put(record(3))
        assert (spools.waiting, spools.moving) == (3, 3)
        assert 3 * record().size <= spools.size < 4 * record().size
        assert time.time() - since_s < spools.oldest_age_s < 60
        spools.own.hold(1)
        assert (spools.waiting, spools.moving) == (3, 2)


async def test_a_bound_that_is_reached_is_no_problem_of_the_file(tmp_path: Path) -> None:
    producer = TestProducer()
    producer.reachable = False
    spools = await spools_in(tmp_path, producer, max_bytes=5 * record().size // 2)
    await leave(tmp_path, 1)
    await spools.start()
    await until(lambda: spools.waiting == 1)
    await spools.own.put(record(1))
    assert not spools.full
    with pytest.raises(SpoolFull):
        spools.own.put(record(2))
    assert (spools.full, spools.problem, spools.broken) == (True, None, None)
    await spools.close()


async def test_what_broke_is_reported_until_there_is_a_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer, metrics = TestProducer(), SpoolMetrics()
    spools = await spools_in(tmp_path, producer, metrics=metrics)
    await spools.start()
    fail_once(monkeypatch, io_error())
    with pytest.raises(SpoolBroken):
        await spools.own.put(record(1))
    assert "I/O" in str(spools.broken)
    assert list(spools.unopened) == [0]
    assert "I/O" in spools.unopened[0]
    with monkeypatch.context() as context:
        # Longer than the other rounds of it: no new file can be made for a while.
        context.setattr(SpoolFolder, "claim_own", no_file)
        maintaining = asyncio.create_task(spools.maintain())
        await until(lambda: "no file" in str(spools.problem))
        assert "I/O" in str(spools.broken)
        with pytest.raises(SpoolBroken, match="I/O"):
            _ = spools.own
    await until(lambda: spools.problem is None)
    assert spools.broken is None
    await until(lambda: not spools.unopened)
    assert metrics._failures._value.get() == 1  # pyright: ignore[reportPrivateUsage]
    maintaining.cancel()
    await asyncio.gather(maintaining, return_exceptions=True)
    await spools.close()


async def test_the_files_of_an_earlier_release_with_several_processes_are_drained_and_removed(tmp_path: Path) -> None:
    await leave(tmp_path, 4)
    (tmp_path / "page").write_bytes(bytes(10_240))  # the shared map that told each process what the others had
    producer = TestProducer()
    async with running_spools(tmp_path, producer):
        await until(lambda: sorted(producer.delivered) == [0, 1, 2, 3])
        await until(lambda: [each.name for each in tmp_path.glob("*.db")] == ["0.db"])


def no_file(*_: object) -> None:
    raise SpoolFull("no file")


async def test_where_no_new_file_can_be_made_an_adopted_one_receives_the_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await leave(tmp_path, 1)
    producer = TestProducer()
    producer.reachable = False
    with monkeypatch.context() as context:
        context.setattr(SpoolFolder, "claim_own", no_file)
        async with running_spools(tmp_path, producer) as spools:
            await until(lambda: not spools.full)
            assert (spools.own.claim.number, spools.problem) == (0, None)
            await spools.own.put(record(1))
            assert spools.waiting == 2


async def test_an_adopted_file_that_is_empty_is_removed_and_its_own_stays(tmp_path: Path) -> None:
    await leave(tmp_path, 2)
    producer = TestProducer()
    async with running_spools(tmp_path, producer) as spools:
        await until(lambda: not (tmp_path / "1.db").exists())
        await until(lambda: sorted(producer.delivered) == [0, 1])
        await leave(tmp_path, 1)  # as another edge of the folder, which dies while this one lives
        await until(lambda: sorted(producer.delivered) == [0, 1, 1])
        await until(lambda: not (tmp_path / "1.db").exists())
        assert (tmp_path / "0.db").exists()
        assert spools.own.claim.number == 0
        assert spools.folder.owner(1) is None


async def test_an_adopted_file_in_which_all_is_set_aside_is_opened_once_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def counted(path: Path, schemas: Sequence[SchemaRef]) -> Opened:
        opened.append(path.name)
        return open_or_recover(path, schemas)

    monkeypatch.setattr("taskbridge.edge.spool.spools.open_or_recover", counted)
    async with open_spool(tmp_path), open_spool(tmp_path) as other:
        await other.put(record(1))
        (found,) = await other.read(0, count=1, max_bytes=1 << 20)
        await other.remove((), [(found.position, REFUSED)])
    looks: list[int] = []
    async with running_spools(tmp_path, TestProducer()) as spools:
        kafka = spools._kafka  # pyright: ignore[reportPrivateUsage]

        def look(**_: object) -> None:
            looks.append(spools.set_aside)

        monkeypatch.setattr(kafka, "forgive", look)
        await until(lambda: len(looks) == 5)
    assert opened == ["0.db", "1.db"]
    assert looks == [1] * 5


async def test_while_nothing_can_be_tried_from_the_spool_a_callback_may_try_a_partition_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskbridge.edge.kafka.client._FORGIVE_S", -1)
    producer = TestProducer()
    async with running_spools(tmp_path, producer) as spools:
        kafka = spools._kafka  # pyright: ignore[reportPrivateUsage]
        kafka.fail(record(0), DeliveryFailed("away"))
        await until(lambda: kafka.usable)
        spared: list[set[object]] = []

        def watched(*, but: set[object]) -> None:
            spared.append(but)

        monkeypatch.setattr(kafka, "forgive", watched)
        producer.failing[1] = DeliveryFailed("away")
        await spools.own.put(record(1))
        await until(lambda: bool(spared[-1:]) and spared[-1] == {kafka.partition_of(record(1))})


async def test_the_end_finishes_what_is_under_way_and_leaves_the_rest_to_the_next_start(tmp_path: Path) -> None:
    producer = TestProducer()
    producer.held = True
    spools = await spools_in(tmp_path, producer)
    await spools.start()
    await spools.own.put(record(1))
    await until(lambda: producer.sent == [1])
    closing = asyncio.create_task(spools.close())
    await asyncio.sleep(0.01)
    assert not closing.done()
    producer.release()
    await closing
    assert producer.delivered == [1]
    async with open_spool(tmp_path) as spool:
        assert (spool.claim.number, spool.waiting) == (0, 0)


@pytest.mark.parametrize("reachable", [True, False])
async def test_the_end_of_a_spool_that_waits_for_records_or_for_kafka_comes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, reachable: bool
) -> None:
    monkeypatch.setattr("taskbridge.edge.spool.spools._STOP_S", 600)
    producer = TestProducer()
    producer.reachable = reachable
    async with asyncio.timeout(60):
        async with running_spools(tmp_path, producer) as spools:
            if not reachable:
                await spools.own.put(record(1))
            await asyncio.sleep(0.01)
    async with open_spool(tmp_path) as spool:
        assert spool.waiting == (0 if reachable else 1)


async def test_the_end_comes_within_bounds_though_a_delivery_gets_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskbridge.edge.spool.spools._STOP_S", 0.05)
    producer = TestProducer()
    producer.held = True
    async with asyncio.timeout(60):
        async with running_spools(tmp_path, producer) as spools:
            await spools.own.put(record(1))
            await until(lambda: producer.sent == [1])
    async with open_spool(tmp_path) as spool:
        assert spool.waiting == 1


async def test_that_a_file_is_removed_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[list[str]] = []

    def sync(folder: Path) -> None:
        assert folder == tmp_path
        synced.append(sorted(each.name for each in folder.glob("*.db")))

    monkeypatch.setattr("taskbridge.edge.spool.spools.sync", sync)
    await leave(tmp_path, 2)
    async with running_spools(tmp_path, TestProducer()):
        await until(lambda: synced == [["0.db"]])
