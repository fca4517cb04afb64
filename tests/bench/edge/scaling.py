"""The cost of several workers on one host whose other cores are busy: measured by pinning.

The workers share one core, which nothing else may use; Kafka, the registry and the load have the others. At the same
rate for each worker a callback's CPU time tells what there being several of them costs: connections and batches that
are split, claims that must be seen by all, turns on the core. On cores of their own they would be spared the last.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.bench.machine import machine_section
from tests.bench.spreads import Estimate, estimate, spread

from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.bench.edge.callbacks import Kind
    from tests.bench.edge.loads import Schedule
    from tests.bench.machine import Before
    from tests.bench.rounds import Rounds

WORKERS = (1, 2, 4)
CONNECTIONS = 16
"""For each worker."""

CORE = 0
"""The workers'."""


def leave_a_core() -> None:
    """Move this process, and processes that it starts from now on, off the workers' core.

    Raises:
        ConfigurationError: there is no other.
    """
    others = os.sched_getaffinity(0) - {CORE}
    if not others:
        raise ConfigurationError("one core for the workers and another for the rest are needed")
    os.sched_setaffinity(0, others)


@dataclass(slots=True)
class Scaling:
    """By workers, and callbacks a second for each of them."""

    found: dict[tuple[int, int], list[Schedule]] = field(default_factory=dict[tuple[int, int], "list[Schedule]"])

    def keep(self, workers: int, rate: int, found: Schedule) -> None:
        self.found.setdefault((workers, rate), []).append(found)

    def ratio(self, workers: int, rate: int) -> Estimate:
        """CPU time of a callback with so many workers over that with one, at the same rate for each."""
        pairs = zip(self.found[workers, rate], self.found[1, rate], strict=True)
        return estimate(many.cpu_us / one.cpu_us for many, one in pairs)

    def watched(self) -> dict[str, Estimate]:
        return {
            f"CPU/callback, {workers} workers at {rate:,}/s each": self.ratio(workers, rate)
            for workers, rate in self.found
            if workers > 1
        }


def write_scaling(
    page: Path, scaling: Scaling, *, kind: Kind, rates: Sequence[int], rounds: Rounds, command: str, earlier: Before
) -> Path:
    page.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        "# Several workers of the edge on one host",
        "",
        f"Written by `{command}` on {datetime.now(UTC):%Y-%m-%d}.",
        "",
        f"Signed callbacks ({kind.name}, {kind.mean_bytes} bytes) in an open loop, {CONNECTIONS} connections for each",
        "worker. All workers are held to one core that nothing else uses; Kafka, the registry and the load have what",
        "is left. CPU time is the workers', all threads and the kernel's part included. The ratio is to one worker at",
        "the same rate for each. Next to it is the number of workers over the ratio: what they do where each has a",
        f"free core. {rounds.ended}",
        "",
        "| workers | each, 1/s | CPU µs/callback | over one worker | of one worker's work | core busy | p99 ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for workers in WORKERS:
        for rate in rates:
            found = scaling.found[workers, rate]
            cpu = spread(each.cpu_us for each in found)
            ratio = scaling.ratio(workers, rate) if workers > 1 else None
            cells = [
                str(workers),
                f"{rate:,}",
                cpu.text(1),
                ratio.ratio_text() if ratio else "",
                f"{workers / ratio.value:.2f} ({workers / ratio.high:.2f}-{workers / ratio.low:.2f})" if ratio else "",
                f"{cpu.median * rate * workers / 1e6:.0%}",
                spread(each.p99_ms for each in found).text(1),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    page.write_text("\n".join([*lines, "", *machine_section((), earlier)]) + "\n")
    return page
