"""Writes the page of a run (tables, machine, versions) and its plots."""

from __future__ import annotations

from datetime import UTC, datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from tests.bench.bars import bars
from tests.bench.machine import machine_section
from tests.bench.spreads import EXPLAINED, judged
from tests.bench.streams.comparisons import LATENCY, RECOVERY, THROUGHPUT, of, ratios
from tests.bench.streams.contenders import TASKBRIDGE
from tests.bench.streams.latency import BACKLOG, KAFKA_WARM_UP_S, RATE, WARM_UP_S

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.bench.machine import Before
    from tests.bench.spreads import Spread
    from tests.bench.streams.comparisons import Figures, Results
    from tests.bench.streams.contenders import Contender

_LIBRARIES = ("faust-streaming", "aiokafka", "confluent-kafka", "fastavro", "rocksdict")


def write_report(
    page: Path,
    results: Results,
    *,
    contenders: Sequence[Contender],
    left_out: Mapping[str, str],
    job: Sequence[str],
    ended: Mapping[str, str],
    command: str,
    earlier: Before,
) -> Path:
    """The page's path.

    ``job`` describes the run in lines; ``left_out`` is named on the page with its reasons; ``ended`` has for each part
    how many rounds it had.
    """
    out = page.parent
    out.mkdir(parents=True, exist_ok=True)
    lines = ["# The streams service next to its peers", ""]
    lines += [f"Written by `{command}` on {datetime.now(UTC):%Y-%m-%d}.", ""]
    lines += [*job, ""] if job else []
    if results.windows:
        lines += _throughput(page, results)
        lines += _ratios("Ratios", results.windows, THROUGHPUT, ended["throughput"])
    if results.restored:
        lines += _recovery(out, results)
        lines += _ratios("Ratios of recovery", results.restored, RECOVERY, ended["recovery"])
    if results.latencies:
        lines += _latency(out, results)
        lines += _ratios("Ratios of latency", results.latencies, LATENCY, ended["latency"])
    if results.scaled:
        lines += _scaling(out, results)
    lines += ["## Contenders", "", *(f"- {each.name}: {each.description}." for each in contenders), ""]
    if left_out:
        lines += ["## Left out", "", *(f"- {name}: {reason}" for name, reason in left_out.items()), ""]
    lines += machine_section(_LIBRARIES, earlier)
    page.write_text("\n".join(lines) + "\n")
    return page


def _throughput(page: Path, results: Results) -> list[str]:
    lines = [
        "## Throughput",
        "",
        "| | events/s | events per CPU second | most memory, MiB | state records |",
        "|---|---|---|---|---|",
    ]
    figures = ("per_second", "per_cpu_second", "peak_mb", "states")
    for name, found in results.windows.items():
        lines.append(_row(name, *(of(found, attrgetter(figure)).text() for figure in figures)))
    groups = {
        title: {name: of(found, attrgetter(figure)) for name, found in results.windows.items()}
        for figure, title, _ in reversed(THROUGHPUT)
    }
    plot = f"{page.stem}-rate.svg"
    (page.parent / plot).write_text(bars("The reference job", "1/s", groups))
    return [*lines, "", f"![Events per second and per CPU second]({plot})", ""]


def _ratios(title: str, found: Mapping[str, list[Any]], figures: Figures, ended: str) -> list[str]:
    compared = ratios(found, figures)
    if not compared:
        return []
    lines = [f"## {title}", "", f"{EXPLAINED} {ended}", "", "| taskbridge over | figure | ratio | target |"]
    lines.append("|---|---|---|---|")
    for peer, figure, ratio, bound in compared:
        lines.append(_row(peer, figure, judged(ratio, bound), str(bound or "")))
    return [*lines, ""]


def _recovery(out: Path, results: Results) -> list[str]:
    lines = [
        "## Recovery",
        "",
        "A worker with an empty disk, its states in the changelog: the time until it is ready, less the time that the",
        "same start takes without any states. Afterwards events must find their instances as they were.",
        "",
        "| | states | s | states/s | CPU µs/state | most memory, MiB |",
        "|---|---|---|---|---|---|",
    ]
    figures = (("seconds", 1), ("per_second", 0), ("cpu_us", 1), ("peak_mb", 0))
    for name, found in results.restored.items():
        cells = [of(found, attrgetter(figure)).text(digits) for figure, digits in figures]
        lines.append(_row(name, f"{found[0].states:,}", *cells))
    rates = {name: of(found, attrgetter("per_second")) for name, found in results.restored.items()}
    (out / "streams-recovery.svg").write_text(bars("Rebuilding states", "1/s", {"states/s": rates}))
    return [*lines, "", "![States rebuilt in a second](streams-recovery.svg)", ""]


def _latency(out: Path, results: Results) -> list[str]:
    lines = [
        "## Latency",
        "",
        f"{RATE:,} events a second at a fixed rate; from the moment an event was due until a consumer has",
        f"its notification, read committed. To warm up, each has a backlog of {BACKLOG:,} events first, and",
        f"{WARM_UP_S} s at the rate, {KAFKA_WARM_UP_S} s before the first round.",
        "",
        "| | p50 ms | p99 ms | longest ms |",
        "|---|---|---|---|",
    ]
    figures = ("p50_ms", "p99_ms", "max_ms")
    for name, found in results.latencies.items():
        lines.append(_row(name, *(of(found, attrgetter(figure)).text(1) for figure in figures)))
    groups = {
        figure.removesuffix("_ms"): {name: of(found, attrgetter(figure)) for name, found in results.latencies.items()}
        for figure in figures[:2]
    }
    (out / "streams-latency.svg").write_text(bars("From event to notification", "ms", groups))
    return [*lines, "", "![Latency](streams-latency.svg)", ""]


def _scaling(out: Path, results: Results) -> list[str]:
    lines = [
        "## Scaling",
        "",
        "The service with so many instances, rebuilt from the changelog; then events that are spread over all of them",
        "at random, so that with many instances nearly each of them is read from disk. Every state is checked.",
        "They come at once: a chunk has many.",
        "",
        "| instances | CPU µs/event | events/s | resident MiB |",
        "|---|---|---|---|",
    ]
    figures = ("cpu_us", "per_second", "memory_mb")
    for instances, found in results.scaled.items():
        lines.append(_row(f"{instances:,}", *(of(found, attrgetter(figure)).text() for figure in figures)))
    plots = {"cpu_us": ("streams-scaling-cpu.svg", "CPU time per event", "µs")}
    plots["memory_mb"] = ("streams-scaling-memory.svg", "Resident memory", "MiB")
    for figure, (file_name, title, unit) in plots.items():
        groups = {f"{each:,}": {TASKBRIDGE: _of(found, figure)} for each, found in results.scaled.items()}
        (out / file_name).write_text(bars(f"{title}, by number of instances", unit, groups))
    images = " ".join(f"![{title}]({file_name})" for file_name, title, _ in plots.values())
    return [*lines, "", images, ""]


def _of(found: list[Any], figure: str) -> Spread:
    return of(found, attrgetter(figure))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
