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
from tests.bench.edge.events_topic import EventsTopic
from tests.bench.edge.loads import NotCounted, closed_loop, open_loop, wrk
from tests.bench.edge.proof import prove_same_work
from tests.bench.edge.report import write_report
from tests.bench.edge.results import Results
from tests.bench.edge.servers import EARLIER, EDGE, PEERS, SPRING, VARIANTS, Surroundings, prepare
from tests.bench.edge.toolchains import build_go
from tests.bench.toolchains import ToolMissing, need

if TYPE_CHECKING:
    import argparse
    from collections.abc import Generator, Sequence

    from tests.bench.edge.callbacks import Kind
    from tests.bench.edge.loads import Window
    from tests.bench.edge.servers import Server

_RATES = (500, 1000, 2000)
_WARM_UP_S = {SPRING: 15}  # until the JIT compiler is done
_WARM_UP_OTHERS_S = 3
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

    def warm_up(self) -> None:
        for server in self._servers:
            for kind in self._kinds:
                seconds = _WARM_UP_S.get(server.name, _WARM_UP_OTHERS_S)
                progress(f"warming up {server.name}, {kind.name}, {seconds} s")
                wrk(server, kind, seconds=seconds)

    def closed(self, *, rounds: int, seconds: int) -> None:
        for number, kind, server in self._turns(rounds):
            pid = self._pid(server)
            window = closed_loop(server, kind, self._topic, pid, seconds=seconds)
            if self._pid(server) != pid:
                raise NotCounted(f"{server.name} died and was restarted: see its log")
            self.results.windows.setdefault((server.name, kind.name), []).append(window)
            progress(f"round {number}/{rounds}  {kind.name:9}{server.name:15}{_line(window)}")

    def open(self, program: Path, *, rounds: int, seconds: int) -> None:
        for rate in _RATES:
            for number, kind, server in self._turns(rounds):
                if server.name not in VARIANTS:
                    found = open_loop(server, kind, self._topic, program, rate=rate, seconds=seconds)
                    self.results.schedules.setdefault((server.name, kind.name, rate), []).append(found)
                    progress(
                        f"open loop {number}/{rounds}  {kind.name:9}{server.name:15}{rate:>5}/s"
                        f"  p50 {found.p50_ms:.1f} ms  p99 {found.p99_ms:.1f} ms  p99.9 {found.p999_ms:.1f} ms"
                    )

    def _turns(self, rounds: int) -> Generator[tuple[int, Kind, Server]]:
        for number in range(1, rounds + 1):
            for kind in self._kinds:
                for server in self._servers:
                    yield number, kind, server

    def _pid(self, server: Server) -> int:
        pid = self._supervisor.pid(server.name)
        if pid is None:
            raise NotCounted(f"{server.name} is down: see its log")
        return pid


def _measure(arguments: argparse.Namespace) -> Path:
    need("wrk", "apt-get install wrk")
    left_out: dict[str, str] = {}
    load_before = os.getloadavg()[0]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taskbridge-bench-")))
        require_space(folder, needed_mb=_DISK_MB, remedy="free some, or set TMPDIR to another disk")
        kinds = make_kinds(folder)
        supervisor = stack.enter_context(Supervisor(on_event=progress))
        surroundings, registry = _surroundings(supervisor, folder, arguments.earlier)
        topic = EventsTopic(surroundings.endpoints.bootstrap_servers, registry)
        stack.callback(topic.close)
        earlier = [EARLIER] if arguments.earlier else []
        servers = _start(
            supervisor, surroundings, [EDGE, *earlier, *(arguments.peers or [*PEERS, *VARIANTS])], left_out
        )
        progress(f"{prove_same_work(servers, kinds, topic)} records compared: all servers do the same work")
        run = Run(supervisor, servers, kinds, topic)
        run.warm_up()
        run.closed(rounds=arguments.rounds, seconds=arguments.seconds)
        try:
            program = build_go(progress) / "openloop"
            run.open(program, rounds=max(1, arguments.rounds // 3), seconds=arguments.seconds)
        except ToolMissing as error:
            left_out["open loop"] = str(error)
        out: Path = arguments.out
        command = f"taskbridge bench edge --rounds {arguments.rounds} --seconds {arguments.seconds}"
        return write_report(
            out,
            run.results,
            servers=servers,
            kinds=kinds,
            left_out=left_out,
            command=command,
            load_before=load_before,
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


def _arguments() -> argparse.Namespace:
    parser = flags_of("edge")
    parser.add_argument("--rounds", type=at_least(1), default=5, help="how often the servers take turns")
    parser.add_argument("--seconds", type=at_least(1), default=4, help="how long each is loaded at a time")
    parser.add_argument(
        "--peers", nargs="+", action="extend", choices=[*PEERS, *VARIANTS], help="may be repeated; None is all"
    )
    parser.add_argument("--earlier", type=_folder, help="another checkout, whose edge takes part")
    return parser.parse_args()


if __name__ == "__main__":
    run_benchmark("edge", partial(_measure, _arguments()))
