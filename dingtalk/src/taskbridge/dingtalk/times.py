"""The calendar of China, and the times of DingTalk's API.

Published answers of the API have minutes (`2024-04-27T08:26Z`), samples in its documents have whole days. So a time of
the API is a span: the event happened within it.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

CHINA = timezone(timedelta(hours=8), "China")
"""DingTalk and we count whole days in this zone."""
DAY_MS = 24 * 60 * 60 * 1000

_EPOCH = datetime.fromtimestamp(0, timezone.utc)  # noqa: UP017 - next to the other zone
_SECONDS_DIGITS, _MS_DIGITS = 10, 13
_SHAPE = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)"
    r"(?:[T ](?P<minute>\d\d:\d\d)(?P<second>:\d\d)?(?P<fraction>\.\d{1,6})?(?P<zone>Z|[+-]\d\d:?\d\d)?)?"
)


class Span(NamedTuple):
    """The moments, in ms, that a time of the API may mean: from ``first`` until before ``end``."""

    first: int
    end: int


def span_of(value: str | int | None) -> Span | None:
    """The span that a time of the API means; None if it is not a time. Without a zone it is China's time."""
    if value is None:
        return None
    text = str(value).strip()
    if text.isdecimal():
        unit_ms = {_SECONDS_DIGITS: 1000, _MS_DIGITS: 1}.get(len(text))
        return None if unit_ms is None else Span(int(text) * unit_ms, (int(text) + 1) * unit_ms)
    found = _SHAPE.fullmatch(text)
    if found is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=CHINA)
    first = _ms(moment)
    return Span(first, first + _width_ms(found))


def day_of(at_ms: int) -> str:
    """The day in China, as ``2026-11-29``."""
    return datetime.fromtimestamp(at_ms / 1000, CHINA).date().isoformat()


def month_of(at_ms: int) -> str:
    """The month in China, as ``2026-11``."""
    return day_of(at_ms)[:7]


def day_start_ms(day: str) -> int:
    return _ms(datetime.fromisoformat(day).replace(tzinfo=CHINA))


def next_day_ms(at_ms: int) -> int:
    return day_start_ms(day_of(at_ms)) + DAY_MS


def next_month_ms(at_ms: int) -> int:
    first = datetime.fromtimestamp(at_ms / 1000, CHINA).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return _ms((first + timedelta(days=32)).replace(day=1))


def _ms(moment: datetime) -> int:
    return int((moment - _EPOCH) / timedelta(milliseconds=1))


def _width_ms(found: re.Match[str]) -> int:
    if found["minute"] is None:
        return DAY_MS
    if found["second"] is None:
        return 60_000
    return 1000 if found["fraction"] is None else 1
