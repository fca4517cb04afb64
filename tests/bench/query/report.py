"""The page of a run: figures by kind of query, at rest and under events, next to those of the constant."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, TypeAlias

from tests.bench.machine import machine_section
from tests.bench.query.queries import CONSTANT
from tests.bench.spreads import EXPLAINED, Estimate, estimate, spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.bench.machine import Before
    from tests.bench.query.queries import Kind, Window

_LIBRARIES = ("fastapi", "starlette", "uvicorn", "rocksdict", "msgspec", "confluent-kafka", "faust-streaming")

Windows: TypeAlias = "Mapping[tuple[str, str, int], list[Window]]"
"""By condition, kind and connections, one for each round."""


def watched(windows: Windows, condition: str) -> dict[str, Estimate]:
    """The estimate that rounds must narrow: the cost of a query relative to the constant."""
    return {
        f"CPU of {kind}, {connections} connections": _ratio(windows, (condition, kind, connections), "cpu_us")
        for found, kind, connections in windows
        if found == condition and kind != CONSTANT
    }


def _ratio(windows: Windows, which: tuple[str, str, int], figure: str) -> Estimate:
    condition, _, connections = which
    of = attrgetter(figure)
    pairs = zip(windows[which], windows[condition, CONSTANT, connections], strict=True)
    return estimate(of(mine) / of(constant) for mine, constant in pairs)


def write_report(
    path: Path,
    windows: Windows,
    kinds: Sequence[Kind],
    *,
    facts: Sequence[str],
    ended: Mapping[str, str],
    command: str,
    earlier: Before,
) -> Path:
    """The page's path; ``ended`` has the number of rounds for each condition."""
    lines = [
        "# The task center's queries",
        "",
        "One worker of the streams service, queried over HTTP with wrk, and a FastAPI handler that returns a constant",
        f"of the size of a page, in one run: `{command}`. Medians of the rounds, and the range around them.",
        EXPLAINED,
        "",
    ]
    for condition in dict.fromkeys(condition for condition, _, _ in windows):
        lines += [f"## {condition}", "", ended[condition], ""]
        for connections in sorted({each for found, _, each in windows if found == condition}):
            lines += [
                f"{connections} connection{'s' if connections > 1 else ''}:",
                "",
                "| query | queries/s | of the constant's | p50 ms | p99 ms | CPU µs a query | of the constant's |",
                "|---|---|---|---|---|---|---|",
            ]
            for kind in kinds:
                found = windows[condition, kind.name, connections]
                which = condition, kind.name, connections
                of_constant = [_ratio(windows, which, figure).ratio_text() for figure in ("per_second", "cpu_us")]
                of_rate, of_cpu = ["1", "1"] if kind.name == CONSTANT else of_constant
                lines.append(
                    f"| {kind.title} | {spread(each.per_second for each in found).text()} | {of_rate} "
                    f"| {spread(each.p50_ms for each in found).text(2)} "
                    f"| {spread(each.p99_ms for each in found).text(2)} "
                    f"| {spread(each.cpu_us for each in found).text()} | {of_cpu} |"
                )
            lines.append("")
    lines += ["## Environment", "", *(f"- {each}" for each in facts), ""]
    lines += machine_section(_LIBRARIES, earlier)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path
