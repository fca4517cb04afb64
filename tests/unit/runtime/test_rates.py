"""A bucket never gives more than it holds; one sender's flood leaves the others their own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskbridge.runtime.rates import AtOnce, Bucket, PerSource, consume_all


@given(
    st.lists(
        st.tuples(
            st.floats(0, 30, allow_nan=False, allow_infinity=False),
            st.floats(0, 12, allow_nan=False, allow_infinity=False),
        ),
        max_size=60,
    )
)
def test_no_more_is_given_than_the_capacity_and_what_was_filled_in(steps: list[tuple[float, float]]) -> None:
    bucket, now, given_away = Bucket(10, full_after_s=60, now=0.0), 0.0, 0.0
    for pause, amount in steps:
        now += pause
        if consume_all([(bucket, amount)], now=now):
            given_away += amount
        assert given_away <= 10 + now * 10 / 60 + 1e-6


def test_it_is_full_again_after_a_while_and_never_fuller() -> None:
    bucket = Bucket(10, full_after_s=60, now=0.0)
    assert consume_all([(bucket, 10)], now=0.0)
    assert not consume_all([(bucket, 1)], now=5.9)
    assert consume_all([(bucket, 1)], now=6.1)
    assert consume_all([(bucket, 10)], now=1000.0)
    assert not consume_all([(bucket, 0.1)], now=1000.0)


def test_where_one_bucket_holds_too_little_none_is_taken_from() -> None:
    full, empty = Bucket(1, full_after_s=60, now=0.0), Bucket(0.5, full_after_s=60, now=0.0)
    assert not consume_all([(full, 1), (empty, 1)], now=0.0)
    assert consume_all([(full, 1)], now=0.0)


def test_only_so_many_sources_are_remembered_and_the_latest_ones() -> None:
    sources = PerSource(list[int], limit=2)
    one = sources.of("one")
    sources.of("two")
    assert sources.of("one") is one
    sources.of("three")
    assert len(sources) == 2
    assert sources.of("one") is one


def test_of_one_source_so_many_are_under_way_and_an_end_makes_room() -> None:
    at_once = AtOnce(1)
    with at_once.of("ann", KeyError), at_once.of("bob", KeyError), pytest.raises(KeyError), at_once.of("ann", KeyError):
        pass
    with at_once.of("ann", KeyError):
        pass
