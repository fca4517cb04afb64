"""Every party of ours finds a key's partition where Kafka's Java client puts it: tests/vectors/partition-vectors.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiokafka import partitioner
from confluent_kafka import murmur2

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "partition-vectors.json").read_text("utf-8")
)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda each: each["key"][:24] or "empty")
def test_librdkafka_and_fausts_client_agree_with_the_java_client(vector: dict[str, Any]) -> None:
    key = bytes.fromhex(vector["key"])
    for count, partition in vector["partitions"].items():
        assert murmur2(key, int(count)) == partition
        places = list(range(int(count)))
        assert partitioner.DefaultPartitioner()(key, places, places) == partition
    assert partitioner.murmur2(key) & 0xFFFFFFFF == vector["murmur2"] & 0xFFFFFFFF
