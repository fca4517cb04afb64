"""A worker's Faust app: its settings, its parts with our types, and how it manages tables."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING, Any, cast

import faust
from faust.tables import TableManager

from taskbridge.schemas.topics import MAX_MESSAGE_BYTES, Topic
from taskbridge.streams.engine.credentials import broker_credentials

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from taskbridge.streams.engine.transport import ChunkConsumer
    from taskbridge.streams.settings import StreamsSettings

APP_ID = "taskbridge-streams"

_POLLS_WAITING = 4
"""Messages that may wait for an agent; more would only be memory, and work to drop at a rebalance."""

_POLLED_RECORDS = 1000
"""Maximum number of records per poll, and so of a chunk, during whose fold the event loop does nothing else."""

_COMMIT_INTERVAL_S = 1.0
_PRODUCER_TIMEOUT_S = 60.0


def build_faust_app(worker: StreamsSettings, *, partitions: int, kafka_properties: Mapping[str, str]) -> faust.App:
    brokers, name = worker.kafka_bootstrap_servers.split(","), _worker_name(worker.data_dir)
    # Loosely typed: the stubs declare the values after Faust's conversion.
    settings: dict[str, Any] = {
        "broker_consumer": [f"chunks://{each.strip()}" for each in brokers],
        "broker_producer": [f"kafka://{each.strip()}" for each in brokers],
        "broker_credentials": broker_credentials(kafka_properties),
        "broker_max_poll_records": _POLLED_RECORDS,
        "broker_commit_interval": _COMMIT_INTERVAL_S,
        "broker_session_timeout": worker.session_timeout_s,
        "broker_heartbeat_interval": worker.session_timeout_s / 4,
        # Faust ignores a former assignment that names another URL.
        "canonical_url": f"http://{name}",
        # A worker that restarts under its name gets its partitions back at once. Under a new name it would wait for the
        # session timeout of the old one.
        "consumer_group_instance_id": name,
        "consumer_auto_offset_reset": "earliest",
        "consumer_max_fetch_size": MAX_MESSAGE_BYTES + (1 << 20),
        "datadir": worker.data_dir,
        "producer_request_timeout": _PRODUCER_TIMEOUT_S,
        "stream_buffer_maxsize": _POLLS_WAITING,
        # A rebalance waits for chunks in progress.
        "stream_wait_empty": True,
        "table_standby_replicas": worker.standbys,
        "TableManager": Tables,
        "topic_disable_leader": True,
        "topic_partitions": partitions,
        "web_enabled": False,
        "web_tables_enabled": False,
        "loghandlers": [logging.NullHandler()],
        # Without Faust's statistics of each message and event; ours are in ``streams.monitoring``.
        "Monitor": faust.Sensor,
    }
    return faust.App(APP_ID, **settings)


def _worker_name(data_dir: Path) -> str:
    """The name of this data directory's worker, the same after a restart: it gets its former partitions back."""
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / "worker-name"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        name = f"{APP_ID}-{uuid.uuid4()}"
        path.write_text(name)
        return name


def consumer_of(app: faust.App) -> ChunkConsumer:
    return cast("ChunkConsumer", app.consumer)


def tables_of(app: faust.App) -> Tables:
    return cast("Tables", app.tables)


def declare_table(app: faust.App, name: str, *, partitions: int) -> str:
    """Declare a table, whose partitions the assignor gives to workers; returns the name of its changelog topic.

    Faust holds none of its values: its own store, in memory, stays empty.
    """
    table = cast("Any", app).Table(name, key_type=bytes, value_type=bytes, partitions=partitions)
    return table.changelog_topic.get_topic_name()


async def poll(app: faust.App) -> None:
    """Resume polling of the consumer, the last step but two of Faust's own recovery."""
    await cast("Any", app)._fetcher.maybe_start()  # noqa: SLF001


class Tables(TableManager):
    def use_recovery(self, recovery: Any) -> None:
        """Set the recovery: a service with the methods that Faust's has. Must be called before the app starts."""
        self._recovery = recovery

    async def on_start(self) -> None:
        # Without Faust's wait of a second for agents that are declared later: ours are all declared.
        await self._update_channels()
        await self.recovery.start()


def chunks_of(app: faust.App, topic: Topic) -> Any:
    """The topic's records as bytes, which the agent decodes, so that it can set aside a bad record.

    Without Faust's acks: ``streams.engine.transport`` tracks the positions.
    """
    return app.topic(
        topic.name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", acks=False
    )
