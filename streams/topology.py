"""What the streams service reads, keeps and writes, declared once for Faust.

Reads ``taskbridge.task-events.v1`` (a chunk at a time). Keeps the table ``instances``, partitioned like the events,
with a compacted changelog. Writes states, notifications and dead letters: see ``agents``.
"""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING, Any, cast

import faust

from schemas.topics import MAX_MESSAGE_BYTES, TASK_EVENTS
from streams.broker_credentials import broker_credentials

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from streams.store import Store

APP_ID = "taskbridge-streams"

_CHUNKS_WAITING = 16
"""How many chunks may wait for the agent; more would only be memory, and work to drop at a rebalance."""

_CHUNK_RECORDS = 500
_SESSION_TIMEOUT_S = 10.0
"""A worker that was killed is missed after this long; one that comes back under its name is not missed at all."""

_PRODUCER_TIMEOUT_S = 60.0


def build_faust_app(
    bootstrap_servers: str, *, data_dir: Path, partitions: int, kafka_properties: Mapping[str, str]
) -> faust.App:
    """A Faust app with the settings that its sources and issues teach; nothing is connected yet."""
    brokers = bootstrap_servers.split(",")
    # Loosely typed: the settings' stubs want the values as they are after Faust converted them.
    settings: dict[str, Any] = {
        "broker_consumer": [f"chunks://{each.strip()}" for each in brokers],
        "broker_producer": [f"kafka://{each.strip()}" for each in brokers],
        "broker_credentials": broker_credentials(kafka_properties),
        "broker_max_poll_records": _CHUNK_RECORDS,
        "broker_session_timeout": _SESSION_TIMEOUT_S,
        "broker_heartbeat_interval": _SESSION_TIMEOUT_S / 4,
        # A worker that comes back under its old name gets its partitions back at once; a new name would have to wait
        # until the old one's session times out.
        "consumer_group_instance_id": _worker_name(data_dir),
        "consumer_auto_offset_reset": "earliest",
        "consumer_max_fetch_size": MAX_MESSAGE_BYTES + (1 << 20),
        "datadir": data_dir,
        "producer_request_timeout": _PRODUCER_TIMEOUT_S,
        # Set here: a table's own ``store`` without a path counts as none, and Faust would take its memory store.
        "store": "chunks://",
        "stream_buffer_maxsize": _CHUNKS_WAITING,
        # A rebalance waits for the chunk in work, so that it ends with its ack and not halfway.
        "stream_wait_empty": True,
        "topic_disable_leader": True,
        "topic_partitions": partitions,
        "topic_replication_factor": 1,
        "web_enabled": False,
        "web_tables_enabled": False,
        "loghandlers": [logging.NullHandler()],
    }
    return faust.App(APP_ID, **settings)


def instances_table(app: faust.App, *, partitions: int) -> tuple[Store, str]:
    """Declare the table of instances; returns its store and the name of its changelog topic."""
    declare = cast("Any", app).Table
    table = declare(
        "instances",
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
        extra_topic_configs={"cleanup.policy": "compact", "max.message.bytes": str(MAX_MESSAGE_BYTES)},
    )
    return cast("Store", table.data), str(table.changelog_topic.get_topic_name())


def task_events_topic(app: faust.App) -> Any:
    """The events as raw bytes: they are decoded in the agent's own reach, so that a bad one can be parked.

    Without Faust's acks: ``streams.transport`` keeps the positions.
    """
    return app.topic(
        TASK_EVENTS.name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", acks=False
    )


def _worker_name(data_dir: Path) -> str:
    """A name that stays with the data directory: one directory is one worker."""
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / "worker-name"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        name = f"{APP_ID}-{uuid.uuid4()}"
        path.write_text(name)
        return name
