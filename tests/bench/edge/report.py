"""Writes the page of a run (tables, machine, versions) and its three plots."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.bench.bars import bars
from tests.bench.edge.callbacks import COUNT
from tests.bench.edge.comparisons import COMPARISONS
from tests.bench.edge.loads import CONNECTIONS
from tests.bench.machine import machine_section
from tests.bench.spreads import EXPLAINED, judged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.bench.edge.callbacks import Kind
    from tests.bench.edge.comparisons import Results
    from tests.bench.edge.loads import Schedule, Window
    from tests.bench.edge.servers import Server
    from tests.bench.machine import Before
    from tests.bench.rounds import Rounds

PAGE = "edge.md"

_LIBRARIES = ("uvicorn", "uvloop", "httptools", "starlette", "fastapi", "confluent-kafka", "fastavro")


def _cpu(window: Window) -> float:
    return window.cpu_us


def _per_second(window: Window) -> float:
    return window.per_second


def _p50(window: Window | Schedule) -> float:
    return window.p50_ms


def _p99(window: Window | Schedule) -> float:
    return window.p99_ms


def _p999(schedule: Schedule) -> float:
    return schedule.p999_ms


def write_report(
    out: Path,
    results: Results,
    *,
    servers: Sequence[Server],
    kinds: Sequence[Kind],
    left_out: Mapping[str, str],
    rounds: Rounds,
    command: str,
    earlier: Before,
) -> Path:
    """The page's path. What is in ``left_out`` is named on the page with its reason."""
    out.mkdir(parents=True, exist_ok=True)
    names = [server.name for server in servers]
    rates = sorted({rate for _, _, rate in results.schedules})
    plots = {"edge-cpu.svg": ("CPU time per request", "µs", _cpu), "edge-rate.svg": ("Requests/s", "1/s", _per_second)}
    for file_name, (title, unit, figure) in plots.items():
        groups = {kind.name: {name: results.of(name, kind.name, figure) for name in names} for kind in kinds}
        (out / file_name).write_text(bars(f"{title}, {CONNECTIONS} connections, closed loop", unit, groups))
    lines = [*_head(rounds, kinds, command), *_closed(results, names, kinds), *_ratios(results, kinds)]
    if rates:
        lines += _open(out, results, names, kinds, rates)
    lines += [*_how(servers, results), *_left_out(left_out), *machine_section(_LIBRARIES, earlier)]
    (out / PAGE).write_text("\n".join(lines) + "\n")
    return out / PAGE


def _head(rounds: Rounds, kinds: Sequence[Kind], command: str) -> list[str]:
    sizes = ", ".join(f"{kind.name} ({kind.mean_bytes} bytes, {kind.content_type})" for kind in kinds)
    return [
        "# The edge next to its peers",
        "",
        f"Written by `{command}` on {datetime.now(UTC):%Y-%m-%d}.",
        "",
        f"Signed callbacks, {COUNT} different ones of each kind: {sizes};",
        f"{CONNECTIONS} connections; answered 200 once Kafka has acknowledged. A figure is the median of the rounds,",
        f"its range in brackets. Kafka, the load and the server share the machine's cores. {rounds.ended}",
        "",
        "A window counts only if every answer was 200 and Kafka has a record for each. Each server's records equal the",
        "edge's; forged and broken callbacks are refused.",
        "",
    ]


def _closed(results: Results, names: Sequence[str], kinds: Sequence[Kind]) -> list[str]:
    lines: list[str] = []
    for kind in kinds:
        lines += [
            f"## {kind.name.capitalize()}, closed loop",
            "",
            "| server | CPU µs/request | requests/s | p50 ms | p99 ms |",
            "|---|---|---|---|---|",
        ]
        for name in names:
            figures = ((_cpu, 0), (_per_second, 0), (_p50, 1), (_p99, 1))
            cells = [results.of(name, kind.name, figure).text(digits) for figure, digits in figures]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    return [*lines, "![CPU time per request](edge-cpu.svg) ![Requests per second](edge-rate.svg)", ""]


def _ratios(results: Results, kinds: Sequence[Kind]) -> list[str]:
    lines = ["## Ratios", "", EXPLAINED, "", f"| ratio | {' | '.join(kind.name for kind in kinds)} | target |"]
    lines.append("|---|" + "---|" * (len(kinds) + 1))
    for each in COMPARISONS:
        found = [each.of(results, kind.name) for kind in kinds]
        cells = [judged(ratio, each.bound) for ratio in found if ratio is not None]
        if cells:
            lines.append(f"| {each.title} | {' | '.join(cells)} | {each.bound or ''} |")
    return [*lines, ""]


def _open(out: Path, results: Results, names: Sequence[str], kinds: Sequence[Kind], rates: Sequence[int]) -> list[str]:
    lines = [
        "## Open loop",
        "",
        "Requests leave at a fixed rate, and each is timed from the moment it was due (no coordinated omission).",
        "",
        "| kind | requests/s | server | p50 ms | p99 ms | p99.9 ms |",
        "|---|---|---|---|---|---|",
    ]
    measured = [name for name in names if any((name, kind.name, rates[0]) in results.schedules for kind in kinds)]
    for kind in kinds:
        for rate in rates:
            for name in measured:
                cells = [results.scheduled(name, kind.name, rate, figure).text(1) for figure in (_p50, _p99, _p999)]
                lines.append(f"| {kind.name} | {rate} | {name} | {' | '.join(cells)} |")
    groups = {
        f"{kind.name} {rate}/s": {name: results.scheduled(name, kind.name, rate, _p99) for name in measured}
        for kind in kinds
        for rate in rates
    }
    (out / "edge-open-loop.svg").write_text(bars("p99 at a fixed rate, open loop", "ms", groups))
    return [*lines, "", "![p99 at a fixed rate](edge-open-loop.svg)", ""]


def _how(servers: Sequence[Server], results: Results) -> list[str]:
    warmed = [f"{name}: {warming}" for name, warming in results.warmings().items()]
    lines = [f"{server.name}: {server.description}" for server in servers]
    return ["## Servers", "", *(f"- {each}." for each in [*lines, *warmed]), ""]


def _left_out(left_out: Mapping[str, str]) -> list[str]:
    if not left_out:
        return []
    return ["## Left out", "", *(f"- {name}: {reason}" for name, reason in left_out.items()), ""]
