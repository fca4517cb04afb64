"""A producer that met a fatal error is replaced, once, and nobody waits for it in vain."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from edge.kafka_path import KafkaPath
from edge.spool.drainer import Drainer
from schemas.topics import TASK_EVENTS
from service.kafka import DeliveryFailed
from spool_bench import REGISTRY, SCHEMA, TestProducer, open_spool, record, until

if TYPE_CHECKING:
    from pathlib import Path


class Mortal(TestProducer):
    """Dies of the first record that fails, and of nothing else; closed, it waits for as long as it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.kills = True
        self.closing_s: list[float] = []
        self.let_go = asyncio.Event()
        self.let_go.set()

    def release(self) -> None:
        super().release()
        if self.kills and any(number in self.failing for number in self.sent):
            self.is_dead = True

    async def close(self, *, timeout_s: float = 5) -> int:
        self.closing_s.append(timeout_s)
        await self.let_go.wait()
        return 0


class Producers:
    """Makes them, and remembers all."""

    def __init__(self) -> None:
        self.made: list[Mortal] = []

    def __call__(self) -> Mortal:
        self.made.append(Mortal())
        return self.made[-1]


async def open_path(producers: Producers) -> KafkaPath:
    path = KafkaPath(producers, REGISTRY)
    path.start()
    path.know(SCHEMA)
    path.open(TASK_EVENTS.name, partitions=1)
    await path.check()
    return path


def test_after_a_fatal_error_the_next_record_goes_out_by_another_producer() -> None:
    async def scenario() -> None:
        producers = Producers()
        path = await open_path(producers)
        producers.made[0].failing[0] = DeliveryFailed("fatal")
        with pytest.raises(DeliveryFailed):
            await path.send_within(record(0), timeout_s=1)
        assert path.is_failing((TASK_EVENTS.name, 0))
        path.succeed(record(0))
        await path.send_within(record(1), timeout_s=1)
        first, second = producers.made
        assert (first.sent, second.sent) == ([0], [1])
        await until(lambda: first.closing_s)
        assert second.closing_s == []
        await path.close()

    asyncio.run(scenario())


def test_records_that_fail_together_replace_their_producer_once() -> None:
    async def scenario() -> None:
        producers = Producers()
        path = await open_path(producers)
        producers.made[0].held = True
        producers.made[0].failing = {number: DeliveryFailed("fatal") for number in range(5)}
        sending = [asyncio.create_task(path.send_within(record(number), timeout_s=1)) for number in range(5)]
        await asyncio.sleep(0)
        producers.made[0].release()
        failed = await asyncio.gather(*sending, return_exceptions=True)
        assert [type(each) for each in failed] == [DeliveryFailed] * 5
        assert len(producers.made) == 2
        await path.close()

    asyncio.run(scenario())


def test_an_error_that_is_not_fatal_replaces_nothing() -> None:
    async def scenario() -> None:
        producers = Producers()
        path = await open_path(producers)
        producers.made[0].kills = False
        producers.made[0].failing[0] = DeliveryFailed("late")
        with pytest.raises(DeliveryFailed):
            await path.send_within(record(0), timeout_s=1)
        await path.send_within(record(1), timeout_s=1)
        assert len(producers.made) == 1
        await path.close()

    asyncio.run(scenario())


def test_a_dead_producer_is_asked_for_its_last_reports_and_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.kafka_path._HOPELESS_FLUSH_S", 0.05)

    async def scenario() -> None:
        producers = Producers()
        path = await open_path(producers)
        first = producers.made[0]
        first.let_go.clear()
        first.failing[0] = DeliveryFailed("fatal")
        with pytest.raises(DeliveryFailed):
            await path.send_within(record(0), timeout_s=1)
        await until(lambda: first.closing_s)
        assert first.closing_s[0] > 30, "librdkafka reports on a record after message.timeout.ms at the latest"
        async with asyncio.timeout(1):
            await path.close()

    asyncio.run(scenario())


def test_the_spool_is_drained_by_the_producer_that_takes_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        producers = Producers()
        path = await open_path(producers)
        producers.made[0].failing = {number: DeliveryFailed("fatal") for number in range(3)}
        async with open_spool(tmp_path) as spool:
            await asyncio.gather(*(spool.put(record(number)) for number in range(3)))
            drainer = Drainer(spool, path, spool._page)  # pyright: ignore[reportPrivateUsage]
            draining = asyncio.create_task(drainer.run())
            await until(lambda: not spool.waiting)
            draining.cancel()
        assert [each.delivered for each in producers.made] == [[], [0, 1, 2]]
        await path.close()

    asyncio.run(scenario())
