"""What Kafka knows about partitions, topics and consumer groups, with time limits that hold.

``Consumer.get_watermark_offsets`` may wait for ever for a broker that was killed, despite its timeout. And an admin
client must not list a group's positions: librdkafka aborts the process if the broker no longer coordinates the group
(confluent-kafka-python issue 1982). So a consumer reads them.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import OffsetSpec
from faust.types import TP

from taskbridge.runtime.kafka import COORDINATOR_RETRY_S, LIBRDKAFKA, Admin, is_coordinator_moving
from taskbridge.runtime.topic_admin import describe_topics
from taskbridge.streams.transactions.positions import Bounds, Committed, read_metadata

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable, Mapping

_ANSWER_S = 10.0
_STABLE_S = 0.5
"""How long a position may take to become stable; reading a stable one takes one round trip."""
_CONSUMERS_ONLY = ("group.", "auto.", "enable.", "fetch.", "queued.", "isolation.")


def describe_group(admin: Admin, group: str) -> Any:
    """A group and its members, from its coordinator; raises KafkaException, or TimeoutError without an answer."""
    answer = admin.describe_groups([group], _ANSWER_S).get(group)
    if answer is None:
        raise TimeoutError(f"no coordinator answers for the group {group}")
    return answer.result()


def readers_of(admin: Admin, group: str, topic: str) -> list[str]:
    """The names of the group's members to which partitions of the topic are assigned; raises as ``describe_group``."""
    return sorted(
        each.group_instance_id or each.client_id
        for each in describe_group(admin, group).members
        if each.assignment is not None and any(at.topic == topic for at in each.assignment.topic_partitions)
    )


def _read(consumer: Consumer, partitions: Iterable[TP], timeout_s: float) -> dict[TP, TopicPartition]:
    found = _committed(consumer, [TopicPartition(tp.topic, tp.partition) for tp in partitions], timeout_s)
    for each in found:
        if each.error is not None:
            raise KafkaException(each.error)
    return {TP(each.topic, each.partition): each for each in found}


def _read_stable(consumer: Consumer, partitions: Iterable[TP]) -> dict[TP, TopicPartition] | None:
    """None if an open transaction changes one of them: the client waits until its timeout."""
    try:
        return _read(consumer, partitions, _STABLE_S)
    except KafkaException as raised:
        if raised.args[0].code() != KafkaError._TIMED_OUT:  # noqa: SLF001 - how the library names its codes
            raise
        return None


def _committed(consumer: Consumer, partitions: list[TopicPartition], timeout_s: float) -> list[TopicPartition]:
    """Retried while the group's coordinator moves, or is being elected."""
    deadline = time.monotonic() + _ANSWER_S
    while True:
        try:
            return consumer.committed(partitions, timeout_s)
        except KafkaException as raised:
            if not is_coordinator_moving(raised) or time.monotonic() > deadline:
                raise
            time.sleep(COORDINATOR_RETRY_S)


class TopicDescription(NamedTuple):
    topic_id: str
    partitions: int


class Offsets:
    """Answers of an admin client. Every method blocks, and may be called from any thread.

    Raises:
        KafkaException: Kafka refuses, or cannot be reached.
        TimeoutError: it does not answer.
    """

    def __init__(self, consumer: Mapping[str, object]) -> None:
        self._config: dict[str, Any] = {
            name: value for name, value in consumer.items() if not name.startswith(_CONSUMERS_ONLY)
        }
        self._admin = Admin(self._config)

    @contextmanager
    def _client(self) -> Generator[Admin]:
        """The client, replaced after a failure.

        After a broker's restart, a client uses outdated leader epochs and coordinators for minutes (librdkafka issue
        5511), and no partition could be taken over.
        """
        try:
            yield self._admin
        except KafkaException:
            self._admin = Admin(self._config)
            raise

    def topic_id(self, topic: str) -> str:
        """Kafka's id of the topic. A recreated topic has another id."""
        return str(self._describe(topic).topic_id)

    def topics(self, names: Collection[str]) -> dict[str, TopicDescription]:
        found: dict[str, TopicDescription] = {}
        with self._client() as admin:
            described = cast("Any", admin).describe_topics(TopicCollection(list(names)), request_timeout=_ANSWER_S)
            for name, answer in described.items():
                try:
                    topic = answer.result()
                except KafkaException as raised:
                    if raised.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                        raise
                else:
                    found[name] = TopicDescription(str(topic.topic_id), len(topic.partitions))
        return found

    def _describe(self, topic: str) -> Any:
        with self._client() as admin:
            described = cast("Any", admin).describe_topics(TopicCollection([topic]), request_timeout=_ANSWER_S)
            return described[topic].result()

    def largest_record(self, topic: str) -> int | None:
        """Maximum size of a record of the topic in bytes; None if this user may not read its configuration."""
        settings, _ = describe_topics(self._admin, [topic])[topic]
        return None if settings is None else int(cast("str", settings["max.message.bytes"]))

    def partitions(self, topic: str) -> list[int]:
        return [each.id for each in self._describe(topic).partitions]

    def begins(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        return self._list(topic, list(partitions), OffsetSpec.earliest())

    def bounds(self, topic: str, partitions: Iterable[int]) -> dict[int, Bounds]:
        numbers = list(partitions)
        first = self.begins(topic, numbers)
        return {partition: Bounds(first[partition], end) for partition, end in self.decided(topic, numbers).items()}

    def ends(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        return self._list(topic, list(partitions), OffsetSpec.latest())

    def decided(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """The last stable offset of each partition: before it, no record is in an open transaction."""
        return self._list(topic, list(partitions), OffsetSpec.latest(), isolation_level=IsolationLevel.READ_COMMITTED)

    def committed(self, group: str, partitions: Collection[TP]) -> dict[TP, Committed]:
        """The positions of a group. An unstable one is the position before the open transaction."""
        if not partitions:
            return {}
        # The unstable ones first: a position that is stable afterwards is then the current one.
        with self._consumer(group, "read_uncommitted") as consumer:
            last = _read(consumer, partitions, _ANSWER_S)
        with self._consumer(group, "read_committed") as consumer:
            stable = _read_stable(consumer, partitions)
            if stable is None:
                with ThreadPoolExecutor(len(partitions)) as threads:
                    read = [threads.submit(_read_stable, consumer, [tp]) for tp in partitions]
                    stable = {tp: at for each in read for tp, at in (each.result() or {}).items()}
        found: dict[TP, Committed] = {}
        for tp in partitions:
            known = stable.get(tp, last[tp])
            owner, lineage = read_metadata(known.metadata)
            found[tp] = Committed(known.offset, owner, tp in stable, lineage)
        return found

    @contextmanager
    def _consumer(self, group: str, isolation: str) -> Generator[Consumer]:
        """A new consumer, which has no outdated coordinator. It subscribes to nothing, so it is no member."""
        own = {**self._config, "group.id": group, "isolation.level": isolation, "enable.auto.commit": False}
        consumer = Consumer(own, logger=LIBRDKAFKA)
        try:
            yield consumer
        finally:
            consumer.close()

    def members(self, group: str) -> dict[str, str]:
        """The host of each of the group's members, by its instance id, or else its client id.

        A killed member remains one until its session times out.
        """
        found = describe_group(self._admin, group).members
        return {each.group_instance_id or each.client_id: each.host.lstrip("/") for each in found}

    def _list(self, topic: str, partitions: list[int], spec: Any, **options: Any) -> dict[int, int]:
        if not partitions:
            return {}
        specs = {TopicPartition(topic, partition): spec for partition in partitions}
        with self._client() as admin:
            answers = cast("dict[TopicPartition, Any]", admin.list_offsets(specs, request_timeout=_ANSWER_S, **options))
            return {at.partition: answer.result().offset for at, answer in answers.items()}
