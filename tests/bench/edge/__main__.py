"""``taskbridge bench edge``: measures the edge next to its peers."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.command import NotCounted, at_least, flags_of, progress, run_benchmark
from tests.bench.edge.callbacks import make_kinds
from tests.bench.edge.comparisons import Results, watched
from tests.bench.edge.events_topic import EventsTopic, prove_same_work
from tests.bench.edge.loads import closed_loop, loaded, open_loop
from tests.bench.edge.report import write_report
from tests.bench.edge.servers import EARLIER, EDGE, EDGE_SPOOL, LIMITS, PEERS, SPRING, Setup, build_go, prepare
from tests.bench.machine import before
from tests.bench.rounds import add_rounds, rounds_of, typed_flags, warm_up
from tests.bench.toolchains import ToolMissing, need

from taskbridge.local.artifacts import cache_folder
from taskbridge.local.host import free_ports, require_space
from taskbridge.local.stack import JvmStack
from taskbridge.local.supervisor import Supervisor
from taskbridge.runtime.kafka import admin_client
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas import topics
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.registry import Registry
from taskbridge.schemas.topics import DEFAULT_PARTITIONS, TASK_EVENTS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Generator, Sequence

    from tests.bench.edge.callbacks import Kind
    from tests.bench.edge.loads import Window
    from tests.bench.edge.servers import Server
    from tests.bench.spreads import Estimate

_RATES = (500, 1000, 2000)
_COMPILED_JUST_IN_TIME = (SPRING,)
_CLOSED_ONLY = (EDGE_SPOOL, *LIMITS)
_WARM_UP_S = 3
_DISK_MB = 6000


class Run:
    """Running servers, and their results so far."""

    def __init__(
        self,
        supervisor: Supervisor,
        servers: Sequence[Server],
        kinds: Sequence[Kind],
        topic: EventsTopic,
    ) -> None:
        self._supervisor = supervisor
        self._servers = servers
        self._kinds = kinds
        self._topic = topic
        self.results = Results()

    def warm_up(self, *, at_most_s: int) -> None:
        """What a JIT compiler makes faster is loaded until it gets no faster, the others for a moment."""
        for server in self._servers:
            for kind in self._kinds:
                window = partial(loaded, server, kind, self._pid(server), seconds=min(_WARM_UP_S, at_most_s))
                if server.name in _COMPILED_JUST_IN_TIME:
                    found = warm_up(window, at_most_s=at_most_s)
                    self.results.warmed[server.name, kind.name] = found
                    progress(f"warmed up {server.name}, {kind.name}: {found}")
                else:
                    window()

    def closed(self, number: int, *, seconds: int) -> None:
        for kind, server in self._turns():
            pid = self._pid(server)
            window = closed_loop(server, kind, self._topic, pid, seconds=seconds)
            if self._pid(server) != pid:
                raise NotCounted(f"{server.name} died and was restarted: see its log")
            self.results.windows.setdefault((server.name, kind.name), []).append(window)
            progress(f"round {number}  {kind.name:9}{server.name:28}{_line(window)}")

    def open(self, number: int, program: Path, *, rates: Sequence[int], seconds: int) -> None:
        for rate in rates:
            for kind, server in self._turns():
                if server.name not in _CLOSED_ONLY:
                    found = open_loop(server, kind, self._topic, program, self._pid(server), rate=rate, seconds=seconds)
                    self.results.schedules.setdefault((server.name, kind.name, rate), []).append(found)
                    progress(
                        f"round {number}  {kind.name:9}{server.name:28}{rate:>5}/s"
                        f"  p50 {found.p50_ms:.1f} ms  p99 {found.p99_ms:.1f} ms  p99.9 {found.p999_ms:.1f} ms"
                    )

    def watched(self) -> dict[str, Estimate]:
        return watched(self.results, [kind.name for kind in self._kinds])

    def _turns(self) -> Generator[tuple[Kind, Server]]:
        for kind in self._kinds:
            for server in self._servers:
                yield kind, server

    def _pid(self, server: Server) -> int:
        pid = self._supervisor.pid(server.name)
        if pid is None:
            raise NotCounted(f"{server.name} is down: see its log")
        return pid


def _measure(arguments: argparse.Namespace) -> Path:
    need("wrk", "apt-get install wrk")
    left_out: dict[str, str] = {}
    earlier = before()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taskbridge-bench-")))
        require_space(folder, needed_mb=_DISK_MB, remedy="free some, or set TMPDIR to another disk")
        kinds = make_kinds(folder)
        supervisor = stack.enter_context(Supervisor(on_event=progress))
        setup, registry = _setup(supervisor, folder, arguments.earlier)
        topic = EventsTopic(setup.endpoints.bootstrap_servers, registry)
        stack.callback(topic.close)
        servers = _start(supervisor, setup, _names(arguments), left_out)
        same = [each for each in servers if each.name not in LIMITS]
        progress(f"{prove_same_work(same, kinds, topic)} records compared: all servers do the same work")
        run = Run(supervisor, servers, kinds, topic)
        program = None
        try:
            program = build_go(progress) / "openloop"
        except ToolMissing as error:
            left_out["open loop"] = str(error)
        run.warm_up(at_most_s=arguments.warm_up)
        rounds = rounds_of(arguments)
        for number in rounds.numbers(run.watched):
            run.closed(number, seconds=arguments.seconds)
            if program is not None:
                run.open(number, program, rates=arguments.rates, seconds=arguments.seconds)
        progress(rounds.ended)
        return write_report(
            arguments.out,
            run.results,
            servers=servers,
            kinds=kinds,
            left_out=left_out,
            rounds=rounds,
            command=_command(arguments),
            earlier=earlier,
        )


def _names(arguments: argparse.Namespace) -> list[str]:
    return [EDGE, *([EARLIER] if arguments.earlier else []), *(arguments.peers or [*PEERS, *_CLOSED_ONLY])]


def _setup(supervisor: Supervisor, folder: Path, earlier: Path | None) -> tuple[Setup, Registry]:
    kafka_port, registry_port = free_ports(2)
    services = JvmStack(
        data_dir=folder / "stack",
        kafka_port=kafka_port,
        registry_port=registry_port,
        cache=cache_folder(os.environ),
        supervisor=supervisor,
        progress=progress,
    )
    endpoints = services.start()
    apply_topics(admin_client(endpoints.bootstrap_servers), topics.ALL, partitions=DEFAULT_PARTITIONS)
    registry = Registry(endpoints.registry_url)
    schema_id = registry.register(topics.ALL)[TASK_EVENTS.subject]
    shared = Setup(endpoints=endpoints, schema_id=schema_id, folder=folder, progress=progress, earlier=earlier)
    return shared, registry


def _start(supervisor: Supervisor, setup: Setup, names: Sequence[str], left_out: dict[str, str]) -> list[Server]:
    """Start all servers; those that lack a tool are put into ``left_out`` and reported."""
    servers: list[Server] = []
    for name in names:
        try:
            server = prepare(name, setup)
        except OperatorError as error:
            left_out[name] = str(error)
            progress(f"LEFT OUT: {name}: {error}")
            continue
        supervisor.start(server.spec)
        servers.append(server)
    return servers


def _line(window: Window) -> str:
    return (
        f"{window.cpu_us:6.0f} µs CPU {window.per_second:8,.0f}/s"
        f"  p50 {window.p50_ms:.1f} ms  p99 {window.p99_ms:.1f} ms"
    )


def _folder(text: str) -> Path:
    return Path(text).resolve(strict=True)


def _command(arguments: argparse.Namespace) -> str:
    peers = f" --peers {' '.join(arguments.peers)}" if arguments.peers else ""
    rates = " ".join(map(str, arguments.rates))
    seconds = f"--seconds {arguments.seconds} --warm-up {arguments.warm_up}"
    return f"taskbridge bench edge {typed_flags(arguments)} {seconds} --rates {rates}{peers}"


def _arguments() -> argparse.Namespace:
    parser = flags_of(
        "edge",
        "Measure the edge next to its peers. Starting and warming up take two minutes, then follow --minutes;"
        " a round takes three minutes with the settings below. Needs wrk (apt-get install wrk); a peer without its"
        " toolchain (go, mvn) is skipped, and the page says so.",
    )
    add_rounds(parser, least=3, most=12, within=10, minutes=15)
    parser.add_argument("--seconds", type=at_least(1), default=4, help="how long each is loaded at a time")
    parser.add_argument(
        "--rates",
        type=at_least(1),
        nargs="*",
        default=list(_RATES),
        help="of the open loop, requests a second; or none",
    )
    parser.add_argument(
        "--warm-up", type=at_least(1), default=60, help="seconds at most, of each kind, for a JIT compiler"
    )
    parser.add_argument(
        "--peers", nargs="+", action="extend", choices=[*PEERS, *_CLOSED_ONLY], help="may be repeated; None is all"
    )
    parser.add_argument("--earlier", type=_folder, help="another checkout, whose edge takes part")
    return parser.parse_args()


if __name__ == "__main__":
    run_benchmark("edge", partial(_measure, _arguments()))
