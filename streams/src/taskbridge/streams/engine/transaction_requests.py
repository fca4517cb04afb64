"""What a transaction sends to Kafka: record batches, the requests that aiokafka lacks, and what error codes mean."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import structlog
from aiokafka import codec
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import CompactArray, CompactString, Int16, Int32, Int64, Schema, TaggedFields
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from confluent_kafka import KafkaError

from taskbridge.runtime.kafka import not_allowed
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.streams.records import EncodedRecords, native

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from confluent_kafka import TopicPartition

    from taskbridge.streams.records import RecordWithHeaders

TRANSPORT = KafkaError._TRANSPORT  # noqa: SLF001 - how the library names its codes

MOVED = (
    # Another broker has it now, or none yet.
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
RETRIABLE = (
    # The same request may succeed later; if it was executed meanwhile, Kafka recognizes it by its sequence.
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

_MAGIC = 2
_BYTES = 1_000_000
"""Maximum size of a batch before compression, if its topic accepts as much. A single record may be larger."""
_SEQUENCES = 1 << 31

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
_PACK = (None, codec.gzip_encode, codec.snappy_encode, codec.lz4_encode, codec.zstd_encode)

log = structlog.get_logger(__name__)


_TAGS = ("tags", TaggedFields)


def _topics(*of_partition: tuple[str, Any]) -> tuple[str, CompactArray]:
    partitions = ("partitions", CompactArray(*of_partition, _TAGS))
    return "topics", CompactArray(("name", CompactString()), partitions, _TAGS)


class _TxnOffsetCommitResponse(Response):
    API_KEY = 28  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType] - as aiokafka does it
    API_VERSION = 3  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    SCHEMA = Schema(("throttle_time_ms", Int32), _topics(("partition", Int32), ("error_code", Int16)), _TAGS)


class _TxnOffsetCommitRequest(RequestStruct):
    """The first version that names the member, whose generation the group's coordinator then checks."""

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
        _topics(("partition", Int32), ("offset", Int64), ("leader_epoch", Int32), ("metadata", CompactString())),
        _TAGS,
    )


class Identity(NamedTuple):
    transactional_id: str
    producer_id: int
    epoch: int


class Membership(NamedTuple):
    """What identifies a member to its group's coordinator, which refuses offsets of any but the current generation."""

    group: str
    generation: int = -1
    member_id: str = ""
    instance_id: str | None = None
    """The defaults are those of a group without members."""


@dataclass(slots=True, eq=False)
class Sent:
    last_offset: int = -1
    """Offset of the last record, if all are for one partition and committed; -1 if there was none."""


class TxnOffsetCommit(Request[_TxnOffsetCommitRequest]):
    API_KEY = 28

    def __init__(self, of: Identity, member: Membership, offsets: Sequence[TopicPartition]) -> None:
        self._of, self._member = of, member
        self._topics: dict[str, list[tuple[Any, ...]]] = {}
        for each in offsets:
            # librdkafka reads metadata up to the next zero byte, which Kafka does not add.
            at: tuple[Any, ...] = (each.partition, each.offset, -1, f"{each.metadata or ''}\0", {})
            self._topics.setdefault(each.topic, []).append(at)

    def build(self, request_struct_class: type[_TxnOffsetCommitRequest]) -> _TxnOffsetCommitRequest:
        topics: list[tuple[Any, ...]] = [(topic, partitions, {}) for topic, partitions in self._topics.items()]
        of, member = self._of, self._member
        return request_struct_class(
            of.transactional_id,
            member.group,
            of.producer_id,
            of.epoch,
            member.generation,
            member.member_id,
            member.instance_id,
            topics,
            {},
        )


def partition_results(answer: Any) -> Iterator[tuple[str, int, int, Any]]:
    """The topic, partition and error code of each result in an answer, and the field after the code."""
    for topic, partitions, *_ in getattr(answer, "topics", None) or getattr(answer, "errors", ()):
        for partition, code, *more in partitions:
            yield topic, partition, code, more[0] if more else None


def error_code_of(answer: Any) -> int:
    """The error code of an answer, preferably one that is not retriable; 0 for success."""
    if hasattr(answer, "error_code"):
        return answer.error_code
    # If one partition is refused, Kafka does not attempt the others.
    found = {code for _, _, code, _ in partition_results(answer) if code not in (0, KafkaError.OPERATION_NOT_ATTEMPTED)}
    return max(found, key=lambda code: code not in RETRIABLE, default=0)


def missing_permissions(answer: Any) -> str | None:
    """The permissions on topics that this user lacks, as text."""
    topics = {
        topic: None for topic, _, code, _ in partition_results(answer) if code == KafkaError.TOPIC_AUTHORIZATION_FAILED
    }
    return not_allowed(*(f"Write on topic {topic}" for topic in topics)) if topics else None


def codec_of(config: Mapping[str, object]) -> int:
    """The codec in librdkafka's properties. One is the other's alias, and the last one counts.

    Raises:
        ConfigurationError: Kafka has no such compression.
    """
    names = [name for name in config if name in ("compression.type", "compression.codec")]
    named = str(config[names[-1]]) if names else "none"
    if named not in CODECS:
        raise ConfigurationError(f"{names[-1]} is {named!r}: it can be {', '.join(CODECS)}")
    return CODECS[named]


class PythonBatchBuilder:
    """The native ``BatchBuilder``, in Python: see ``native/_native.pyi``."""

    def __init__(self, codec: int, producer_id: int, epoch: int, sequence: int, most_bytes: int) -> None:
        self._builder: Any = DefaultRecordBatchBuilder(_MAGIC, codec, 1, producer_id, epoch, sequence, most_bytes)
        self._count = 0

    def extend(self, records: Sequence[RecordWithHeaders], begin: int, now_ms: int) -> int:
        before = self._count
        for key, value, headers in islice(records, begin, None):
            if self._builder.append(self._count, now_ms, key, value, headers) is None:  # it is full
                break
            self._count += 1
        return self._count - before

    def build(self, _pack: Callable[[bytes], bytes] | None) -> bytearray:
        """Compressed by the codec of the constructor."""
        return cast("bytearray", self._builder.build())


_BatchBuilder = PythonBatchBuilder if native is None else native.BatchBuilder


@dataclass(slots=True, eq=False)
class RecordBatch:
    """A batch of one partition. Its sequence makes Kafka store it once, even if it is sent again."""

    builder: Any
    sequence: int
    pack: Callable[[bytes], bytes] | None
    count: int = 0
    ends: list[tuple[Sent, int]] = field(default_factory=list["tuple[Sent, int]"])
    _built: bytearray | None = None

    def extend(self, records: Sequence[RecordWithHeaders], begin: int, now_ms: int) -> int:
        added: int = self.builder.extend(records, begin, now_ms)
        self.count += added
        return added

    @property
    def data(self) -> bytearray:
        built = self._built
        if built is None:
            built = self._built = cast("bytearray", self.builder.build(self.pack))
            self.builder = None  # it has a copy of everything
        return built

    @property
    def next_sequence(self) -> int:
        return (self.sequence + self.count) % _SEQUENCES


class RecordBatches:
    """The batches of a claimed producer, whose sequences continue over its transactions."""

    def __init__(self, of: Identity, codec: int) -> None:
        self._of, self._codec = of, codec
        self._most_bytes: dict[str, int] = {}
        self._sequences: dict[tuple[str, int], int] = {}
        self._open: dict[tuple[str, int], list[RecordBatch]] = {}

    def add(self, topic: str, records: Sequence[RecordWithHeaders], *, partition: int, partitions: int) -> Sent:
        sent = Sent()
        now_ms = time.time_ns() // 1_000_000
        encoded = records if isinstance(records, EncodedRecords) else EncodedRecords(records)
        for each, theirs in encoded.split(partitions) if partition < 0 else [(partition, encoded)]:
            if not theirs:
                continue
            batches = self._open.setdefault((topic, each), [])
            if not batches:
                batches.append(self._new_batch(topic, self._sequences.get((topic, each), 0)))
            added = batches[-1].extend(theirs, 0, now_ms)
            while added < len(theirs):
                batches.append(self._new_batch(topic, batches[-1].next_sequence))
                added += batches[-1].extend(theirs, added, now_ms)
            batches[-1].ends.append((sent, batches[-1].count - 1))
        return sent

    def _new_batch(self, topic: str, sequence: int) -> RecordBatch:
        of, most_bytes = self._of, self._most_bytes.get(topic, _BYTES)
        builder = _BatchBuilder(self._codec, of.producer_id, of.epoch, sequence, most_bytes)
        return RecordBatch(builder, sequence, _PACK[self._codec])

    def written(self, at: tuple[str, int], batch: RecordBatch, offset: int) -> None:
        self._sequences[at] = batch.next_sequence
        for sent, number in batch.ends:
            sent.last_offset = offset + number

    def smaller(self, topic: str, batch: RecordBatch) -> list[RecordBatch]:
        """Split a batch that Kafka refused as too large; empty if it has a single record.

        Kafka wrote nothing of it, so the new batches use its sequence.
        """
        if batch.count == 1:
            return []
        # First with the current maximum, which a refused batch of another partition may have reduced already.
        while len(found := self._refilled(topic, batch)) == 1:
            self._most_bytes[topic] = self._most_bytes.get(topic, _BYTES) // 2
        log.warning("batch_size_reduced", topic=topic, most_bytes=self._most_bytes.get(topic))
        return found

    def _refilled(self, topic: str, batch: RecordBatch) -> list[RecordBatch]:
        lasts = {at: sent for sent, at in batch.ends}
        found = [self._new_batch(topic, batch.sequence)]
        for at, each in enumerate(DefaultRecordBatch(bytes(batch.data))):
            record = EncodedRecords([(each.key, each.value, each.headers)])
            if not found[-1].extend(record, 0, each.timestamp):
                found.append(self._new_batch(topic, found[-1].next_sequence))
                found[-1].extend(record, 0, each.timestamp)
            if at in lasts:
                found[-1].ends.append((lasts[at], found[-1].count - 1))
        return found

    def drain(self) -> dict[tuple[str, int], list[RecordBatch]]:
        """The batches since the last call, in order of each partition. Their sequences count once they are written."""
        drained, self._open = self._open, {}
        return drained


def by_topic(partitions: Iterable[tuple[str, int]]) -> list[tuple[str, list[int]]]:
    found: dict[str, list[int]] = {}
    for topic, partition in partitions:
        found.setdefault(topic, []).append(partition)
    return list(found.items())
