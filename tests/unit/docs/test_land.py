"""The data platform's job against a Kafka without new records."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, TopicPartition

from taskbridge.schemas.testing import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "data-platform" / "land.py"
PARTITIONS = 12
FETCHES = 3
"""Of each partition, until the end is known: what the fetcher has under way, its own first one, and the empty one."""


class FakeConsumer:
    """Answers each fetch that finds nothing as late as it may."""

    waited_ms = 0

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._fetch_ms: int = config.get("fetch.wait.max.ms", 500)
        self._assigned: list[TopicPartition] = []

    def list_topics(self, topic: str, _timeout_s: float) -> Any:
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions=dict.fromkeys(range(PARTITIONS)))})

    def get_watermark_offsets(self, _partition: TopicPartition, _timeout_s: float) -> tuple[int, int]:
        return 0, 1  # the end of a transaction

    def assign(self, partitions: list[TopicPartition]) -> None:
        self._assigned = partitions

    def consume(self, _number: int, _timeout_s: float) -> list[Any]:
        FakeConsumer.waited_ms += FETCHES * self._fetch_ms
        end = KafkaError(KafkaError._PARTITION_EOF)
        return [SimpleNamespace(error=lambda: end) for _ in self._assigned]

    def close(self) -> None: ...


def registry(_url: str) -> FakeRegistry:
    return FakeRegistry()


def test_landing_nothing_waits_for_no_record_that_may_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("land", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.setattr(example, "Consumer", FakeConsumer)
    monkeypatch.setattr(example, "Registry", registry)
    example.land("kafka:9092", "http://registry", tmp_path)
    assert FakeConsumer.waited_ms < 2000, "with 24 partitions, one after the other"
    assert list(tmp_path.rglob("*.parquet")) == []
