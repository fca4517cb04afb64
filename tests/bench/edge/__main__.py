"""Measures the edge beside its peers, as ``taskbridge bench edge`` has it done."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from taskbridge.local.disk import require_space
from taskbridge.local.jvm.artifacts import cache_folder
from taskbridge.local.ports import free_ports
from taskbridge.local.processes.supervisor import Supervisor
from taskbridge.local.stack import JvmStack
from taskbridge.runtime.kafka import admin_client
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas import topics
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.registry import Registry
from taskbridge.schemas.topics import DEFAULT_PARTITIONS, TASK_EVENTS
from tests.bench.command import at_least, flags_of, progress, run_benchmark
from tests.bench.edge.callbacks import make_kinds
from tests.bench.edge.comparisons import watched
from tests.bench.edge.events_topic import EventsTopic
from tests.bench.edge.loads import NotCounted, closed_loop, loaded, open_loop
from tests.bench.edge.proof import prove_same_work
from tests.bench.edge.report import write_report
from tests.bench.edge.results import Results
from tests.bench.edge.servers import EARLIER, EDGE, PEERS, SPRING, VARIANTS, Surroundings, prepare
from tests.bench.edge.toolchains import build_go
from tests.bench.machine import before
from tests.bench.rounds import add_rounds, rounds_of, told
from tests.bench.toolchains import ToolMissing, need
from tests.bench.warming import warm_up

if TYPE_CHECKING:
    import argparse
    from collections.abc import Generator, Sequence

    from tests.bench.edge.callbacks import Kind
    from tests.bench.edge.loads import Window
    from tests.bench.edge.servers import Server
    from tests.bench.spreads import Estimate

_RATES = (500, 1000, 2000)
_COMPILED_JUST_IN_TIME = (SPRING,)
_WARM_UP_S = 3
_DISK_MB = 6000


class Run:
    """Servers that are up, and what is known of them so far."""

    def __init__(
        self, supervisor: Supervisor, servers: Sequence[Server], kinds: Sequence[Kind], topic: EventsTopic
    ) -> None:
        self._supervisor = supervisor
        self._servers = servers
        self._kinds = kinds
        self._topic = topic
        self.results = Results()

    def warm_up(self, *, at_most_s: float) -> None:
        """What a JIT compiler makes faster is loaded until it gets no faster, the others for a moment."""
        for server in self._servers:
            for kind in self._kinds:
                window = partial(loaded, server, kind, self._pid(server), seconds=_WARM_UP_S)
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
            progress(f"round {number}  {kind.name:9}{server.name:15}{_line(window)}")

    def open(self, number: int, program: Path, *, rates: Sequence[int], seconds: int) -> None:
        for rate in rates:
            for kind, server in self._turns():
                if server.name not in VARIANTS:
                    found = open_loop(server, kind, self._topic, program, rate=rate, seconds=seconds)
                    self.results.schedules.setdefault((server.name, kind.name, rate), []).append(found)
                    progress(
                        f"round {number}  {kind.name:9}{server.name:15}{rate:>5}/s"
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
        surroundings, registry = _surroundings(supervisor, folder, arguments.earlier)
        topic = EventsTopic(surroundings.endpoints.bootstrap_servers, registry)
        stack.callback(topic.close)
        names = [EDGE, *([EARLIER] if arguments.earlier else []), *(arguments.peers or [*PEERS, *VARIANTS])]
        servers = _start(supervisor, surroundings, names, left_out)
        progress(f"{prove_same_work(servers, kinds, topic)} records compared: all servers do the same work")
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


def _surroundings(supervisor: Supervisor, folder: Path, earlier: Path | None) -> tuple[Surroundings, Registry]:
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
    shared = Surroundings(endpoints=endpoints, schema_id=schema_id, folder=folder, progress=progress, earlier=earlier)
    return shared, registry


def _start(
    supervisor: Supervisor, surroundings: Surroundings, names: Sequence[str], left_out: dict[str, str]
) -> list[Server]:
    """Start what can be started; what cannot for want of a tool is put into ``left_out``, and said."""
    servers: list[Server] = []
    for name in names:
        try:
            server = prepare(name, surroundings)
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
    return f"taskbridge bench edge {told(arguments)} --seconds {arguments.seconds} --rates {rates}{peers}"


def _arguments() -> argparse.Namespace:
    parser = flags_of(
        "edge",
        "Measure the edge beside its peers. All of it takes two minutes for starting and warming up, then --minutes;"
        " a round takes three minutes with the settings below.",
    )
    add_rounds(parser, least=3, most=12, within=10, minutes=15)
    parser.add_argument("--seconds", type=at_least(1), default=4, help="how long each is loaded at a time")
    parser.add_argument(
        "--rates", type=at_least(1), nargs="+", default=list(_RATES), help="of the open loop, requests a second"
    )
    parser.add_argument(
        "--warm-up", type=at_least(1), default=60, help="seconds at most, of each kind, for a JIT compiler"
    )
    parser.add_argument(
        "--peers", nargs="+", action="extend", choices=[*PEERS, *VARIANTS], help="may be repeated; None is all"
    )
    parser.add_argument("--earlier", type=_folder, help="another checkout, whose edge takes part")
    return parser.parse_args()


if __name__ == "__main__":
    run_benchmark("edge", partial(_measure, _arguments()))
