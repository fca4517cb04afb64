"""To Kafka while nothing is on its way and it acknowledges, else to the spool; what one cannot keep, the other may."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import pytest

from support.edge.spool import SCHEMA, TestProducer, open_path, open_spool, record, until
from taskbridge.edge.delivery.router import Durability, Router
from taskbridge.edge.errors import NotDurable
from taskbridge.edge.spool.errors import SpoolFull
from taskbridge.edge.spool.keeper import SpoolKeeper
from taskbridge.edge.spool.metrics import SpoolMetrics
from taskbridge.runtime.producer import DeliveryFailed, QueueFull
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from taskbridge.edge.kafka.path import KafkaPath
    from taskbridge.edge.kafka.record import Record


@asynccontextmanager
async def outbox_on(
    folder: Path, kafka: KafkaPath, *, timeout_s: float = 0.2
) -> AsyncGenerator[tuple[Router, SpoolKeeper]]:
    keeper = SpoolKeeper(folder, [SCHEMA], kafka, max_bytes=1 << 20, metrics=SpoolMetrics())
    await keeper.start()
    try:
        yield Router(kafka, keeper, timeout_s=timeout_s), keeper
    finally:
        await keeper.close()


def test_while_kafka_acknowledges_nothing_touches_the_spool(tmp_path: Path) -> None:
    async def scenario() -> None:
        producer = TestProducer()
        async with outbox_on(tmp_path, await open_path(producer)) as (router, keeper):
            kept = await asyncio.gather(*(router.keep(record(number)) for number in range(10)))
            assert set(kept) == {Durability.KAFKA}
            assert keeper.own._next_position == 1  # pyright: ignore[reportPrivateUsage]

    asyncio.run(scenario())


async def sent(router: Router, number: int, *, key: str = "one") -> Exception | None:
    """What a record comes to that nobody waits for."""
    told: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    router.send(record(number, key=key), told.set_result)
    return await told


def test_a_record_that_nobody_waits_for_is_told_of_and_kept_elsewhere_where_it_was_sent_in_vain(tmp_path: Path) -> None:
    async def scenario() -> None:
        producer = TestProducer()
        kafka = await open_path(producer)
        topic, schema = record(0).topic, record(0).schema
        async with outbox_on(tmp_path, kafka, timeout_s=30) as (router, keeper):
            assert router.is_direct(topic, schema)
            assert not router.is_direct(topic, "unknown")
            assert not router.is_direct("unknown", schema)
            producer.held = True
            failure = await sent(Router(kafka, keeper, timeout_s=0.01), 1)
            assert isinstance(failure, DeliveryFailed)
            assert "in time" in str(failure)
            assert not router.is_direct(topic, schema)
            assert await router.spool(record(1)) is Durability.SPOOL
            producer.held = False
            producer.release()
            await until(lambda: router.is_direct(topic, schema))
            assert await sent(router, 2) is None
            producer.queue_full = True
            assert isinstance(await sent(router, 3), QueueFull)
            producer.queue_full = False
            assert router.is_direct(topic, schema), "that says nothing of Kafka"
            assert producer.delivered == [1, 2]

    asyncio.run(scenario())


def test_a_failure_is_told_to_all_that_are_sent_to_the_same_partition(tmp_path: Path) -> None:
    async def scenario() -> None:
        producer = TestProducer()
        kafka = await open_path(producer)
        async with outbox_on(tmp_path, kafka, timeout_s=30) as (router, _):
            producer.held = True
            producer.failing[2] = DeliveryFailed("purged")
            first, second = (asyncio.create_task(sent(router, number)) for number in (1, 2))
            waited_for = asyncio.create_task(kafka.send_within(record(3), timeout_s=30))
            await asyncio.sleep(0)
            producer.silent = {1, 3}
            producer.release()
            assert [str(await first), str(await second)] == ["another delivery failed: purged", "purged"]
            with pytest.raises(DeliveryFailed, match="another delivery failed"):
                await waited_for

    asyncio.run(scenario())


def test_nothing_is_sent_past_what_the_spool_holds(tmp_path: Path) -> None:
    async def scenario() -> None:
        producer = TestProducer()
        kafka = await open_path(producer)
        async with outbox_on(tmp_path, kafka) as (router, keeper):
            producer.held = True
            await keeper.own.put(record(1))
            assert kafka.usable
            assert not router.is_direct(record(1).topic, record(1).schema)
            producer.held = False
            producer.release()
            await until(lambda: router.is_direct(record(1).topic, record(1).schema))

    asyncio.run(scenario())


def test_a_delivery_that_takes_too_long_goes_to_the_spool_and_nobody_waits_that_long_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        producer = TestProducer()
        producer.held = True
        async with outbox_on(tmp_path, await open_path(producer), timeout_s=1.0) as (router, keeper):
            started = time.monotonic()
            first = asyncio.create_task(router.keep(record(1)))
            await asyncio.sleep(0.9)
            second, began = asyncio.create_task(router.keep(record(2))), time.monotonic()
            assert {await first, await second} == {Durability.SPOOL}
            assert time.monotonic() - started >= 1.0
            assert time.monotonic() - began < 1.0, "the second one waited its whole time too"
            began = time.monotonic()
            assert await router.keep(record(3)) is Durability.SPOOL
            assert time.monotonic() - began < 1.0, "so did the third"
            producer.held = False
            producer.release()
            await until(lambda: keeper.waiting == 0)
            assert {1, 2, 3} <= set(producer.delivered)
            assert await router.keep(record(4)) is Durability.KAFKA

    asyncio.run(scenario())


def test_a_failed_delivery_and_a_full_queue_go_to_the_spool(tmp_path: Path) -> None:
    async def scenario() -> None:
        producer = TestProducer()
        async with outbox_on(tmp_path, await open_path(producer)) as (router, keeper):
            producer.failing[1] = DeliveryFailed("purged")
            assert await router.keep(record(1)) is Durability.SPOOL
            producer.failing.clear()
            await until(lambda: keeper.waiting == 0)
            producer.queue_full = True
            assert await router.keep(record(2)) is Durability.SPOOL
            producer.queue_full = False
            await until(lambda: keeper.waiting == 0)
            assert producer.delivered == [1, 2]

    asyncio.run(scenario())


def test_what_comes_while_the_spool_holds_anything_queues_behind_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        producer = TestProducer()
        kafka = await open_path(producer)
        async with outbox_on(tmp_path, kafka) as (router, keeper):
            kafka.fail(record(), DeliveryFailed("away"))
            producer.reachable = False
            await kafka.check()
            assert {await router.keep(record(number, key="one")) for number in range(400)} == {Durability.SPOOL}
            producer.reachable = True
            await kafka.check()
            assert await router.keep(record(400, key="one")) is Durability.SPOOL
            await until(lambda: keeper.waiting == 0)
            assert await router.keep(record(401, key="one")) is Durability.KAFKA
            assert producer.delivered == list(range(402))

    asyncio.run(scenario())


def test_under_steady_traffic_the_last_few_are_waited_for_so_that_the_spool_ever_gets_empty(tmp_path: Path) -> None:
    async def scenario() -> list[Durability]:
        producer = TestProducer()
        producer.delay_s = 0.03
        kafka = await open_path(producer)
        async with outbox_on(tmp_path, kafka, timeout_s=1) as (router, _):
            kafka.fail(record(), DeliveryFailed("once"))
            kept: list[Durability] = []

            async def sender(number: int) -> None:
                for each in range(60):
                    kept.append(await router.keep(record(each, key=f"k{number}")))
                    await asyncio.sleep(0.005)

            await asyncio.gather(*(sender(number) for number in range(5)))
            return kept[-20:]

    assert set(asyncio.run(scenario())) == {Durability.KAFKA}


def test_what_another_workers_spool_holds_is_not_overtaken(tmp_path: Path) -> None:
    async def scenario() -> None:
        producer = TestProducer()
        async with open_spool(tmp_path) as other:
            await other.put(record(1, key="one"))
            async with outbox_on(tmp_path, await open_path(producer)) as (router, _):
                assert await router.keep(record(2, key="one")) is Durability.SPOOL
                assert producer.sent == []

    asyncio.run(scenario())


def test_what_a_worker_that_is_gone_left_behind_is_adopted_and_its_file_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskbridge.edge.spool.keeper._TEND_S", 0.05)

    async def scenario() -> None:
        producer = TestProducer()
        async with open_spool(tmp_path) as _own, open_spool(tmp_path) as other:
            await other.put(record(1))
        async with outbox_on(tmp_path, await open_path(producer)) as (_, keeper):
            tending = asyncio.create_task(keeper.tend())
            await until(lambda: producer.delivered == [1])
            # One that dies while this one lives.
            async with open_spool(tmp_path) as third:
                await third.put(record(3))
                number = third.claim.number
            await until(lambda: producer.delivered == [1, 3])
            await until(lambda: not (tmp_path / f"{number}.db").exists())
            tending.cancel()
            await asyncio.gather(tending, return_exceptions=True)
            assert (tmp_path / "0.db").exists()

    asyncio.run(scenario())


def test_a_broken_spool_leaves_kafka_and_without_that_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        kafka = await open_path(TestProducer())
        async with outbox_on(tmp_path, kafka) as (router, keeper):
            await keeper.own.put(record(0))
            keeper.own._break("injected")  # pyright: ignore[reportPrivateUsage]
            assert await router.keep(record(1)) is Durability.KAFKA
            assert router.can_keep
            kafka.fail(record(), DeliveryFailed("away"))
            with pytest.raises(NotDurable, match="injected"):
                await router.keep(record(2))
            assert not router.can_keep

    asyncio.run(scenario())


def test_a_spool_that_breaks_under_a_record_leaves_it_to_kafka(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        producer = TestProducer()
        producer.held = True
        async with outbox_on(tmp_path, await open_path(producer)) as (router, keeper):
            await keeper.own.put(record(0))
            spool, put = keeper.own, keeper.own.put

            def put_and_break(each: Record) -> asyncio.Future[None]:
                done = put(each)
                spool._break("injected")  # pyright: ignore[reportPrivateUsage]
                return done

            monkeypatch.setattr(spool, "put", put_and_break)
            keeping = asyncio.create_task(router.keep(record(1)))
            await until(lambda: 1 in producer.sent)
            producer.release()
            assert await keeping is Durability.KAFKA

    asyncio.run(scenario())


def test_a_spool_that_is_full_behind_what_kafka_does_not_take_refuses_nothing_that_it_takes(tmp_path: Path) -> None:
    async def scenario() -> None:
        producer = TestProducer()
        producer.failing = dict.fromkeys(range(30), DeliveryFailed("not allowed"))
        async with outbox_on(tmp_path, await open_path(producer)) as (router, keeper):
            topic = CALLBACKS_QUARANTINE.name
            kept = [await router.keep(record(number, size=30_000, topic=topic)) for number in range(30)]
            assert kept == [Durability.SPOOL] * 30
            more = [router.keep(record(number, size=30_000, topic=topic)) for number in range(30)]
            with pytest.raises(NotDurable, match="EDGE_SPOOL_MAX_BYTES"):
                await asyncio.gather(*more)
            assert keeper.full
            assert router.can_keep
            kept = [await router.keep(record(number, size=30_000)) for number in range(100, 130)]
            assert kept == [Durability.KAFKA] * 30
            producer.failing.clear()
            await until(lambda: keeper.waiting == 0)

    asyncio.run(scenario())


def test_while_more_is_on_its_way_than_the_spool_has_room_for_kafka_is_asked_all_the_same(tmp_path: Path) -> None:
    async def scenario() -> None:
        producer = TestProducer()
        async with open_spool(tmp_path) as other:
            # Another worker's, which nobody drains here, takes all of the room.
            await asyncio.gather(*(other.put(record(number, size=30_000)) for number in range(34)))
            async with outbox_on(tmp_path, await open_path(producer)) as (router, _):
                assert await router.keep(record(100, size=30_000)) is Durability.KAFKA

    asyncio.run(scenario())


def test_what_is_held_for_one_partition_keeps_no_event_of_another_from_kafka(tmp_path: Path) -> None:
    async def scenario() -> None:
        producer = TestProducer()
        kafka = await open_path(producer, partitions=2)
        keys = [f"k{number}" for number in range(20)]
        stuck = next(key for key in keys if kafka.place_of(record(key=key))[1] == 0)
        good = next(key for key in keys if kafka.place_of(record(key=key))[1] == 1)
        producer.failing[1] = DeliveryFailed("not enough replicas")
        async with outbox_on(tmp_path, kafka) as (router, keeper):
            assert await router.keep(record(1, key=stuck)) is Durability.SPOOL
            assert await router.keep(record(2, key=stuck)) is Durability.SPOOL
            await until(lambda: not keeper.anything_moves())
            assert await router.keep(record(3, key=good)) is Durability.KAFKA
            assert keeper.oldest_age_s > 0
            producer.failing.clear()
            await until(lambda: keeper.waiting == 0)
            assert await router.keep(record(4, key=stuck)) is Durability.KAFKA
            assert producer.delivered == [3, 1, 2, 4]

    asyncio.run(scenario())


def test_without_a_spool_kafka_alone_is_enough_and_the_other_way_round(tmp_path: Path) -> None:
    async def scenario() -> None:
        kafka = await open_path(TestProducer())
        blocked = tmp_path / "file"
        blocked.write_text("no folder can be here")
        async with outbox_on(blocked, kafka) as (router, _):
            assert await router.keep(record(1)) is Durability.KAFKA
            assert router.can_keep
            kafka.fail(record(), DeliveryFailed("away"))
            with pytest.raises(NotDurable):
                await router.keep(record(2))
            assert not router.can_keep

    asyncio.run(scenario())


def test_a_start_on_a_full_disk_does_with_kafka_alone_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with open_spool(tmp_path):
            pass  # a file from before, and empty

        def no_room(*_: object) -> None:
            raise SpoolFull("no room")

        kafka = await open_path(TestProducer())
        with monkeypatch.context() as context:
            context.setattr("taskbridge.edge.spool.keeper.open_and_take_back", no_room)
            async with outbox_on(tmp_path, kafka) as (router, keeper):
                assert await router.keep(record(1)) is Durability.KAFKA
                assert (router.can_keep, keeper.full) == (True, True)
                context.undo()
                context.setattr("taskbridge.edge.spool.keeper._TEND_S", 0.05)
                tending = asyncio.create_task(keeper.tend())
                await until(lambda: not keeper.full)
                tending.cancel()
                await asyncio.gather(tending, return_exceptions=True)

    asyncio.run(scenario())


class Spools:
    """A keeper that says what it is told to, and takes each record on at once, or refuses it."""

    def __init__(self, *, moving: int = 0, full: bool = False) -> None:
        self.moving = moving
        self.put_records: list[Record] = []
        self._is_full = full

    def anything_moves(self) -> bool:
        return self.moving > 0

    @property
    def own(self) -> Spools:
        return self

    def put(self, each: Record) -> asyncio.Future[None]:
        if self._is_full:
            raise SpoolFull("full")
        self.put_records.append(each)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


def outbox_of(kafka: KafkaPath, spools: Spools) -> Router:
    return Router(kafka, cast("SpoolKeeper", spools), timeout_s=1)


@pytest.mark.parametrize(("moving", "kept"), [(250, Durability.KAFKA), (251, Durability.SPOOL)])
def test_so_many_that_still_move_are_waited_for_and_not_one_more(moving: int, kept: Durability) -> None:
    async def scenario() -> None:
        spools = Spools(moving=moving)
        keeping = asyncio.create_task(outbox_of(await open_path(TestProducer()), spools).keep(record(1)))
        for _ in range(5):
            await asyncio.sleep(0)
        assert keeping.done() is (kept is Durability.SPOOL)
        spools.moving = 0
        assert await keeping is kept

    asyncio.run(scenario())


def test_the_last_few_are_waited_for_only_so_long_and_while_kafka_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        producer = TestProducer()
        kafka = await open_path(producer)
        keeping = asyncio.create_task(outbox_of(kafka, Spools(moving=1)).keep(record(1)))
        await asyncio.sleep(0)
        producer.reachable = False
        await kafka.check()
        assert await keeping is Durability.SPOOL
        producer.reachable = True
        await kafka.check()
        monkeypatch.setattr("taskbridge.edge.delivery.router._HOLD_S", 0.01)
        assert await outbox_of(kafka, Spools(moving=1)).keep(record(1)) is Durability.SPOOL
        assert producer.sent == []

    asyncio.run(scenario())


def test_kafka_is_asked_once_for_a_record_and_the_spools_refusal_told() -> None:
    async def scenario() -> None:
        asked: list[Record] = []

        async def no_room(record: Record, *, timeout_s: float) -> None:
            assert timeout_s == 1
            asked.append(record)
            raise QueueFull("full")

        kafka = await open_path(TestProducer())
        kafka.send_within = no_room
        with pytest.raises(SpoolFull):
            await outbox_of(kafka, Spools(full=True)).keep(record(1))
        assert len(asked) == 1

    asyncio.run(scenario())


def test_what_may_not_be_spooled_is_kept_by_kafka_or_not_at_all() -> None:
    async def scenario() -> None:
        producer, spools = TestProducer(), Spools()
        kafka = await open_path(producer)
        router = outbox_of(kafka, spools)
        assert await router.keep(record(1), may_spool=False) is Durability.KAFKA
        spools.moving = 1000
        assert await router.keep(record(2), may_spool=False) is Durability.KAFKA
        producer.reachable = False
        await kafka.check()
        with pytest.raises(NotDurable, match="only for verified callbacks"):
            await router.keep(record(3), may_spool=False)
        assert (producer.sent, spools.put_records) == ([1, 2], [])

    asyncio.run(scenario())
