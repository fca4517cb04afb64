"""A command finds Kafka by its options, else by the environment, else the local stack."""

from __future__ import annotations

import pytest

from taskbridge.cli.connection import find_connection


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
