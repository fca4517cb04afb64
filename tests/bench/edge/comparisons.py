"""Results of a run of the edge, and its ratios to others with their targets."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING

from tests.bench.edge.servers import BARE, EARLIER, EDGE, GO, LIBRDKAFKA, SPRING
from tests.bench.spreads import Bound, Estimate, Spread, estimate, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.bench.edge.loads import Schedule, Window
    from tests.bench.rounds import Warmed
    from tests.bench.spreads import Estimate


@dataclass(slots=True)
class Results:
    """Windows by server and kind in the order of the rounds; schedules by server, kind and rate."""

    windows: dict[tuple[str, str], list[Window]] = field(default_factory=dict[tuple[str, str], "list[Window]"])
    schedules: dict[tuple[str, str, int], list[Schedule]] = field(
        default_factory=dict[tuple[str, str, int], "list[Schedule]"]
    )
    warmed: dict[tuple[str, str], Warmed] = field(default_factory=dict[tuple[str, str], "Warmed"])

    def of(self, server: str, kind: str, figure: Callable[[Window], float]) -> Spread:
        return spread(map(figure, self.windows[server, kind]))

    def ratio(self, server: str, other: str, kind: str, figure: Callable[[Window], float]) -> Estimate:
        """``server`` over ``other``, each pair from one round."""
        pairs = zip(self.windows[server, kind], self.windows[other, kind], strict=True)
        return estimate(figure(one) / figure(two) for one, two in pairs)

    def scheduled(self, server: str, kind: str, rate: int, figure: Callable[[Schedule], float]) -> Spread:
        return spread(map(figure, self.schedules[server, kind, rate]))

    def scheduled_ratio(
        self, server: str, other: str, kind: str, rate: int, figure: Callable[[Schedule], float]
    ) -> Estimate:
        pairs = zip(self.schedules[server, kind, rate], self.schedules[other, kind, rate], strict=True)
        return estimate(figure(one) / figure(two) for one, two in pairs)


_CPU, _PER_SECOND, _P99 = "cpu_us", "per_second", "p99_ms"
_COMPARED_RATE = 1000


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
    at_most = {BARE: Bound(1.15), SPRING: Bound(0.75), GO: Bound(1.15)}
    found: list[Comparison] = []
    for peer in (EARLIER, BARE, SPRING, GO):
        found.append(Comparison(f"CPU/request: edge over {peer}", EDGE, peer, _CPU, at_most.get(peer)))
        found.append(Comparison(f"requests/s: edge over {peer}", EDGE, peer, _PER_SECOND))
    for other, bound in ((GO, Bound(1.5)), (LIBRDKAFKA, None)):
        found.append(Comparison(f"p99, closed loop: edge over {other}", EDGE, other, _P99, bound))
    for peer in (EARLIER, BARE, SPRING, GO):
        bound = Bound(1.5) if peer == GO else None
        title = f"p99 at {_COMPARED_RATE:,}/s: edge over {peer}"
        found.append(Comparison(title, EDGE, peer, _P99, bound, _COMPARED_RATE))
    return found


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
