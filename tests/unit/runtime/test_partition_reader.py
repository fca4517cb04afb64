"""Partitions are read from an offset to their end and no further, and three errors say what Kafka does instead."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from support.kafka.metadata_broker import metadata_broker
from taskbridge.runtime import partition_reader
from taskbridge.runtime.partition_reader import OutOfRange, PartitionReader, TimeLimit, Unreadable
from taskbridge.schemas.errors import ConfigurationError, OperatorError

EOF = KafkaError._PARTITION_EOF
NOTHING = None
"""A moment in which nothing comes."""


class FakeMessage:
    def __init__(self, partition: int, offset: int, code: int | None = None) -> None:
        self._partition, self._offset, self._code = partition, offset, code

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def error(self) -> KafkaError | None:
        return None if self._code is None else KafkaError(self._code)


class FakeConsumer:
    """Returns the prepared records, and shows its assignment. Each poll without a record takes a second."""

    def __init__(self, clock: Clock) -> None:
        self.coming: deque[FakeMessage | None] = deque()
        self.assigned: dict[int, int] = {}
        self.closed = False
        self.polls: list[tuple[int, float]] = []
        self.topic_error: KafkaError | None = None
        self.refusals: deque[int | None] = deque()
        """The error codes of the next answers; None: no error."""
        self._clock = clock

    def assign(self, places: list[TopicPartition]) -> None:
        self.assigned = {each.partition: each.offset for each in places}

    def incremental_unassign(self, places: list[TopicPartition]) -> None:
        for each in places:
            del self.assigned[each.partition]

    def unassign(self) -> None:
        self.assigned = {}

    def consume(self, most: int, wait_s: float) -> list[FakeMessage]:
        self.polls.append((most, wait_s))
        given: list[FakeMessage] = []
        while len(given) < most and self.coming and self.coming[0] is not NOTHING:
            given += [each] if (each := self.coming.popleft()) else []
        if not given and wait_s:
            if self.coming:
                self.coming.popleft()
            self._clock.now += 1
        return given

    def close(self) -> None:
        self.closed = True

    def poll(self, _wait_s: float) -> None: ...

    def list_topics(self, topic: str, **_: Any) -> Any:
        self._answer()
        found = SimpleNamespace(error=self.topic_error, partitions={1: None, 0: None})
        return SimpleNamespace(topics={topic: found})

    def get_watermark_offsets(self, place: TopicPartition, **_: Any) -> tuple[int, int]:
        self._answer()
        return place.partition, 10 + place.partition

    def offsets_for_times(self, times: list[TopicPartition], **_: Any) -> list[TopicPartition]:
        """Partition 0 has no later record."""
        self._answer()
        return [TopicPartition(at.topic, at.partition, at.offset // 1000 if at.partition else -1) for at in times]

    def _answer(self) -> None:
        if self.refusals and (code := self.refusals.popleft()) is not None:
            raise KafkaException(KafkaError(code))


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Place:
    """A reader, and the consumer behind it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.consumer = FakeConsumer(self.clock)
        self.config: dict[str, Any] = {}
        self.made = 0

        def make(config: dict[str, Any], **_how: object) -> FakeConsumer:
            self.config, self.made = config, self.made + 1
            return self.consumer

        monkeypatch.setattr(partition_reader, "Consumer", make)
        monkeypatch.setattr(partition_reader, "time", self.clock)
        self.reader = PartitionReader(
            {"bootstrap.servers": "kafka:9092", "group.id": "tests", "isolation.level": "read_uncommitted"}
        )

    def coming(self, *messages: FakeMessage | None) -> Place:
        self.consumer.coming.extend(messages)
        return self

    def read(self, *bounds: dict[int, int], **how: Any) -> list[list[tuple[int, int]]]:
        return [
            [(each.partition() or 0, each.offset() or 0) for each in batch]
            for batch in self.reader.read("topic", *bounds, **how)
        ]

    def places(self, *bounds: dict[int, int], **how: Any) -> list[tuple[int, int]]:
        return [place for batch in self.read(*bounds, **how) for place in batch]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(monkeypatch)


def record(offset: int, partition: int = 0) -> FakeMessage:
    return FakeMessage(partition, offset)


def error(code: int, offset: int = -1001) -> FakeMessage:
    return FakeMessage(0, offset, code)


def test_partitions_have_a_first_offset_and_an_end(place: Place) -> None:
    assert place.reader.partitions("topic") == [0, 1]
    assert place.reader.bounds("topic") == {0: (0, 10), 1: (1, 11)}
    assert place.reader.bounds("topic", since_ms=4000) == {0: (10, 10), 1: (4, 11)}
    assert place.reader.bounds("topic", since_ms=-1) == {0: (10, 10), 1: (0, 11)}


def test_a_new_partition_gets_its_leader_a_moment_later(place: Place) -> None:
    place.consumer.refusals.extend([None, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION])
    assert place.reader.bounds("topic") == {0: (0, 10), 1: (1, 11)}
    assert place.clock.now == pytest.approx(100.2)
    place.consumer.refusals.extend([None, *[KafkaError.LEADER_NOT_AVAILABLE] * 1000])
    with pytest.raises(OperatorError, match=r"^Kafka at kafka:9092 does not answer"):
        place.reader.bounds("topic")
    assert place.clock.now == pytest.approx(110.3, abs=0.2)


def test_another_error_of_a_partition_is_raised_at_once(place: Place) -> None:
    place.consumer.refusals.extend([None, KafkaError.REQUEST_TIMED_OUT])
    with pytest.raises(OperatorError, match="does not answer"):
        place.reader.bounds("topic")
    assert place.clock.now == 100


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (KafkaError.UNKNOWN_TOPIC_OR_PART, ConfigurationError, "does not exist: create"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, OperatorError, "lacks Read on topic"),
    ],
)
def test_a_topic_that_is_missing_or_hidden_is_an_error(
    place: Place, code: int, kind: type[Exception], message: str
) -> None:
    place.consumer.topic_error = KafkaError(code)
    with pytest.raises(kind, match=message):
        place.reader.bounds("topic")


def test_only_committed_records_are_read_and_ends_are_reported(place: Place) -> None:
    place.coming(record(0)).read({0: 0}, {0: 1})
    assert place.config["isolation.level"] == "read_committed"
    assert place.config["enable.partition.eof"] is True
    assert place.config["group.id"] == "tests"


def test_where_the_last_offsets_are_no_records_the_next_one_or_the_end_of_the_partition_ends_the_read(
    place: Place,
) -> None:
    assert place.coming(record(5), record(9)).places({0: 5}, {0: 8}) == [(0, 5)]
    assert place.reader.reached == {0: 8}
    place.consumer.coming.clear()
    assert place.coming(record(5), error(EOF, 8)).places({0: 5}, {0: 8}) == [(0, 5)]
    assert place.reader.reached == {0: 8}


def test_an_end_that_is_not_there_yet_is_waited_for(place: Place) -> None:
    messages = record(5), error(EOF, 6), NOTHING, record(6), record(7)
    assert place.coming(*messages).read({0: 5}, {0: 8}) == [[(0, 5)], [], [(0, 6), (0, 7)]]


def test_without_ends_a_partition_ends_where_there_is_nothing_more_now(place: Place) -> None:
    messages = record(3), error(EOF, 5), record(5), record(0, 1), record(1, 1), FakeMessage(1, 2, EOF)
    places = place.coming(*messages).places({0: OFFSET_BEGINNING, 1: OFFSET_BEGINNING})
    assert places == [(0, 3), (1, 0), (1, 1)]
    assert place.reader.reached == {0: 5, 1: 2}


def test_a_partition_that_is_through_is_fetched_no_more_and_the_others_are(place: Place) -> None:
    place.coming(record(0), NOTHING, record(0, 1), record(7), record(1, 1))
    reading = place.reader.read("topic", {0: 0, 1: 0}, {0: 1, 1: 2})
    next(reading)
    assert place.consumer.assigned == {1: 0}
    assert [len(batch) for batch in reading] == [0, 2]
    assert place.consumer.assigned == {}


def test_what_has_come_is_given_at_once_and_no_more_of_it_than_a_batch(place: Place) -> None:
    place.coming(*map(record, range(5)))
    assert [len(batch) for batch in place.read({0: 0}, {0: 5}, batch=3)] == [3, 2]
    assert all(most == 1 or not wait_s for most, wait_s in place.consumer.polls)


def test_time_is_up_however_much_comes(place: Place) -> None:
    place.coming(record(0), NOTHING, record(1), NOTHING, record(2))
    given: list[int] = []
    with pytest.raises(TimeLimit, match="topic"):
        given.extend(len(batch) for batch in place.reader.read("topic", {0: 0}, {0: 9}, within_s=2))
    assert sum(given) == 2
    assert place.consumer.assigned == {}


def test_a_slow_batch_does_not_count_as_silence(place: Place) -> None:
    place.coming(record(0), record(1))
    for _ in place.reader.read("topic", {0: 0}, {0: 2}, batch=1, quiet_s=2):
        place.clock.now += 10


@pytest.mark.parametrize("code", [KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE])
def test_an_offset_that_is_not_there_is_an_error(place: Place, code: int) -> None:
    with pytest.raises(OutOfRange, match="topic"):
        place.coming(error(code)).read({0: 5}, {0: 8})


@pytest.mark.parametrize("first", [record(0), error(EOF, 0)])
def test_a_partition_that_ends_before_its_start_is_another_one(place: Place, first: FakeMessage) -> None:
    with pytest.raises(OutOfRange, match="offset 5"):
        place.coming(first).read({0: 5}, {0: 8})


def test_what_retention_took_is_passed_over_where_the_consumer_may(place: Place) -> None:
    assert place.coming(record(7), record(8)).places({0: 5}, {0: 9}) == [(0, 7), (0, 8)]


def test_a_refusal_is_raised_at_once_and_a_broker_that_is_away_is_waited_for(place: Place) -> None:
    away = [error(KafkaError._TRANSPORT), error(KafkaError._ALL_BROKERS_DOWN)]
    assert place.coming(*away, record(5)).places({0: 5}, {0: 6}) == [(0, 5)]
    with pytest.raises(Unreadable) as caught:
        place.coming(record(5), error(KafkaError.TOPIC_AUTHORIZATION_FAILED)).read({0: 5}, {0: 6, 1: 9})
    assert type(caught.value) is Unreadable
    assert isinstance(caught.value, OperatorError)
    assert "lacks Read on topic" in str(caught.value)
    with pytest.raises(Unreadable, match="lacks Describe on group"):
        place.coming(error(KafkaError.GROUP_AUTHORIZATION_FAILED)).read({0: 5}, {0: 6})


def test_a_consumer_that_gives_nothing_for_long_is_replaced(place: Place) -> None:
    for made in (1, 1, 2):
        with pytest.raises(TimeLimit):
            place.read({0: 5}, {0: 6}, within_s=5)
        assert place.made == made
    assert place.consumer.closed


async def test_a_consumer_that_knows_no_broker_any_more_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one case of twenty, librdkafka has no broker to query for ever after a cluster named none."""
    monkeypatch.setattr(partition_reader, "_SILENT_S", 0)
    async with metadata_broker() as broker:
        reader = PartitionReader({"bootstrap.servers": f"127.0.0.1:{broker.port}", "group.id": "tests"})

        def is_lost() -> bool:
            try:
                reader.consumer.list_topics(timeout=0.5)
            except KafkaException:
                return True
            return False

        def read() -> None:
            with suppress(TimeLimit):
                deque(reader.read("events", {0: 0}, {0: 1}, within_s=0.01))

        for _ in range(500):
            broker.is_fenced = not broker.is_fenced
            if await asyncio.to_thread(is_lost) and await asyncio.to_thread(is_lost):
                broker.is_fenced = False
                if await asyncio.to_thread(is_lost):  # and not slow for a moment
                    break
        else:
            pytest.fail("librdkafka finds its way by itself")
        before = broker.requests
        async with asyncio.timeout(60):
            while broker.requests == before or await asyncio.to_thread(is_lost):
                await asyncio.to_thread(read)
        reader.close()
