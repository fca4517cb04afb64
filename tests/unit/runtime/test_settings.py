"""Settings that are missing or wrong are named in one line, without their values."""

from __future__ import annotations

import pytest

from taskbridge.runtime.settings import load_settings, partitions_setting
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.streams.settings import StreamsSettings

GIVEN = {"STREAMS_KAFKA_BOOTSTRAP_SERVERS": "kafka:9092", "STREAMS_SCHEMA_REGISTRY_URL": "http://registry:8081"}


def test_settings_come_from_the_prefix() -> None:
    settings = load_settings(StreamsSettings, {**GIVEN, "STREAMS_PORT": "8501", "EDGE_PORT": "1"})
    assert (settings.kafka_bootstrap_servers, settings.port) == ("kafka:9092", 8501)


def test_every_missing_or_wrong_variable_is_named() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(StreamsSettings, {"STREAMS_PORT": "secret"})
    message = str(caught.value)
    assert "STREAMS_KAFKA_BOOTSTRAP_SERVERS: is required" in message
    assert "STREAMS_SCHEMA_REGISTRY_URL: is required" in message
    assert "STREAMS_PORT: " in message
    assert "secret" not in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("a.example", False)],  # noqa: S104
)
def test_loopback_is_told_apart(host: str, loopback: bool) -> None:  # noqa: FBT001
    assert load_settings(StreamsSettings, {**GIVEN, "STREAMS_HOST": host}).on_loopback is loopback


@pytest.mark.parametrize("text", ["0", "x", "-1", "1.5", ""])
def test_partitions_must_be_a_number(text: str) -> None:
    with pytest.raises(ConfigurationError, match="TASKBRIDGE_PARTITIONS"):
        partitions_setting({"TASKBRIDGE_PARTITIONS": text})


def test_partitions_default_to_the_contracts() -> None:
    assert partitions_setting({}) == 12
