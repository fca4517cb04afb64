"""Working time agrees with a slow count of minutes, grows with the time of creation, and ends in open hours."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskbridge.center.reminders.working_time import DAY_MINUTES, HOUR_MS, WorkingTime

MINUTE_MS = 60_000
FIRST = date(2026, 3, 2)
DAYS = [FIRST + timedelta(days=number) for number in range(16)]
# The clock changes in New York on 8 March at two o'clock, and hours are drawn from four on.
ZONES = ["Asia/Shanghai", "America/New_York", "Asia/Kolkata", "UTC"]


def ms(text: str, zone: str = "Asia/Shanghai") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


@st.composite
def working_times(draw: st.DrawFn) -> WorkingTime:
    edges = sorted(draw(st.sets(st.integers(4 * 4, DAY_MINUTES // 15), min_size=2, max_size=6)))
    quarters = zip(edges[::2], edges[1::2], strict=False)
    return WorkingTime(
        ZoneInfo(draw(st.sampled_from(ZONES))),
        [(begin * 15, end * 15) for begin, end in quarters],
        weekdays=draw(st.sets(st.integers(0, 6), min_size=1)),
        holidays=draw(st.sets(st.sampled_from(DAYS), max_size=5)),
        working_days=draw(st.sets(st.sampled_from(DAYS), max_size=5)),
    )


moments = st.integers(ms("2026-03-02", "UTC") // MINUTE_MS, ms("2026-03-16", "UTC") // MINUTE_MS)
amounts = st.integers(1, 40 * 60)


def counted(working_time: WorkingTime, minute: int, left: int) -> int:
    """The specification: minute by minute, until so many were open."""
    while left:
        left -= working_time.is_open(minute * MINUTE_MS)
        minute += 1
    return minute


@given(working_times(), moments)
def test_an_open_minute_is_one_of_the_hours_of_a_working_day(working_time: WorkingTime, minute: int) -> None:
    local = datetime.fromtimestamp(minute * 60, UTC).astimezone(working_time.time_zone)
    hours = working_time._hours  # pyright: ignore[reportPrivateUsage]
    of_day = any(begin <= local.hour * 60 + local.minute < end for begin, end in hours)
    expected = of_day and working_time.is_working_day(local.date())
    assert working_time.is_open(minute * MINUTE_MS) is expected


@given(working_times(), moments, amounts)
def test_the_end_is_where_a_count_of_minutes_ends(working_time: WorkingTime, minute: int, amount: int) -> None:
    end = working_time.after(minute * MINUTE_MS, amount * MINUTE_MS)
    assert end == counted(working_time, minute, amount) * MINUTE_MS
    assert working_time.is_open(end - 1), "never in closed time"


@given(working_times(), st.integers(0, 10**12), amounts, st.data())
def test_later_creation_is_never_due_earlier(
    working_time: WorkingTime, at: int, amount: int, data: st.DataObject
) -> None:
    later = at + data.draw(st.integers(0, 14 * 24 * HOUR_MS))
    assert working_time.after(at, amount * MINUTE_MS) <= working_time.after(later, amount * MINUTE_MS)
    assert working_time.after(at, amount * MINUTE_MS) < working_time.after(at, (amount + 1) * MINUTE_MS)


@given(working_times(), moments, amounts, st.integers(-1, 1), st.integers(-3 * 24 * 60, 3 * 24 * 60))
def test_what_is_overdue_is_what_was_created_up_to_a_moment(
    working_time: WorkingTime, minute: int, amount: int, off_ms: int, off: int
) -> None:
    now, amount = minute * MINUTE_MS, amount * MINUTE_MS
    up_to = working_time.before(now, amount)
    for created in (up_to + off_ms, up_to + off * MINUTE_MS, now - amount + off_ms):
        assert (working_time.after(created, amount) <= now) is (created <= up_to)


@pytest.mark.parametrize(
    ("created", "hours", "due"),
    [
        ("2026-09-29T17:00", 1, "2026-09-29T18:00"),
        ("2026-09-29T17:00", 2, "2026-09-30T10:00"),
        ("2026-09-30T17:00", 2, "2026-10-08T10:00"),  # after the National Day holiday
        ("2026-10-09T17:00", 2, "2026-10-10T10:00"),  # a Saturday that is worked instead
        ("2026-10-10T11:00", 2, "2026-10-10T14:30"),  # without the break at noon
        ("2026-10-11T11:00", 7.5, "2026-10-12T18:00"),
    ],
)
def test_chinas_adjusted_days_count(created: str, hours: float, due: str) -> None:
    holidays = [date(2026, 10, day) for day in range(1, 8)]
    hours_of_day = [(9 * 60, 12 * 60), (13 * 60 + 30, 18 * 60)]
    zone = ZoneInfo("Asia/Shanghai")
    working_time = WorkingTime(zone, hours_of_day, holidays=holidays, working_days=[date(2026, 10, 10)])
    assert working_time.after(ms(created), round(hours * HOUR_MS)) == ms(due)
