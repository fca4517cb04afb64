"""Measures the streams service beside its peers, as ``taskbridge bench streams`` has it done."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from taskbridge.local.disk import require_space
from taskbridge.local.processes.supervisor import Supervisor
from tests.bench.command import at_least, flags_of, progress, run_benchmark
from tests.bench.streams.contenders import PEERS
from tests.bench.streams.phases import PARTS, Run
from tests.bench.streams.report import write_report
from tests.bench.streams.scaling import INSTANCES
from tests.bench.streams.surroundings import start

if TYPE_CHECKING:
    import argparse

_DISK_MB = 12_000


def _measure(arguments: argparse.Namespace) -> Path:
    load_before = os.getloadavg()[0]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taskbridge-bench-")))
        require_space(folder, needed_mb=_DISK_MB, remedy="free some, or set TMPDIR to another disk")
        supervisor = stack.enter_context(Supervisor(on_event=progress))
        surroundings = start(supervisor, folder, partitions=arguments.partitions, environ=os.environ, progress=progress)
        # Scaling is about the service alone: nothing else has to be built for it.
        peers: list[str] = [] if arguments.only == "scaling" else arguments.peers or list(PEERS)
        run = Run(surroundings, peers, one_core=arguments.one_core)
        parts = [arguments.only] if arguments.only else [part for part in PARTS if part != "scaling"]
        if arguments.scaling and "scaling" not in parts:
            parts.append("scaling")
        if "throughput" in parts:
            run.throughput(rounds=arguments.rounds, events=arguments.events)
        if "recovery" in parts:
            run.recovery(rounds=max(1, arguments.rounds // 3), states=arguments.states)
        if "latency" in parts:
            run.latency(rounds=arguments.rounds, seconds=arguments.seconds)
        if "scaling" in parts:
            run.scaling(events=arguments.events, instances=arguments.instances or list(INSTANCES))
        out: Path = arguments.out
        return write_report(
            out / _page(arguments),
            run.results,
            contenders=run.contenders,
            left_out=run.left_out,
            job=run.job,
            command=_command(arguments),
            load_before=load_before,
        )


def _page(arguments: argparse.Namespace) -> str:
    parts = ["streams", *([arguments.only] if arguments.only else []), *(["one-core"] if arguments.one_core else [])]
    return f"{'-'.join(parts)}.md"


def _command(arguments: argparse.Namespace) -> str:
    """What was asked for, as one would type it."""
    told = [f"--{name} {getattr(arguments, name)}" for name in ("rounds", "events", "states", "seconds", "partitions")]
    told += [f"--only {arguments.only}"] if arguments.only else []
    told += ["--scaling"] if arguments.scaling else []
    told += [f"--instances {each}" for each in arguments.instances or ()]
    told += ["--one-core"] if arguments.one_core else []
    told += [f"--peers {peer}" for peer in arguments.peers or ()]
    return f"taskbridge bench streams {' '.join(told)}"


def _arguments() -> argparse.Namespace:
    parser = flags_of("streams")
    parser.add_argument("--rounds", type=at_least(1), default=3, help="how often the contenders take turns")
    parser.add_argument("--events", type=at_least(1000), default=200_000, help="events of the reference job")
    parser.add_argument("--states", type=at_least(1000), default=1_000_000, help="states to rebuild after a lost disk")
    parser.add_argument("--seconds", type=at_least(1), default=15, help="how long latencies are measured")
    parser.add_argument("--partitions", type=at_least(1), default=8, help="of every topic")
    parser.add_argument("--peers", nargs="+", action="extend", choices=PEERS, help="may be repeated; None is all")
    parser.add_argument("--only", choices=PARTS, help="one part, on a page of its own; None is all but scaling")
    parser.add_argument("--scaling", action="store_true", help="also with ten thousand to a million instances")
    parser.add_argument(
        "--instances", type=at_least(1), nargs="+", action="extend", help=f"of scaling; None is {INSTANCES}"
    )
    parser.add_argument("--one-core", action="store_true", help="hold each contender to one core")
    return parser.parse_args()


if __name__ == "__main__":
    run_benchmark("streams", partial(_measure, _arguments()))
