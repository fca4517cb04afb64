"""Brings topics to the contract: creates what is missing, reports what differs, deletes and alters nothing.

A user who may only read and write is enough once the topics are there: what may not be looked at is reported too.
"""

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
_MAY_NOT_LOOK = (
    "its settings could not be checked: allow this Kafka user DescribeConfigs on it, or let one who may run"
    " 'taskbridge topics apply' now and then"
)
_NOT_ALLOWED = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)


class TopicsUnavailable(OperatorError):
    """The broker does not answer, or does not let us see or create topics."""


@dataclass(frozen=True, slots=True)
class TopicReport:
    """What was found of one topic."""

    name: str
    created: bool
    partitions: int
    drift: list[str] = field(default_factory=list[str])
    """One readable line for each difference from the contract."""
    unchecked: str | None = None
    """The topic is there, but its settings may not be looked at: why, and what to do."""

    @property
    def state(self) -> str:
        if self.created:
            return "created"
        return "differs" if self.drift else "unchecked" if self.unchecked else "ok"

    @property
    def remarks(self) -> list[str]:
        """All that a person should know of, a line each."""
        return [*self.drift, *([self.unchecked] if self.unchecked else [])]


def apply_topics(
    admin: AdminClient, wanted: Iterable[Topic], *, partitions: int, replication: int = _BROKER_DEFAULT
) -> list[TopicReport]:
    """Create the missing topics and compare the others with the contract. Safe to repeat, and to run side by side.

    Raises:
        TopicsUnavailable: no answer, or a topic is missing and may not be created.
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
            code = error.args[0].code()
            if code in _NOT_ALLOWED:
                raise TopicsUnavailable(
                    f"topic {name} is not there, or hidden from this Kafka user, who may not create it: let one who"
                    f" may run 'taskbridge topics apply', and let this one describe and write it"
                ) from error
            # Somebody else created it in the meantime: it is compared like any other.
            if code != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicsUnavailable(f"cannot create topic {name}: {error.args[0].str()}") from error
    return created


def _compare(admin: AdminClient, topics: list[Topic], *, partitions: int) -> list[TopicReport]:
    if not topics:
        return []
    existing = _existing(admin)
    resources = [ConfigResource(ConfigResource.Type.TOPIC, topic.name) for topic in topics]
    described = cast("dict[ConfigResource, Any]", admin.describe_configs(resources))
    settings = {resource.name: _settings(future) for resource, future in described.items()}
    reports: list[TopicReport] = []
    for topic in topics:
        found, partitions_found = settings[topic.name], existing.get(topic.name, 0)
        reports.append(
            TopicReport(
                topic.name,
                created=False,
                partitions=partitions_found,
                drift=_drift(topic, found, partitions_found, partitions),
                unchecked=_MAY_NOT_LOOK if found is None else None,
            )
        )
    return reports


def _settings(described: Any) -> dict[str, str | None] | None:
    """The settings of one topic; None where this user may not look at them."""
    try:
        return {str(name): entry.value for name, entry in described.result(_TIMEOUT_S).items()}
    except KafkaException as error:
        if error.args[0].code() in _NOT_ALLOWED:
            return None
        raise TopicsUnavailable(f"cannot read the topics' settings: {error.args[0].str()}") from error


def _drift(topic: Topic, settings: dict[str, str | None] | None, found: int, partitions: int) -> list[str]:
    lines = [
        f"{name} is {settings.get(name)}, the contract says {value}"
        for name, value in topic.settings.items()
        if settings is not None and settings.get(name) != value
    ]
    if found != partitions:
        lines.append(f"{found} partitions, {partitions} are configured (TASKBRIDGE_PARTITIONS)")
    return lines
