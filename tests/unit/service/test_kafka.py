"""Kafka's settings files are read line by line, and a delivery is believed only from its report."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from schemas.errors import ConfigurationError
from service.kafka import AsyncProducer, DeliveryFailed, producer_config, read_kafka_config

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = "127.0.0.1:9"


def test_a_config_file_gives_librdkafka_properties(tmp_path: Path) -> None:
    path = tmp_path / "kafka.properties"
    path.write_text("# TLS\nsecurity.protocol = SASL_SSL\n\nsasl.password=a=b # c\n")
    assert read_kafka_config(path) == {"security.protocol": "SASL_SSL", "sasl.password": "a=b # c"}
    assert read_kafka_config(None) == {}


def test_a_config_file_that_cannot_be_used_says_where_but_not_what(tmp_path: Path) -> None:
    path = tmp_path / "kafka.properties"
    path.write_text("a=b\nsecret-without-equals\n")
    with pytest.raises(ConfigurationError, match="line 2: expected name=value") as caught:
        read_kafka_config(path)
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="No such file"):
        read_kafka_config(tmp_path / "none")


async def deliver_to_nobody() -> int:
    producer = AsyncProducer({**producer_config(NOBODY), "message.timeout.ms": 100, "linger.ms": 0})
    with pytest.raises(DeliveryFailed):
        await producer.produce("topic", key=b"k", value=b"v")
    assert not await producer.answers(timeout_s=0.1)
    with pytest.raises(DeliveryFailed):
        producer.produce("topic", key=None, value=b"x" * (8 << 20))
    return await producer.close(timeout_s=1)


def test_what_no_broker_acknowledged_was_not_delivered() -> None:
    assert asyncio.run(deliver_to_nobody()) == 0


def test_the_producer_waits_for_all_replicas_and_places_keys_as_java_does() -> None:
    config = producer_config(NOBODY, {"security.protocol": "SSL"})
    assert config["acks"] == "all"
    assert config["enable.idempotence"] is True
    assert config["partitioner"] == "murmur2_random"
    assert config["security.protocol"] == "SSL"
