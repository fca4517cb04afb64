"""The page of a run."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.bench.center.callbacks import AT_REST, WARM_UP_PER_S, WARM_UP_S, median_ms
from tests.bench.center.installations import POSTGRESQL, SQLITE
from tests.bench.center.queries import KINDS, RATE
from tests.bench.page import listed, table, write_page
from tests.bench.spreads import EXPLAINED, Bound, estimate, spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.bench.center.callbacks import Times
    from tests.bench.center.installations import CaughtUp
    from tests.bench.center.queries import Latencies
    from tests.bench.machine import Before

    Callbacks = dict[str, Mapping[str, Sequence[Times]]]

_LIBRARIES = ("fastapi", "uvicorn", "sqlalchemy", "psycopg", "msgspec", "confluent-kafka")
_CATCH_UP = Bound(4000, is_least=True, unit=" states a second")
_ARRIVED = {SQLITE: Bound(13, unit=" ms"), POSTGRESQL: Bound(16, unit=" ms")}
_ARRIVED_UNDER_LOAD = Bound(30, unit=" ms")
"""Half of the callbacks arrive within it."""


@dataclass(slots=True)
class Found:
    """Of a run; by contender, or by the name of a database."""

    filled: dict[str, CaughtUp] = field(default_factory=dict[Any, Any])
    entries: int = 0
    backlog: dict[str, CaughtUp] = field(default_factory=dict[Any, Any])
    latencies: Latencies = field(default_factory=dict[Any, Any])
    tasks: int = 0
    streams: dict[str, Sequence[str]] = field(default_factory=dict[Any, Any])
    callbacks: Callbacks = field(default_factory=dict[Any, Any])
    ended: list[str] = field(default_factory=list[str])


def write_report(page: Path, found: Found, *, command: str, earlier: Before) -> Path:
    lines = [EXPLAINED, ""]
    if found.filled:
        lines += _catch_up(found)
    if found.latencies:
        lines += _queries(found)
    if found.callbacks:
        lines += _callbacks(found)
    for name, facts in found.streams.items():
        lines += listed(f"Open event streams, {name}", ["A tenth of them listen to one person.", *facts])
    return write_page(page, "The task center", lines, command=command, libraries=_LIBRARIES, earlier=earlier)


def _catch_up(found: Found) -> list[str]:
    names = [*found.filled]
    states = next(iter(found.filled.values())).states
    rows: list[list[str]] = []
    for title, measured in (("filling", found.filled), ("backlog", found.backlog)):
        runs = [measured[name] for name in names if name in measured]
        rows += [
            [f"{title}: states", *(f"{each.states:,}" for each in runs)],
            [f"{title}: states/s", *(f"{each.per_second:,.0f}" for each in runs)],
            [f"{title}: states per CPU second of the center", *(_per(each, each.center_cpu_s) for each in runs)],
            [f"{title}: states per CPU second of the server", *(_per(each, each.server_cpu_s) for each in runs)],
            [f"{title}: memory of the center, MiB", *(f"{each.memory_mb:.0f}" for each in runs)],
            [f"{title}: size of the database, MiB", *(f"{each.database_mb:,.0f}" for each in runs)],
        ]
    return [
        "## Catching up",
        "",
        f"A new database is filled from {states:,} states with {found.entries:,} list entries. The backlog is the",
        "state after each event of new instances, which came while the center was stopped.",
        "",
        *table(["", *names], rows),
        f"The target is {_CATCH_UP}.",
        "",
    ]


def _per(each: CaughtUp, cpu_s: float) -> str:
    return f"{each.states / cpu_s:,.0f}" if cpu_s else "-"


def _queries(found: Found) -> list[str]:
    names = [*dict.fromkeys(name for name, _ in found.latencies)]
    rows: list[list[str]] = []
    for kind in KINDS:
        cells = [kind.title]
        for name in names:
            windows = found.latencies[name, kind.title]
            p50, p99 = (
                spread(values) for values in zip(*((each.p50_ms, each.p99_ms) for each in windows), strict=True)
            )
            cells.append(f"{p50.text(1)} / {p99.text(1)}; {spread(each.cpu_ms for each in windows).text(2)}")
        bound = None if kind.limit_ms is None else Bound(kind.limit_ms)
        verdicts = [
            f"{name} {bound.verdict(estimate(each.p99_ms for each in found.latencies[name, kind.title]))}"
            for name in names
            if bound is not None
        ]
        rows.append([*cells, f"{bound}: {', '.join(verdicts)}" if bound else ""])
    return [
        f"## Queries, {RATE} a second",
        "",
        f"Of a person with {found.tasks:,} handled tasks, at a fixed rate, each kind by itself. Latencies count from",
        "when a request was due: p50 / p99, and CPU time for each query, in milliseconds. All contenders give the",
        "same answers. Next to two callers, CPU time is that of their searches too.",
        "",
        *table(["query", *names, "target of p99"], rows),
    ]


def _callbacks(found: Found) -> list[str]:
    rows: list[list[str]] = []
    for name, times in found.callbacks.items():
        for condition, rounds in times.items():
            answered = spread(statistics.median(each.answered) for each in rounds)
            arrived = [spread(each.quantile(share) for each in rounds) for share in (0.0, 0.5, 0.99)]
            cells = [each.text(1) for each in (answered, *arrived)]
            bound = _ARRIVED.get(name) if condition == AT_REST else _ARRIVED_UNDER_LOAD
            goal = "" if bound is None else f"{bound}, {bound.verdict(median_ms(rounds))}"
            rows.append([f"{name}, {condition}", str(len(rounds[0].arrived)), *cells, goal])
    head = ["", "callbacks a round", "the edge's answer, p50 ms", "arrived: least ms", "p50 ms", "p99 ms", "target"]
    return [
        "## From a callback to an open event stream",
        "",
        "One callback after the other, each a new task; from when it is posted, signed, over an open connection, until",
        "a client of its assignee's event stream has the notification.",
        f"Before, Kafka has {WARM_UP_PER_S:,} events a second for {WARM_UP_S} s.",
        "A figure is the median of the rounds' named quantiles, its range in brackets.",
        "",
        *table(head, rows),
        *found.ended,
        "",
    ]
