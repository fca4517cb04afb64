"""Samples of the last hour: rates of counters that restart, and no more than an hour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.center.operations.answers import EdgeTotals
from taskbridge.center.operations.reporting import SAMPLE_S, History

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = 1_769_846_400.0


def sampled(totals: Sequence[tuple[float, float] | None], lag: int = 0) -> History:
    history = History()
    for number, total in enumerate(totals):
        edges = None if total is None else EdgeTotals(*total, spool_records=number)
        history.add(now_s=NOW + SAMPLE_S * number, lag_records=lag, edges=edges)
    return history


def test_rates_are_what_counters_grew_by_in_a_minute() -> None:
    shown = sampled([(100 + 5 * number, 0) for number in range(12)], lag=2).shown()
    assert shown["accepted_per_minute"][-1] == 30
    assert shown["accepted_per_minute"][:3] == [0, 5, 10]
    assert shown["spool_records"][-1] == 11
    assert shown["lag_records"] == [2] * 12
    assert shown["times"][1] == "2026-01-31T08:00:10.000Z"


def test_a_restarted_or_absent_edge_makes_no_rate_negative_or_huge() -> None:
    shown = sampled([(1000, 7), (1001, 7), (2, 0), None, (5, 1)]).shown()
    assert shown["accepted_per_minute"] == [0, 1, 3, 3, 6]
    assert shown["rejected_per_minute"] == [0, 0, 0, 0, 1]
