"""A time of the API is a span, as long as its precision."""

from __future__ import annotations

import pytest

from taskbridge.dingtalk.times import DAY_MS, Span, day_of, day_start_ms, next_month_ms, span_of

MINUTE = 1_714_206_360_000
"""2024-04-27T08:26Z."""


@pytest.mark.parametrize(
    ("value", "span"),
    [
        ("2024-04-27T08:26Z", Span(MINUTE, MINUTE + 60_000)),
        ("2024-04-27 16:26", Span(MINUTE, MINUTE + 60_000)),
        ("2024-04-27T08:26:07Z", Span(MINUTE + 7000, MINUTE + 8000)),
        ("2024-04-27 16:26:07", Span(MINUTE + 7000, MINUTE + 8000)),
        ("2024-04-27T08:26:07.125Z", Span(MINUTE + 7125, MINUTE + 7126)),
        ("2024-04-27T16:26:07+08:00", Span(MINUTE + 7000, MINUTE + 8000)),
        ("2024-04-27", Span(day_start_ms("2024-04-27"), day_start_ms("2024-04-27") + DAY_MS)),
        (MINUTE, Span(MINUTE, MINUTE + 1)),
        (str(MINUTE), Span(MINUTE, MINUTE + 1)),
        (MINUTE // 1000, Span(MINUTE, MINUTE + 1000)),
        (None, None),
        ("", None),
        ("null", None),
        ("2024-13-27T08:26Z", None),
        ("yesterday", None),
        (12, None),
    ],
)
def test_a_time_is_a_span(value: str | int | None, span: Span | None) -> None:
    assert span_of(value) == span


def test_days_and_months_start_in_china() -> None:
    assert day_start_ms("2024-04-28") == MINUTE + 34 * 60_000 + 7 * 60 * 60_000
    assert day_of(day_start_ms("2024-04-28")) == "2024-04-28"
    assert day_of(day_start_ms("2024-04-28") - 1) == "2024-04-27"
    assert next_month_ms(day_start_ms("2024-12-31")) == day_start_ms("2025-01-01")
    assert next_month_ms(day_start_ms("2024-01-01")) == day_start_ms("2024-02-01")
