"""Measures live updates, as ``taskbridge bench live`` has it done."""

from __future__ import annotations

import os
import statistics
import tempfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from taskbridge.local.processes.supervisor import Supervisor
from tests.bench.command import at_least, flags_of, progress, run_benchmark
from tests.bench.live.callbacks import measure_callbacks
from tests.bench.live.many_streams import measure_streams
from tests.bench.machine import machine_section
from tests.bench.streams.surroundings import start

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from tests.bench.live.callbacks import Times

_LIBRARIES = ("fastapi", "starlette", "uvicorn", "confluent-kafka", "faust-streaming")


def _measure(arguments: argparse.Namespace) -> Path:
    load_before = os.getloadavg()[0]
    with (
        tempfile.TemporaryDirectory(prefix="taskbridge-bench-") as temporary,
        Supervisor(on_event=progress) as supervisor,
    ):
        folder = Path(temporary)
        progress(f"{arguments.streams} event streams")
        held = measure_streams(arguments.streams, folder)
        surroundings = start(supervisor, folder, partitions=arguments.partitions, environ=os.environ, progress=progress)
        progress(f"{arguments.callbacks} callbacks, twice")
        times = measure_callbacks(
            surroundings, callbacks=arguments.callbacks, events_per_second=arguments.events_per_second
        )
    lines = [
        "# Live updates",
        "",
        f"Written by `{_command(arguments)}` on {datetime.now(UTC):%Y-%m-%d}.",
        "",
        *_callbacks(times),
        *_streams(arguments.streams, held),
        *machine_section(_LIBRARIES, load_before),
    ]
    page: Path = arguments.out / "live.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(lines) + "\n", "utf-8")
    return page


def _callbacks(times: Mapping[str, Times]) -> list[str]:
    lines = [
        "## From a callback to an open event stream",
        "",
        "One callback after the other, each a new task; from before it is posted until who listens to its assignee's",
        "event stream has the notification. Between stand the edge, Kafka twice, and both tables of the service.",
        "",
        "| | callbacks | the edge's answer, p50 ms | arrived: least ms | p50 ms | p99 ms |",
        "|---|---|---|---|---|---|",
    ]
    for condition, found in times.items():
        arrived = sorted(found.arrived)
        lines.append(
            f"| {condition} | {len(arrived)} | {statistics.median(found.answered):.1f} | {arrived[0]:.1f} "
            f"| {statistics.median(arrived):.1f} | {arrived[int(len(arrived) * 0.99)]:.1f} |"
        )
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
    return "taskbridge bench live " + " ".join(
        f"--{name} {getattr(arguments, name.replace('-', '_'))}" for name in names
    )


def _arguments() -> argparse.Namespace:
    parser = flags_of("live")
    parser.add_argument("--callbacks", type=at_least(1), default=300, help="posted one after the other, twice")
    parser.add_argument("--events-per-second", type=at_least(1), default=200, help="of what is processed meanwhile")
    parser.add_argument("--streams", type=at_least(10), default=10_000, help="event streams that are open at once")
    parser.add_argument("--partitions", type=at_least(1), default=12, help="of every topic")
    return parser.parse_args()


if __name__ == "__main__":
    run_benchmark("live", partial(_measure, _arguments()))
