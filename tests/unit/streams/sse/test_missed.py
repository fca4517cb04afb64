"""A returning client waits for few passes, not for those of all others."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

import pytest

from taskbridge.schemas.codec import task_notification_codec
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.streams.sse import missed as missed_module
from taskbridge.streams.sse.missed import MissedPart, MissedReader, MissedUnreadable

if TYPE_CHECKING:
    from taskbridge.streams.offsets import Offsets


class Passes(MissedReader):
    """Says how requests were put together, and reads ``step`` offsets in a pass."""

    def __init__(self, step: int = 1000, *, fails: bool = False) -> None:
        super().__init__({}, offsets=cast("Offsets", None), codec=task_notification_codec(FakeRegistry()))
        self.passes: list[list[tuple[int, int]]] = []
        self._step, self.fails = step, fails

    def _pass(self, requests: list[missed_module.Wanted]) -> None:
        self.passes.append([(each.partition, each.start) for each in requests])
        if self.fails:
            raise TimeoutError
        reached = requests[0].start + self._step
        for each in requests:
            each.part.reached = min(each.until, max(each.start, reached))


ANN = ("corp", "ann")


def test_those_of_a_partition_share_a_pass_and_others_wait_their_turn() -> None:
    async def test() -> Passes:
        reader = Passes()
        await asyncio.gather(
            reader.read(0, 10, 100, ANN),
            reader.read(1, 5, 100, ANN),
            reader.read(0, 50, 100, ANN),
            reader.read(0, 3, 100, ANN),
        )
        await reader.close()
        return reader

    assert asyncio.run(test()).passes == [[(0, 10), (0, 50)], [(1, 5)], [(0, 3)]]


def test_one_who_was_away_for_long_delays_the_others_by_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missed_module, "_PASS_RECORDS", 10)

    async def test() -> list[str]:
        reader, done = Passes(step=10), list[str]()

        async def all_of(name: str, start: int) -> None:
            while start < 100:
                start = (await reader.read(0, start, 100, ANN)).reached
            done.append(name)

        await asyncio.gather(all_of("long", 0), all_of("short", 92))
        await reader.close()
        return done

    assert asyncio.run(test()) == ["short", "long"]


def test_when_kafka_does_not_answer_all_of_a_pass_are_told_and_the_next_is_tried() -> None:
    async def test() -> None:
        reader = Passes(fails=True)
        answers = await asyncio.gather(*(reader.read(0, 1, 9, ANN) for _ in range(3)), return_exceptions=True)
        assert [type(each) for each in answers] == [MissedUnreadable] * 3
        reader.fails = False
        assert await reader.read(0, 1, 9, ANN) == MissedPart(reached=9)
        await reader.close()

    asyncio.run(test())


def test_requests_that_wait_at_the_end_get_an_error() -> None:
    async def test() -> None:
        reader = Passes()
        waiting = asyncio.create_task(reader.read(0, 1, 9, ANN))
        await asyncio.sleep(0)
        await reader.close()
        with pytest.raises(MissedUnreadable):
            await waiting

    asyncio.run(test())


def test_requests_are_served_in_the_order_in_which_they_came() -> None:
    def request(start: int, partition: int = 0) -> missed_module.Wanted:
        return missed_module.Wanted(partition, start, 100, *ANN, cast("asyncio.Future[MissedPart]", None))

    waiting = deque([request(5), request(1), request(7), request(9, partition=1)])
    served, others = missed_module.together(waiting)
    assert [each.start for each in served] == [5, 7]
    assert [each.start for each in others] == [1, 9]
