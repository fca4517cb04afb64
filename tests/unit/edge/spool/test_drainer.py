"""A spool is emptied in order, one record per instance at a time; only records of a failing partition wait."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError
from msgspec.structs import replace

from support.edge.spool import TestProducer, number_of, numbers, open_client, open_spool, record, until
from taskbridge.cli.spool_files import set_aside
from taskbridge.edge.spool.drainer import Drainer
from taskbridge.edge.spool.folder import SpoolFolder
from taskbridge.edge.spool.metrics import SpoolMetrics
from taskbridge.runtime.producer import DeliveryFailed
from taskbridge.schemas.codec import framed
from taskbridge.schemas.errors import TaskbridgeError
from taskbridge.schemas.registry import RegistryUnavailable, SchemaRef
from taskbridge.schemas.topics import CALLBACKS_QUARANTINE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from pathlib import Path

    import pytest

    from taskbridge.edge.kafka.client import KafkaClient
    from taskbridge.edge.kafka.record import SpooledRecord
    from taskbridge.edge.spool.writer import Spool


TOO_LARGE = DeliveryFailed("too large", KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))


@asynccontextmanager
async def draining(spool: Spool, kafka: KafkaClient) -> AsyncGenerator[Drainer]:
    drainer = Drainer(spool, kafka)
    task = asyncio.create_task(drainer.run())
    try:
        yield drainer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def left_in(spool: Spool) -> list[int]:
    await spool.remove(())  # behind every removal that is under way
    return numbers(await spool.read(-1, count=10_000, max_bytes=1 << 40))


async def test_it_empties_the_spool_in_order_with_one_record_of_an_instance_under_way(tmp_path: Path) -> None:
    producer = TestProducer()
    async with open_spool(tmp_path) as spool:
        await asyncio.gather(*(spool.put(record(number, key=f"k{number % 7}")) for number in range(1200)))
        async with draining(spool, await open_client(producer)):
            await until(lambda: spool.waiting == 0)
        assert producer.overlaps == []
        assert sorted(producer.delivered) == list(range(1200))
        for key in range(7):
            of_key = [number for number in producer.delivered if number % 7 == key]
            assert of_key == sorted(of_key)
        assert await left_in(spool) == []


async def test_nothing_is_deleted_before_its_delivery_report(tmp_path: Path) -> None:
    producer = TestProducer()
    producer.held = True
    async with open_spool(tmp_path) as spool:
        await asyncio.gather(*(spool.put(record(number)) for number in range(3)))
        async with draining(spool, await open_client(producer)):
            await until(lambda: producer.sent == [0, 1, 2])
            await asyncio.sleep(0.05)
            assert (await left_in(spool), spool.waiting) == ([0, 1, 2], 3)
            producer.release()
            await until(lambda: spool.waiting == 0)
        assert await left_in(spool) == []


async def test_while_deliveries_fail_only_one_record_is_tried(tmp_path: Path) -> None:
    producer = TestProducer()
    async with open_spool(tmp_path) as spool:
        await asyncio.gather(*(spool.put(record(number)) for number in range(50)))
        kafka = await open_client(producer)
        kafka.fail(record(0), DeliveryFailed("timed out"))
        producer.failing[0] = DeliveryFailed("timed out")
        async with draining(spool, kafka):
            await until(lambda: producer.sent.count(0) >= 2)
            assert set(producer.sent) == {0}
            producer.failing.clear()
            await until(lambda: spool.waiting == 0)


async def test_a_full_queue_of_the_producer_only_delays(tmp_path: Path) -> None:
    producer = TestProducer()
    producer.queue_full = True
    async with open_spool(tmp_path) as spool:
        await spool.put(record(1))
        kafka = await open_client(producer)
        async with draining(spool, kafka):
            await asyncio.sleep(0.05)
            assert (spool.waiting, kafka.usable) == (1, True)
            producer.queue_full = False
            await until(lambda: spool.waiting == 0)


async def test_a_record_that_the_broker_finds_too_large_is_set_aside_alone(tmp_path: Path) -> None:
    producer = TestProducer()
    # A broker refuses the whole batch that the record is in.
    producer.failing = RefusedTogether({0: TOO_LARGE, 1: TOO_LARGE})
    async with open_spool(tmp_path) as spool:
        await asyncio.gather(*(spool.put(record(number, key="one")) for number in range(5)))
        kafka = await open_client(producer)
        async with draining(spool, kafka):
            await until(lambda: spool.waiting == 0)
        assert producer.delivered == [0, 2, 3, 4]
    async with open_spool(tmp_path) as spool:
        assert (spool.waiting, spool.set_aside) == (0, 1)


async def test_many_refused_records_of_a_partition_do_not_each_wait(tmp_path: Path) -> None:
    producer = TestProducer()
    producer.failing = dict.fromkeys(range(100), TOO_LARGE)
    async with open_spool(tmp_path) as spool:
        await asyncio.gather(*(spool.put(record(number)) for number in range(101)))
        async with draining(spool, await open_client(producer)):
            await until(lambda: spool.waiting == 0)
        assert (producer.delivered, spool.set_aside) == ([100], 100)


async def test_a_schema_that_nobody_knows_sets_its_records_aside(tmp_path: Path) -> None:
    producer = TestProducer()
    async with open_spool(tmp_path) as spool:
        strange = replace(record(1), schema=SchemaRef("s", '"string"').key)
        await spool.put(strange)
        await spool.put(record(2))
        async with draining(spool, await open_client(producer)):
            await until(lambda: spool.waiting == 0)
        assert (producer.delivered, spool.set_aside) == ([2], 1)


async def test_records_of_the_quarantine_do_not_wait_for_each_other(tmp_path: Path) -> None:
    producer = TestProducer()
    producer.held = True
    async with open_spool(tmp_path) as spool:
        topic = CALLBACKS_QUARANTINE.name
        await asyncio.gather(*(spool.put(record(number, key="app", topic=topic)) for number in range(9)))
        async with draining(spool, await open_client(producer)):
            await until(lambda: len(producer.sent) == 9)
            producer.release()
            await until(lambda: spool.waiting == 0)


async def test_it_survives_an_unexpected_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    producer = TestProducer()
    async with open_spool(tmp_path) as spool:
        await spool.put(record(1))
        kafka = await open_client(producer)
        original, failed = kafka.send, list[int]()

        def send(each: object) -> object:
            if not failed:
                failed.append(1)
                raise RuntimeError("unforeseen")
            return original(each)  # type: ignore[arg-type]

        monkeypatch.setattr(kafka, "send", send)
        async with draining(spool, kafka):
            await until(lambda: spool.waiting == 0)
        assert [number_of(record(each)) for each in producer.delivered] == [1]


QUARANTINE = CALLBACKS_QUARANTINE.name
NO_RIGHT = DeliveryFailed("not allowed", KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
BY_POLICY = DeliveryFailed("by policy", KafkaError(KafkaError.INVALID_RECORD))


async def test_what_kafka_does_not_take_of_the_quarantine_holds_up_no_event(tmp_path: Path) -> None:
    producer = TestProducer()
    async with open_spool(tmp_path) as spool:
        # More than a batch, in front of and among the events.
        refused = range(1200)
        producer.failing = dict.fromkeys(refused, NO_RIGHT)
        await asyncio.gather(*(spool.put(record(number, topic=QUARANTINE)) for number in refused))
        await asyncio.gather(*(spool.put(record(number)) for number in range(2000, 2477)))
        kafka = await open_client(producer)
        async with draining(spool, kafka):
            await until(lambda: len(producer.delivered) == 477)
            await until(lambda: spool.moving == 0)
            assert (spool.waiting, spool.set_aside) == (1200, 0)
            assert kafka.accepts(record(1))
            assert "not allowed" in (kafka.problem_of(QUARANTINE) or "")
            await spool.put(record(3000))
            await until(lambda: 3000 in producer.delivered)
            producer.failing.clear()
            await until(lambda: spool.waiting == 0)
        assert sorted(producer.delivered) == [*refused, *range(2000, 2477), 3000], "each of them once"
        assert await left_in(spool) == []


async def test_a_topic_that_is_not_made_sure_of_holds_up_its_own_records_only(tmp_path: Path) -> None:
    producer = TestProducer()
    gone = DeliveryFailed("unknown topic", KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
    producer.failing[1] = gone
    async with open_spool(tmp_path) as spool:
        await spool.put(record(1, topic=QUARANTINE))
        await spool.put(record(2))
        kafka = await open_client(producer)
        async with draining(spool, kafka):
            await until(lambda: producer.delivered == [2])
            await until(lambda: not kafka.has(QUARANTINE))
            tried = producer.sent.count(1)
            producer.failing.clear()
            await spool.put(record(3))
            await until(lambda: producer.delivered == [2, 3])
            assert producer.sent.count(1) == tried, "it is not tried before the topic is there again"
            kafka.open(QUARANTINE, partitions=1)
            await until(lambda: spool.waiting == 0)


def keys_by_partition(kafka: KafkaClient) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for number in range(40):
        key = f"k{number}"
        found.setdefault(kafka.partition_of(record(key=key))[1], []).append(key)
    return found


async def test_a_partition_that_takes_nothing_holds_up_no_other_and_is_delivered_in_order_later(tmp_path: Path) -> None:
    producer = TestProducer()
    kafka = await open_client(producer, partitions=2)
    keys = keys_by_partition(kafka)
    stuck, good = keys[0][0], keys[1][0]
    producer.failing = dict.fromkeys((0, 2, 4), DeliveryFailed("not enough replicas"))
    async with open_spool(tmp_path) as spool:
        for number in range(6):
            await spool.put(record(number, key=stuck if number % 2 == 0 else good))
        async with draining(spool, kafka):
            await until(lambda: producer.delivered == [1, 3, 5])
            await until(lambda: kafka.is_failing(kafka.partition_of(record(key=stuck))))
            assert (kafka.accepts(record(key=good)), kafka.accepts(record(key=stuck))) == (True, False)
            await spool.put(record(6, key=stuck))
            producer.failing.clear()
            await until(lambda: spool.waiting == 0)
        assert producer.delivered == [1, 3, 5, 0, 2, 4, 6]


async def test_a_record_that_gets_no_report_holds_up_its_partition_only_and_is_not_sent_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskbridge.edge.spool.drainer._PATIENCE_S", 0.05)
    producer = TestProducer()
    producer.silent = {0, 1}
    kafka = await open_client(producer, partitions=2)
    keys = keys_by_partition(kafka)
    async with open_spool(tmp_path) as spool:
        for number in range(3):
            await spool.put(record(number, key=keys[0][number]))
        await spool.put(record(3, key=keys[1][0]))
        async with draining(spool, kafka):
            await until(lambda: sorted(producer.delivered) == [2, 3])
            await until(lambda: spool.moving == 0)
            assert spool.waiting == 2
            await spool.put(record(4, key=keys[1][0]))
            await until(lambda: 4 in producer.delivered)
            await spool.put(record(5, key=keys[0][0]))
            producer.silent.clear()
            producer.release()
            await until(lambda: spool.waiting == 0)
        assert sorted(producer.sent) == [0, 1, 2, 3, 4, 5]
        assert await left_in(spool) == []


class RefusedTogether(dict[int, TaskbridgeError]):
    """Errors by record. The neighbours of the refused one fail once: they are accepted when they are sent alone."""

    def __getitem__(self, number: int) -> TaskbridgeError:
        return super().__getitem__(number) if number == 1 else self.pop(number)


async def test_a_record_that_a_policy_refuses_is_set_aside_alone_and_listed(tmp_path: Path) -> None:
    producer = TestProducer()
    # The broker names the record that it refuses, and those that it refuses with it.
    neighbour = DeliveryFailed("neighbour", KafkaError(KafkaError._INVALID_DIFFERENT_RECORD))
    producer.failing = RefusedTogether({0: neighbour, 1: BY_POLICY, 2: neighbour})
    async with open_spool(tmp_path) as spool:
        await asyncio.gather(*(spool.put(record(number, topic=QUARANTINE)) for number in range(3)))
        await spool.put(record(3))
        kafka = await open_client(producer)
        async with draining(spool, kafka):
            await until(lambda: spool.waiting == 0)
        assert kafka.usable
        assert sorted(producer.delivered) == [0, 2, 3]
        assert spool.set_aside == 1
    (aside,) = set_aside(SpoolFolder(tmp_path))
    assert (aside["reason"], aside["topic"], aside["key"]) == ("refused", QUARANTINE, "k1")


async def test_a_spool_that_breaks_ends_its_drainer_with_all_that_wait(tmp_path: Path) -> None:
    producer = TestProducer()
    producer.failing[1] = DeliveryFailed("away")
    async with open_spool(tmp_path) as spool:
        await spool.put(record(1))
        drainer = Drainer(spool, await open_client(producer))
        running = asyncio.create_task(drainer.run())
        await until(lambda: bool(drainer.behind))
        spool._break("injected")  # pyright: ignore[reportPrivateUsage]
        before = asyncio.all_tasks() - {running}
        async with asyncio.timeout(60):
            await running
        assert asyncio.all_tasks() <= before


class Seen(SpoolMetrics):
    def __init__(self) -> None:
        self.delivered: list[bytes] = []
        super().__init__(on_drained=lambda records: self.delivered.extend(each.key for each in records))
        self.counts: list[int] = []
        self.refused = 0

    def drained(self, records: Sequence[SpooledRecord]) -> None:
        super().drained(records)
        self.counts.append(len(records))

    def row_damaged(self) -> None:
        raise AssertionError

    def row_refused(self) -> None:
        self.refused += 1


async def test_what_is_delivered_and_what_is_refused_is_counted(tmp_path: Path) -> None:
    producer, seen = TestProducer(), Seen()
    producer.failing[1] = BY_POLICY
    async with open_spool(tmp_path) as spool:
        await asyncio.gather(*(spool.put(record(number)) for number in range(3)))
        drainer = Drainer(spool, await open_client(producer), seen)
        running = asyncio.create_task(drainer.run())
        await until(lambda: spool.waiting == 0)
        await spool.remove(())
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert (sum(seen.counts), len(seen.delivered), seen.refused) == (2, 2, 1)


async def test_a_stop_waits_for_the_deliveries_under_way(tmp_path: Path) -> None:
    producer = TestProducer()
    producer.held = True
    async with open_spool(tmp_path) as spool:
        await spool.put(record(1))
        drainer = Drainer(spool, await open_client(producer))
        running = asyncio.create_task(drainer.run())
        await until(lambda: producer.sent == [1])
        drainer.stop()
        await spool.put(record(2))
        assert not running.done()
        producer.release()
        async with asyncio.timeout(60):
            await running
        assert (producer.sent, spool.waiting) == ([1], 1)


async def test_a_schema_whose_id_is_not_known_yet_holds_up_its_partition_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskbridge.edge.spool.drainer._REGISTRY_RETRY_S", 0.01)
    producer = TestProducer()
    kafka = await open_client(producer)
    other, requested = SchemaRef("other", '"string"'), list[str]()

    async def fetch_id(key: str, texts: Mapping[str, tuple[str, str]]) -> bool:
        requested.append(texts[key][0])
        if len(requested) < 3:
            raise RegistryUnavailable("away")
        kafka._frames[key] = framed(7, b"")  # pyright: ignore[reportPrivateUsage]
        return True

    monkeypatch.setattr(kafka, "fetch_id", fetch_id)
    async with open_spool(tmp_path) as spool:
        spool._store.start_log([other])  # pyright: ignore[reportPrivateUsage]
        await spool.put(replace(record(1), schema=other.key))
        await spool.put(replace(record(2), schema=other.key))
        await spool.put(record(3, topic=QUARANTINE))
        async with draining(spool, kafka):
            await until(lambda: producer.delivered == [3])
            await until(lambda: spool.waiting == 0)
        assert producer.delivered == [3, 1, 2]
        assert requested == ["other"] * 3


async def test_the_oldest_of_those_that_are_held_is_reported_once_the_others_are_through(tmp_path: Path) -> None:
    producer = TestProducer()
    producer.failing[2] = NO_RIGHT
    async with open_spool(tmp_path) as spool:
        await spool.put(record(1))
        await spool.put(record(2, topic=QUARANTINE))
        _, held = await spool.read(0, count=9, max_bytes=1 << 20)
        async with draining(spool, await open_client(producer)):
            await until(lambda: spool.waiting == 1 and spool.moving == 0)
            assert spool.oldest == held.created_at
