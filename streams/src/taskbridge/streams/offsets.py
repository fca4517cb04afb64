"""What Kafka knows about partitions, topics and consumer groups, with time limits that hold.

``Consumer.get_watermark_offsets`` may wait for ever for a broker that was killed, whatever its timeout. And an admin
client must not list a group's positions: librdkafka aborts the process if the broker no longer coordinates the group
(confluent-kafka-python issue 1982). So a consumer reads them.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import ConfigResource, OffsetSpec
from faust.types import TP

from taskbridge.runtime.kafka import COORDINATOR_RETRY_S, LIBRDKAFKA, Admin, is_coordinator_moving
from taskbridge.streams.positions import Bounds, Committed, read_metadata

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable, Mapping


_STABLE_S = 0.5
"""How long a position may take to be stable; to be told one takes no more than a round trip."""


def committed(config: Mapping[str, object], group: str, partitions: Collection[TP]) -> dict[TP, Committed]:
    """The positions of a group. Where one is not stable, it is the one before the transaction that is open.

    ``config`` is what any client needs to reach the brokers.

    Raises:
        KafkaException: Kafka refuses, or does not answer.
    """
    if not partitions:
        return {}
    # The unstable ones first: what is stable afterwards is then what is told.
    with _consumer(config, group, "read_uncommitted") as consumer:
        last = _told(consumer, partitions, _ANSWER_S)
    with _consumer(config, group, "read_committed") as consumer:
        stable = _stable(consumer, partitions)
    found: dict[TP, Committed] = {}
    for tp in partitions:
        known = stable.get(tp, last[tp])
        owner, mark = read_metadata(known.metadata)
        found[tp] = Committed(known.offset, owner, tp in stable, mark)
    return found


def described_group(admin: Admin, group: str) -> Any:
    """A group and its members, by the broker that coordinates it.

    Raises:
        KafkaException: Kafka refuses, or cannot be reached.
        TimeoutError: it does not answer.
    """
    answer = admin.describe_groups([group], _ANSWER_S).get(group)
    if answer is None:
        raise TimeoutError(f"no coordinator answers for the group {group}")
    return answer.result()


@contextmanager
def _consumer(config: Mapping[str, object], group: str, isolation: str) -> Generator[Consumer]:
    """A new one, which subscribes to nothing and so is no member: an earlier one's coordinator may be over."""
    own = {**config, "group.id": group, "isolation.level": isolation, "enable.auto.commit": False}
    consumer = Consumer(cast("dict[str, Any]", own), logger=LIBRDKAFKA)
    try:
        yield consumer
    finally:
        consumer.close()


def _stable(consumer: Consumer, partitions: Collection[TP]) -> dict[TP, TopicPartition]:
    """Those that no transaction is open for. The client itself waits for the others, for as long as it may."""
    if (told := _told_in_time(consumer, partitions)) is not None:
        return told

    def alone(tp: TP) -> dict[TP, TopicPartition] | None:
        return _told_in_time(consumer, [tp])

    with ThreadPoolExecutor(len(partitions)) as threads:
        return {tp: at for told in threads.map(alone, partitions) for tp, at in (told or {}).items()}


def _told(consumer: Consumer, partitions: Collection[TP], timeout_s: float) -> dict[TP, TopicPartition]:
    told: dict[TP, TopicPartition] = {}
    deadline = time.monotonic() + _ANSWER_S
    while wanted := [TopicPartition(tp.topic, tp.partition) for tp in partitions if tp not in told]:
        for each in _committed(consumer, wanted, timeout_s):
            if each.error is not None:
                raise KafkaException(each.error)
            try:
                _ = each.metadata
            except UnicodeDecodeError:
                # What lies behind it (see ``write_metadata``) is no text; another time it is.
                if time.monotonic() > deadline:
                    raise
            else:
                told[TP(each.topic, each.partition)] = each
    return told


def _told_in_time(consumer: Consumer, partitions: Collection[TP]) -> dict[TP, TopicPartition] | None:
    try:
        return _told(consumer, partitions, _STABLE_S)
    except KafkaException as raised:
        if raised.args[0].code() != KafkaError._TIMED_OUT:  # noqa: SLF001 - how the library names its codes
            raise
        return None


def _committed(consumer: Consumer, wanted: list[TopicPartition], timeout_s: float) -> list[TopicPartition]:
    """Asked for again while the group's coordinator moves, or is only just made."""
    deadline = time.monotonic() + _ANSWER_S
    while True:
        try:
            return consumer.committed(wanted, timeout_s)
        except KafkaException as raised:
            if not is_coordinator_moving(raised) or time.monotonic() > deadline:
                raise
            time.sleep(COORDINATOR_RETRY_S)


_ANSWER_S = 10.0
_CONSUMERS_ONLY = ("group.", "auto.", "enable.", "fetch.", "queued.", "isolation.")
_OUTDATED = (KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.NOT_LEADER_FOR_PARTITION)


class Described(NamedTuple):
    """A topic that is there."""

    topic_id: str
    partitions: int


class Offsets:
    """Every method blocks, and may be called from any thread.

    Raises:
        KafkaException: Kafka refuses, or cannot be reached.
        TimeoutError: it does not answer.
    """

    def __init__(self, consumer: Mapping[str, object]) -> None:
        self._config = {name: value for name, value in consumer.items() if not name.startswith(_CONSUMERS_ONLY)}
        self._admin = Admin(self._config)

    @contextmanager
    def _asking(self) -> Generator[Admin]:
        """The client; another one after a failure.

        After a broker's restart it goes on for minutes with the leaders' epochs and the coordinators that it knew
        (librdkafka issue 5511), and no partition could be taken over.
        """
        try:
            yield self._admin
        except (KafkaException, TimeoutError):
            self._admin = Admin(self._config)
            raise

    def topic_id(self, topic: str) -> str:
        """Kafka's id of the topic: another one when it was deleted and made anew."""
        return str(self._described(topic).topic_id)

    def topics(self, names: Collection[str]) -> dict[str, Described]:
        """Those of these topics that are there."""
        found: dict[str, Described] = {}
        with self._asking() as admin:
            described = cast("dict[str, Any]", admin.describe_topics(TopicCollection(list(names))))
            for name, answer in described.items():
                try:
                    topic = answer.result(_ANSWER_S)
                except KafkaException as raised:
                    if raised.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                        raise
                else:
                    found[name] = Described(str(topic.topic_id), len(topic.partitions))
        return found

    def _described(self, topic: str) -> Any:
        with self._asking() as admin:
            described = cast("dict[str, Any]", admin.describe_topics(TopicCollection([topic])))
            return described[topic].result(_ANSWER_S)

    def largest_record(self, topic: str) -> int | None:
        """How many bytes a record of the topic may have; None where Kafka does not tell this user."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        described = cast("dict[ConfigResource, Any]", self._admin.describe_configs([resource]))
        try:
            return int(described[resource].result(_ANSWER_S)["max.message.bytes"].value)
        except KafkaException:
            return None

    def partitions(self, topic: str) -> list[int]:
        """The numbers of the topic's partitions."""
        return [each.id for each in self._described(topic).partitions]

    def begins(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """The first offset that each partition still has."""
        return self._ask(topic, list(partitions), OffsetSpec.earliest())

    def since(self, topic: str, partitions: Iterable[int], time_ms: int) -> dict[int, int]:
        """The first offset of each partition at or after a time; -1 where there is none."""
        return self._ask(topic, list(partitions), OffsetSpec.for_timestamp(time_ms))

    def bounds(self, topic: str, partitions: Iterable[int]) -> dict[int, Bounds]:
        """What each partition has now that a reader with ``read_committed`` reaches."""
        wanted = list(partitions)
        first = self.begins(topic, wanted)
        return {partition: Bounds(first[partition], end) for partition, end in self.decided(topic, wanted).items()}

    def ends(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """The offset behind the last of each partition."""
        return self._ask(topic, list(partitions), OffsetSpec.latest())

    def decided(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """The offset up to which each partition has no record of an open transaction."""
        return self._ask(topic, list(partitions), OffsetSpec.latest(), isolation_level=IsolationLevel.READ_COMMITTED)

    def committed(self, group: str, partitions: Collection[TP]) -> dict[TP, Committed]:
        """The positions of a group. Where one is not stable, it is the one before the transaction that is open."""
        return committed(self._config, group, partitions)

    def members(self, group: str) -> dict[str, str]:
        """Where each of the group's members is, by its instance id, or else its client's name.

        One that was killed is a member until its session is over.
        """
        found = described_group(self._admin, group).members
        return {each.group_instance_id or each.client_id: each.host.lstrip("/") for each in found}

    def _ask(self, topic: str, partitions: list[int], spec: Any, **how: Any) -> dict[int, int]:
        if not partitions:
            return {}
        wanted = {TopicPartition(topic, partition): spec for partition in partitions}
        try:
            return self._list(wanted, how)
        except KafkaException as raised:
            if raised.args[0].code() not in _OUTDATED:
                raise
            return self._list(wanted, how)

    def _list(self, wanted: dict[TopicPartition, Any], how: dict[str, Any]) -> dict[int, int]:
        with self._asking() as admin:
            asked = cast("dict[TopicPartition, Any]", admin.list_offsets(wanted, request_timeout=_ANSWER_S, **how))
            return {at.partition: answer.result(_ANSWER_S).offset for at, answer in asked.items()}
