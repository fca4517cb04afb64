"""The ratios of the edge to others: their figures and targets."""

from __future__ import annotations

import os
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from tests.bench.edge.servers import BARE, EARLIER, EDGE, EDGE_TWO_WORKERS, GO, SPRING
from tests.bench.spreads import Bound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.edge.results import Results
    from tests.bench.spreads import Estimate

_CPU, _PER_SECOND, _P99 = "cpu_us", "per_second", "p99_ms"
_COMPARED_RATE = 1000
_FREE_CORES = 4
"""With fewer cores, Kafka and the load use those of a second worker."""


@dataclass(frozen=True, slots=True)
class Comparison:
    title: str
    server: str
    other: str
    figure: str
    bound: Bound | None = None
    rate: int | None = None
    """Of an open loop; else of the closed one."""

    def of(self, results: Results, kind: str) -> Estimate | None:
        """Nothing where it was not measured."""
        figure = attrgetter(self.figure)
        if self.rate is None:
            if not {(self.server, kind), (self.other, kind)} <= results.windows.keys():
                return None
            return results.ratio(self.server, self.other, kind, figure)
        if not {(self.server, kind, self.rate), (self.other, kind, self.rate)} <= results.schedules.keys():
            return None
        return results.scheduled_ratio(self.server, self.other, kind, self.rate, figure)


def _comparisons() -> list[Comparison]:
    at_most = {BARE: Bound(1.15), SPRING: Bound(1.0)}
    found: list[Comparison] = []
    for peer in (EARLIER, BARE, SPRING, GO):
        found.append(Comparison(f"CPU/request: edge over {peer}", EDGE, peer, _CPU, at_most.get(peer)))
        found.append(Comparison(f"requests/s: edge over {peer}", EDGE, peer, _PER_SECOND))
    for peer in (EARLIER, BARE, SPRING, GO):
        bound = Bound(1.5) if peer == GO else None
        title = f"p99 at {_COMPARED_RATE:,}/s: edge over {peer}"
        found.append(Comparison(title, EDGE, peer, _P99, bound, _COMPARED_RATE))
    cores = os.cpu_count() or 1
    bound = Bound(1.6, is_least=True) if cores >= _FREE_CORES else None
    return [*found, Comparison("requests/s: two workers over one", EDGE_TWO_WORKERS, EDGE, _PER_SECOND, bound)]


COMPARISONS = _comparisons()


def watched(results: Results, kinds: Sequence[str]) -> dict[str, Estimate]:
    """The estimates that rounds must narrow: the ratios with a target, or all where none has one."""
    found = {
        (each, f"{each.title}, {kind}"): ratio
        for each in COMPARISONS
        for kind in kinds
        if (ratio := each.of(results, kind)) is not None
    }
    bounded = {name: ratio for (each, name), ratio in found.items() if each.bound is not None}
    return bounded or {name: ratio for (_, name), ratio in found.items()}
