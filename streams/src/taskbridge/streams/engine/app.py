"""A worker's Faust app: its settings, and where it finds our parts.

What it reads and keeps is declared by ``streams.topology``.
"""

from __future__ import annotations

import logging
import uuid
import zlib
from typing import TYPE_CHECKING, Any

import faust

from taskbridge.schemas.topics import MAX_MESSAGE_BYTES
from taskbridge.streams.engine.broker_credentials import broker_credentials
from taskbridge.streams.engine.table_manager import Tables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.streams.settings import StreamsSettings

APP_ID = "taskbridge-streams"

_POLLS_WAITING = 4
"""What may wait for an agent; more would only be memory, and work to drop at a rebalance."""

_POLLED_RECORDS = 1000
"""By one poll. The event loop does nothing else while a chunk is folded, which is all of them at the most."""

_COMMIT_INTERVAL_S = 1.0
"""What a worker that is killed leaves to be folded again."""

_PRODUCER_TIMEOUT_S = 60.0


def build_faust_app(worker: StreamsSettings, *, partitions: int, kafka_properties: Mapping[str, str]) -> faust.App:
    """A Faust app with the settings that its sources and issues teach; nothing is connected yet."""
    brokers = worker.kafka_bootstrap_servers.split(",")
    # Loosely typed: the settings' stubs want the values as they are after Faust converted them.
    settings: dict[str, Any] = {
        "broker_consumer": [f"chunks://{each.strip()}" for each in brokers],
        "broker_producer": [f"kafka://{each.strip()}" for each in brokers],
        "broker_credentials": broker_credentials(kafka_properties),
        "broker_max_poll_records": _POLLED_RECORDS,
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
        "stream_buffer_maxsize": _POLLS_WAITING,
        # A rebalance waits for the chunk in work, so that it ends with its ack and not halfway.
        "stream_wait_empty": True,
        "table_standby_replicas": worker.standbys,
        "TableManager": Tables,
        "topic_disable_leader": True,
        "topic_partitions": partitions,
        "web_enabled": False,
        "web_tables_enabled": False,
        "loghandlers": [logging.NullHandler()],
        # Its own statistics, of each message and event; ours are in ``streams.monitoring``.
        "Monitor": faust.Sensor,
    }
    return faust.App(APP_ID, **settings)


def _worker_name(worker: StreamsSettings) -> str:
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
