"""``taskbridge bench center``: measures the task center on SQLite and on PostgreSQL, next to an earlier release."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.center.callbacks import measure_callbacks
from tests.bench.center.company import write_backlog, write_busy, write_states
from tests.bench.center.installations import DATABASES, Center, catch_up, check_checkout
from tests.bench.center.many_streams import measure_streams
from tests.bench.center.queries import Contender, measure_queries, prove_same_answers
from tests.bench.center.report import Found, write_report
from tests.bench.command import at_least, flags_of, progress, run_benchmark
from tests.bench.edge.servers import build_go
from tests.bench.machine import before
from tests.bench.rounds import add_rounds, rounds_of, typed_flags
from tests.bench.streams.setup import start
from tests.bench.toolchains import CHECKOUT

from taskbridge.local.host import require_space
from taskbridge.local.supervisor import Supervisor

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from tests.bench.streams.setup import Setup

CATCH_UP, QUERIES, CALLBACKS, STREAMS = "catch-up", "queries", "callbacks", "streams"
_PARTS = (CATCH_UP, QUERIES, CALLBACKS, STREAMS)
_DISK_MB = 12_000
_COUNTS = ("instances", "backlog", "tasks", "seconds", "callbacks", "events-per-second", "streams", "partitions")


def _measure(arguments: argparse.Namespace) -> Path:
    earlier, found, parts = before(), Found(tasks=arguments.tasks), arguments.only
    if arguments.earlier is not None:
        check_checkout(arguments.earlier)
    program = build_go(progress) / "openloop" if QUERIES in parts else Path()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taskbridge-bench-")))
        require_space(folder, needed_mb=_DISK_MB, remedy="free some, or set TMPDIR to another disk")
        setup = _start(stack, folder, arguments)
        checkouts = [CHECKOUT] if arguments.earlier is None else [CHECKOUT, arguments.earlier]
        centers = [Center(setup, each, stack, checkout=of) for each in arguments.databases for of in checkouts]
        found.entries = write_states(setup, arguments.instances) + arguments.tasks
        write_busy(setup, arguments.tasks)
        for center in centers:
            with center:
                found.filled[center.name] = catch_up(center, setup)
                center.until_ready()
        if CATCH_UP in parts:
            write_backlog(setup, arguments.backlog)
            for center in centers:
                with center:
                    found.backlog[center.name] = catch_up(center, setup)
        if QUERIES in parts:
            _measure_queries(setup, centers, program, found, arguments)
        for center in centers:
            if CALLBACKS in parts:
                _measure_callbacks(setup, center, found, arguments)
            if STREAMS in parts:
                with center:
                    center.until_ready()
                    found.streams[center.name] = measure_streams(setup, center, arguments.streams)
    return write_report(arguments.out / "center.md", found, command=_command(arguments), earlier=earlier)


def _start(stack: ExitStack, folder: Path, arguments: argparse.Namespace) -> Setup:
    supervisor = stack.enter_context(Supervisor(on_event=progress))
    setup = start(supervisor, folder, partitions=arguments.partitions, environ=os.environ, progress=progress)
    setup.create_topics()
    return setup


def _measure_queries(
    setup: Setup, centers: Sequence[Center], program: Path, found: Found, arguments: argparse.Namespace
) -> None:
    with ExitStack() as stack:
        for center in centers:
            # They share the partitions, of which there is nothing left to read.
            stack.enter_context(center)
            center.until_ready()
            center.vacuum()
        contenders = {center.name: Contender(center.url, lambda center=center: sum(center.cpu)) for center in centers}
        prove_same_answers(contenders, arguments.tasks)
        rounds = rounds_of(arguments)
        found.latencies = measure_queries(setup, program, contenders, rounds, seconds=arguments.seconds)


def _measure_callbacks(setup: Setup, center: Center, found: Found, arguments: argparse.Namespace) -> None:
    rounds = rounds_of(arguments)
    with center:
        center.until_ready()
        found.callbacks[center.name] = measure_callbacks(
            setup,
            rounds,
            callbacks=arguments.callbacks,
            events_per_second=arguments.events_per_second,
            center=center.url,
            checkout=center.checkout,
        )
    found.ended.append(f"{center.name}: {rounds.ended}")


def _command(arguments: argparse.Namespace) -> str:
    counts = " ".join(f"--{name} {getattr(arguments, name.replace('-', '_'))}" for name in _COUNTS)
    only = "" if arguments.only == _PARTS else f" --only {' '.join(arguments.only)}"
    return f"taskbridge bench center {typed_flags(arguments)} {counts}{only}"


def _arguments() -> argparse.Namespace:
    parser = flags_of(
        "center",
        "Measure the task center: catching up, queries, the time from a callback to an open event stream, and the cost"
        " of many open streams. Needs Go for queries at a fixed rate.",
    )
    add_rounds(parser, least=3, most=9, within=10, minutes=5)
    number = at_least(1)
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=_PARTS, help="parts to measure")
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES, help="to measure it on")
    parser.add_argument("--earlier", type=Path, help="checkout of an earlier release, after `uv sync`: takes part too")
    parser.add_argument("--instances", type=number, default=1_000_000, help="with which databases are filled")
    parser.add_argument("--backlog", type=at_least(1000), default=100_000, help="events while the center was stopped")
    parser.add_argument("--tasks", type=at_least(2100), default=10_000, help="handled tasks of the queried person")
    parser.add_argument("--seconds", type=number, default=3, help="length of one measurement of a kind of query")
    parser.add_argument("--callbacks", type=number, default=80, help="posted in a round one after the other, twice")
    parser.add_argument("--events-per-second", type=number, default=500, help="rate of other events meanwhile")
    parser.add_argument("--streams", type=at_least(10), default=10_000, help="event streams that are open at once")
    parser.add_argument("--partitions", type=number, default=12, help="of every topic")
    return parser.parse_args()


if __name__ == "__main__":
    run_benchmark("center", partial(_measure, _arguments()))
