"""What repeated measurements come to, by series whose results are known."""

from __future__ import annotations

import math

import pytest
from tests.bench.spreads import Bound, Estimate, Verdict, estimate, judged, spread


def test_a_spread_is_the_median_and_the_range() -> None:
    assert spread([3, 1, 2]).text(1) == "2.0 (1.0-3.0)"


def test_of_equal_rounds_all_is_known() -> None:
    found = estimate([2.0, 2.0, 2.0])
    assert [round(each, 9) for each in (found.value, found.low, found.high)] == [2.0, 2.0, 2.0]


def test_the_interval_is_students() -> None:
    """ln 0.5, ln 1, ln 2: mean 0, deviation ln 2, of three values; t with two degrees of freedom is 4.303."""
    found = estimate([0.5, 1.0, 2.0])
    reach = 4.303 * math.log(2) / math.sqrt(3)
    assert found.value == pytest.approx(1)
    assert (found.low, found.high) == pytest.approx((math.exp(-reach), math.exp(reach)))
    assert found.width == pytest.approx(math.exp(reach) - 1)


def test_more_rounds_of_the_same_noise_are_more_precise() -> None:
    few, many = estimate([0.9, 1.1] * 2), estimate([0.9, 1.1] * 12)
    assert many.width < few.width
    assert many.value == pytest.approx(few.value)


def test_which_is_over_the_other_makes_no_difference() -> None:
    found, turned = estimate([1.1, 1.2, 1.5]), estimate([1 / 1.1, 1 / 1.2, 1 / 1.5])
    assert (turned.low, turned.value, turned.high) == pytest.approx((1 / found.high, 1 / found.value, 1 / found.low))


def test_one_round_shows_nothing_about_the_noise() -> None:
    found = estimate([0.8])
    assert (found.text(), found.is_noise, found.width) == ("0.80 (one round)", True, math.inf)
    assert Bound(1.0).verdict(found) is Verdict.NOISE


def test_two_rounds_that_are_far_apart_show_nothing() -> None:
    assert estimate([0.5, 2.0]).text() == "1.00 (not known)"


@pytest.mark.parametrize(
    ("bound", "found", "verdict"),
    [
        (Bound(1.0), Estimate(0.8, 0.7, 0.9), Verdict.MET),
        (Bound(1.0), Estimate(1.2, 1.1, 1.3), Verdict.MISSED),
        (Bound(1.0), Estimate(0.9, 0.7, 1.1), Verdict.NOISE),
        (Bound(1.2, is_least=True), Estimate(1.4, 1.3, 1.5), Verdict.MET),
        (Bound(1.2, is_least=True), Estimate(1.0, 0.9, 1.1), Verdict.MISSED),
        (Bound(1.2, is_least=True), Estimate(1.3, 1.1, 1.5), Verdict.NOISE),
    ],
)
def test_a_verdict_needs_the_whole_interval(bound: Bound, found: Estimate, verdict: Verdict) -> None:
    assert bound.verdict(found) is verdict


def test_a_ratio_that_noise_covers_is_marked() -> None:
    assert judged(Estimate(1.02, 0.9, 1.16), None) == "≈ 1.02 (0.90-1.16)"
    assert judged(Estimate(1.02, 1.01, 1.03), Bound(1.15)) == "1.02 (1.01-1.03), met"
    assert str(Bound(15, unit=" ms")) == "at most 15 ms"
