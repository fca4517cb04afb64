"""The states are current only if the workers have processed every event that Kafka had at the start."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from support.dingtalk import FakeClock
from taskbridge.reconcile import kafka
from taskbridge.reconcile.kafka import GROUP, StatesTopic
from taskbridge.reconcile.states import States, StatesBehind
from taskbridge.runtime import partition_reader
from taskbridge.runtime.partition_reader import PartitionReader
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.schemas.topics import TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

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
        self._topic = StatesTopic("none", {}, FakeRegistry(), self.states, self.clock)  # pyright: ignore[reportArgumentType]

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
