"""What a transaction asks of Kafka beside aiokafka's requests, and what the answers' codes mean for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.produce import ProduceRequest_v7
from aiokafka.protocol.types import CompactArray, CompactString, Int16, Int32, Int64, Schema, String, TaggedFields
from confluent_kafka import KafkaError

from taskbridge.runtime.kafka import not_allowed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from confluent_kafka import TopicPartition

    from taskbridge.streams.transactions.group_metadata import Membership

TRANSPORT = KafkaError._TRANSPORT  # noqa: SLF001 - how the library names its codes

MOVED = (
    # Another broker's by now, or nobody's yet.
    TRANSPORT,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.KAFKA_STORAGE_ERROR,
)
AGAIN = (
    # The same request may go well a little later; what was written by it meanwhile is known by its sequence.
    *MOVED,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    KafkaError.CONCURRENT_TRANSACTIONS,
)
TOO_LARGE = (
    # For the topic's ``max.message.bytes``, or for a segment of its log.
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE,
)

_ALL_IN_SYNC = -1
Topics = Sequence[tuple[str, Sequence[tuple[int, bytes | bytearray]]]]
"""Of each partition a batch of records."""


class _TxnOffsetCommitResponse(Response):
    API_KEY = 28  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType] - as aiokafka does it
    API_VERSION = 3  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("name", CompactString()),
                ("partitions", CompactArray(("partition", Int32), ("error_code", Int16), ("tags", TaggedFields))),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _TxnOffsetCommitRequest(RequestStruct):
    """The first version that names the group's member: the coordinator refuses those of an earlier generation."""

    FLEXIBLE_VERSION = True
    API_KEY = 28
    API_VERSION = 3
    RESPONSE_TYPE = _TxnOffsetCommitResponse
    SCHEMA = Schema(
        ("transactional_id", CompactString()),
        ("group_id", CompactString()),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("generation_id", Int32),
        ("member_id", CompactString()),
        ("group_instance_id", CompactString()),
        (
            "topics",
            CompactArray(
                ("name", CompactString()),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", CompactString()),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class Identity(NamedTuple):
    """What Kafka knows a claimed producer by."""

    transactional_id: str
    producer_id: int
    epoch: int


class TxnOffsetCommit(Request[_TxnOffsetCommitRequest]):
    """The group's offsets, as part of the transaction."""

    API_KEY = 28

    def __init__(self, of: Identity, group: str, member: Membership, offsets: Sequence[TopicPartition]) -> None:
        self._of, self._group, self._member = of, group, member
        self._topics: dict[str, list[tuple[Any, ...]]] = {}
        for each in offsets:
            # librdkafka reads metadata up to the next zero byte, and puts none behind them.
            at: tuple[Any, ...] = (each.partition, each.offset, -1, f"{each.metadata or ''}\0", {})
            self._topics.setdefault(each.topic, []).append(at)

    def build(self, request_struct_class: type[_TxnOffsetCommitRequest]) -> _TxnOffsetCommitRequest:
        topics: list[tuple[Any, ...]] = [(topic, partitions, {}) for topic, partitions in self._topics.items()]
        of, member = self._of, self._member
        return request_struct_class(
            of.transactional_id,
            self._group,
            of.producer_id,
            of.epoch,
            member.generation,
            member.member_id,
            member.instance_id,
            topics,
            {},
        )


class _ProduceRequest(ProduceRequest_v7):
    """Put together in one go: aiokafka's own copies the records for each level that they are nested in."""

    def __init__(self, transactional_id: str, timeout_ms: int, topics: Topics) -> None:
        super().__init__(transactional_id, _ALL_IN_SYNC, timeout_ms, topics)
        text, number = String().encode, Int32.encode
        parts: list[bytes | bytearray] = [
            text(transactional_id),
            Int16.encode(_ALL_IN_SYNC),
            number(timeout_ms),
            number(len(topics)),
        ]
        for topic, partitions in topics:
            parts += text(topic), number(len(partitions))
            for partition, records in partitions:
                parts += number(partition), number(len(records)), records
        self._parts = parts

    def encode(self) -> bytes:
        return b"".join(self._parts)


class Produce(Request[_ProduceRequest]):
    """Batches of any number of partitions that one broker leads."""

    API_KEY = 0

    def __init__(self, transactional_id: str, timeout_ms: int, topics: Topics) -> None:
        self._arguments = transactional_id, timeout_ms, topics
        self.required_acks = _ALL_IN_SYNC
        self.topics = topics

    def build(self, request_struct_class: type[_ProduceRequest]) -> _ProduceRequest:
        return request_struct_class(*self._arguments)


def codes(answer: Any) -> Iterator[tuple[str, int, int, Any]]:
    """Of an answer about partitions: the topic, the partition, the code, and what comes behind it."""
    for topic, partitions, *_ in getattr(answer, "topics", None) or getattr(answer, "errors", ()):
        for partition, code, *more in partitions:
            yield topic, partition, code, more[0] if more else None


def worst(answer: Any) -> int:
    """The code of an answer: 0 where all is well, and what cannot be helped before what may go well later."""
    if hasattr(answer, "error_code"):
        return answer.error_code
    # Where one partition is refused, nothing is done about the others.
    found = {code for _, _, code, _ in codes(answer) if code not in (0, KafkaError.OPERATION_NOT_ATTEMPTED)}
    return max(found, key=lambda code: code not in AGAIN, default=0)


def lacking(answer: Any) -> str | None:
    """What this user would have to be allowed, as far as it is about topics."""
    topics = {topic: None for topic, _, code, _ in codes(answer) if code == KafkaError.TOPIC_AUTHORIZATION_FAILED}
    return not_allowed(*(f"Write on topic {topic}" for topic in topics)) if topics else None
