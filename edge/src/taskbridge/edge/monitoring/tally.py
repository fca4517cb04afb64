"""What became of callbacks, and how long each step took: counted on the event loop, read when Prometheus asks.

prometheus_client's own counters take a lock for each number, eight for each callback. Here nobody but the loop counts
or reads, so plain numbers do.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from itertools import accumulate, product
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client.core import Metric


class Durations(Collector):
    """A histogram of seconds for each action."""

    def __init__(self, name: str, documentation: str, bounds: Sequence[float]) -> None:
        self._name, self._documentation = name, documentation
        self._bounds = bounds
        self._counts: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(bounds) + 1))
        self._sums: defaultdict[str, float] = defaultdict(float)

    def observe(self, action: str, seconds: float) -> None:
        self._counts[action][bisect_left(self._bounds, seconds)] += 1
        self._sums[action] += seconds

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=["action"])
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for action, counts in self._counts.items():
            family.add_metric([action], list(zip(names, accumulate(counts), strict=True)), self._sums[action])
        return [family]


class Outcomes(Collector):
    """How many callbacks of each action came to what."""

    def __init__(self, name: str, documentation: str) -> None:
        self._name, self._documentation = name, documentation
        self._counts: defaultdict[tuple[str, str], int] = defaultdict(int)

    def expect(self, actions: Iterable[str], outcomes: Iterable[str]) -> None:
        """Tell of these from the start, with 0."""
        self._counts.update(dict.fromkeys(product(actions, outcomes), 0))

    def count(self, action: str, outcome: str) -> None:
        self._counts[action, outcome] += 1

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self._name, self._documentation, labels=["action", "outcome"])
        for labels, count in self._counts.items():
            family.add_metric(labels, count)
        return [family]
