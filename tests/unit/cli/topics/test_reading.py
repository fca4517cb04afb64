"""A topic is read from where it begins to where it ends; one that was just made is waited for, and nothing else is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from taskbridge.cli.connection import Connection
from taskbridge.cli.topics import reading
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SERVERS = Connection("127.0.0.1:9", "http://registry.invalid", {})


class Reader:
    """Of a topic of one partition with seven records, whose broker first has something against it."""

    def __init__(self, *against: int) -> None:
        self.consumer: Any = self
        self.asked: list[tuple[Mapping[int, int], Mapping[int, int]]] = []
        self._against = list(against)

    def list_topics(self, topic: str, **_: object) -> Any:
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions={0: None})})

    def get_watermark_offsets(self, *_: object, **__: object) -> tuple[int, int]:
        if self._against:
            raise KafkaException(KafkaError(self._against.pop(0)))
        return 0, 7

    def poll(self, _: float) -> None:
        """Nothing comes."""

    def read(self, _topic: str, starts: Any, ends: Any, **_: object) -> Iterator[list[Any]]:
        self.asked.append((starts, ends))
        yield []

    def close(self) -> None:
        """Nothing is open."""


def read(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(_: Connection) -> Reader:
        return reader

    monkeypatch.setattr(reading, "reader_of", opened)
    assert list(reading.read_to_end(SERVERS, "topic", progress=lambda _: None)) == []


def test_a_partition_without_a_leader_yet_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
    read(reader, monkeypatch)
    assert reader.asked == [({0: 0}, {0: 7})]


def test_any_other_refusal_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OperatorError, match="does not answer"):
        read(Reader(KafkaError.TOPIC_AUTHORIZATION_FAILED), monkeypatch)
