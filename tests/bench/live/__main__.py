"""Measures live updates, as ``taskbridge bench live`` has it done."""

from __future__ import annotations

import os
import statistics
import tempfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.command import at_least, flags_of, progress, run_benchmark
from tests.bench.live.callbacks import AT_REST, WARM_UP_PER_S, WARM_UP_S, measure_callbacks, median_ms
from tests.bench.live.many_streams import measure_streams
from tests.bench.machine import before, machine_section
from tests.bench.rounds import add_rounds, rounds_of, typed_flags
from tests.bench.spreads import EXPLAINED, Bound, spread
from tests.bench.streams.setup import start

from taskbridge.local.supervisor import Supervisor

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from tests.bench.live.callbacks import Times

_TARGET = Bound(15, unit=" ms")
"""At rest, half of the callbacks arrive within it."""
_LIBRARIES = ("fastapi", "starlette", "uvicorn", "confluent-kafka", "faust-streaming")


def _measure(arguments: argparse.Namespace) -> Path:
    earlier, rounds = before(), rounds_of(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="taskbridge-bench-") as temporary,
        Supervisor(on_event=progress) as supervisor,
    ):
        folder = Path(temporary)
        progress(f"{arguments.streams} event streams")
        held = measure_streams(arguments.streams, folder)
        setup = start(supervisor, folder, partitions=arguments.partitions, environ=os.environ, progress=progress)
        times = measure_callbacks(
            setup, rounds, callbacks=arguments.callbacks, events_per_second=arguments.events_per_second
        )
    lines = [
        "# Live updates",
        "",
        f"Written by `{_command(arguments)}` on {datetime.now(UTC):%Y-%m-%d}.",
        "",
        *callbacks_section(times, rounds.ended),
        *_streams(arguments.streams, held),
        *machine_section(_LIBRARIES, earlier),
    ]
    page: Path = arguments.out / "live.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(lines) + "\n", "utf-8")
    return page


def callbacks_section(times: Mapping[str, Sequence[Times]], ended: str) -> list[str]:
    lines = [
        "## From a callback to an open event stream",
        "",
        "One callback after the other, each a new task; from when it is posted, signed, over an open connection, until",
        "a client of its assignee's event stream has the notification.",
        f"Before, Kafka has {WARM_UP_PER_S:,} events a second for {WARM_UP_S} s.",
        "A figure is the median of the rounds' named quantiles, its range in brackets.",
        "",
        "| | callbacks a round | the edge's answer, p50 ms | arrived: least ms | p50 ms | p99 ms |",
        "|---|---|---|---|---|---|",
    ]
    for condition, found in times.items():
        answered = spread(statistics.median(each.answered) for each in found)
        arrived = [spread(each.quantile(share) for each in found) for share in (0.0, 0.5, 0.99)]
        cells = " | ".join(each.text(1) for each in (answered, *arrived))
        lines.append(f"| {condition} | {len(found[0].arrived)} | {cells} |")
    known = median_ms(times[AT_REST])
    lines += [
        "",
        f"The target is a p50 of {_TARGET} {AT_REST}: {known.text(1)} ms, {_TARGET.verdict(known)}. {EXPLAINED}",
        ended,
    ]
    return [*lines, ""]


def _streams(streams: int, facts: Sequence[str]) -> list[str]:
    return [
        f"## {streams:,} open event streams on one worker",
        "",
        "The worker's event streams in a process of its own, and sockets that listen; a tenth of them to one person.",
        "",
        *(f"- {each}" for each in facts),
        "",
    ]


def _command(arguments: argparse.Namespace) -> str:
    names = ("callbacks", "events-per-second", "streams", "partitions")
    others = " ".join(f"--{name} {getattr(arguments, name.replace('-', '_'))}" for name in names)
    return f"taskbridge bench live {typed_flags(arguments)} {others}"


def _arguments() -> argparse.Namespace:
    parser = flags_of(
        "live",
        "Measure the time from a callback to an open event stream, and the cost of many open streams. All of it takes"
        " two minutes, then --minutes; a round takes half a minute with the settings below.",
    )
    add_rounds(parser, least=3, most=12, within=10, minutes=5)
    parser.add_argument(
        "--callbacks", type=at_least(1), default=80, help="posted in a round one after the other, twice"
    )
    parser.add_argument("--events-per-second", type=at_least(1), default=200, help="rate of other events meanwhile")
    parser.add_argument("--streams", type=at_least(10), default=10_000, help="event streams that are open at once")
    parser.add_argument("--partitions", type=at_least(1), default=12, help="of every topic")
    return parser.parse_args()


if __name__ == "__main__":
    run_benchmark("live", partial(_measure, _arguments()))
