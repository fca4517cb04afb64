"""``taskbridge bench webhooks``: measures deliveries on SQLite and on PostgreSQL, next to Outpost."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.center.installations import DATABASES
from tests.bench.command import at_least, flags_of, progress, run_benchmark
from tests.bench.machine import before
from tests.bench.rounds import add_rounds, rounds_of, typed_flags
from tests.bench.streams.setup import start
from tests.bench.webhooks.installations import Webhooks
from tests.bench.webhooks.outpost import Outpost
from tests.bench.webhooks.receiver import Receiver
from tests.bench.webhooks.report import IDLE, Found, write_report
from tests.bench.webhooks.windows import Bench, Measured, measure_idle, measure_isolation

from taskbridge.local.host import require_space
from taskbridge.local.supervisor import Supervisor

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from tests.bench.webhooks.windows import Window


_DISK_MB = 4000
_WARM_UP = 2000
REST_PER_S = 10
_PACED_ROUNDS = 4
_COUNTS = ("deliveries", "silent", "notifications", "notifications-per-second", "endpoints", "in-flight")


def _measure(arguments: argparse.Namespace) -> Path:
    earlier, found = before(), Found(silent=arguments.silent, per_second=arguments.notifications_per_second)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taskbridge-bench-")))
        require_space(folder, needed_mb=_DISK_MB, remedy="free some, or set TMPDIR to another disk")
        receiver = Receiver(stack, folder)
        endpoints = [f"receiver{number}" for number in range(arguments.endpoints)]
        supervisor = stack.enter_context(Supervisor(on_event=progress))
        setup = start(supervisor, folder, partitions=12, environ=os.environ, progress=progress)
        setup.create_topics()
        for database in arguments.databases:
            with Webhooks(setup, database, receiver, endpoints, in_flight=arguments.in_flight) as webhooks:
                found.measured[database] = _webhooks(webhooks, Bench(webhooks, receiver, endpoints), found, arguments)
        if arguments.outpost is not None:
            with Outpost(setup, arguments.outpost, receiver, endpoints, in_flight=arguments.in_flight) as peer:
                found.measured[peer.name] = _peer(peer, Bench(peer, receiver, endpoints), arguments)
    return write_report(arguments.out / "webhooks.md", found, command=_command(arguments), earlier=earlier)


def _webhooks(webhooks: Webhooks, bench: Bench, found: Found, arguments: argparse.Namespace) -> Measured:
    measured, rounds = _latencies(webhooks.name, bench, arguments), rounds_of(arguments)
    measured.idle = measure_idle(bench, webhooks, IDLE)
    progress(f"{webhooks.name}: {measured.idle} with {IDLE} idle endpoints")
    before_mb = webhooks.memory_mb
    took_s = bench.fill_silent(webhooks, arguments.silent)
    progress(
        f"{webhooks.name}: {arguments.silent / took_s:,.0f} deliveries/s stored;"
        f" memory {before_mb:.0f} to {webhooks.memory_mb:.0f} MiB"
    )
    measure_isolation(bench, webhooks, rounds, measured, arguments.deliveries)
    _say(f"{webhooks.name} alone", measured.alone)
    _say(f"{webhooks.name} next to the silent endpoint", measured.isolated)
    found.ended.append(f"{webhooks.name}: {rounds.ended}")
    overtaken = sum(each.checked.overtaken for each in (*measured.alone, *measured.isolated))
    assert overtaken == 0, f"{overtaken} deliveries came after a later change of their entry"
    return measured


def _peer(peer: Outpost, bench: Bench, arguments: argparse.Namespace) -> Measured:
    measured = _latencies(peer.name, bench, arguments)
    measured.alone = [bench.drain(arguments.deliveries) for _ in range(rounds_of(arguments).least)]
    _say(peer.name, measured.alone)
    return measured


def _latencies(name: str, bench: Bench, arguments: argparse.Namespace) -> Measured:
    rate = arguments.notifications_per_second
    bench.drain(_WARM_UP)
    rest = bench.latency(arguments.notifications, REST_PER_S)
    measured = Measured(rest, [bench.latency(10 * rate, rate) for _ in range(_PACED_ROUNDS)])
    for title, each in (("at rest", rest), *((f"at {rate}/s", each) for each in measured.paced)):
        progress(f"{name}: p50 {each.quantile(0.5):.1f} ms {title}, p99 {each.quantile(0.99):.1f}")
    return measured


def _say(name: str, windows: Sequence[Window]) -> None:
    rates = ", ".join(f"{each.per_second:,.0f}" for each in windows)
    progress(f"{name}: {rates} deliveries/s; {windows[-1].per_cpu_second:,.0f} per CPU second")


def _command(arguments: argparse.Namespace) -> str:
    counts = " ".join(f"--{name} {getattr(arguments, name.replace('-', '_'))}" for name in _COUNTS)
    peer = "" if arguments.outpost is None else " --outpost FOLDER"
    return f"taskbridge bench webhooks {typed_flags(arguments)} {counts}{peer}"


def _arguments() -> argparse.Namespace:
    parser = flags_of("webhooks", "Measure deliveries: rate, latency, memory, and the effect of a silent endpoint.")
    add_rounds(parser, least=3, most=9, within=5, minutes=2)
    number = at_least(1)
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES, help="to measure it on")
    parser.add_argument("--outpost", type=Path, help="folder with the programs of Outpost, which takes part then")
    parser.add_argument("--deliveries", type=at_least(1000), default=10_000, help="of one measurement of the rate")
    parser.add_argument("--silent", type=number, default=100_000, help="deliveries that wait for the silent endpoint")
    parser.add_argument("--notifications", type=at_least(100), default=200, help=f"at rest, {REST_PER_S} a second")
    parser.add_argument("--notifications-per-second", type=number, default=500, help="under load, 10 s, four times")
    parser.add_argument("--endpoints", type=number, default=4, help="that answer")
    parser.add_argument("--in-flight", type=number, default=10, help="requests at once for each endpoint")
    return parser.parse_args()


if __name__ == "__main__":
    run_benchmark("webhooks", partial(_measure, _arguments()))
