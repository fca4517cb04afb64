"""Settings come from the environment alone, and a wrong one is named in one line that repeats no value."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from taskbridge.edge.settings import EdgeSettings
from taskbridge.runtime.settings import load_settings
from taskbridge.schemas.errors import ConfigurationError

REQUIRED = {
    "EDGE_KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
    "EDGE_SCHEMA_REGISTRY_URL": "http://registry:8081",
    "EDGE_CREDENTIALS_FILE": "/etc/taskbridge/credentials.toml",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)


def test_defaults_are_the_contracts() -> None:
    settings = load_settings(EdgeSettings, os.environ)
    assert (settings.host, settings.port) == ("127.0.0.1", 8400)
    assert (settings.max_body_bytes, settings.spool_max_bytes) == (1 << 20, 1 << 30)
    assert settings.kafka_timeout_ms == 1000
    assert settings.quarantine_max_bytes_per_day == 256 << 20
    assert settings.replay_window_entries == 1 << 20
    assert (settings.bearer_tokens, settings.delete_extra_keys, settings.kafka_config_file) == ((), frozenset(), None)


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_BEARER_TOKENS", "s3cret, two")
    monkeypatch.setenv("EDGE_DELETE_EXTRA_KEYS", "taskId,actualWorkId,")
    monkeypatch.setenv("EDGE_KAFKA_CONFIG_FILE", "")
    monkeypatch.setenv("EDGE_DATA_DIR", "/var/lib/taskbridge")
    settings = load_settings(EdgeSettings, os.environ)
    assert [token.get_secret_value() for token in settings.bearer_tokens] == ["s3cret", "two"]
    assert settings.delete_extra_keys == {"taskId", "actualWorkId"}
    assert settings.kafka_config_file is None
    assert settings.data_dir == Path("/var/lib/taskbridge")
    assert "s3cret" not in repr(settings)


def test_networks_are_cidrs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_SOURCE_NETWORKS", "192.0.2.0/24, 2001:db8::/32,198.51.100.7")
    monkeypatch.setenv("EDGE_TRUSTED_PROXIES", "")
    settings = load_settings(EdgeSettings, os.environ)
    assert list(map(str, settings.source_networks)) == ["192.0.2.0/24", "2001:db8::/32", "198.51.100.7/32"]
    assert settings.trusted_proxies == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"EDGE_OPERATOR_PORT": "8400"}, "EDGE_OPERATOR_PORT: .*must differ from EDGE_PORT"),
        ({"EDGE_OPERATOR_HOST": "192.0.2.1"}, "EDGE_OPERATOR_HOST: .*requires EDGE_OPERATOR_PORT"),
    ],
)
def test_an_operators_address_that_would_not_be_one_of_its_own_is_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_settings(EdgeSettings, os.environ | given)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EDGE_BEARER_TOKENS", ""),
        ("EDGE_BEARER_TOKENS", "s3cret,"),
        ("EDGE_BEARER_TOKENS", "s3cret, ,two"),
        ("EDGE_PORT", "s3cret"),
        ("EDGE_PORT", "70000"),
        ("EDGE_MAX_BODY_BYTES", "4000000"),
        ("EDGE_KAFKA_TIMEOUT_MS", "0"),
        ("EDGE_LOG_FORMAT", "xml"),
        ("EDGE_QUARANTINE_MAX_BYTES_PER_DAY", "-1"),
        ("EDGE_REPLAY_WINDOW_ENTRIES", "1"),
        ("EDGE_SCHEMA_REGISTRY_URL", "registry:8081"),
        ("EDGE_KAFKA_BOOTSTRAP_SERVERS", ""),
        ("EDGE_SOURCE_NETWORKS", ""),
        ("EDGE_SOURCE_NETWORKS", "10.0.0.0/8,"),
        ("EDGE_SOURCE_NETWORKS", "s3cret"),
        ("EDGE_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("EDGE_MAX_CONNECTIONS", "0"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"^{name}: ") as caught:
        load_settings(EdgeSettings, os.environ)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
