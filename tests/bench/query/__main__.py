"""Measures the task center's queries, as ``taskbridge bench query`` has it done."""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
from tests.bench.command import at_least, flags_of, progress, run_benchmark
from tests.bench.machine import before, resident_mb
from tests.bench.query.company import Trickle, fill
from tests.bench.query.queries import CONSTANT, Kind, Window, kinds, load
from tests.bench.query.report import watched, write_report
from tests.bench.rounds import add_rounds, rounds_of, typed_flags
from tests.bench.services import answers, start_service, wait_until
from tests.bench.streams.setup import Setup, start
from tests.bench.toolchains import need

from taskbridge.local.host import LOOPBACK, free_ports
from taskbridge.local.supervisor import Supervisor
from taskbridge.runtime.kafka import admin_client
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas import topics

if TYPE_CHECKING:
    import argparse

_CONNECTIONS = (1, 16)
_REST = "At rest"


def _measure(arguments: argparse.Namespace) -> Path:
    need("wrk", "apt-get install wrk")
    earlier = before()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taskbridge-bench-")))
        supervisor = stack.enter_context(Supervisor(on_event=progress))
        setup = start(supervisor, folder, partitions=arguments.partitions, environ=os.environ, progress=progress)
        apply_topics(admin_client(setup.bootstrap_servers), topics.ALL, partitions=arguments.partitions, replication=1)
        constant_port, port = free_ports(2)
        constant_url, url = (f"http://{LOOPBACK}:{each}" for each in (constant_port, port))
        constant = start_service(stack, "tests.bench.query.constant", str(constant_port), folder=folder)
        worker = start_service(stack, "taskbridge.streams.app", settings=_settings(setup, folder, port), folder=folder)
        wait_until(lambda: answers(f"{url}/readyz"), "the worker is ready")
        wait_until(lambda: answers(f"{constant_url}/constant"), "the constant is served")
        progress("filling the inboxes")
        began = time.monotonic()
        filled = fill(setup, users=arguments.users, tasks=arguments.tasks, busy_tasks=arguments.busy_tasks)
        wait_until(lambda: _applied(url) >= filled, "the inboxes are filled")
        facts = [
            f"{filled:,} notifications were in the inboxes {time.monotonic() - began:.0f} s after the first was sent."
        ]
        queried = kinds(url, users=arguments.users, busy_tasks=arguments.busy_tasks)
        peers = [(Kind(CONSTANT, "FastAPI, a constant", ["/constant"]), constant_url, constant)]
        peers += [(kind, url, worker) for kind in queried]
        facts.append(f"Memory of the worker before: {resident_mb(worker):.0f} MiB.")
        windows: dict[tuple[str, str, int], list[Window]] = defaultdict(list)
        ended: dict[str, str] = {}
        under_events = f"Under {arguments.events_per_second} events a second"
        for condition in (_REST, under_events):
            trickle = None
            if condition == under_events:
                trickle = Trickle(setup, per_second=arguments.events_per_second, users=arguments.users)
            rounds = rounds_of(arguments)
            for number in rounds.numbers(lambda condition=condition: watched(windows, condition)):
                progress(f"{condition.lower()}, round {number}")
                for connections in _CONNECTIONS:
                    for kind, address, pid in peers:
                        found = load(address, kind, pid, folder, connections=connections, seconds=arguments.seconds)
                        windows[condition, kind.name, connections].append(found)
            ended[condition] = rounds.ended
            progress(rounds.ended)
            if trickle is not None:
                facts.append(f"{trickle.stop():,} events were written meanwhile.")
        facts.append(f"Memory of the worker after all queries: {resident_mb(worker):.0f} MiB.")
        return write_report(
            arguments.out / "query.md",
            windows,
            [kind for kind, _, _ in peers],
            facts=facts,
            ended=ended,
            command=_command(arguments),
            earlier=earlier,
        )


def _settings(setup: Setup, folder: Path, port: int) -> dict[str, str]:
    return {
        "STREAMS_PORT": str(port),
        "STREAMS_KAFKA_BOOTSTRAP_SERVERS": setup.bootstrap_servers,
        "STREAMS_SCHEMA_REGISTRY_URL": setup.registry_url,
        "STREAMS_DATA_DIR": str(folder / "worker"),
        # One client sends all requests: here its rate is measured.
        "STREAMS_QUERY_RATE_PER_S": "1000000",
    }


def _applied(url: str) -> int:
    text = httpx2.get(f"{url}/metrics", timeout=30, trust_env=False).text
    found = [line for line in text.splitlines() if line.startswith("taskbridge_streams_inbox_notifications_total ")]
    return int(float(found[0].split()[1])) if found else 0


def _command(arguments: argparse.Namespace) -> str:
    names = ("seconds", "users", "tasks", "busy-tasks", "events-per-second", "partitions")
    others = " ".join(f"--{name} {getattr(arguments, name.replace('-', '_'))}" for name in names)
    return f"taskbridge bench query {typed_flags(arguments)} {others}"


def _arguments() -> argparse.Namespace:
    parser = flags_of(
        "query",
        "Measure the task center's queries, at rest and under events. Each of the two takes at most --minutes;"
        " a round takes 40 seconds with the settings below.",
    )
    add_rounds(parser, least=3, most=9, within=10, minutes=4)
    parser.add_argument("--seconds", type=at_least(1), default=2, help="length of one measurement of a kind")
    parser.add_argument("--users", type=at_least(1), default=1_000, help="people with an inbox")
    parser.add_argument("--tasks", type=at_least(2), default=200, help="tasks of each")
    parser.add_argument("--busy-tasks", type=at_least(250), default=100_000, help="handled tasks of one who has many")
    parser.add_argument("--events-per-second", type=at_least(1), default=500, help="rate of events meanwhile")
    parser.add_argument("--partitions", type=at_least(1), default=12, help="of every topic")
    return parser.parse_args()


if __name__ == "__main__":
    run_benchmark("query", partial(_measure, _arguments()))
