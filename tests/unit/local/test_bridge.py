"""The bridge checks its files before it starts anything, and its services and files while it runs."""

from __future__ import annotations

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from support.receivers import running
from taskbridge.local.bridge import Bridge, BridgeOptions, is_center_up, probe
from taskbridge.local.host import free_ports
from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from taskbridge.local.jvm import Endpoints


@contextmanager
def answering(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Generator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - the overridden signature

    with running(HTTPServer(("127.0.0.1", 0), Answer)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def test_a_service_is_up_once_it_is_ready() -> None:
    for status, ready in ((200, True), (503, False)):
        with answering(status, b"{}") as url:
            assert probe(url, lambda answer: answer.is_success)() is ready
    assert not probe("http://127.0.0.1:9", lambda answer: answer.is_success)()


@pytest.mark.parametrize(
    ("status", "said", "is_up"),
    [
        (503, {"lists": {"complete": False, "filled": 0.4}}, True),
        (503, {"lists": {"complete": False, "filled": 0.0}}, False),
        (503, {"lists": {"complete": True, "filled": 1.0}}, False),
        (503, {"ready": False}, False),
        (503, [], False),
        (200, {"ready": True}, True),
    ],
)
def test_a_task_center_that_reads_the_topics_is_up(status: int, said: object, is_up: bool) -> None:  # noqa: FBT001
    with answering(status, json.dumps(said).encode()) as url:
        assert probe(url, is_center_up)() is is_up


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "http://127.0.0.1:2"),
        ({"EDGE_OPERATOR_PORT": "9100"}, "http://127.0.0.1:9100"),
        ({"EDGE_OPERATOR_PORT": "9100", "EDGE_OPERATOR_HOST": "0.0.0.0"}, "http://127.0.0.1:9100"),  # noqa: S104
        ({"EDGE_OPERATOR_PORT": "9100", "EDGE_OPERATOR_HOST": "10.0.0.5"}, "http://10.0.0.5:9100"),
    ],
)
def test_details_are_requested_at_the_operator_address(tmp_path: Path, given: dict[str, str], url: str) -> None:
    options = BridgeOptions(
        data_dir=tmp_path, edge_port=2, center_port=3, streams_port=4, kafka_port=5, registry_port=6
    )
    assert Bridge(options, progress=lambda _: None, environment=given).operator_urls == {"edge": url}


def test_each_of_several_edges_has_an_operator_address_of_its_own(tmp_path: Path) -> None:
    options = BridgeOptions(
        data_dir=tmp_path, edge_port=2, center_port=6, streams_port=7, kafka_port=8, registry_port=9, edges=2
    )
    for given, ports in (({}, (3, 4)), ({"EDGE_OPERATOR_PORT": "9100"}, (9100, 9101))):
        bridge = Bridge(options, progress=lambda _: None, environment=given)
        assert bridge.operator_urls == {
            "edge": f"http://127.0.0.1:{ports[0]}",
            "edge-2": f"http://127.0.0.1:{ports[1]}",
        }


class Starts(ConfigurationError):
    """What comes after the files was begun."""


class FakeStack:
    description = "nothing"

    def __init__(self, *_: object, **__: object) -> None: ...

    def start(self) -> Endpoints:
        raise Starts

    def stop(self) -> None: ...


def started(monkeypatch: pytest.MonkeyPatch, data_dir: Path, environment: Mapping[str, str]) -> tuple[str, list[str]]:
    """What ``up`` ends with where no Kafka starts, and what it says before."""
    monkeypatch.setattr("taskbridge.local.bridge.choose_stack", FakeStack)
    names = ("edge_port", "center_port", "streams_port", "kafka_port", "registry_port")
    *numbers, webhooks_port = free_ports(6)
    webhooks = data_dir / "endpoints.toml"
    options = BridgeOptions(
        data_dir=data_dir, webhooks=webhooks if webhooks.exists() else None, **dict(zip(names, numbers, strict=True))
    )
    environment = {"WEBHOOKS_PORT": str(webhooks_port), **environment}
    lines: list[str] = []
    bridge = Bridge(options, progress=lines.append, environment=environment)
    try:
        with pytest.raises(ConfigurationError) as caught:
            bridge.start()
    finally:
        bridge.stop()
    return str(caught.value) or type(caught.value).__name__, lines


@pytest.mark.parametrize(
    ("variable", "text", "says"),
    [
        (
            "credentials.toml",
            '[[apps]]\napp_type = "A"\nsystem_tokens = ["x"\n',
            "credentials file {}: not TOML: ",
        ),
        ("endpoints.toml", "[[endpoints]]\n", "endpoints file {}: endpoints.0.name: Field required"),
        ("CENTER_API_TOKENS_FILE", "[[tokens]]\n", "API tokens file {}: tokens.0.name: Field required"),
        ("CENTER_REMINDERS_FILE", "[[rules]]\n", "reminders file {}: rules.0.hours: Field required"),
        ("CENTER_APPS_FILE", "[[app]]\n", "apps file {}: corps: Field required; app: no such key"),
        ("EDGE_KAFKA_CONFIG_FILE", "one", "Kafka config file {}, line 1: expected name=value"),
        ("STREAMS_KAFKA_CONFIG_FILE", "one", "Kafka config file {}, line 1: expected name=value"),
        ("CENTER_KAFKA_CONFIG_FILE", "one", "Kafka config file {}, line 1: expected name=value"),
    ],
)
def test_files_are_checked_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, text: str, says: str
) -> None:
    path = tmp_path / variable
    path.write_text(text)
    said, lines = started(monkeypatch, tmp_path, {variable: str(path)})
    assert said.startswith(says.format(path))
    assert said.endswith(": correct it and start again")
    assert lines == [] or "example" in lines[0]


def test_settings_are_checked_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in ("STREAMS_STANDBYS", "CENTER_EVENT_STREAMS", "CENTER_EVENT_STREAM", "EDGE_SOURCE_NETWORK"):
        said, _ = started(monkeypatch, tmp_path, {setting: "many"})
        assert said.startswith(f"{setting}: ")
    for setting, value in (
        ("CENTER_HOST", "0.0.0.0"),  # noqa: S104
        ("CENTER_OIDC_ISSUER", "https://id.example"),
        ("CENTER_ALLOWED_ORIGINS", "portal"),
        ("CENTER_DATABASE_URL", "mysql://a"),
    ):
        said, _ = started(monkeypatch, tmp_path, {setting: value})
        assert said.startswith(setting)


def test_without_an_app_up_starts_and_says_where_to_add_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "credentials.toml"
    path.touch()
    said, lines = started(monkeypatch, tmp_path, {})
    assert said == "Starts"
    assert lines[0].startswith(f"no app is configured, so the edge rejects every callback: add your apps to {path}")
