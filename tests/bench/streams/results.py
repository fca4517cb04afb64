"""What a run found, by contender, in the order of the rounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from tests.bench.spreads import Estimate, Spread, estimate, spread

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.streams.latency import Latency
    from tests.bench.streams.recovery import Restored
    from tests.bench.streams.scaling import Scaled
    from tests.bench.streams.throughput import Window

T = TypeVar("T")


@dataclass(slots=True)
class Results:
    windows: dict[str, list[Window]] = field(default_factory=dict[str, "list[Window]"])
    restored: dict[str, list[Restored]] = field(default_factory=dict[str, "list[Restored]"])
    latencies: dict[str, list[Latency]] = field(default_factory=dict[str, "list[Latency]"])
    scaled: dict[int, list[Scaled]] = field(default_factory=dict[int, "list[Scaled]"])


def of(found: list[T], figure: Callable[[T], float]) -> Spread:
    return spread(map(figure, found))


def ratio(one: list[T], other: list[T], figure: Callable[[T], float]) -> Estimate:
    """``one`` over ``other``, each pair from one round."""
    return estimate(figure(mine) / figure(theirs) for mine, theirs in zip(one, other, strict=True))
