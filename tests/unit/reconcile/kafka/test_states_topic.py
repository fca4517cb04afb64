"""The states are taken for current only where the workers have processed every event that was there at the start."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from taskbridge.reconcile.kafka import states_topic
from taskbridge.reconcile.kafka.states_topic import GROUP, StatesTopic
from taskbridge.reconcile.kept.states import States, StatesBehind
from taskbridge.reconcile.testing.clock import FakeClock
from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.schemas.topics import TASK_EVENTS
from taskbridge.streams.engine.app import APP_ID

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

NOW = 1_790_000_000_000


class FakeKafka:
    """Two partitions a topic; of the events some offsets are records, the others ends of transactions."""

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

    @property
    def consumer(self) -> FakeKafka:
        return self

    @property
    def reached(self) -> dict[int, int]:
        return {}


class Reading:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = FakeClock(NOW)
        self.kafka = FakeKafka(self.clock)

        def kafka(*_: Any, **__: Any) -> FakeKafka:
            return self.kafka

        monkeypatch.setattr(states_topic, "PartitionReader", kafka)
        monkeypatch.setattr(states_topic, "Consumer", kafka)
        self.states = States(sqlite3.connect(":memory:", isolation_level=None))
        self._topic = StatesTopic("none", {}, FakeRegistry(), self.states, self.clock)  # pyright: ignore[reportArgumentType]

    def catch_up(self) -> None:
        asyncio.run(self._topic.catch_up())


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Reading:
    return Reading(monkeypatch)


def test_the_group_is_the_workers() -> None:
    assert GROUP == APP_ID


def test_states_are_current_as_of_the_start_when_the_workers_are_at_the_end(reading: Reading) -> None:
    reading.catch_up()
    assert (reading.states.current_ms, reading.kafka.states_read_at) == (NOW, [NOW])


def test_workers_that_need_a_moment_are_waited_for_and_the_start_counts(reading: Reading) -> None:
    reading.kafka.workers_need_s = 10
    reading.catch_up()
    assert (reading.states.current_ms, reading.kafka.states_read_at) == (NOW, [NOW + 10_000])


def test_workers_that_stay_behind_end_it_and_the_moment_stays(reading: Reading) -> None:
    reading.catch_up()
    reading.kafka.positions[0] = 2
    reading.clock.pass_s(3600)
    with pytest.raises(StatesBehind, match="have not processed all events"):
        reading.catch_up()
    assert (reading.states.current_ms, reading.kafka.states_read_at) == (NOW, [NOW])
    assert reading.clock.now_ms() == NOW + 3600_000 + 30_000


def test_where_no_worker_ever_was_an_event_waits(reading: Reading) -> None:
    reading.kafka.positions[0] = -1001
    with pytest.raises(StatesBehind):
        reading.catch_up()


@pytest.mark.parametrize("first", [0, 4])
def test_the_end_of_a_transaction_is_no_event_that_waits(reading: Reading, first: int) -> None:
    """Nor is what retention took."""
    reading.kafka.ends[0], reading.kafka.first = 4, first
    reading.kafka.ends[1] = max(0, first)
    reading.catch_up()
    assert reading.states.current_ms == NOW


def test_a_coordinator_that_moves_is_asked_again(reading: Reading) -> None:
    reading.kafka.error = KafkaError(KafkaError.NOT_COORDINATOR)
    with pytest.raises(StatesBehind):
        reading.catch_up()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (KafkaError.GROUP_AUTHORIZATION_FAILED, f"lacks Describe on group {GROUP}"),
        (KafkaError._TRANSPORT, "Kafka at none does not answer"),
    ],
)
def test_positions_that_kafka_does_not_tell_end_it(reading: Reading, code: int, says: str) -> None:
    reading.kafka.error = KafkaError(code)
    with pytest.raises(OperatorError, match=says):
        reading.catch_up()
    assert reading.states.current_ms == 0
