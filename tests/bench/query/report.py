"""The page of a run: figures by kind of query, at rest and under events, beside the constant's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.machine import machine_section
from tests.bench.query.asking import CONSTANT
from tests.bench.spreads import spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.bench.query.asking import Kind, Window

_LIBRARIES = ("fastapi", "starlette", "uvicorn", "rocksdict", "msgspec", "confluent-kafka", "faust-streaming")


def write_report(
    path: Path,
    windows: Mapping[tuple[str, str, int], list[Window]],
    kinds: Sequence[Kind],
    *,
    facts: Sequence[str],
    command: str,
    load_before: float,
) -> Path:
    """``windows``: by condition, kind and connections, one for each round."""
    lines = [
        "# The task center's queries",
        "",
        "One worker of the streams service, asked over HTTP with wrk, beside a FastAPI handler that returns a constant",
        f"of the size of a page, in one run: `{command}`. Medians of the rounds, and the range around them.",
        "",
    ]
    for condition in dict.fromkeys(condition for condition, _, _ in windows):
        lines += [f"## {condition}", ""]
        for connections in sorted({each for found, _, each in windows if found == condition}):
            lines += [
                f"{connections} connection{'s' if connections > 1 else ''}:",
                "",
                "| query | queries/s | of the constant's | p50 ms | p99 ms | CPU µs a query |",
                "|---|---|---|---|---|---|",
            ]
            constant = windows[condition, CONSTANT, connections]
            for kind in kinds:
                found = windows[condition, kind.name, connections]
                rate = spread(each.per_second for each in found)
                ratio = rate.median / spread(each.per_second for each in constant).median
                lines.append(
                    f"| {kind.title} | {rate.text()} | {ratio:.2f} | {spread(each.p50_ms for each in found).text(2)} "
                    f"| {spread(each.p99_ms for each in found).text(2)} "
                    f"| {spread(each.cpu_us for each in found).text()} |"
                )
            lines.append("")
    lines += ["## What stood around it", "", *(f"- {each}" for each in facts), ""]
    lines += machine_section(_LIBRARIES, load_before)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path
