"""A worker's Faust app: its settings, its parts with our types, and how it manages and stores tables."""

from __future__ import annotations

import logging
import uuid
import zlib
from typing import TYPE_CHECKING, Any, Protocol, cast

import faust
from faust.stores import rocksdb
from faust.tables import TableManager

from taskbridge.schemas.topics import MAX_MESSAGE_BYTES
from taskbridge.streams.engine.credentials import broker_credentials

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from faust.types import TP

    from taskbridge.schemas.topics import Topic
    from taskbridge.streams.engine.transport import ChunkConsumer
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


def consumer_of(app: faust.App) -> ChunkConsumer:
    """The consumer of an app that was built by ``streams.engine.app``."""
    return cast("ChunkConsumer", app.consumer)


def tables_of(app: faust.App) -> Tables:
    """The manager of its tables."""
    return cast("Tables", app.tables)


def partitions_by_worker(app: faust.App) -> Mapping[str, Mapping[str, Collection[int]]]:
    """Of each worker's URL, and of each changelog topic, the active partitions that the group's leader gave it."""
    return cast("Any", app.assignor).tables_metadata()


def on_assigned(app: faust.App, call: Callable[[set[TP]], Awaitable[None]]) -> None:
    """Have ``call`` awaited at each rebalance with what is assigned to this worker then."""

    async def assigned(_app: faust.App, partitions: set[TP], **_: Any) -> None:
        await call(partitions)

    cast("Any", app.on_partitions_assigned).connect(assigned)


def declare_table(app: faust.App, name: str, *, partitions: int) -> Any:
    """A table of bytes by keys of bytes, kept by the store of the app's settings."""
    return cast("Any", app).Table(
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


async def poll(app: faust.App) -> None:
    """Have the consumer polled, where that has stopped: the last step but two of Faust's own recovery."""
    await cast("Any", app)._fetcher.maybe_start()  # noqa: SLF001


class Recovers(Protocol):
    """What the manager asks of a recovery: ``streams.tables.recovery``, a service of Faust's."""

    completed: asyncio.Event

    @property
    def started(self) -> bool: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def on_partitions_revoked(self, revoked: set[TP]) -> None: ...
    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None: ...


class Tables(TableManager):
    """Faust's tables, recovered by whoever ``recover_by`` names."""

    @property
    def changelogs(self) -> dict[str, Any]:
        """The tables by the name of their changelog topic."""
        return dict(self._changelogs)

    def recover_by(self, recovery: Recovers) -> None:
        """Before the app is started: there is none otherwise."""
        self._recovery = cast("Any", recovery)

    @property
    def recovery(self) -> Any:
        assert self._recovery is not None, "recover_by comes before the app is started"
        return self._recovery

    async def on_start(self) -> None:
        # Without the second that Faust waits here for agents that are not declared yet: ours all are.
        await self._update_channels()
        await self.recovery.start()


class TableStore(rocksdb.Store):
    """One RocksDB a partition. Faust gives the folder and the options."""

    @property
    def held(self) -> frozenset[int]:
        """The partitions that are open."""
        return frozenset(self._open)

    def open_partition(self, partition: int) -> None:
        """Open the partition's RocksDB. Raises the library's own error where that cannot be."""
        self._open[partition] = self._open_for_partition(partition)

    def opened(self, partition: int) -> Any:
        """The partition's RocksDB; None where it is not open."""
        return self._open.get(partition)

    def release(self, partition: int) -> None:
        """Flush and close the partition's store; another process may open it afterwards."""
        held = self._open.pop(partition, None)
        if held is not None:
            held.close()

    async def on_rebalance(self, *_: Any, **__: Any) -> None:
        """Nothing: ``streams.tables.recovery`` opens and closes partitions, once whoever writes to them has stopped."""

    async def stop(self) -> None:
        for partition in self.held:
            self.release(partition)

    @property
    def _open(self) -> dict[int, Any]:
        return cast("dict[int, Any]", self._dbs)


def chunks_of(app: faust.App, topic: Topic) -> Any:
    """The topic's records as raw bytes: they are decoded in the agent's own reach, so that a bad one can be parked.

    Without Faust's acks: ``streams.engine.transport`` keeps the positions.
    """
    return app.topic(
        topic.name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", acks=False
    )
