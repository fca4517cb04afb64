"""Settings that are missing or wrong are named in one line, without their values."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel

from taskbridge.center.live.hub import Hub
from taskbridge.center.settings import CenterSettings
from taskbridge.edge import quarantine
from taskbridge.edge.server import protocol
from taskbridge.runtime.access import on_loopback
from taskbridge.runtime.settings import FileBroken, ReloadedFile, load_settings, parse_toml
from taskbridge.runtime.topic_admin import partitions_setting
from taskbridge.schemas.errors import ConfigurationError
from taskbridge.streams import worker
from taskbridge.streams.settings import StreamsSettings

if TYPE_CHECKING:
    from pathlib import Path

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
    ("name", "says"),
    [
        ("STREAMS_STANDBY", "STREAMS_STANDBY: no such setting (nearest: STREAMS_STANDBYS)"),
        ("STREAMS_data_dirs", "STREAMS_DATA_DIRS: no such setting (nearest: STREAMS_DATA_DIR)"),
        ("STREAMS_XYZ", "STREAMS_XYZ: no such setting"),
    ],
)
def test_a_name_that_is_misspelled_is_an_error(name: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(StreamsSettings, {**GIVEN, name: "secret"})
    assert str(caught.value) == says


def test_a_setting_of_an_earlier_release_is_an_error_that_says_what_replaced_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(StreamsSettings, {**GIVEN, "STREAMS_RESTORE_BUFFER_BYTES": "1"})
    assert str(caught.value) == "STREAMS_RESTORE_BUFFER_BYTES is no longer a setting: it is 64 MiB. Remove it"


def test_what_an_error_says_of_a_constant_is_so() -> None:
    constants = quarantine.MAX_PER_MINUTE, protocol.HEAD_S, worker.WATCHDOG_S, Hub.most_of_person
    assert constants == (600, 10.0, 120.0, 32)


def test_a_setting_that_is_missing_because_it_is_misspelled_is_named_next_to_its_nearest() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(StreamsSettings, {**GIVEN, "STREAMS_SCHEMA_REGISTRY_URI": "", "STREAMS_SCHEMA_REGISTRY_URL": ""})
    assert "STREAMS_SCHEMA_REGISTRY_URI: no such setting (nearest: STREAMS_SCHEMA_REGISTRY_URL)" in str(caught.value)


def test_a_setting_of_an_extension_that_is_not_installed_is_an_error_that_says_so() -> None:
    with pytest.raises(ConfigurationError, match=r"CENTER_APPS_FILE: .* of an extension that is not installed"):
        load_settings(CenterSettings, {"CENTER_APPS_FILE": "apps.toml"})


def test_what_kubernetes_adds_for_services_of_these_names_is_no_setting() -> None:
    """As in its documentation of environment variables of services, for "streams" and "streams-db"."""
    added = {
        "STREAMS_SERVICE_HOST": "10.0.0.11",
        "STREAMS_SERVICE_PORT": "8510",
        "STREAMS_SERVICE_PORT_HTTP": "8510",
        "STREAMS_PORT": "tcp://10.0.0.11:8510",
        "STREAMS_PORT_8510_TCP": "tcp://10.0.0.11:8510",
        "STREAMS_PORT_8510_TCP_PROTO": "tcp",
        "STREAMS_PORT_8510_TCP_PORT": "8510",
        "STREAMS_PORT_8510_TCP_ADDR": "10.0.0.11",
        "STREAMS_DB_SERVICE_HOST": "10.0.0.12",
        "STREAMS_DB_SERVICE_PORT": "5432",
        "STREAMS_DB_PORT": "tcp://10.0.0.12:5432",
        "STREAMS_DB_PORT_5432_TCP_ADDR": "10.0.0.12",
    }
    assert load_settings(StreamsSettings, {**GIVEN, **added}) == load_settings(StreamsSettings, GIVEN)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("a.example", False)],  # noqa: S104
)
def test_loopback_is_recognised(host: str, loopback: bool) -> None:  # noqa: FBT001
    assert on_loopback(host) is loopback


@pytest.mark.parametrize("text", ["0", "x", "-1", "1.5", ""])
def test_partitions_must_be_a_number(text: str) -> None:
    with pytest.raises(ConfigurationError, match="TASKBRIDGE_PARTITIONS"):
        partitions_setting({"TASKBRIDGE_PARTITIONS": text})


@dataclass
class Words:
    words: list[str]

    @property
    def count(self) -> int:
        return len(self.words)


class Text(ReloadedFile[Words]):
    title = "text file"
    log_events = "words_reloaded", "words_broken"

    def parse(self, text: str) -> Words:
        return Words(text.split())


class Numbers(BaseModel):
    numbers: tuple[int, ...]


async def test_changes_are_loaded_until_the_watch_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskbridge.runtime.settings.POLL_S", 0)
    path = tmp_path / "text"
    path.write_text("one")
    file = Text(path)
    watching = asyncio.create_task(file.watch())
    path.write_text("another")
    async with asyncio.timeout(60):
        while file.current.words == ["one"]:  # noqa: ASYNC110 - a file has no event for it
            await asyncio.sleep(0)
    watching.cancel()
    assert file.current.words == ["another"]


@pytest.mark.parametrize("text", ["numbers = [", 'numbers = ["s3cret", "other"]', "a = " + "[" * 10_000])
def test_a_wrong_value_is_reported_in_one_line_without_it(text: str) -> None:
    with pytest.raises(FileBroken) as caught:
        parse_toml(text, Numbers)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
