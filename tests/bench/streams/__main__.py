"""``taskbridge bench streams``: measures the streams service next to its peers."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.command import at_least, flags_of, progress, run_benchmark
from tests.bench.machine import before
from tests.bench.rounds import add_rounds, rounds_of, typed_flags
from tests.bench.streams.contenders import PEERS
from tests.bench.streams.phases import PARTS, Run
from tests.bench.streams.report import write_report
from tests.bench.streams.scaling import INSTANCES
from tests.bench.streams.setup import start

from taskbridge.local.host import require_space
from taskbridge.local.supervisor import Supervisor

if TYPE_CHECKING:
    import argparse

_DISK_MB = 12_000


def _measure(arguments: argparse.Namespace) -> Path:
    earlier = before()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taskbridge-bench-")))
        require_space(folder, needed_mb=_DISK_MB, remedy="free some, or set TMPDIR to another disk")
        supervisor = stack.enter_context(Supervisor(on_event=progress))
        setup = start(supervisor, folder, partitions=arguments.partitions, environ=os.environ, progress=progress)
        # Scaling is about the service alone: nothing else has to be built for it.
        peers: list[str] = [] if arguments.only == "scaling" else arguments.peers or list(PEERS)
        run = Run(setup, peers)
        parts = [arguments.only] if arguments.only else [part for part in PARTS if part != "scaling"]
        if "throughput" in parts:
            run.throughput(rounds_of(arguments), events=arguments.events)
        if "recovery" in parts:
            rounds = rounds_of(arguments)
            # One takes as long as three of the others.
            rounds.least = max(1, rounds.least // 3)
            run.recovery(rounds, states=arguments.states)
        if "latency" in parts:
            run.latency(rounds_of(arguments), seconds=arguments.seconds)
        if "scaling" in parts:
            run.scaling(events=arguments.events, instances=arguments.instances or list(INSTANCES))
        return write_report(
            arguments.out / (f"streams-{arguments.only}.md" if arguments.only else "streams.md"),
            run.results,
            contenders=run.contenders,
            left_out=run.left_out,
            job=run.job,
            ended=run.ended,
            command=_command(arguments),
            earlier=earlier,
        )


def _command(arguments: argparse.Namespace) -> str:
    """The command as a user types it."""
    names = ("events", "states", "seconds", "partitions")
    flags = [typed_flags(arguments), *(f"--{name} {getattr(arguments, name)}" for name in names)]
    flags += [f"--only {arguments.only}"] if arguments.only else []
    flags += [f"--instances {each}" for each in arguments.instances or ()]
    flags += [f"--peers {peer}" for peer in arguments.peers or ()]
    return f"taskbridge bench streams {' '.join(flags)}"


def _arguments() -> argparse.Namespace:
    parser = flags_of(
        "streams",
        "Measure the streams service and its peers: throughput, recovery and latency, one after the other. Each part"
        " takes --minutes, or as long as its minimum of rounds: with all peers three, four and two minutes a round."
        " Kafka Streams needs mvn (apt-get install maven): without mvn it is skipped, and the page says so.",
    )
    add_rounds(parser, least=3, most=9, within=10, minutes=10)
    parser.add_argument("--events", type=at_least(1000), default=200_000, help="events of the reference job")
    parser.add_argument("--states", type=at_least(1000), default=1_000_000, help="states to rebuild after a lost disk")
    parser.add_argument("--seconds", type=at_least(1), default=10, help="how long latencies are measured")
    parser.add_argument("--partitions", type=at_least(1), default=12, help="of every topic")
    parser.add_argument("--peers", nargs="+", action="extend", choices=PEERS, help="may be repeated; None is all")
    parser.add_argument("--only", choices=PARTS, help="one part, on a page of its own; None is all but scaling")
    parser.add_argument(
        "--instances", type=at_least(1), nargs="+", action="extend", help=f"of scaling; None is {INSTANCES}"
    )
    return parser.parse_args()


if __name__ == "__main__":
    run_benchmark("streams", partial(_measure, _arguments()))
