"""What one poll brought is passed on together and in order, and nothing waits longer than it may."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from faust.types import TP

from taskbridge.streams.transactions.delivery import Batch, Delivery
from taskbridge.streams.transactions.gathering import Gathering

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time passes when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self._now_ms = 0.0

    def time(self) -> float:
        return self._now_ms / 1000

    async def passes(self, milliseconds: float) -> None:
        self._now_ms += milliseconds
        for _ in range(2):  # a turn to begin what is due, and one to see it done
            await asyncio.sleep(0)


class Gathered:
    """What is gathered, and what was passed on; both by the offset behind it."""

    def __init__(self) -> None:
        self.passed: list[list[int]] = []
        self.is_under_way = False
        self._gathering = Gathering(
            lambda together: self.passed.append([each.next_offset for each in together]),
            is_under_way=lambda: self.is_under_way,
        )

    def add(self, offset: int, *, more_follow: bool = True, records: int = 1) -> None:
        batches = [Batch("states", [(b"key", b"value", [])] * records)]
        done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._gathering.add(Delivery(TP("events", 0), offset, batches, b"group", done), more_follow=more_follow)


def run(story: Callable[[Clock, Gathered], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=Clock) as runner:
        clock = runner.get_loop()
        assert isinstance(clock, Clock)
        runner.run(story(clock, Gathered()))


def test_what_follows_goes_with_what_was_there_in_order() -> None:
    async def story(_: Clock, gathered: Gathered) -> None:
        gathered.add(1)
        gathered.add(2)
        assert gathered.passed == []
        gathered.add(3, more_follow=False)
        assert gathered.passed == [[1, 2, 3]]

    run(story)


def test_what_does_not_follow_within_two_milliseconds_is_not_waited_for_as_often_as_that_is() -> None:
    async def story(clock: Clock, gathered: Gathered) -> None:
        for offset in (1, 2):
            gathered.add(offset)
            await clock.passes(1.9)
            assert gathered.passed == [[each] for each in range(1, offset)]
            await clock.passes(0.2)
            assert gathered.passed == [[each] for each in range(1, offset + 1)]

    run(story)


def test_the_two_milliseconds_begin_with_the_first_that_waits() -> None:
    async def story(clock: Clock, gathered: Gathered) -> None:
        gathered.add(1)
        await clock.passes(1)
        gathered.add(2, more_follow=False)
        gathered.add(3)
        await clock.passes(1.5)
        assert gathered.passed == [[1, 2]], "the time of what is gone is over"
        gathered.add(4)
        await clock.passes(0.6)
        assert gathered.passed == [[1, 2], [3, 4]]

    run(story)


@pytest.mark.parametrize(("first", "second", "passed"), [(50, 50, []), (50, 51, [[1, 2]]), (101, 1, [[1]])])
def test_a_hundred_records_wait_and_more_do_not(first: int, second: int, passed: list[list[int]]) -> None:
    async def story(_: Clock, gathered: Gathered) -> None:
        gathered.add(1, records=first)
        gathered.add(2, records=second)
        assert gathered.passed == passed

    run(story)


def test_while_a_transaction_is_under_way_nothing_waits_here() -> None:
    async def story(_: Clock, gathered: Gathered) -> None:
        gathered.add(1)
        gathered.is_under_way = True
        gathered.add(2)
        gathered.add(3)
        assert gathered.passed == [[1, 2], [3]]

    run(story)
