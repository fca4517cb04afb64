"""A command finds Kafka by its options, else by the environment, else the local stack; it reads topics to their end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from taskbridge.cli.connection import Connection, find_connection
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@pytest.mark.parametrize(
    ("flag", "environment", "found"),
    [
        (None, {}, "127.0.0.1:9092"),
        (None, {"STREAMS_KAFKA_BOOTSTRAP_SERVERS": "streams:1"}, "streams:1"),
        (None, {"EDGE_KAFKA_BOOTSTRAP_SERVERS": "edge:1", "STREAMS_KAFKA_BOOTSTRAP_SERVERS": "streams:1"}, "edge:1"),
        (None, {"TASKBRIDGE_KAFKA_BOOTSTRAP_SERVERS": "ours:1", "EDGE_KAFKA_BOOTSTRAP_SERVERS": "edge:1"}, "ours:1"),
        ("flag:1", {"TASKBRIDGE_KAFKA_BOOTSTRAP_SERVERS": "ours:1"}, "flag:1"),
    ],
)
def test_kafka_is_found_in_this_order(flag: str | None, environment: dict[str, str], found: str) -> None:
    assert find_connection(flag, None, environment).bootstrap_servers == found


def test_the_registry_is_found_in_the_same_order() -> None:
    assert find_connection(None, None, {}).registry_url == "http://127.0.0.1:8081/apis/ccompat/v7"
    assert find_connection(None, None, {"EDGE_SCHEMA_REGISTRY_URL": "http://r"}).registry_url == "http://r"
    assert find_connection(None, "http://f", {"TASKBRIDGE_SCHEMA_REGISTRY_URL": "http://r"}).registry_url == "http://f"


SERVERS = Connection("127.0.0.1:9", "http://registry.invalid", {})


class Reader:
    """Reads a topic of one partition with seven records, after these errors of the broker."""

    def __init__(self, *errors: int) -> None:
        self.consumer: Any = self
        self.reads: list[tuple[Mapping[int, int], Mapping[int, int]]] = []
        self._errors = list(errors)

    def list_topics(self, topic: str, **_: object) -> Any:
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions={0: None})})

    def get_watermark_offsets(self, *_: object, **__: object) -> tuple[int, int]:
        if self._errors:
            raise KafkaException(KafkaError(self._errors.pop(0)))
        return 0, 7

    def poll(self, _: float) -> None:
        """Nothing comes."""

    def read(self, _topic: str, starts: Any, ends: Any, **_: object) -> Iterator[list[Any]]:
        self.reads.append((starts, ends))
        yield []

    def close(self) -> None:
        """Nothing is open."""


def read(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(_: Connection) -> Reader:
        return reader

    monkeypatch.setattr(Connection, "reader", opened)
    assert list(SERVERS.read_to_end("topic", progress=lambda _: None)) == []


def test_a_partition_without_a_leader_yet_is_requested_again(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
    read(reader, monkeypatch)
    assert reader.reads == [({0: 0}, {0: 7})]


def test_any_other_error_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OperatorError, match="does not answer"):
        read(Reader(KafkaError.TOPIC_AUTHORIZATION_FAILED), monkeypatch)
