"""Writes the page of a run: tables, machine, versions."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from tests.bench.edge.callbacks import COUNT
from tests.bench.edge.comparisons import COMPARISONS
from tests.bench.edge.loads import CONNECTIONS
from tests.bench.page import listed, table, write_page
from tests.bench.spreads import EXPLAINED, judged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.bench.edge.callbacks import Kind
    from tests.bench.edge.comparisons import Results
    from tests.bench.edge.servers import Server
    from tests.bench.machine import Before
    from tests.bench.rounds import Rounds

PAGE = "edge.md"

_LIBRARIES = ("uvicorn", "uvloop", "httptools", "starlette", "fastapi", "confluent-kafka", "fastavro")
_CLOSED = (("cpu_us", 0), ("per_second", 0), ("p50_ms", 1), ("p99_ms", 1))
_OPEN = ("p50_ms", "p99_ms", "p999_ms")


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
    names = [server.name for server in servers]
    lines = [*_head(rounds, kinds), *_closed(results, names, kinds), *_ratios(results, kinds), *_open(results)]
    lines += listed("Servers", [*(f"{each.name}: {each.description}." for each in servers), *_warmed(results)])
    lines += listed("Left out", (f"{name}: {reason}" for name, reason in left_out.items()))
    title = "The edge next to its peers"
    return write_page(out / PAGE, title, lines, command=command, libraries=_LIBRARIES, earlier=earlier)


def _head(rounds: Rounds, kinds: Sequence[Kind]) -> list[str]:
    sizes = ", ".join(f"{kind.name} ({kind.mean_bytes} bytes, {kind.content_type})" for kind in kinds)
    return [
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
        rows = [
            [name, *(results.of(name, kind.name, attrgetter(figure)).text(digits) for figure, digits in _CLOSED)]
            for name in names
        ]
        lines += [f"## {kind.name.capitalize()}, closed loop", ""]
        lines += table(["server", "CPU µs/request", "requests/s", "p50 ms", "p99 ms"], rows)
    return lines


def _ratios(results: Results, kinds: Sequence[Kind]) -> list[str]:
    rows: list[list[str]] = []
    for each in COMPARISONS:
        found = [each.of(results, kind.name) for kind in kinds]
        cells = [judged(ratio, each.bound) for ratio in found if ratio is not None]
        if cells:
            rows.append([each.title, *cells, str(each.bound or "")])
    return ["## Ratios", "", EXPLAINED, "", *table(["ratio", *(kind.name for kind in kinds), "target"], rows)]


def _open(results: Results) -> list[str]:
    rows = [
        [kind, str(rate), name, *(results.scheduled(name, kind, rate, attrgetter(each)).text(1) for each in _OPEN)]
        for name, kind, rate in results.schedules
    ]
    if not rows:
        return []
    return [
        "## Open loop",
        "",
        "Requests leave at a fixed rate, and each is timed from the moment it was due (no coordinated omission).",
        "",
        *table(["kind", "requests/s", "server", "p50 ms", "p99 ms", "p99.9 ms"], rows),
    ]


def _warmed(results: Results) -> list[str]:
    """How long warming up took, and how steady the figure was then."""
    return [f"{name}, {kind}: warmed up for {found}." for (name, kind), found in results.warmed.items()]
