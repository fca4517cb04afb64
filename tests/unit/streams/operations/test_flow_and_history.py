"""Rings of minutes and samples: what all workers counted adds up, whenever each of them began."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from taskbridge.schemas.events import Action
from taskbridge.streams.monitoring.flow import ACTIONS, MINUTES, Flow, flow_of
from taskbridge.streams.operations.history import SAMPLE_S, SAMPLES, EdgeTotals, History, history_of

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = 1_769_846_400.0


def test_the_last_hour_is_shown_by_the_minute_and_the_present_minute_is_the_last() -> None:
    flow = Flow()
    flow.count({Action.CREATED: 2}, now_s=NOW - 59 * 60)
    flow.count({Action.CREATED: 1, Action.DELETED: 4}, now_s=NOW)
    flow.count({Action.CREATED: 3}, now_s=NOW + 59)

    shown = flow_of([flow.share()], now_s=NOW + 59)

    assert shown["minutes"][-1] == "2026-01-31T08:00:00.000Z"
    assert shown["minutes"][0] == "2026-01-31T07:01:00.000Z"
    assert shown["actions"]["CREATED"] == [2, *[0] * 58, 4]
    assert shown["actions"]["DELETED"][-1] == 4
    assert set(shown["actions"]) == {"CREATED", "COMPLETED", "CANCELLED", "DELETED", "COPIED"}


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 200), st.sampled_from(ACTIONS), st.integers(1, 9))).map(sorted), max_size=4
    ),
    st.integers(0, 200),
)
def test_what_all_workers_counted_in_the_hour_adds_up(
    workers: Sequence[Sequence[tuple[int, str, int]]], until: int
) -> None:
    flows, wanted = [Flow() for _ in workers], Counter[str]()
    for flow, counted in zip(flows, workers, strict=True):
        for minute, action, count in counted:
            if minute <= until:
                flow.count({Action(action): count}, now_s=NOW + 60 * minute)
                wanted[action] += count if minute > until - MINUTES else 0

    shown = flow_of([flow.share() for flow in flows], now_s=NOW + 60 * until)

    assert {action: sum(shown["actions"][action]) for action in ACTIONS} == {each: wanted[each] for each in ACTIONS}
    assert all(len(values) == MINUTES == len(shown["minutes"]) for values in shown["actions"].values())


def sampled(totals: Sequence[tuple[float, float] | None], lag: int = 0) -> History:
    history = History()
    for number, total in enumerate(totals):
        edges = None if total is None else EdgeTotals(*total, spool_records=number)
        history.add(now_s=NOW + SAMPLE_S * number, lag_records=lag, edges=edges)
    return history


def test_rates_are_what_counters_grew_by_in_a_minute() -> None:
    history = sampled([(100 + 5 * number, 0) for number in range(12)])
    shown = history_of(history.samples, [])
    assert shown["accepted_per_minute"][-1] == 30
    assert shown["accepted_per_minute"][:3] == [0, 5, 10]
    assert shown["spool_records"][-1] == 11


def test_a_restarted_or_absent_edge_makes_no_rate_negative_or_huge() -> None:
    shown = history_of(sampled([(1000, 7), (1001, 7), (2, 0), None, (5, 1)]).samples, [])
    assert shown["accepted_per_minute"] == [0, 1, 3, 3, 6]
    assert shown["rejected_per_minute"] == [0, 0, 0, 0, 1]


def test_lag_is_that_of_all_workers_at_the_same_time() -> None:
    own, other = sampled([None] * 3, lag=2), sampled([None] * 3, lag=40)
    shown = history_of(own.samples, [own.lag_share(), other.lag_share()])
    assert shown["lag_records"] == [42, 42, 42]
    assert shown["times"][1] == "2026-01-31T08:00:10.000Z"


def test_an_hour_is_kept_and_no_more() -> None:
    assert len(sampled([None] * (SAMPLES + 50)).samples) == SAMPLES
