"""One Kafka broker in KRaft mode, from its jars, on loopback only."""

from __future__ import annotations

import base64
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from taskbridge.local.jvm.java import ENVIRONMENT, java_argv, make_service_folder
from taskbridge.local.ports import LOOPBACK
from taskbridge.local.probes import kafka_answers, port_answers
from taskbridge.local.processes.services import ServiceSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HEAP_MB = 512
_LOG4J = Path(__file__).with_name("log4j2.properties")
_PROPERTIES = "server.properties"
_STORAGE = "storage"
_IDENTITY = "meta.properties"
_CHECKPOINT = Path(__file__).with_name("bootstrap.checkpoint")
"""The features of a new cluster, as ``kafka-storage format`` of this release of Kafka writes them."""
_RECORD_MAX_BYTES = 5 * 1024 * 1024  # topics carry 4 MiB; a batch is a little more than its records

BROKER_PROPERTIES: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "auto.create.topics.enable": "false",
    "message.max.bytes": str(_RECORD_MAX_BYTES),
    "replica.fetch.max.bytes": str(_RECORD_MAX_BYTES),
    # One broker, so one copy of Kafka's own topics, and few partitions of them: each costs files and start time.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "3",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    # After a kill the controller refuses the broker until its old session ends: 9 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # By default an idle controller writes twice a second that there is nothing to write.
    "metadata.max.idle.interval.ms": "0",
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
}


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


def kafka_service(
    *, jars: Path, data_dir: Path, port: int, controller_port: int, flags: Sequence[str] = ()
) -> ServiceSpec:
    """Prepare ``data_dir`` for a broker on ``port`` and return what to run; existing data stays.

    ``flags`` of the JVM override the defaults, which are for a quick start.

    Raises:
        OSError: the folder cannot be written.
    """
    make_service_folder(data_dir)
    _write_properties(data_dir, loopback_properties(port=port, controller_port=controller_port, log_dir=_STORAGE))
    if not (data_dir / _STORAGE / _IDENTITY).exists():
        _format_storage(data_dir / _STORAGE)
    return ServiceSpec(
        name="kafka",
        argv=_java(jars, *flags, "kafka.Kafka", _PROPERTIES),
        env=ENVIRONMENT,
        cwd=data_dir,
        log_path=data_dir / "kafka.log",
        # The port first: a client that is refused waits for its whole timeout.
        ready=lambda: port_answers(LOOPBACK, port) and kafka_answers(f"{LOOPBACK}:{port}"),
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


def _java(jars: Path, *arguments: str) -> list[str]:
    logs = f"-Dlog4j2.configurationFile={_LOG4J.as_uri()}"
    return java_argv(logs, "-cp", f"{jars}/*", *arguments, program=jars, heap_mb=_HEAP_MB)


def _write_properties(folder: Path, properties: Mapping[str, str], *, name: str = _PROPERTIES) -> None:
    # Only relative folder names: Java reads this file as Latin-1.
    (folder / name).write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
