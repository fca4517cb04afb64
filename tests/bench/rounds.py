"""Rounds in which contenders take turns until the watched figures are known, after warming up."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.command import at_least

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Generator, Mapping

    from tests.bench.spreads import Estimate


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


@dataclass(slots=True)
class Rounds:
    """Between ``least`` and ``most`` rounds, and none that would end after ``minutes`` beyond the least.

    They end early once each figure that is watched is known to ``within`` percent. Nobody looks at which way a figure
    points: only at how wide its interval is.
    """

    least: int
    most: int
    within: float
    minutes: float
    done: int = 0
    ended: str = ""
    """A sentence for the page: how many rounds there were, and why no more."""

    def numbers(
        self, watched: Callable[[], Mapping[str, Estimate]], *, clock: Callable[[], float] = time.monotonic
    ) -> Generator[int]:
        """The rounds' numbers from 1; ``watched`` is called between two of them."""
        began = clock()
        self.done = 0
        while True:
            yield self.done + 1
            self.done += 1
            took_s = clock() - began
            name, width = widest(watched())
            known = f"the least precise target, {name}, is known to ± {width:.0%}" if name else "nothing is compared"
            if math.isinf(width):
                known = "one round shows nothing about the noise"
            counted = f"{self.done} round{'s' if self.done > 1 else ''}"
            if self.done < self.least:
                continue
            if width <= self.within / 100:
                self.ended = f"{counted}: {known}."
            elif self.done >= self.most:
                self.ended = f"{counted}, no more were allowed: {known}."
            elif took_s + took_s / self.done > self.minutes * 60:
                self.ended = f"{counted} in the {self.minutes:g} minutes that were allowed: {known}."
            else:
                continue
            return


def widest(watched: Mapping[str, Estimate]) -> tuple[str, float]:
    """The name and the width of the figure that is known least; no name where there is none."""
    return max(((name, each.width) for name, each in watched.items()), key=lambda pair: pair[1], default=("", 0.0))


def add_rounds(parser: argparse.ArgumentParser, *, least: int, most: int, within: float, minutes: float) -> None:
    """The flags that say how often; ``minutes`` is for the part that is repeated."""
    parser.add_argument("--rounds", type=at_least(1), default=least, help="minimum number of rounds")
    parser.add_argument("--most-rounds", type=at_least(1), default=most, help="and at most; 1 makes a trial")
    parser.add_argument("--within", type=float, default=within, help="end when each target is known to this percentage")
    parser.add_argument(
        "--minutes", type=float, default=minutes, help="after which no further round begins, beyond the least"
    )


def rounds_of(arguments: argparse.Namespace) -> Rounds:
    least = min(arguments.rounds, arguments.most_rounds)
    return Rounds(least, arguments.most_rounds, arguments.within, arguments.minutes)


def typed_flags(arguments: argparse.Namespace) -> str:
    """The flags as a user types them."""
    names = ("rounds", "most-rounds", "within", "minutes")
    return " ".join(f"--{name} {getattr(arguments, name.replace('-', '_')):g}" for name in names)
