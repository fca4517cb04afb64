"""Brings topics to the contract: creates missing ones and reports differences; deletes and alters nothing.

"All in-sync replicas" can be a single one. So with three replicas or more, a write requires two in sync: one broker
may be down, and one lost, without loss of an acknowledged record.

Once the topics exist, a user who may only read and write suffices: settings that it may not read are reported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import ConfigResource, NewTopic

from taskbridge.runtime.kafka import ACLS_HINT, Admin, no_answer
from taskbridge.schemas.errors import ConfigurationError, OperatorError
from taskbridge.schemas.topics import DEFAULT_PARTITIONS, Topic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


_PARTITIONS_MAX = 10_000
_TIMEOUT_S = 15
_METADATA_S = 5
_ENOUGH_REPLICAS = 3
_IN_SYNC = "min.insync.replicas"
_IN_SYNC_OF_ENOUGH = "2"
_SETTINGS_HIDDEN = (
    "its settings could not be checked. Allow this Kafka user DescribeConfigs on it, or run"
    " 'taskbridge topics apply' now and then as a user who may"
)
_NOT_ALLOWED = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)


class TopicsUnavailable(OperatorError):
    """The broker does not answer, or does not allow this user to see or create topics."""


@dataclass(frozen=True, slots=True)
class TopicReport:
    name: str
    created: bool
    partitions: int
    drift: list[str] = field(default_factory=list[str])
    unchecked: str | None = None

    @property
    def state(self) -> str:
        if self.created:
            return "created"
        return "differs" if self.drift else "unchecked" if self.unchecked else "ok"

    @property
    def remarks(self) -> list[str]:
        """Everything that an operator should read, one line each."""
        return [*self.drift, *([self.unchecked] if self.unchecked else [])]


def partitions_setting(environment: Mapping[str, str]) -> int:
    """``TASKBRIDGE_PARTITIONS``: the number of partitions of topics that are created."""
    text = environment.get("TASKBRIDGE_PARTITIONS", str(DEFAULT_PARTITIONS))
    if not text.isdecimal() or not 1 <= int(text) <= _PARTITIONS_MAX:
        raise ConfigurationError(f"TASKBRIDGE_PARTITIONS: must be a number from 1 to {_PARTITIONS_MAX}")
    return int(text)


def apply_topics(
    admin: Admin, topics: Iterable[Topic], *, partitions: int, replication: int | None = None
) -> list[TopicReport]:
    """Create the missing topics and compare the others with the contract. Safe to repeat, and to run concurrently.

    Without ``replication``, a new topic gets three replicas, or as many as there are brokers. Raises TopicsUnavailable.
    """
    topics = list(topics)
    cluster = _cluster(metadata(admin))
    missing = [topic for topic in topics if topic.name not in cluster.topics]
    created: set[str] = set()
    reports: list[TopicReport] = []
    if missing:
        replicas = replication or min(_ENOUGH_REPLICAS, len(cluster.brokers))
        created = _create(admin, missing, partitions=partitions, replicas=replicas)
        drift = _few_replicas(replicas, cluster.brokers)
        reports = [
            TopicReport(topic.name, created=True, partitions=partitions, drift=[*drift])
            for topic in missing
            if topic.name in created
        ]
        cluster = _cluster(metadata(admin))  # others may have been created meanwhile
    others = [topic for topic in topics if topic.name not in created]
    return reports + _compare(admin, cluster, others, partitions=partitions)


def metadata(admin: Admin) -> Any:
    """The brokers and topics, as librdkafka's cluster metadata. Raises TopicsUnavailable."""
    try:
        return admin.list_topics(timeout=_METADATA_S)
    except KafkaException as error:
        raise TopicsUnavailable(no_answer(admin, admin.servers, error)) from error


@dataclass(frozen=True, slots=True)
class _Cluster:
    brokers: list[int]
    topics: dict[str, tuple[int, int]]
    """Name → number of partitions, and of replicas of the partition with the fewest."""


def _cluster(found: Any) -> _Cluster:
    topics = {
        name: (len(each.partitions), min((len(part.replicas) for part in each.partitions.values()), default=0))
        for name, each in found.topics.items()
    }
    return _Cluster(list(found.brokers), topics)


def _few_replicas(replicas: int, brokers: Sequence[int]) -> list[str]:
    if replicas < _ENOUGH_REPLICAS <= len(brokers):
        return [f"{replicas} of {len(brokers)} brokers have it, the contract says {_ENOUGH_REPLICAS} (--replication)"]
    return []


def _create(admin: Admin, missing: list[Topic], *, partitions: int, replicas: int) -> set[str]:
    safe = {_IN_SYNC: _IN_SYNC_OF_ENOUGH} if replicas >= _ENOUGH_REPLICAS else {}
    new = [NewTopic(topic.name, partitions, replicas, config={**topic.settings, **safe}) for topic in missing]
    created: set[str] = set()
    for name, future in cast("dict[str, Any]", admin.create_topics(new, operation_timeout=_TIMEOUT_S)).items():
        try:
            future.result()
            created.add(name)
        except KafkaException as error:
            code = error.args[0].code()
            if code in _NOT_ALLOWED:
                raise TopicsUnavailable(
                    f"topic {name} does not exist or is not visible, and this Kafka user may not create it. Run"
                    f" 'taskbridge topics apply' as a user who may, and allow this one to describe and write it;"
                    f" {ACLS_HINT}"
                ) from error
            # It was created meanwhile: it is compared like any other.
            if code != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicsUnavailable(f"cannot create topic {name}: {error.args[0].str()}") from error
    return created


def _compare(admin: Admin, cluster: _Cluster, topics: list[Topic], *, partitions: int) -> list[TopicReport]:
    if not topics:
        return []
    described = describe_topics(admin, [topic.name for topic in topics])
    reports: list[TopicReport] = []
    for topic in topics:
        settings, unchecked = described[topic.name]
        partitions_found, replicas = cluster.topics.get(topic.name, (0, 0))
        drift = _drift(topic, settings, replicas) if settings is not None else []
        if partitions_found != partitions and not topic.any_partitions:
            drift.append(f"{partitions_found} partitions, but {partitions} are configured (TASKBRIDGE_PARTITIONS)")
        drift += _few_replicas(replicas, cluster.brokers)
        reports.append(
            TopicReport(topic.name, created=False, partitions=partitions_found, drift=drift, unchecked=unchecked)
        )
    return reports


DescribedTopic = tuple["dict[str, str | None] | None", "str | None"]


def describe_topics(admin: Admin, names: Iterable[str]) -> dict[str, DescribedTopic]:
    """The settings of topics. Never raises: a topic can be used even if its settings cannot be read."""
    resources = [ConfigResource(ConfigResource.Type.TOPIC, each) for each in names]
    try:
        answers = cast("Any", admin).describe_configs(resources, request_timeout=_TIMEOUT_S)
    except KafkaException as error:
        return {resource.name: (None, _unread(error)) for resource in resources}
    found: dict[str, DescribedTopic] = {}
    for resource, future in answers.items():
        try:
            found[resource.name] = ({str(name): entry.value for name, entry in future.result().items()}, None)
        except KafkaException as error:
            hidden = error.args[0].code() in _NOT_ALLOWED
            found[resource.name] = (None, _SETTINGS_HIDDEN if hidden else _unread(error))
    return found


def _unread(error: KafkaException) -> str:
    return f"its settings could not be read: {error.args[0].str()}"


def _drift(topic: Topic, settings: dict[str, str | None], replicas: int) -> list[str]:
    lines = [
        f"{name} is {settings.get(name)}, the contract says {value}"
        for name, value in topic.settings.items()
        if settings.get(name) != value
    ]
    in_sync = settings.get(_IN_SYNC)
    if replicas >= _ENOUGH_REPLICAS and int(in_sync or 1) < int(_IN_SYNC_OF_ENOUGH):
        lines.append(f"{_IN_SYNC} is {in_sync}, the contract says {_IN_SYNC_OF_ENOUGH} with {replicas} replicas")
    return lines
