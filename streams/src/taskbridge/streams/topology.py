"""What the streams service reads, keeps and writes, declared once for Faust.

Reads ``taskbridge.task-events.v1`` (a chunk at a time). Keeps the table ``instances``, partitioned like the events,
with a compacted changelog. Writes states, notifications and dead letters: see ``agents``. With the task center, reads
``taskbridge.task-notifications.v1`` too, and keeps the table ``inbox``: see ``inbox_agent``.
"""

from __future__ import annotations

import logging
import shutil
import uuid
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import faust
import structlog

from taskbridge.runtime.kafka import consumer_config
from taskbridge.schemas.topics import MAX_MESSAGE_BYTES, TASK_EVENTS, TASK_NOTIFICATIONS
from taskbridge.streams.engine.broker_credentials import broker_credentials
from taskbridge.streams.positions.changelog_topic import (
    INBOX_CHANGELOG,
    instances_changelog,
    instances_table_name,
    reader_config,
)
from taskbridge.streams.positions.version import FIRST_VERSION
from taskbridge.streams.tables.table_manager import ReaderSettings, Tables

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from taskbridge.schemas.topics import Topic
    from taskbridge.streams.tables.store import Store

APP_ID = "taskbridge-streams"

log = structlog.get_logger(__name__)

_CHUNKS_WAITING = 16
"""How many chunks may wait for the agent; more would only be memory, and work to drop at a rebalance."""

_CHUNK_RECORDS = 1000
"""In one chunk, which is one transaction. The event loop does nothing else while a chunk is folded."""

_COMMIT_INTERVAL_S = 1.0
"""What a worker that is killed leaves to be folded again."""

_PRODUCER_TIMEOUT_S = 60.0


_RESTORE_BATCH_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Worker:
    """What one worker is, among those that share the partitions."""

    data_dir: Path
    url: str
    """Where the others reach its HTTP side."""
    standbys: int = 1
    """How many other workers keep each partition's states warm, as far as there are other workers."""
    session_timeout_s: float = 6.0
    """A worker that was killed is missed after this long; one that comes back under its name is not missed at all."""
    restore_buffer_bytes: int = 64 << 20
    """Changelog that may wait in memory to be applied."""


def build_faust_app(
    bootstrap_servers: str, *, worker: Worker, partitions: int, kafka_properties: Mapping[str, str]
) -> faust.App:
    """A Faust app with the settings that its sources and issues teach; nothing is connected yet."""
    brokers = bootstrap_servers.split(",")
    # Loosely typed: the settings' stubs want the values as they are after Faust converted them.
    settings: dict[str, Any] = {
        "broker_consumer": [f"chunks://{each.strip()}" for each in brokers],
        "broker_producer": [f"kafka://{each.strip()}" for each in brokers],
        "broker_credentials": broker_credentials(kafka_properties),
        "broker_max_poll_records": _CHUNK_RECORDS,
        "broker_commit_interval": _COMMIT_INTERVAL_S,
        "broker_session_timeout": worker.session_timeout_s,
        "broker_heartbeat_interval": worker.session_timeout_s / 4,
        "canonical_url": worker.url,
        # A worker that comes back under its old name gets its partitions back at once; a new name would have to wait
        # until the old one's session times out.
        "consumer_group_instance_id": _worker_name(worker),
        "consumer_auto_offset_reset": "earliest",
        "consumer_max_fetch_size": MAX_MESSAGE_BYTES + (1 << 20),
        "datadir": worker.data_dir,
        "producer_request_timeout": _PRODUCER_TIMEOUT_S,
        # Set here: a table's own ``store`` without a path counts as none, and Faust would take its memory store.
        "store": "chunks://",
        "stream_buffer_maxsize": _CHUNKS_WAITING,
        # A rebalance waits for the chunk in work, so that it ends with its ack and not halfway.
        "stream_wait_empty": True,
        "table_standby_replicas": worker.standbys,
        "TableManager": Tables,
        "topic_disable_leader": True,
        "topic_partitions": partitions,
        "web_enabled": False,
        "web_tables_enabled": False,
        "loghandlers": [logging.NullHandler()],
    }
    app = faust.App(APP_ID, **settings)
    cast("Tables", app.tables).reader_settings = ReaderSettings(
        reader_config(
            consumer_config(bootstrap_servers, APP_ID, kafka_properties), buffer_bytes=worker.restore_buffer_bytes
        ),
        batch_bytes=_RESTORE_BATCH_BYTES,
    )
    return app


def instances_table(app: faust.App, *, partitions: int, version: int = FIRST_VERSION) -> tuple[Store, str]:
    """Declare that version of the table of instances; returns its store and the name of its changelog topic."""
    return _table(app, instances_table_name(version), instances_changelog(version), partitions)


def inbox_table(app: faust.App, *, partitions: int) -> tuple[Store, str]:
    """Declare the table of inboxes, with the same partitions; returns its store and the name of its changelog topic.

    Topics and changelogs with as many partitions go to the same workers: Faust's assignor sees to it.
    """
    return _table(app, "inbox", INBOX_CHANGELOG, partitions)


def _table(app: faust.App, name: str, changelog: Topic, partitions: int) -> tuple[Store, str]:
    declare = cast("Any", app).Table
    table = declare(
        name,
        key_type=bytes,
        value_type=bytes,
        partitions=partitions,
        # The driver's defaults take gigabytes over a dozen partitions.
        options={
            "driver": "rocksdict",
            "block_cache_size": 16 << 20,
            "write_buffer_size": 8 << 20,
            "max_open_files": 128,
        },
    )
    # The topic is made by us before Faust could: its replication is then what the cluster prescribes.
    assert table.changelog_topic.get_topic_name() == changelog.name
    return cast("Store", table.data), changelog.name


def remove_other_versions(app: faust.App, *, version: int) -> None:
    """Take the stores of versions that are not live off the disk. Blocks."""
    live = instances_table_name(version)
    others = [path for path in app.conf.tabledir.glob("instances*-*.db") if path.name.rpartition("-")[0] != live]
    for path in others:
        shutil.rmtree(path, ignore_errors=True)
    if others:
        log.info("stores_removed", stores=len(others), live=version)


def task_events_topic(app: faust.App) -> Any:
    """The events as raw bytes: they are decoded in the agent's own reach, so that a bad one can be parked.

    Without Faust's acks: ``streams.engine.transport`` keeps the positions.
    """
    return _chunks_of(app, TASK_EVENTS)


def notifications_topic(app: faust.App) -> Any:
    """The notifications, likewise."""
    return _chunks_of(app, TASK_NOTIFICATIONS)


def _chunks_of(app: faust.App, topic: Topic) -> Any:
    return app.topic(
        topic.name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", acks=False
    )


def _worker_name(worker: Worker) -> str:
    """A name that stays with the data directory and the address: one of each is one worker.

    With the address, because a worker that comes back under its name gets its assignment back as it was, and Faust
    takes an assignment for another address as none of its own.
    """
    worker.data_dir.mkdir(parents=True, exist_ok=True)
    path = worker.data_dir / "worker-name"
    try:
        name = path.read_text().strip()
    except FileNotFoundError:
        name = f"{APP_ID}-{uuid.uuid4()}"
        path.write_text(name)
    return f"{name}-{zlib.crc32(worker.url.encode()):08x}"
