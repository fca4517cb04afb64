"""Brings topics to the contract: creates what is missing, reports what differs, deletes and alters nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import ConfigResource, NewTopic

from schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from confluent_kafka.admin import AdminClient

    from schemas.topics import Topic

_TIMEOUT_S = 15
_METADATA_S = 5
_BROKER_DEFAULT = -1


class TopicsUnavailable(OperatorError):
    """The broker does not answer, or does not let us see or create topics."""


@dataclass(frozen=True, slots=True)
class TopicReport:
    """What was found of one topic. ``drift`` has one readable line for each difference from the contract."""

    name: str
    created: bool
    partitions: int
    drift: list[str] = field(default_factory=list[str])


def apply_topics(
    admin: AdminClient, wanted: Iterable[Topic], *, partitions: int, replication: int = _BROKER_DEFAULT
) -> list[TopicReport]:
    """Create the missing topics and compare the others with the contract. Safe to repeat, and to run side by side.

    Raises:
        TopicsUnavailable: no answer, or not allowed.
    """
    wanted = list(wanted)
    existing = _existing(admin)
    missing = [topic for topic in wanted if topic.name not in existing]
    created = _create(admin, missing, partitions=partitions, replication=replication)
    reports = [
        TopicReport(topic.name, created=True, partitions=partitions) for topic in missing if topic.name in created
    ]
    others = [topic for topic in wanted if topic.name not in created]
    return reports + _compare(admin, others, partitions=partitions)


def _existing(admin: AdminClient) -> dict[str, int]:
    try:
        found = admin.list_topics(timeout=_METADATA_S).topics
    except KafkaException as error:
        raise TopicsUnavailable(f"Kafka does not answer: {error}") from error
    return {name: len(topic.partitions) for name, topic in found.items()}


def _create(admin: AdminClient, missing: list[Topic], *, partitions: int, replication: int) -> set[str]:
    if not missing:
        return set()
    new = [NewTopic(topic.name, partitions, replication, config=dict(topic.settings)) for topic in missing]
    created: set[str] = set()
    for name, future in cast("dict[str, Any]", admin.create_topics(new, operation_timeout=_TIMEOUT_S)).items():
        try:
            future.result()
            created.add(name)
        except KafkaException as error:
            # Somebody else created it in the meantime: it is compared like any other.
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicsUnavailable(f"cannot create topic {name}: {error.args[0].str()}") from error
    return created


def _compare(admin: AdminClient, topics: list[Topic], *, partitions: int) -> list[TopicReport]:
    if not topics:
        return []
    existing = _existing(admin)
    resources = [ConfigResource(ConfigResource.Type.TOPIC, topic.name) for topic in topics]
    try:
        described = cast("dict[ConfigResource, Any]", admin.describe_configs(resources))
        settings = {
            resource.name: {str(name): entry.value for name, entry in future.result(_TIMEOUT_S).items()}
            for resource, future in described.items()
        }
    except KafkaException as error:
        raise TopicsUnavailable(f"cannot read the topics' settings: {error.args[0].str()}") from error
    return [
        TopicReport(
            topic.name,
            created=False,
            partitions=existing.get(topic.name, 0),
            drift=_drift(topic, settings[topic.name], existing.get(topic.name, 0), partitions),
        )
        for topic in topics
    ]


def _drift(topic: Topic, settings: dict[str, str | None], found: int, partitions: int) -> list[str]:
    lines = [
        f"{name} is {settings.get(name)}, the contract says {value}"
        for name, value in topic.settings.items()
        if settings.get(name) != value
    ]
    if found != partitions:
        lines.append(f"{found} partitions, {partitions} are configured (TASKBRIDGE_PARTITIONS)")
    return lines
