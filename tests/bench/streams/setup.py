"""Kafka and the registry of a run, and topics that exist for one measurement."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import NewTopic, OffsetSpec
from tests.bench.command import NotCounted

from taskbridge.local.artifacts import cache_folder
from taskbridge.local.host import free_ports
from taskbridge.local.stack import JvmStack
from taskbridge.runtime.kafka import admin_client
from taskbridge.runtime.topic_admin import apply_topics
from taskbridge.schemas import topics
from taskbridge.schemas.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from taskbridge.cli.terminal import Progress
    from taskbridge.local.artifacts import Artifacts
    from taskbridge.local.supervisor import ServiceSpec, Supervisor

_TIMEOUT_S = 30.0
_POLL_S = 0.1

_KAFKA_FLAGS = (
    "-XX:TieredStopAtLevel=4",
    "-XX:-UseSerialGC",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Xms1g",
    "-Xmx1g",
)
"""Those of Kafka's own start scripts. The local stack's are for a quick start, and leave the second compiler out."""

LOGGED = {"message.timestamp.type": "LogAppendTime"}
"""The broker stamps records when it appends them: that is the clock which all peers are measured by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all measurements of a run share."""

    bootstrap_servers: str
    registry_url: str
    registry: Registry
    schema_ids: Mapping[str, int]
    """By subject."""
    folder: Path
    partitions: int
    progress: Progress
    kafka: Kafka

    def create_topics(self) -> None:
        """Those of the bridge; ``start`` has created none."""
        apply_topics(admin_client(self.bootstrap_servers), topics.ALL, partitions=self.partitions, replication=1)

    def schema_id(self, topic: topics.Topic) -> int:
        return self.schema_ids[topic.subject]


class _Stack(JvmStack):
    def _services(self, artifacts: Artifacts) -> tuple[ServiceSpec, ServiceSpec]:
        kafka, registry = super()._services(artifacts)
        at = kafka.argv.index("kafka.Kafka")
        return replace(kafka, argv=[*kafka.argv[:at], *_KAFKA_FLAGS, *kafka.argv[at:]]), registry


def start(
    supervisor: Supervisor,
    folder: Path,
    *,
    partitions: int,
    environ: Mapping[str, str],
    progress: Progress,
    stack: type[JvmStack] = _Stack,
) -> Setup:
    """Kafka and the registry, empty. By default Kafka's JVM is set as Kafka's own scripts set it."""
    kafka_port, registry_port = free_ports(2)
    services = stack(
        data_dir=folder / "stack",
        kafka_port=kafka_port,
        registry_port=registry_port,
        cache=cache_folder(environ),
        supervisor=supervisor,
        progress=progress,
    )
    endpoints = services.start()
    registry = Registry(endpoints.registry_url)
    return Setup(
        bootstrap_servers=endpoints.bootstrap_servers,
        registry_url=endpoints.registry_url,
        registry=registry,
        schema_ids=registry.register(topics.ALL),
        folder=folder,
        partitions=partitions,
        progress=progress,
        kafka=Kafka(endpoints.bootstrap_servers),
    )


class Kafka:
    """What the harness needs of the broker in addition to records."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._admin = admin_client(bootstrap_servers)

    def create(self, name: str, partitions: int, settings: Mapping[str, str]) -> None:
        """Recreate the topic: records of an earlier one of that name are gone."""
        self.delete([name])
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            new = NewTopic(name, partitions, 1, config=dict(settings))
            try:
                cast("dict[str, Any]", self._admin.create_topics([new]))[name].result(_TIMEOUT_S)
            except KafkaException as error:
                # The one before is still being deleted.
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_S)
            else:
                return

    def delete(self, names: Iterable[str]) -> None:
        """Delete the topics that exist of these, and wait until they are gone."""
        found = self.names()
        doomed = [name for name in names if name in found]
        if not doomed:
            return
        for future in cast("dict[str, Any]", self._admin.delete_topics(doomed)).values():
            future.result(_TIMEOUT_S)
        deadline = time.monotonic() + _TIMEOUT_S
        while self.names() & set(doomed) and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def names(self) -> set[str]:
        return set(self._admin.list_topics(timeout=_TIMEOUT_S).topics)

    def ends(self, topic: str, partitions: int) -> list[int]:
        """The end of each partition now."""
        latest = cast("OffsetSpec", OffsetSpec.latest())
        requested = {TopicPartition(topic, each): latest for each in range(partitions)}
        found = cast("dict[TopicPartition, Any]", self._admin.list_offsets(requested))
        return [found[each].result(_TIMEOUT_S).offset for each in requested]

    def committed(self, group: str, topic: str, partitions: int) -> list[int]:
        """What the group has committed of each partition; 0 where nothing yet."""
        requested = [TopicPartition(topic, each) for each in range(partitions)]
        request = [ConsumerGroupTopicPartitions(group, requested)]
        futures = cast("dict[str, Any]", self._admin.list_consumer_group_offsets(request))
        try:
            found = futures[group].result(_TIMEOUT_S)
        except KafkaException:
            return [0] * partitions  # no such group yet
        return [max(each.offset, 0) for each in found.topic_partitions]

    def forget(self, group: str) -> None:
        """Delete the group. A worker of static membership stays in it until its session times out: waited for."""
        deadline = time.monotonic() + _TIMEOUT_S
        self._admin.describe_groups([group], _TIMEOUT_S)  # from then on its coordinator is known, also in a new Kafka
        while True:
            try:
                cast("dict[str, Any]", self._admin.delete_consumer_groups([group]))[group].result(_TIMEOUT_S)
            except KafkaException as error:
                if error.args[0].code() in (KafkaError.GROUP_ID_NOT_FOUND, KafkaError.INVALID_GROUP_ID):
                    return
                if time.monotonic() > deadline:
                    raise NotCounted(f"the group {group} cannot be deleted: {error}") from error
                time.sleep(_POLL_S)
            else:
                return
