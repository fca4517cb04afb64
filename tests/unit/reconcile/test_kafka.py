"""The states are current only if the workers have processed every event that Kafka had at the start."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from msgspec import structs

from support.dingtalk import FakeClock
from taskbridge.reconcile import kafka
from taskbridge.reconcile.kafka import GROUP, KafkaOutbox, StatesTopic
from taskbridge.reconcile.states import States, StatesBehind
from taskbridge.runtime import partition_reader
from taskbridge.runtime.partition_reader import PartitionReader
from taskbridge.schemas.codec import form_data_codec
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.events import FormData
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.schemas.topics import FORM_DATA, MAX_MESSAGE_BYTES, TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

NOW = 1_790_000_000_000


class FakeKafka:
    """Each topic has two partitions. Some offsets of the events are records, the others markers of transactions."""

    def __init__(self, clock: FakeClock) -> None:
        self.events = {0: {0, 1, 2}, 1: set[int]()}
        self.ends = {0: 3, 1: 0}
        self.first = 0
        self.positions = {0: 3, 1: -1001}
        self.error: KafkaError | None = None
        self.workers_need_s = 0.0
        self.states_read_at: list[int] = []
        self._clock, self._began_ms = clock, clock.now_ms()

    def list_topics(self, topic: str, **_: Any) -> Any:
        partitions = type("Topic", (), {"error": None, "partitions": {0: None, 1: None}})
        return type("Metadata", (), {"topics": {topic: partitions}})

    def get_watermark_offsets(self, of: TopicPartition, **_: Any) -> tuple[int, int]:
        return (self.first, self.ends[of.partition]) if of.topic == TASK_EVENTS.name else (0, 0)

    def committed(self, of: list[TopicPartition], _timeout: float) -> list[TopicPartition]:
        if self.error is not None:
            raise KafkaException(self.error)
        is_late = self._clock.now_ms() < self._began_ms + self.workers_need_s * 1000
        return [
            TopicPartition(each.topic, each.partition, 0 if is_late else self.positions[each.partition]) for each in of
        ]

    def read(
        self, topic: str, starts: Mapping[int, int], ends: Mapping[int, int], **_: Any
    ) -> Generator[list[tuple[int, int]]]:
        if topic != TASK_EVENTS.name:
            self.states_read_at.append(self._clock.now_ms())
            return
        for each, start in starts.items():
            assert start >= self.first, "Kafka has nothing before it"
            yield []
            if found := [(each, at) for at in sorted(self.events[each]) if start <= at < ends[each]]:
                yield found

    def poll(self, _timeout: float) -> None: ...

    def close(self) -> None: ...


class CatchUp:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = FakeClock(NOW)
        self.kafka = FakeKafka(self.clock)

        def fake(*_: Any, **__: Any) -> FakeKafka:
            return self.kafka

        def read(_: PartitionReader, *bounds: Any, **how: Any) -> Any:
            return self.kafka.read(*bounds, **how)

        monkeypatch.setattr(PartitionReader, "read", read)
        for each in (kafka, partition_reader):
            monkeypatch.setattr(each, "Consumer", fake)
        self.states = States(sqlite3.connect(":memory:", isolation_level=None))
        reader = PartitionReader({"bootstrap.servers": "none"})
        self._topic = StatesTopic(reader, FakeRegistry(), self.states, self.clock)  # pyright: ignore[reportArgumentType]

    def catch_up(self) -> None:
        asyncio.run(self._topic.catch_up())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> CatchUp:
    return CatchUp(monkeypatch)


def test_states_are_current_as_of_the_start_if_the_workers_are_at_the_end(run: CatchUp) -> None:
    run.catch_up()
    assert (run.states.current_ms, run.kafka.states_read_at) == (NOW, [NOW])


def test_a_run_waits_for_the_workers_and_its_start_counts(run: CatchUp) -> None:
    run.kafka.workers_need_s = 10
    run.catch_up()
    assert (run.states.current_ms, run.kafka.states_read_at) == (NOW, [NOW + 10_000])


def test_workers_that_stay_behind_end_the_run_and_the_time_stays(run: CatchUp) -> None:
    run.catch_up()
    run.kafka.positions[0] = 2
    run.clock.pass_s(3600)
    with pytest.raises(StatesBehind, match="have not processed all events"):
        run.catch_up()
    assert (run.states.current_ms, run.kafka.states_read_at) == (NOW, [NOW])
    assert run.clock.now_ms() == NOW + 3600_000 + 30_000


def test_without_any_position_of_the_workers_they_are_behind(run: CatchUp) -> None:
    run.kafka.positions[0] = -1001
    with pytest.raises(StatesBehind):
        run.catch_up()


@pytest.mark.parametrize("first", [0, 4])
def test_a_transaction_marker_is_no_unprocessed_event(run: CatchUp, first: int) -> None:
    """A record that retention deleted is none either."""
    run.kafka.ends[0], run.kafka.first = 4, first
    run.kafka.ends[1] = max(0, first)
    run.catch_up()
    assert run.states.current_ms == NOW


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (KafkaError.GROUP_AUTHORIZATION_FAILED, f"lacks Describe on group {GROUP}"),
        (KafkaError._TRANSPORT, "Kafka at none does not answer"),
    ],
)
def test_unreadable_positions_end_the_run(run: CatchUp, code: int, message: str) -> None:
    run.kafka.error = KafkaError(code)
    with pytest.raises(OperatorError, match=message):
        run.catch_up()
    assert run.states.current_ms == 0


class Producer:
    def __init__(self) -> None:
        self.produced: list[tuple[str, bytes, bytes | None, dict[str, bytes]]] = []
        self.error: OperatorError | None = None

    def produce(
        self, topic: str, *, key: bytes, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> asyncio.Future[None]:
        self.produced.append((topic, key, value, dict(headers)))
        delivery = asyncio.get_running_loop().create_future()
        delivery.set_result(None) if self.error is None else delivery.set_exception(self.error)
        return delivery


async def test_form_data_is_written_with_its_headers_and_one_that_is_too_large_stops_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    producer = Producer()

    def connect(*_: object) -> Producer:
        return producer

    monkeypatch.setattr(kafka.AsyncProducer, "connect", connect)
    outbox = KafkaOutbox("none", {}, FakeRegistry(), FakeClock(NOW))  # pyright: ignore[reportArgumentType]
    record = FormData("ding1", "APP_1", "FORM-1", "I-1", NOW, "event", data={"text_1": "x"})
    large = structs.replace(record, instance_id="I-2", data={"text_1": "x" * MAX_MESSAGE_BYTES})
    await outbox.write_forms([large, record], ["I-3"])
    [tombstone, written] = producer.produced
    assert tombstone == (FORM_DATA.name, b"I-3", None, {})
    assert written[:2] == (FORM_DATA.name, b"I-1")
    assert form_data_codec(FakeRegistry()).decode(written[2]) == record
    assert written[3]["ce_type"] == b"taskbridge.form-data.changed.v1"
    producer.error = OperatorError("Kafka does not accept the record")
    with pytest.raises(OperatorError, match="does not accept"):
        await outbox.write_forms([record])
