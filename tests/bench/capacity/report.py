"""The page of the whole bridge: what each rate came to, and the highest that holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.bench.page import table, write_page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.bench.machine import Before

GOAL_MS = 300
GOAL_PER_S = 3000


class Window(NamedTuple):
    """A rate, and what it came to; times are p50 and p99 in ms since the callback was due."""

    rate: int
    answered: tuple[float, float]
    page: tuple[float, float]
    webhook: tuple[float, float]
    cores: Mapping[str, float]
    """CPU seconds of each service for each second."""

    @property
    def slowest_ms(self) -> float:
        return max(p99 for _, p99 in (self.answered, self.page, self.webhook))

    @property
    def holds(self) -> bool:
        return self.slowest_ms < GOAL_MS


def write_report(
    out: Path, windows: Sequence[Window], about: str, ended: str, *, command: str, earlier: Before
) -> Path:
    """``windows`` has one for each rate, and at least one; ``ended`` says why there are no higher ones."""
    capacity = max((each.rate for each in windows if each.holds), default=0)
    result = (
        f"**{capacity:,} callbacks a second**: the highest rate at which no callback is refused and 99 of 100 answers,"
        f" live updates and deliveries take less than {GOAL_MS} ms. {ended} The goal of {GOAL_PER_S:,} is"
        f" {'met' if capacity >= GOAL_PER_S else 'missed'}."
    )
    names = list(windows[0].cores)
    rows = [
        (
            f"{each.rate:,}",
            *(f"{p50:.0f} / {p99:.0f}" for p50, p99 in (each.answered, each.page, each.webhook)),
            *(f"{each.cores[name]:.2f}" for name in names),
        )
        for each in windows
    ]
    head = ("callbacks/s", "answer", "open page", "webhook", *(f"cores of {each}" for each in names))
    return write_page(
        out / "capacity.md",
        "The whole bridge on one machine",
        [result, "", about, "", *table(head, rows)],
        command=command,
        libraries=("uvicorn", "faust-streaming", "confluent-kafka", "sqlalchemy"),
        earlier=earlier,
    )
