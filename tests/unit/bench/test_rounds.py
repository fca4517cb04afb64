"""Rounds go on until the watched figures are known well enough, or time is over; the clock is the test's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.rounds import Rounds, warm_up
from tests.bench.spreads import Estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KNOWN, UNKNOWN = Estimate(1, 0.97, 1.03), Estimate(1, 0.5, 2)


@dataclass
class Clock:
    now: float = 0

    def __call__(self) -> float:
        return self.now


def run(rounds: Rounds, watched: Callable[[int], Mapping[str, Estimate]], *, each_s: float = 1) -> int:
    """The number of rounds, each of that length."""
    clock, numbers = Clock(), list[int]()
    for number in rounds.numbers(lambda: watched(len(numbers)), clock=clock):
        clock.now += each_s
        numbers.append(number)
    assert numbers == list(range(1, rounds.done + 1))
    return rounds.done


def test_they_end_once_everything_is_known() -> None:
    rounds = Rounds(3, 9, within=5, minutes=10)
    assert run(rounds, lambda done: {"cpu": KNOWN, "p99": KNOWN if done >= 5 else UNKNOWN}) == 5
    assert rounds.ended == "5 rounds: the least precise target, cpu, is known to ± 3%."


def test_there_are_at_least_as_many_rounds_as_requested() -> None:
    assert run(Rounds(3, 9, within=5, minutes=0.01), lambda _: {"cpu": KNOWN}, each_s=60) == 3


def test_noise_ends_with_the_most_rounds() -> None:
    rounds = Rounds(2, 4, within=5, minutes=10)
    assert run(rounds, lambda _: {"p99": UNKNOWN}) == 4
    assert rounds.ended == "4 rounds, no more were allowed: the least precise target, p99, is known to ± 100%."


def test_no_round_begins_that_would_end_too_late() -> None:
    rounds = Rounds(2, 9, within=5, minutes=5)
    assert run(rounds, lambda _: {"p99": UNKNOWN}, each_s=70) == 4
    assert rounds.ended.startswith("4 rounds in the 5 minutes that were allowed")


def test_with_nothing_to_compare_the_least_is_enough() -> None:
    rounds = Rounds(2, 9, within=5, minutes=5)
    assert run(rounds, lambda _: {}) == 2
    assert rounds.ended == "2 rounds: nothing is compared."


def warmed(figures: list[float], *, at_most_s: float) -> tuple[int, str]:
    """The number of windows of ten seconds, and the printed lines."""
    clock, windows = Clock(), iter(figures)

    def window() -> float:
        clock.now += 10
        return next(windows)

    found = warm_up(window, at_most_s=at_most_s, clock=clock)
    return int(clock.now / 10), str(found)


def test_a_server_is_warm_when_three_windows_in_a_row_are_alike() -> None:
    assert warmed([90, 60, 50, 51, 40, 41, 40, 41], at_most_s=600) == (
        7,
        "70 s, until 3 windows in a row were within 5%",
    )


def test_a_server_that_never_settles_is_not_waited_for_for_ever() -> None:
    assert warmed([90, 60, 90, 60, 90, 60], at_most_s=45) == (
        4,
        "40 s, which is the most allowed; the last 3 windows were 50% apart",
    )
