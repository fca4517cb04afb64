"""Results of repeated measurements: medians with their range, and ratios with confidence intervals.

Rounds are paired: each ratio is of two figures of one round, so that what slows the whole machine down cancels out.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

EXPLAINED = "[How a figure is made](index.md#how-a-figure-is-made) explains ratios, intervals and verdicts."
"""A sentence for every page that has ratios."""

# The 97.5 % quantiles of Student's t for 1, 2, 3... degrees of freedom; beyond, the last is a little too wide.
_STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093,
)  # fmt: skip

_TOO_WIDE = 9
"""A wider interval, of ten times its value, carries no information."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and the range around it."""

    median: float
    low: float
    high: float

    def text(self, digits: int = 0) -> str:
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f}-{self.high:,.{digits}f})"


def spread(values: Iterable[float]) -> Spread:
    found = list(values)
    return Spread(statistics.median(found), min(found), max(found))


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimate of a figure above zero: the geometric mean of the rounds and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """How far the interval reaches beyond the value, as a share of it. Infinite for one round."""
        return self.high / self.value - 1

    @property
    def is_noise(self) -> bool:
        """As a ratio: which of the two is ahead is not known."""
        return self.low <= 1 <= self.high

    def ratio_text(self, digits: int = 2) -> str:
        return f"{'≈ ' if self.is_noise else ''}{self.text(digits)}"

    def text(self, digits: int = 2) -> str:
        if self.width > _TOO_WIDE:
            known = "not known" if math.isfinite(self.high) else "one round"
        else:
            known = f"{self.low:,.{digits}f}-{self.high:,.{digits}f}"
        return f"{self.value:,.{digits}f} ({known})"


def estimate(values: Iterable[float]) -> Estimate:
    """``values`` are above zero, one of each round."""
    logarithms = [math.log(each) for each in values]
    mean, freedom = statistics.fmean(logarithms), len(logarithms) - 1
    if freedom == 0:
        return Estimate(math.exp(mean), 0.0, math.inf)
    quantile = _STUDENT[min(freedom, len(_STUDENT)) - 1]
    reach = quantile * statistics.stdev(logarithms) / math.sqrt(len(logarithms))
    return Estimate(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach))


class Verdict(StrEnum):
    MET = "met"
    MISSED = "missed"
    NOISE = "within the noise"


@dataclass(frozen=True, slots=True)
class Bound:
    """The target of a figure: met or missed only where the whole interval is on one side."""

    limit: float
    is_least: bool = False
    unit: str = ""

    def __str__(self) -> str:
        return f"at {'least' if self.is_least else 'most'} {self.limit:g}{self.unit}"

    def verdict(self, found: Estimate) -> Verdict:
        if found.low <= self.limit <= found.high:
            return Verdict.NOISE
        return Verdict.MET if (found.value > self.limit) is self.is_least else Verdict.MISSED


def judged(found: Estimate, bound: Bound | None) -> str:
    """A ratio as in a table, with its verdict on the target."""
    return found.ratio_text() if bound is None else f"{found.ratio_text()}, {bound.verdict(found)}"
