"""Writes the page of a run: tables, machine, versions."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

from tests.bench.page import listed, table, write_page
from tests.bench.spreads import EXPLAINED, judged
from tests.bench.streams.comparisons import LATENCY, RECOVERY, THROUGHPUT, of, ratios
from tests.bench.streams.latency import BACKLOG, KAFKA_WARM_UP_S, RATE, WARM_UP_S

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.bench.machine import Before
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
    lines = [*job, ""] if job else []
    if results.windows:
        lines += _throughput(results)
        lines += _ratios("Ratios", results.windows, THROUGHPUT, ended["throughput"])
    if results.restored:
        lines += _recovery(results)
        lines += _ratios("Ratios of recovery", results.restored, RECOVERY, ended["recovery"])
    if results.latencies:
        lines += _latency(results)
        lines += _ratios("Ratios of latency", results.latencies, LATENCY, ended["latency"])
    if results.scaled:
        lines += _scaling(results)
    lines += listed("Contenders", (f"{each.name}: {each.description}." for each in contenders))
    lines += listed("Left out", (f"{name}: {reason}" for name, reason in left_out.items()))
    title = "The streams service next to its peers"
    return write_page(page, title, lines, command=command, libraries=_LIBRARIES, earlier=earlier)


def _throughput(results: Results) -> list[str]:
    figures = ("per_second", "per_cpu_second", "peak_mb", "states")
    rows = [
        [name, *(of(found, attrgetter(figure)).text() for figure in figures)] for name, found in results.windows.items()
    ]
    head = ["", "events/s", "events per CPU second", "most memory, MiB", "state records"]
    return ["## Throughput", "", *table(head, rows)]


def _ratios(title: str, found: Mapping[str, list[Any]], figures: Figures, ended: str) -> list[str]:
    rows = [
        [peer, figure, judged(ratio, bound), str(bound or "")] for peer, figure, ratio, bound in ratios(found, figures)
    ]
    if not rows:
        return []
    head = ["taskbridge over", "figure", "ratio", "target"]
    return [f"## {title}", "", f"{EXPLAINED} {ended}", "", *table(head, rows)]


def _recovery(results: Results) -> list[str]:
    figures = (("seconds", 1), ("per_second", 0), ("cpu_us", 1), ("peak_mb", 0))
    rows = [
        [name, f"{found[0].states:,}", *(of(found, attrgetter(figure)).text(digits) for figure, digits in figures)]
        for name, found in results.restored.items()
    ]
    return [
        "## Recovery",
        "",
        "A worker with an empty disk, its states in the changelog: the time until it is ready, less the time that the",
        "same start takes without any states. Afterwards events must find their instances as they were.",
        "",
        *table(["", "states", "s", "states/s", "CPU µs/state", "most memory, MiB"], rows),
    ]


def _latency(results: Results) -> list[str]:
    figures = ("p50_ms", "p99_ms", "max_ms")
    rows = [
        [name, *(of(found, attrgetter(figure)).text(1) for figure in figures)]
        for name, found in results.latencies.items()
    ]
    return [
        "## Latency",
        "",
        f"{RATE:,} events a second at a fixed rate; from the moment an event was due until a consumer has",
        f"its notification, read committed. To warm up, each has a backlog of {BACKLOG:,} events first, and",
        f"{WARM_UP_S} s at the rate, {KAFKA_WARM_UP_S} s before the first round.",
        "",
        *table(["", "p50 ms", "p99 ms", "longest ms"], rows),
    ]


def _scaling(results: Results) -> list[str]:
    figures = ("cpu_us", "per_second", "memory_mb")
    rows = [
        [f"{instances:,}", *(of(found, attrgetter(figure)).text() for figure in figures)]
        for instances, found in results.scaled.items()
    ]
    return [
        "## Scaling",
        "",
        "The service with so many instances, rebuilt from the changelog; then events that are spread over all of them",
        "at random, so that with many instances nearly each of them is read from disk. Every state is checked.",
        "They come at once: a chunk has many.",
        "",
        *table(["instances", "CPU µs/event", "events/s", "resident MiB"], rows),
    ]
