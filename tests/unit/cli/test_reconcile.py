"""`reconcile status` reads local data only; errors are one line, without secrets."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from taskbridge.cli.connection import service_environment
from taskbridge.cli.data_folder import Running, data_folder
from taskbridge.cli.program import app, main
from taskbridge.cli.reconcile_runs import moment_of
from taskbridge.reconcile.repairs import deletion
from taskbridge.reconcile.store import Cursor, CursorKey, Store, open_database
from taskbridge.runtime.dingtalk.clock import DAY_MS, day_start_ms

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SECRET, TOKEN = "the-app-secret-of-ding1", "the-system-token-of-app-1"
NOW = 1_790_000_000_000
APPS = f"""
[[corps]]
corp_id = "ding1"
app_key = "key-1"
app_secret = "{SECRET}"
user_id = "manager"
[[apps]]
app_type = "APP_1"
system_token = "{TOKEN}"
"""


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """The environment that names a file of apps, and a data folder."""
    (tmp_path / "apps.toml").write_text(APPS)
    found = {
        "RECONCILE_APPS_FILE": str(tmp_path / "apps.toml"),
        "RECONCILE_DATA_DIR": str(tmp_path / "kept"),
        "RECONCILE_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "RECONCILE_SCHEMA_REGISTRY_URL": "http://127.0.0.1:9",
    }
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


def test_status_prints_the_stored_data(given: Mapping[str, str], tmp_path: Path) -> None:
    store = Store(open_database(tmp_path / "kept"))
    lost = deletion("ding1", "APP_1", "I-1", first_absent_ms=NOW, received_at=NOW + DAY_MS)
    for _ in range(2):
        store.findings.record([lost], work="reconcile")
    store.cursors.move(CursorKey("reconcile", "ding1", "APP_1", "FORM-1"), Cursor(NOW - DAY_MS, NOW))
    store.absences.record("ding1", "APP_1", "I-2", now_ms=NOW)
    store.findings.pass_ended(now_ms=NOW, is_whole=True)
    store.findings.pass_ended(now_ms=NOW + DAY_MS, is_whole=False)
    told = CliRunner().invoke(app, ["reconcile", "status", "--json"], env=given)
    found = json.loads(told.stdout)
    assert (found["last_whole_pass_at"], found["last_pass_at"]) == (
        "2026-09-21T14:13:20.000Z",
        "2026-09-22T14:13:20.000Z",
    )
    [missing] = found["found"]
    assert (missing["app_type"], missing["day"], missing["kind"], missing["missing"], missing["events"]) == (
        *("APP_1", "2026-09-21", "deletion", True),
        1,
    )
    assert [each["read_until"] for each in found["forms"]] == ["2026-09-21T14:13:20.000Z"]
    assert [each["instance_id"] for each in found["absences"]] == ["I-2"]
    assert [each["left_today"] for each in found["calls"]] == [250]
    lines = CliRunner().invoke(app, ["reconcile", "status"], env=given).output
    assert "APP_1       1 missing  deletion (reconcile)" in lines
    for each in (SECRET, TOKEN):
        assert each not in told.output + lines


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["reconcile", "run"], "registry"),
        (["backfill", "--app", "APP_1", "--since", "2026-09-01"], "registry"),
        (
            ["backfill", "--app", "APP_1", "--since", "lately"],
            "--since lately is not a day or time: write it as 2026-09-01",
        ),
    ],
)
def test_errors_are_one_line_without_secrets(
    given: Mapping[str, str], arguments: list[str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert given
    monkeypatch.setattr(sys, "argv", ["taskbridge", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    told = str(ended.value.code)
    assert line in told
    assert "\n" not in told
    for each in (SECRET, TOKEN):
        assert each not in told


def test_a_day_is_in_china_time_and_a_time_keeps_its_zone() -> None:
    assert moment_of("2026-09-01") == day_start_ms("2026-09-01")
    assert moment_of("2026-09-01T00:00:00Z") == day_start_ms("2026-09-01") + 8 * 3_600_000


def test_kafka_defaults_to_that_of_all_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKBRIDGE_KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    monkeypatch.delenv("RECONCILE_KAFKA_BOOTSTRAP_SERVERS", raising=False)
    name = "RECONCILE_KAFKA_BOOTSTRAP_SERVERS"
    assert service_environment("RECONCILE")[name] == "kafka:9092"
    monkeypatch.setenv(name, "own:9092")
    assert service_environment("RECONCILE")[name] == "own:9092"
    assert service_environment("RECONCILE", "flag:9092")[name] == "flag:9092"


def test_the_bridge_of_a_data_folder_overrides_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RECONCILE_KAFKA_BOOTSTRAP_SERVERS", "own:9092")
    folder = data_folder(tmp_path)
    with folder.occupy():
        folder.announce(Running("bridge:9092", "http://bridge:8081", "http://edge", "http://s", "http://c", "c.toml"))
        found = service_environment("RECONCILE", data_dir=tmp_path)
    assert found["RECONCILE_KAFKA_BOOTSTRAP_SERVERS"] == "bridge:9092"
    assert found["RECONCILE_SCHEMA_REGISTRY_URL"] == "http://bridge:8081"
