"""A consumer without an answer from brokers is replaced, and continues at its position."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from taskbridge.client import source
from taskbridge.client.source import Consumer, Kafka
from taskbridge.schemas.topics import TASK_NOTIFICATIONS


class FakeConsumer:
    """Returns nothing, and a second passes. ``reached`` are its positions."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.subscribed: list[str] = []
        self.assigned: dict[int, int] = {}
        self.reached: dict[int, int] = {}
        self.closed = False

    def subscribe(self, topics: list[str]) -> None:
        self.subscribed = topics

    def assign(self, places: list[TopicPartition]) -> None:
        self.assigned = {each.partition: each.offset for each in places}

    def incremental_assign(self, places: list[TopicPartition]) -> None:
        self.assigned |= {each.partition: each.offset for each in places}

    def position(self, places: list[TopicPartition]) -> list[TopicPartition]:
        return [TopicPartition(each.topic, each.partition, self.reached.get(each.partition, -1001)) for each in places]

    def consume(self, _most: int, _wait_s: float) -> list[object]:
        self._cluster.now += 1
        return [object()] if self._cluster.has_records else []

    def list_topics(self, topic: str, *, timeout: float) -> SimpleNamespace:
        self._cluster.metadata_requests += 1
        self._cluster.now += 0 if self._cluster.answers else timeout
        if not self._cluster.answers:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return self._cluster.topics(topic)

    def close(self) -> None:
        self.closed = True


class Cluster:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.answers = True
        self.has_records = False
        self.metadata_requests = 0
        self.partitions = 2
        self.made: list[FakeConsumer] = []
        monkeypatch.setattr(source, "monotonic", lambda: self.now)
        monkeypatch.setattr("confluent_kafka.Consumer", self._make)

    def _make(self, _config: dict[str, Any], **_how: object) -> FakeConsumer:
        self.made.append(FakeConsumer(self))
        return self.made[-1]

    def read_until_replaced(self, consumer: Consumer) -> None:
        for _ in range(100):
            if len(self.made) == 1:
                consumer.consume(1, 0.5)
        assert len(self.made) == 2

    def topics(self, topic: str) -> SimpleNamespace:
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions=dict.fromkeys(range(self.partitions)))})


KAFKA = Kafka("127.0.0.1:9", "http://127.0.0.1:9")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def test_a_member_without_an_answer_joins_again(cluster: Cluster) -> None:
    member = KAFKA.member("group")
    cluster.answers = False
    began = cluster.now
    cluster.read_until_replaced(member)
    assert 30 <= cluster.now - began <= 35
    assert cluster.made[0].closed
    assert cluster.made[1].subscribed == [TASK_NOTIFICATIONS.name]
    member.close()
    assert cluster.made[1].closed


def test_a_member_with_answers_stays_on_a_quiet_topic(cluster: Cluster) -> None:
    member = KAFKA.member("group")
    for _ in range(100):
        member.consume(1, 0.5)
    assert 1 <= cluster.metadata_requests <= 100 // 15
    assert len(cluster.made) == 1


def test_a_reader_of_the_whole_topic_continues_at_its_position(cluster: Cluster) -> None:
    whole = KAFKA.whole()
    whole.consume(1, 0.5)
    assert cluster.made[0].assigned == {0: OFFSET_BEGINNING, 1: OFFSET_BEGINNING}
    cluster.made[0].reached = {1: 7}
    cluster.answers = False
    cluster.read_until_replaced(whole)
    assert cluster.made[1].assigned == {0: OFFSET_BEGINNING, 1: 7}


def test_new_partitions_are_found_within_a_minute(cluster: Cluster) -> None:
    whole = KAFKA.whole()
    cluster.has_records = True
    for cluster.partitions in (2, 3, 3, 3):
        for _ in range(60):
            whole.consume(1, 0.5)
    assert cluster.made[0].assigned == dict.fromkeys(range(3), OFFSET_BEGINNING)
    assert cluster.metadata_requests == 4
