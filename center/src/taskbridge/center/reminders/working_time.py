"""Working time: hours of the working days of a time zone, with holidays and extra working days. Pure.

The libraries for business hours that we found know no extra working days (China moves some to weekends), and cannot
answer ``before``.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from zoneinfo import ZoneInfo

DAY_MINUTES = 24 * 60
HOUR_MS = 3_600_000
_DAY = timedelta(days=1)
_DAYS_REMEMBERED = 4_096

Period = tuple[int, int]
"""Begin and end. In a day: minutes since midnight."""


class WorkingTime:
    """All times are milliseconds since the epoch. Periods of a day are in order and do not overlap."""

    def __init__(
        self,
        time_zone: ZoneInfo,
        hours: Sequence[Period],
        *,
        weekdays: Collection[int] = range(5),
        holidays: Iterable[date] = (),
        working_days: Iterable[date] = (),
    ) -> None:
        """``weekdays``: from 0, Monday, at least one. ``working_days`` count before weekdays and holidays."""
        self.time_zone = time_zone
        self._hours = tuple(hours)
        self._weekdays = frozenset(weekdays)
        self._holidays, self._working_days = frozenset(holidays), frozenset(working_days)
        self._periods = lru_cache(_DAYS_REMEMBERED)(self._periods_of)

    def is_working_day(self, day: date) -> bool:
        return day in self._working_days or (day.weekday() in self._weekdays and day not in self._holidays)

    def is_open(self, at: int) -> bool:
        return any(begin <= at < end for begin, end in self._periods(self.local(at).date()))

    def after(self, at: int, amount: int) -> int:
        """The earliest moment at which so much working time, more than none, has passed since ``at``."""
        for begin, end in self._forward(at):
            length = end - max(begin, at)
            if amount <= length:
                return end - length + amount
            amount -= max(0, length)
        raise AssertionError("there is always a next working day")

    def before(self, at: int, amount: int) -> int:
        """The latest moment since which so much has passed: ``after(x, amount) <= at`` if and only if x is not later.

        So what is overdue at ``at`` is a range of the moments of creation, which an index finds.
        """
        for begin, end in self._backward(at):
            length = min(end, at) - begin
            if amount <= length:
                return begin + length - amount
            amount -= max(0, length)
        raise AssertionError("there is always a working day before")

    def moment(self, day: date, minutes: int) -> int:
        """So many minutes after midnight, on the clock of that day."""
        clock = datetime.combine(day, time(), self.time_zone) + timedelta(minutes=minutes)
        return round(clock.timestamp() * 1000)

    def local(self, at: int) -> datetime:
        return datetime.fromtimestamp(at / 1000, UTC).astimezone(self.time_zone)

    def _forward(self, at: int) -> Iterator[Period]:
        day = self.local(at).date()
        while True:
            yield from self._periods(day)
            day += _DAY

    def _backward(self, at: int) -> Iterator[Period]:
        day = self.local(at).date()
        while True:
            yield from reversed(self._periods(day))
            day -= _DAY

    def _periods_of(self, day: date) -> tuple[Period, ...]:
        if not self.is_working_day(day):
            return ()
        # An hour that a change of the clock skips has no length.
        found = [(self.moment(day, begin), self.moment(day, end)) for begin, end in self._hours]
        return tuple((begin, end) for begin, end in found if begin < end)
