"""Which version of the instances is live, as a record on Kafka names it; and the end of a switch whose rebuild died."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import OFFSET_BEGINNING
from faust.types import TP
from msgspec.structs import replace

from taskbridge.runtime.kafka import admin_client, consumer_config, producer_config
from taskbridge.runtime.partition_reader import PartitionReader, Unreadable
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.topics import TASK_EVENTS
from taskbridge.streams.engine.app import APP_ID
from taskbridge.streams.engine.joint_producer import JointProducer
from taskbridge.streams.table_versions import (
    FIRST_VERSION,
    VERSION_KEY,
    VERSION_TOPIC,
    Versions,
    VersionUnreadable,
    read_versions,
    reader_config,
    write_versions,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.streams.transactions.offsets import Offsets

REBUILD_ID = "taskbridge-streams-rebuild"
"""The consumer group of a rebuild, which is its only member, and its transactional id."""

_ANSWER_S = 10.0
_BUFFER_BYTES = 1 << 20

log = structlog.get_logger(__name__)


class SwitchUnderWay(OperatorError):
    """A rebuild is making its version live, or a republication is running. Workers wait for its end."""


class AnotherVersion(OperatorError):
    """The worker's version is no longer live: it has to restart with the live one."""


class LiveVersion:
    """Every method blocks, may be called from any thread, and raises KafkaException or TimeoutError without Kafka."""

    def __init__(self, servers: str, properties: Mapping[str, str], offsets: Offsets) -> None:
        self._consumer = reader_config(consumer_config(servers, REBUILD_ID, properties), buffer_bytes=_BUFFER_BYTES)
        self._producer = producer_config(servers, properties)
        self._admin = admin_client(servers, properties)
        self._offsets = offsets
        self._read_to = -1
        self._versions = Versions()
        # As of the last ``read``:
        self.is_recorded = False
        self.unreadable: str | None = None

    def prepare(self) -> None:
        """Create the topic if it is missing; raises TopicsUnavailable if Kafka did not create it."""
        apply_topics(self._admin, [VERSION_TOPIC], partitions=1)

    def read(self) -> Versions:
        """The recorded versions; without a readable record, the newest version that a position names.

        Costs one small request if there is no new record.
        """
        if self.has_more():
            self._versions, self._read_to = self._read()
        return self._versions

    def has_more(self) -> bool:
        """Whether there are records since the last ``read``. Costs one small request."""
        return self._offsets.ends(VERSION_TOPIC.name, [0])[0] != self._read_to

    def settled(self) -> int:
        """The version with which a worker starts now; ends a switch whose rebuild died. Raises SwitchUnderWay."""
        versions = self.read()
        if versions.next is None:
            return versions.live
        if versions.partitions is not None or self._offsets.members(REBUILD_ID):
            raise SwitchUnderWay(_under_way(versions))
        # It died, or is frozen: from the claim on, it can no longer make its version live. It may have done so already.
        with closing(JointProducer(self._producer, REBUILD_ID)) as writer:
            writer.claim()
            versions = self.read()
            if versions.partitions is not None:
                raise SwitchUnderWay(_under_way(versions))
            if versions.next is not None:
                log.warning("version_change_abandoned", what=_under_way(versions))
                with writer.transaction():
                    announce(writer, replace(versions, next=None))
        return versions.live

    def check(self, version: int) -> None:
        """Return if this version may work; raises AnotherVersion if another one is live, or about to be."""
        if self.read() != Versions(version):
            raise AnotherVersion(f"version {version} of the states is no longer live")

    def _read(self) -> tuple[Versions, int]:
        written: dict[bytes | None, bytes | None] = {}
        try:
            with closing(PartitionReader(self._consumer)) as reader:
                for batch in reader.read(VERSION_TOPIC.name, {0: OFFSET_BEGINNING}, within_s=_ANSWER_S):
                    written.update((message.key(), message.value()) for message in batch)
        except Unreadable as error:
            raise TimeoutError(f"Kafka does not answer for {VERSION_TOPIC.name}: {error}") from error
        return self._parsed(written), reader.reached[0]

    def _parsed(self, written: Mapping[bytes | None, bytes | None]) -> Versions:
        record = written.get(VERSION_KEY)
        self.unreadable, self.is_recorded = None, record is not None
        try:
            return read_versions(record) if record is not None else self.by_positions()
        except VersionUnreadable as error:
            self.unreadable = str(error)
            return self.by_positions()

    def by_positions(self) -> Versions:
        described = self._offsets.topics([TASK_EVENTS.name])
        sources = [TP(TASK_EVENTS.name, each) for topic in described.values() for each in range(topic.partitions)]
        committed = self._offsets.committed(APP_ID, sources).values()
        versions = (at.lineage.version for at in committed if at.lineage is not None)
        return Versions(max(versions, default=FIRST_VERSION))


def _under_way(versions: Versions) -> str:
    if versions.partitions is not None:
        return (
            f"all topics are being moved to {versions.partitions} partitions. If the move was interrupted, run"
            f" taskbridge streams --rebuild --partitions {versions.partitions} again"
        )
    if versions.next == versions.live:
        return "a republish is running; workers start when it ends"
    return f"a rebuild is switching to version {versions.next} of the states"


def announce(writer: JointProducer, versions: Versions) -> None:
    writer.send(VERSION_TOPIC.name, [(VERSION_KEY, write_versions(versions), [])], partition=0)
