"""What a run found, and the figures that are drawn from it: medians, spreads, ratios within one round."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.bench.spreads import Estimate, Spread, estimate, spread

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.edge.loads import Schedule, Window
    from tests.bench.warming import Warmed


@dataclass(slots=True)
class Results:
    """Windows by server and kind in the order of the rounds; schedules by server, kind and rate."""

    windows: dict[tuple[str, str], list[Window]] = field(default_factory=dict[tuple[str, str], "list[Window]"])
    schedules: dict[tuple[str, str, int], list[Schedule]] = field(
        default_factory=dict[tuple[str, str, int], "list[Schedule]"]
    )
    warmed: dict[tuple[str, str], Warmed] = field(default_factory=dict[tuple[str, str], "Warmed"])

    def warmings(self) -> dict[str, str]:
        """For each server and kind, how long warming up took, and how steady the figure was then."""
        return {f"{name}, {kind}": f"warmed up for {found}" for (name, kind), found in self.warmed.items()}

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
