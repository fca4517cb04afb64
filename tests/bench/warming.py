"""Warms up a server until its figure is steady: the time of a JIT compiler depends on the machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ALIKE = 3
WITHIN = 0.05


@dataclass(frozen=True, slots=True)
class Warmed:
    seconds: float
    apart: float
    """How far the last windows are from each other, as a share."""

    def __str__(self) -> str:
        if self.apart <= WITHIN:
            return f"{self.seconds:.0f} s, until {ALIKE} windows in a row were within {WITHIN:.0%}"
        return f"{self.seconds:.0f} s, which is the most allowed; the last {ALIKE} windows were {self.apart:.0%} apart"


def warm_up(window: Callable[[], float], *, at_most_s: float, clock: Callable[[], float] = time.monotonic) -> Warmed:
    """Measure windows until ``ALIKE`` in a row are alike or time is over, but at least the given number."""
    began = clock()
    found: list[float] = []
    while True:
        found.append(window())
        took = clock() - began
        last = found[-ALIKE:]
        apart = max(last) / min(last) - 1
        if len(last) == ALIKE and (apart <= WITHIN or took + took / len(found) > at_most_s):
            return Warmed(took, apart)
