"""Each broker gets one request for all partitions; retriable errors are retried, final ones are raised."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.record.default_records import DefaultRecordBatch
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from taskbridge.runtime.producer import DeliveryFailed
from taskbridge.streams.engine import joint_producer
from taskbridge.streams.engine.joint_producer import Fenced, JointProducer
from taskbridge.streams.engine.transaction_requests import CODECS, Identity, Membership, Sent, TxnOffsetCommit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aiokafka.client import CoordinationType
    from aiokafka.structs import TopicPartition as Partition

    from taskbridge.streams.records import RecordWithHeaders

MEMBER = Membership("group", 5, "member-1", "instance-1")
OFFSETS = [TopicPartition("events", 0, 7, "worker")]


class FakeKafka:
    """Two brokers: even partitions are the first one's. Refuses as often as prepared, and then accepts."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.produced: list[tuple[int, list[tuple[str, int, bytes]]]] = []
        self.refusals: dict[str, list[int | Exception]] = {}
        """By request, or by partition."""
        self.most_bytes = 1 << 30
        """Of a batch."""
        self.too_large: int = KafkaError.MSG_SIZE_TOO_LARGE
        self.written: dict[tuple[str, int], list[Any]] = {}
        self.looked_up: list[str] = []
        self.metadata_updates = 0
        self.cluster = self
        self.is_known = True

    def __call__(self, **_options: Any) -> FakeKafka:
        return self

    def leader_for_partition(self, at: Partition) -> int:
        return 1 + at.partition % 2

    async def bootstrap(self) -> None: ...
    async def close(self) -> None: ...

    async def _wait_on_metadata(self, _topic: str) -> set[int]:
        return {0, 1, 2, 3}

    async def force_metadata_update(self) -> None:
        self.metadata_updates += 1
        self.is_known = self.is_known or self.metadata_updates > 1

    def get_random_node(self) -> int | None:
        return 1 if self.is_known else None

    async def coordinator_lookup(self, kind: CoordinationType, key: str) -> int:
        assert self.is_known
        self.looked_up.append(f"{kind.name} {key}")
        return 1

    async def send(self, node: int, request: Any, **_options: Any) -> Any:
        name = "Abort" if getattr(request, "_transaction_result", True) is False else type(request).__name__
        self.requests.append(name)
        code = self._code(name)
        if name == "ProduceRequest":
            topics = request._topics
            self.produced.append((node, [(topic, each, data) for topic, found in topics for each, data in found]))
            return SimpleNamespace(
                topics=[
                    (topic, [(each, *self._append(topic, each, data)) for each, data in found])
                    for topic, found in topics
                ]
            )
        if name in ("AddPartitionsToTxnRequest", "TxnOffsetCommit"):
            return SimpleNamespace(errors=[("topic", [(0, code)])])
        return SimpleNamespace(error_code=code, producer_id=3, producer_epoch=0)

    def _append(self, topic: str, partition: int, data: bytes) -> tuple[int, int]:
        """A code, and where the batch begins: partitions have ten records each from the start."""
        code = self.too_large if len(data) > self.most_bytes else self._code(f"{partition}")
        log = self.written.setdefault((topic, partition), [])
        begins = 10 * partition + len(log)
        if not code:
            assert int.from_bytes(data[53:57], "big") == len(log), "the next sequence"
            log += cast("Any", DefaultRecordBatch(bytes(data)))
        return code, begins

    def _code(self, what: str) -> int:
        refusal = self.refusals[what].pop(0) if self.refusals.get(what) else 0
        if isinstance(refusal, Exception):
            raise refusal
        return refusal


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> FakeKafka:
    fake = FakeKafka()
    monkeypatch.setattr(joint_producer, "AIOKafkaClient", fake)
    return fake


@pytest.fixture
def producer(kafka: FakeKafka) -> Iterator[JointProducer]:
    made = JointProducer({"bootstrap.servers": "127.0.0.1:9"}, "worker-0")
    made.claim()
    kafka.requests.clear()
    yield made
    made.close()


def write(producer: JointProducer, partitions: int = 4, *, offsets: list[TopicPartition] | None = None) -> None:
    with producer.transaction():
        for partition in range(partitions):
            producer.send("states", [(b"k", b"v", [])], partition=partition)
        producer.add_offsets(offsets or [], MEMBER)


def test_a_transaction_over_many_partitions_is_one_request_per_broker(
    kafka: FakeKafka, producer: JointProducer
) -> None:
    with producer.transaction():
        sent = [
            producer.send(topic, [(b"k", b"v", [("h", b"1")])] * 2, partition=partition)
            for topic in ("changelog", "states")
            for partition in range(4)
        ]
        producer.add_offsets(OFFSETS, MEMBER)
    assert kafka.requests == [
        "AddPartitionsToTxnRequest",
        "AddOffsetsToTxnRequest",
        "ProduceRequest",
        "ProduceRequest",
        "TxnOffsetCommit",
        "EndTxnRequest",
    ]
    assert [(node, len(found)) for node, found in kafka.produced] == [(1, 4), (2, 4)]
    assert [each.last_offset for each in sent] == 2 * [1, 11, 21, 31]


def test_only_retriable_refusals_are_sent_again_unchanged(kafka: FakeKafka, producer: JointProducer) -> None:
    kafka.refusals["2"] = [KafkaError.NOT_ENOUGH_REPLICAS, KafkaError.NOT_LEADER_FOR_PARTITION]
    write(producer)
    whole = {(topic, each): data for _, found in kafka.produced[:2] for topic, each, data in found}
    assert kafka.produced[2:] == 2 * [(1, [("states", 2, whole["states", 2])])]
    assert kafka.metadata_updates == 1
    assert kafka.requests[-1] == "EndTxnRequest"


def test_a_broken_connection_is_retried(kafka: FakeKafka, producer: JointProducer) -> None:
    kafka.refusals["ProduceRequest"] = [KafkaConnectionError()]
    kafka.refusals["EndTxnRequest"] = [KafkaConnectionError(), KafkaError.CONCURRENT_TRANSACTIONS]
    write(producer, partitions=1)
    assert kafka.requests[-3:] == 3 * ["EndTxnRequest"]
    assert kafka.looked_up == 2 * ["TRANSACTION worker-0"]


@pytest.mark.parametrize(
    ("refused", "code", "error"),
    [
        ("1", KafkaError.MSG_SIZE_TOO_LARGE, DeliveryFailed),
        ("1", KafkaError.TOPIC_AUTHORIZATION_FAILED, DeliveryFailed),
        ("AddPartitionsToTxnRequest", KafkaError.INVALID_PRODUCER_EPOCH, Fenced),
        ("TxnOffsetCommit", KafkaError.ILLEGAL_GENERATION, Fenced),
        ("TxnOffsetCommit", KafkaError.FENCED_INSTANCE_ID, Fenced),
        ("TxnOffsetCommit", KafkaError.GROUP_AUTHORIZATION_FAILED, DeliveryFailed),
        ("EndTxnRequest", KafkaError.INVALID_PRODUCER_EPOCH, Fenced),
    ],
)
def test_a_final_refusal_is_not_committed(
    kafka: FakeKafka, producer: JointProducer, refused: str, code: int, error: type[Exception]
) -> None:
    kafka.refusals[refused] = [code]
    with pytest.raises(error):
        write(producer, offsets=OFFSETS)
    assert kafka.requests.count("EndTxnRequest") == (refused == "EndTxnRequest")
    assert kafka.requests[-1] == "Abort"


def values(written: Sequence[Any]) -> list[bytes | None]:
    return [each.value for each in written]


def records(*of: bytes) -> list[RecordWithHeaders]:
    return [(b"k", each, [("h", b"1")]) for each in of]


@pytest.mark.parametrize("code", [KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE])
def test_a_batch_that_is_too_large_is_split(kafka: FakeKafka, producer: JointProducer, code: int) -> None:
    kafka.most_bytes, kafka.too_large = 600, code
    written = [b"%d" % number + 100 * b"." for number in range(10)]

    pair = [400 * b".", 300 * b"."]

    def transaction() -> list[Sent]:
        kafka.produced.clear()
        with producer.transaction():
            return [
                producer.send(topic, records(*some), partition=partition)
                for topic, partition, some in (
                    ("states", 0, written[:4]),
                    ("states", 0, written[4:]),
                    ("states", 2, written),
                    ("notifications", 0, written[:3]),
                    ("notifications", 2, pair),
                )
            ]

    assert [each.last_offset for each in transaction()] == [3, 9, 29, 2, 21]
    assert [each.last_offset for each in transaction()] == [13, 19, 39, 5, 23]
    assert [len(found) for _, found in kafka.produced] == [4, 3, 2, 2], "it is known by now"
    assert [values(each) for each in kafka.written.values()] == [2 * written, 2 * written, 2 * written[:3], 2 * pair]
    assert all(each.headers == [("h", b"1")] for written in kafka.written.values() for each in written)


def test_missing_permissions_are_named(kafka: FakeKafka, producer: JointProducer) -> None:
    kafka.refusals["AddPartitionsToTxnRequest"] = [KafkaError.TOPIC_AUTHORIZATION_FAILED]
    with pytest.raises(DeliveryFailed, match="Write on topic topic"):
        write(producer)


def test_metadata_of_offsets_ends_with_a_zero_for_librdkafka() -> None:
    request = TxnOffsetCommit(Identity("worker-0", 3, 0), MEMBER, OFFSETS)
    assert b"\x08worker\0" in request.prepare({28: (0, 5)}).encode()


def test_a_request_is_limited_and_the_rest_is_sent_with_the_next(
    kafka: FakeKafka, producer: JointProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joint_producer, "_REQUEST_BYTES", 250)
    with producer.transaction():
        for partition in (0, 1, 2, 4, 6):
            producer.send("topic", [(b"key", b"x" * (400 if partition == 4 else 20), [])], partition=partition)
    sizes = [(node, [partition for _, partition, _ in put]) for node, put in kafka.produced]
    assert sizes == [(1, [0, 2]), (2, [1]), (1, [4]), (1, [6])], "what is larger by itself goes alone"


@pytest.mark.parametrize(
    ("config", "codec"),
    [
        ({}, "none"),
        ({"compression.codec": "zstd"}, "zstd"),
        ({"compression.type": "none", "compression.codec": "lz4"}, "lz4"),
    ],
)
def test_batches_are_compressed_as_by_librdkafka(kafka: FakeKafka, config: dict[str, object], codec: str) -> None:
    made = JointProducer({"bootstrap.servers": "127.0.0.1:9", **config}, "worker-0")
    made.claim()
    with made.transaction():
        made.send("topic", [(b"k", bytes(1000), [])], partition=0)
    [(_, [(_, _, batch)])] = kafka.produced
    assert batch[22] & 7 == CODECS[codec]
    made.close()


def test_a_claim_waits_until_a_broker_is_known(kafka: FakeKafka) -> None:
    kafka.is_known = False
    producer = JointProducer({"bootstrap.servers": "127.0.0.1:9"}, "worker-0")
    producer.claim()
    producer.close()
    assert kafka.metadata_updates == 2


def test_a_claim_fails_if_no_broker_is_known_in_time(kafka: FakeKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskbridge.streams.engine.joint_producer.CLAIM_S", -1)
    kafka.is_known = False
    producer = JointProducer({"bootstrap.servers": "127.0.0.1:9"}, "worker-0")
    with pytest.raises(KafkaException):
        producer.claim()
    producer.close()


def test_records_of_an_abandoned_transaction_use_no_sequences(kafka: FakeKafka, producer: JointProducer) -> None:
    def fails() -> None:
        with producer.transaction():
            producer.send("states", [(b"k", b"v", [])], partition=0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    kafka.requests.clear()
    with producer.transaction():
        producer.send("states", [(b"k", b"other", [])], partition=0)
    assert kafka.requests == ["AddPartitionsToTxnRequest", "ProduceRequest", "EndTxnRequest"]
    assert values(kafka.written["states", 0]) == [b"other"]


def test_a_second_claim_begins_again(kafka: FakeKafka, producer: JointProducer) -> None:
    write(producer, partitions=1)
    kafka.written.clear()
    producer.claim()
    write(producer, partitions=1)
    assert values(kafka.written["states", 0]) == [b"v"], "of sequence 0"
