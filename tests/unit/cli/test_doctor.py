"""Environments with one fault each: the doctor names the fault, and says what to do."""

from __future__ import annotations

import json
import os
import socket
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

import pytest

from support.edge.fakes import CORP_ID, SYSTEM_TOKEN, write_credentials
from support.receivers import running
from taskbridge.cli import doctor_checks
from taskbridge.cli.doctor_checks import Examination, Finding, State
from taskbridge.runtime.standard_webhooks import new_secret
from taskbridge.runtime.topic_admin import TopicsUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping


NOBODY = "127.0.0.1:1"
APPS = """
[[corps]]
corp_id = "ding1"
app_key = "key"
app_secret = "secret"
user_id = "manager"

[[apps]]
app_type = "APP_1"
system_token = "token"
"""
KAFKA = doctor_checks.kafka


def of_service(prefix: str, folder: Path, **more: str) -> dict[str, str]:
    """A correct service without Kafka and registry."""
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": NOBODY,
        "SCHEMA_REGISTRY_URL": f"http://{NOBODY}",
        "DATA_DIR": str(folder / prefix.lower()),
        "PORT": "0",
    }
    return {f"{prefix}_{name}": value for name, value in (settings | more).items()}


@pytest.fixture
def environment(tmp_path: Path, disk_folder: Callable[[], Path]) -> dict[str, str]:
    credentials = tmp_path / "credentials.toml"
    write_credentials(credentials, SYSTEM_TOKEN)
    credentials.chmod(0o600)
    more = {"CREDENTIALS_FILE": str(credentials), "SPOOL_MAX_BYTES": "1000", "PORT": str(free_port())}
    return of_service("EDGE", disk_folder(), **more)


@pytest.fixture
def streams_environment(disk_folder: Callable[[], Path]) -> dict[str, str]:
    return of_service("STREAMS", disk_folder())


@pytest.fixture
def center_environment(disk_folder: Callable[[], Path]) -> dict[str, str]:
    return of_service("CENTER", disk_folder())


@pytest.fixture
def webhooks_environment(disk_folder: Callable[[], Path], tmp_path: Path) -> dict[str, str]:
    file = str(tmp_path / "endpoints.toml")
    return of_service("WEBHOOKS", disk_folder(), ENDPOINTS_FILE=file, ALLOWED_NETWORKS="127.0.0.0/8")


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


@pytest.fixture(autouse=True)
def _a_quick_machine(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    """Kafka's absence is known at once."""

    def away(*_: object, **__: object) -> Never:
        raise TopicsUnavailable("away")

    monkeypatch.setattr(doctor_checks, "kafka", away)


def before_kafka(environment: Mapping[str, str]) -> list[Finding]:
    """The findings before the check of Kafka."""
    return list(takewhile(lambda each: each.check not in ("kafka", "service"), Examination(environment).findings()))


def wrong(environment: Mapping[str, str]) -> Finding:
    """The only finding that is not ok."""
    others = [each for each in before_kafka(environment) if each.state is not State.OK]
    assert len(others) == 1, others
    assert others[0].do
    return others[0]


def test_an_edge_without_kafka_and_registry_reports_only_these(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_checks, "kafka", KAFKA)
    found = list(Examination(environment).findings())
    assert [(each.check, each.state) for each in found if each.state is not State.OK] == [
        ("kafka", State.FAILED),
        ("service", State.WARNING),
    ]
    assert f"Kafka at {NOBODY} does not answer (" in next(each.says for each in found if each.check == "kafka")


def test_an_invalid_setting_is_named(streams_environment: dict[str, str]) -> None:
    found = wrong(streams_environment | {"STREAMS_RETENTION_DAYS": "3"})
    assert found.check == "settings"
    assert found.says.startswith("STREAMS_RETENTION_DAYS: ")


def test_a_misspelled_setting_is_named_also_of_a_service_that_has_no_others(environment: dict[str, str]) -> None:
    first = next(Examination({**environment, "EDGE_SOURCE_NETWORK": "10.0.0.0/8"}).findings())
    assert first == doctor_checks.failed(
        "settings",
        "EDGE_SOURCE_NETWORK: no such setting (nearest: EDGE_SOURCE_NETWORKS)",
        "correct the setting; docs/reference/settings.md lists all",
    )
    for name, nearest in (
        ("CENTER_OPERATOR", "CENTER_OPERATORS"),
        ("CENTER_OIDC_ISUER", "CENTER_OIDC_ISSUER"),
        ("EDGE_KAFKA_BOOTSTRAP_SERVER", "EDGE_KAFKA_BOOTSTRAP_SERVERS"),
        ("RECONCILE_CALL_PER_DAY", "RECONCILE_CALLS_PER_DAY"),
        ("APPROVALS_APP_KEYS", "APPROVALS_APP_KEY"),
    ):
        found = [each.says for each in Examination({name: "a"}).findings() if each.check == "settings"]
        (line,) = found
        assert line.startswith(f"{name}: no such setting")
        assert line.endswith(f" (nearest: {nearest})")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"HOST": "0.0.0.0"}, "CENTER_HOST=0.0.0.0 is reachable from outside: "),  # noqa: S104
        ({"OIDC_ISSUER": "https://id.example"}, "CENTER_OIDC_ISSUER: set CENTER_OIDC_CLIENT_ID and "),
        ({"SSO_PROXIES": "10.0.0.1/32"}, "CENTER_SSO_PROXIES: set CENTER_SSO_CORP_HEADER or CENTER_CORP_ID"),
        ({"ALLOWED_ORIGINS": "portal"}, "CENTER_ALLOWED_ORIGINS has 'portal': give origins, as https://portal.example"),
        ({"DATABASE_URL": "mysql://a"}, "CENTER_DATABASE_URL must be postgresql://user:password@host:port/database"),
    ],
)
def test_settings_that_do_not_fit_together_are_reported(
    center_environment: dict[str, str], given: dict[str, str], says: str
) -> None:
    of_center = {f"CENTER_{name}": value for name, value in given.items()}
    first = next(Examination(center_environment | of_center).findings())
    assert (first.check, first.state) == ("settings", State.FAILED)
    assert first.says.startswith(says)


def test_settings_and_files_are_checked_without_any_other_service(
    environment: dict[str, str],
    center_environment: dict[str, str],
    webhooks_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    Path(webhooks_environment["WEBHOOKS_ENDPOINTS_FILE"]).write_text("[[endpoint]]\n")
    apps = tmp_path / "apps.toml"
    apps.write_text(APPS)
    reconcile = {
        "RECONCILE_KAFKA_BOOTSTRAP_SERVERS": NOBODY,
        "RECONCILE_SCHEMA_REGISTRY_URL": f"http://{NOBODY}",
        "RECONCILE_APPS_FILE": str(apps),
    }
    given = environment | center_environment | webhooks_environment | reconcile | {"STREAMS_PORT": "8510"}
    found = list(Examination(given).settings())
    assert [each.says for each in found if each.check == "settings"] == [
        "the settings of edge are valid",
        "STREAMS_KAFKA_BOOTSTRAP_SERVERS: is required; STREAMS_SCHEMA_REGISTRY_URL: is required",
        "the settings of center are valid",
        "the settings of webhooks are valid",
        "the settings of reconcile are valid",
    ]
    assert [each.says for each in found if each.check == "endpoints"] == [
        f"endpoints file {webhooks_environment['WEBHOOKS_ENDPOINTS_FILE']}: endpoint: no such key"
    ]
    assert {each.check for each in found} == {"settings", "credentials", "endpoints", "apps"}
    (none,) = Examination({}).settings()
    assert (none.state, none.says) == (State.FAILED, "no service has a setting in this environment")


def test_an_invalid_line_of_the_kafka_file_is_named(environment: dict[str, str], tmp_path: Path) -> None:
    config = tmp_path / "kafka.properties"
    config.write_text("security.protocol\n")
    found = wrong(environment | {"EDGE_KAFKA_CONFIG_FILE": str(config)})
    assert (found.check, found.says) == ("settings", f"Kafka config file {config}, line 1: expected name=value")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "No such file or directory"),
        ("[[apps", "not TOML"),
        ("[[apps]]\napp_type = 'A'\n", "apps.0"),
        ("", "has no apps"),
    ],
)
def test_unusable_credentials_are_reported(environment: dict[str, str], text: str | None, says: str) -> None:
    path = Path(environment["EDGE_CREDENTIALS_FILE"])
    path.unlink() if text is None else path.write_text(text)
    found = wrong(environment)
    assert (found.check, found.state) == ("credentials", State.FAILED)
    assert says in found.says


def test_credentials_readable_by_others_are_reported(environment: dict[str, str]) -> None:
    path = Path(environment["EDGE_CREDENTIALS_FILE"])
    path.chmod(0o644)
    found = wrong(environment)
    assert (found.check, found.state, found.do) == ("credentials", State.WARNING, f"chmod 600 {path}")


def test_a_secret_that_a_pod_reads_by_its_group_is_private(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(environment["EDGE_CREDENTIALS_FILE"])
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    path.chmod(0o444)
    assert wrong(environment).do == f"chmod 600 {path}"
    path.chmod(0o440)
    assert {each.state for each in before_kafka(environment)} == {State.OK}


@pytest.mark.parametrize("service", ["center", "webhooks"])
def test_unusable_api_tokens_are_reported(request: pytest.FixtureRequest, service: str, tmp_path: Path) -> None:
    (tmp_path / "tokens.toml").write_text("tokens = 3")
    (tmp_path / "endpoints.toml").touch(0o600)
    environment: dict[str, str] = request.getfixturevalue(f"{service}_environment")
    found = wrong(environment | {f"{service.upper()}_API_TOKENS_FILE": str(tmp_path / "tokens.toml")})
    assert (found.check, found.state) == ("tokens", State.FAILED)


ACTING = f'[[sources]]\nname = "erp"\ncorp_id = "c"\nsecrets = ["{new_secret()}"]\naction_url = "https://erp.example/"'


@pytest.mark.parametrize(
    ("setting", "texts", "says"),
    [
        ("CENTER_APPS_FILE", ("apps = 3", APPS), "file.toml: corps"),
        ("CENTER_CREDENTIALS_FILE", ("sources = []", ACTING), "no task can be decided"),
        ("CENTER_REMINDERS_FILE", ("rules = 3", "[[rules]]\nhours = 48"), "file.toml: rules"),
        ("CENTER_MCP_RULES_FILE", ("rules = 3", "rules = []"), "file.toml: rules"),
    ],
)
def test_unusable_files_of_a_center_are_reported(
    center_environment: dict[str, str], tmp_path: Path, setting: str, texts: tuple[str, str], says: str
) -> None:
    file = tmp_path / "file.toml"
    file.touch(0o600)
    file.write_text(texts[0])
    found = wrong(center_environment | {setting: str(file)})
    checks = {"CENTER_REMINDERS_FILE": "reminders", "CENTER_MCP_RULES_FILE": "assistants"}
    assert (found.check, says in found.says) == (checks.get(setting, "decisions"), True)
    file.write_text(texts[1])
    assert {each.state for each in before_kafka(center_environment | {setting: str(file)})} == {State.OK}


def test_a_folder_without_space_for_the_spool_is_reported(environment: dict[str, str]) -> None:
    found = wrong(environment | {"EDGE_SPOOL_MAX_BYTES": str(1 << 50)})
    assert (found.check, found.state) == ("space", State.FAILED)


def test_a_read_only_folder_is_reported(environment: dict[str, str], disk_folder: Callable[[], Path]) -> None:
    file = disk_folder() / "a-file"
    file.touch()
    found = wrong(environment | {"EDGE_DATA_DIR": str(file / "edge")})
    assert (found.check, found.state) == ("writable", State.FAILED)


@pytest.mark.parametrize(
    ("seconds", "state"), [(0, State.OK), (20, State.WARNING), (120, State.FAILED), (-120, State.FAILED)]
)
def test_clock_skew_is_reported(seconds: int, state: State) -> None:
    with answering({"/": {}}, ahead_s=seconds) as url:
        (found,) = doctor_checks.clock(url)
    assert (found.check, found.state) == ("clock", state)


def test_unusable_endpoints_are_reported(webhooks_environment: dict[str, str]) -> None:
    path = Path(webhooks_environment["WEBHOOKS_ENDPOINTS_FILE"])
    path.write_text("endpoints = 3")
    found = wrong(webhooks_environment)
    assert (found.check, found.state) == ("endpoints", State.FAILED)
    path.write_text("")
    path.chmod(0o644)
    found = wrong(webhooks_environment)
    assert (found.check, found.state, found.do) == ("endpoints", State.WARNING, f"chmod 600 {path}")


@pytest.mark.parametrize(
    ("said", "state", "words"),
    [
        ({"ready": True, "spool": "ok"}, State.OK, "is ready"),
        ({"ready": True, "degraded": True, "kafka": "no answer"}, State.WARNING, "kafka: no answer"),
        ({"ready": False, "tables": "restoring"}, State.FAILED, "tables: restoring"),
        (["something else"], State.FAILED, "no edge answers"),
    ],
)
def test_the_readiness_of_a_service_is_reported(said: Any, state: State, words: str) -> None:
    with answering({"/readyz": said}) as url:
        (found,) = doctor_checks.readiness("edge", url)
    assert (found.check, found.state) == ("service", state)
    assert words in found.says


def test_a_service_that_does_not_run_is_reported() -> None:
    (found,) = doctor_checks.readiness("edge", f"http://{NOBODY}")
    assert (found.check, found.state) == ("service", State.FAILED)


def test_an_event_stream_that_does_not_open_is_reported(environment: dict[str, str]) -> None:
    credentials = Path(environment["EDGE_CREDENTIALS_FILE"])
    with answering({}) as url:
        for center_url, says in ((f"http://{NOBODY}", "cannot read the event stream"), (url, "answered 404")):
            examination = Examination({}, urls={"edge": url, "center": center_url}, credentials=credentials)
            *_, found = examination.findings(end_to_end=True)
            assert (found.check, found.state) == ("end-to-end", State.FAILED)
            assert says in found.says
            assert found.do


@pytest.mark.parametrize(("given", "sent"), [({}, None), ({"EDGE_BEARER_TOKENS": " one , two"}, "Bearer one")])
def test_the_test_task_has_the_first_bearer_token_of_the_edge(
    environment: dict[str, str], given: dict[str, str], sent: str | None
) -> None:
    requests: list[str] = []
    events = f"/v1/corps/{CORP_ID}/users/taskbridge-doctor/events"
    with answering({events: {}}) as center, answering({}, requests=requests) as edge:
        credentials = Path(environment["EDGE_CREDENTIALS_FILE"])
        examination = Examination(given, urls={"edge": edge, "center": center}, credentials=credentials)
        *_, found = examination.findings(end_to_end=True)
    assert found.says.startswith("the edge answered 404")
    assert f"Authorization: {sent}" in requests


def test_a_missing_credentials_file_is_reported(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    with answering({}) as url:
        examination = Examination({}, urls={"edge": url, "center": url}, credentials=missing)
        *_, found = examination.findings(end_to_end=True)
    assert (found.check, found.state) == ("end-to-end", State.FAILED)
    assert found.says == f"credentials file {missing}: No such file or directory"
    assert "--credentials" in found.do


def test_unreachable_brokers_are_reported() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        there = server.getsockname()
        found = list(doctor_checks.brokers([there, there, ("127.0.0.1", 1)]))
    assert [each.state for each in found] == [State.FAILED, State.OK]
    assert "cannot reach the broker that Kafka advertises as 127.0.0.1:1" in found[0].says
    assert "advertised.listeners" in found[0].do


@contextmanager
def answering(
    pages: Mapping[str, Any],
    *,
    ahead_s: float = 0,
    requests: list[str] | None = None,
) -> Generator[str]:
    """Something that answers these with JSON, all else with 404, and whose clock is ahead."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if requests is not None:
                requests.append(f"{self.command} {self.path}")
            body = json.dumps(pages.get(self.path, {})).encode()
            self.send_response_only(200 if self.path in pages else 404)
            self.send_header("Date", format_datetime(datetime.now(UTC) + timedelta(seconds=ahead_s), usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if requests is not None:
                requests.append(f"Authorization: {self.headers['Authorization']}")
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            del format, args

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_address[1]}"
