"""Calls for one purpose: so many of each corp in a day, at a pace of their own."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from taskbridge.center.actions.systems import Away, Busy
from taskbridge.dingtalk.calls import Later, Pace, Spent, Unsent
from taskbridge.dingtalk.times import day_of, next_day_ms
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from taskbridge.center.actions.systems import CountCall
    from taskbridge.runtime.clock import Clock

_CALLS_PER_SECOND = 5.0
"""Of one corp. Decisions have a pace of their own."""
_RETRY_MS = 60_000


@contextmanager
def passing() -> Generator[None]:
    """Have the task center know what passes: raise Busy where no call may be made, and Away for all else of Later."""
    try:
        yield
    except Spent as error:
        raise Busy(str(error)) from None
    except Later as error:
        raise Away(str(error)) from None


class CountedHere:
    """A ``CountCall`` for one process."""

    def __init__(self) -> None:
        self._day, self._used = "", Counter[tuple[str, str]]()

    async def __call__(self, corp_id: str, purpose: str, day: str, most: int) -> bool:
        if day != self._day:
            self._day, self._used = day, Counter()
        may = self._used[corp_id, purpose] < most
        self._used[corp_id, purpose] += may
        return may


class DailyPace(Pace):
    """So many calls of each corp for a purpose in a day of China.

    What closes a corp's calls is known to another pace, and reported there.
    """

    def __init__(
        self, purpose: str, most: Callable[[str], int], count: Callable[[], CountCall], clock: Clock, others: Pace
    ) -> None:
        """``most`` is of a corp. ``count`` returns what counts the calls."""
        super().__init__(_CALLS_PER_SECOND, clock)
        self._purpose, self._most, self._count, self._others = purpose, most, count, others
        self._given_back: dict[str, Counter[str]] = {}
        """By day and corp: calls that were counted and are still to be made."""

    async def acquire(self, corp_id: str) -> None:
        self._others.check_open(corp_id)
        now = self._clock.now_ms()
        day, most = day_of(now), self._most(corp_id)
        given_back = self._given_back.get(day, Counter())
        if given_back[corp_id] > 0:
            given_back[corp_id] -= 1
        elif not await self._counts(corp_id, day, most):
            problem = f"the {most} calls of a day for {self._purpose} are used up"
            raise Spent(problem, retry_at_ms=next_day_ms(now))
        await self.pace(corp_id)

    def give_back(self, corp_id: str) -> None:
        day = day_of(self._clock.now_ms())
        self._given_back = {day: self._given_back.get(day, Counter())}
        self._given_back[day][corp_id] += 1

    def limit_address(self) -> None:
        self._others.limit_address()

    def address_limited_ms(self) -> int:
        return self._others.address_limited_ms()

    def close(self, corp_id: str, *, until_ms: int, reason: str) -> None:
        self._others.close(corp_id, until_ms=until_ms, reason=reason)

    async def _counts(self, corp_id: str, day: str, most: int) -> bool:
        try:
            return await self._count()(corp_id, self._purpose, day, most)
        except OperatorError as error:
            raise Unsent(str(error), retry_at_ms=self._clock.now_ms() + _RETRY_MS) from None
