"""Measures what sizes of machines and disks follow from, as ``taskbridge bench sizing`` has it done."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.command import NotCounted, at_least, flags_of, progress, run_benchmark
from tests.bench.machine import before
from tests.bench.sizing.groups import measure_group
from tests.bench.sizing.holding import measure_holding
from tests.bench.sizing.rebuilds import measure_rebuild
from tests.bench.sizing.report import Found, write_report
from tests.bench.sizing.traffic import measure_traffic
from tests.bench.streams.setup import start

from taskbridge.local.host import require_space
from taskbridge.local.supervisor import Supervisor

if TYPE_CHECKING:
    import argparse

_DISK_MB = 15_000
_RATES = (10, 100, 1000)
_SECONDS = (60, 20, 10)


def _measure(arguments: argparse.Namespace) -> Path:
    earlier = before()
    with tempfile.TemporaryDirectory(prefix="taskbridge-bench-") as temporary:
        folder = Path(temporary)
        require_space(folder, needed_mb=_DISK_MB, remedy="free some, or set TMPDIR to another disk")
        with Supervisor(on_event=progress) as supervisor:
            setup = start(supervisor, folder, partitions=arguments.partitions, environ=os.environ, progress=progress)
            kafka_pid = supervisor.pid("kafka")
            if kafka_pid is None:
                raise NotCounted("Kafka does not run")
            rates = {rate: rate * seconds for rate, seconds in zip(_RATES, _SECONDS, strict=True)}
            traffic, spooled = measure_traffic(setup, kafka_pid, rates)
            rebuilds = [measure_rebuild(setup, each) for each in arguments.rebuilt]
            holdings = [measure_holding(setup, each) for each in arguments.instances]
            groups = [measure_group(setup, each) for each in arguments.workers]
    found = Found(arguments.partitions, traffic, spooled, holdings, rebuilds, groups, earlier)
    return write_report(arguments.out / "sizes.md", found, command=_command(arguments))


def _command(arguments: argparse.Namespace) -> str:
    counts = [
        f"--{name} {' '.join(map(str, getattr(arguments, name)))}" for name in ("instances", "rebuilt", "workers")
    ]
    return f"taskbridge bench sizing --partitions {arguments.partitions} {' '.join(counts)}"


def _arguments() -> argparse.Namespace:
    parser = flags_of("sizing", "Measure the tables of docs/how-to/size-it.md.")
    parser.set_defaults(out=Path())
    number = at_least(1000)
    parser.add_argument("--partitions", type=at_least(1), default=12, help="of every topic")
    parser.add_argument(
        "--instances",
        type=number,
        nargs="+",
        default=[20_000, 100_000, 1_000_000],
        help="that workers hold: two numbers or more",
    )
    parser.add_argument(
        "--rebuilt",
        type=number,
        nargs="+",
        default=[30_000, 100_000, 300_000],
        help="all of which a rebuild changes",
    )
    parser.add_argument("--workers", type=at_least(2), nargs="+", default=[4, 16], help="of a group on 96 partitions")
    return parser.parse_args()


if __name__ == "__main__":
    run_benchmark("sizing", partial(_measure, _arguments()))
