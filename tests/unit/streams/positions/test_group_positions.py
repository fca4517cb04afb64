"""Positions are told though the group has no coordinator yet; each says whether a transaction is open for it."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from faust.types import TP

from taskbridge.streams.positions import group_positions
from taskbridge.streams.positions.group_positions import Committed, committed

CONFIG = {"bootstrap.servers": "127.0.0.1:9"}


class FakeConsumer:
    """Of a group for whose partition 1 a transaction is open, on a broker that has only just made what it needs."""

    made = 0
    refused = 0
    no_text = 0
    """How often metadata come with what is no text behind them."""
    _lock = threading.Lock()

    def __init__(self, config: dict[str, Any], **_: Any) -> None:
        FakeConsumer.made += 1
        self._waits = config["isolation.level"] == "read_committed"

    def committed(self, wanted: list[TopicPartition], _timeout_s: float) -> list[TopicPartition]:
        with self._lock:
            if FakeConsumer.refused < 2:
                FakeConsumer.refused += 1
                raise KafkaException(KafkaError(KafkaError.NOT_COORDINATOR))
        if self._waits and any(each.partition == 1 for each in wanted):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return [self._at(each) for each in wanted]

    def _at(self, wanted: TopicPartition) -> TopicPartition:
        if not FakeConsumer.no_text:
            return TopicPartition(wanted.topic, wanted.partition, 7)
        FakeConsumer.no_text -= 1
        return cast("TopicPartition", NoText(wanted.topic, wanted.partition))

    def close(self) -> None:
        FakeConsumer.made -= 1


class NoText(NamedTuple):
    topic: str
    partition: int
    error: None = None

    @property
    def metadata(self) -> str:
        return b"worker \xd0".decode()


@pytest.fixture(autouse=True)
def consumers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_positions, "Consumer", FakeConsumer)
    monkeypatch.setattr(group_positions, "COORDINATOR_RETRY_S", 0)
    monkeypatch.setattr(FakeConsumer, "made", 0)
    monkeypatch.setattr(FakeConsumer, "refused", 0)
    monkeypatch.setattr(FakeConsumer, "no_text", 0)


def test_positions_are_told_once_a_broker_coordinates_the_group_and_the_unstable_ones_are_named() -> None:
    partitions = [TP("topic", each) for each in range(3)]
    assert committed(CONFIG, "group", partitions) == {
        tp: Committed(7, None, is_stable=tp.partition != 1) for tp in partitions
    }
    assert (FakeConsumer.refused, FakeConsumer.made) == (2, 0)


def test_nobody_is_asked_about_no_partitions() -> None:
    assert committed(CONFIG, "group", []) == {}
    assert FakeConsumer.refused == 0


def test_a_coordinator_that_does_not_come_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeConsumer, "refused", -(10**9))
    monkeypatch.setattr(group_positions, "_ANSWER_S", 0.05)
    with pytest.raises(KafkaException, match="NOT_COORDINATOR"):
        committed(CONFIG, "group", [TP("topic", 0)])
    assert FakeConsumer.made == 0


def test_a_position_whose_metadata_cannot_be_read_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeConsumer, "no_text", 4)
    partitions = [TP("topic", 0), TP("topic", 2)]
    assert committed(CONFIG, "group", partitions) == {tp: Committed(7, None, is_stable=True) for tp in partitions}
    assert FakeConsumer.no_text == 0
