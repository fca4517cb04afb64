"""`reconcile status` reads local data only; errors are one line, without secrets."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from taskbridge.cli import reconcile_runs
from taskbridge.cli.options import moment_of
from taskbridge.cli.program import app, main
from taskbridge.dingtalk.times import DAY_MS, day_start_ms
from taskbridge.local.fake_dingtalk import Company, FakeDingTalk, served
from taskbridge.reconcile.repairs import deletion
from taskbridge.reconcile.store import Cursor, CursorKey, Store, open_database
from taskbridge.runtime.clock import SystemClock
from taskbridge.runtime.settings import POLL_S

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Mapping
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


@pytest.fixture
def listed(given: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[FakeDingTalk]:
    """A DingTalk that lists APP_1 and APP_2, and a corp token."""
    apps = tmp_path / "apps.toml"
    assert given["RECONCILE_APPS_FILE"] == str(apps)
    apps.write_text(APPS.replace("[[apps]]", 'corp_token = "fake-corp-token"\n[[apps]]'))
    (tmp_path / "credentials.toml").write_text("# mine\n")
    tokens = {"APP_1": TOKEN, "APP_2": "the-token-of-app-2"}
    fake = FakeDingTalk(Company(), SystemClock(), system_tokens=tokens, app_key="key-1", app_secret=SECRET)
    with served(fake.app) as url:
        monkeypatch.setenv("RECONCILE_API_URL", url)
        monkeypatch.setenv("RECONCILE_CREDENTIALS_FILE", str(tmp_path / "credentials.toml"))
        yield fake


def test_apps_are_synced_and_rejected_callbacks_are_replayed(
    listed: FakeDingTalk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replayed: list[list[str]] = []

    def replay(_connection: object, _credentials: object, _folder: object, app_types: Collection[str]) -> int:
        replayed.append(sorted(app_types))
        return 3

    monkeypatch.setattr(reconcile_runs, "replay_apps", replay)
    waited: list[float] = []

    async def sleep(_clock: SystemClock, seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(SystemClock, "sleep", sleep)
    planned = CliRunner().invoke(app, ["apps", "sync", "--dry-run"])
    assert planned.stdout == (
        "added              ding1  APP_1\nadded              ding1  APP_2\n"
        "2 apps in DingTalk, 2 differences (nothing was written)\n"
    )
    assert (tmp_path / "credentials.toml").read_text() == "# mine\n"
    done = CliRunner().invoke(app, ["apps", "sync", "--json"])
    changes = [{"corp_id": "ding1", "change": "added", "app_type": each, "name": None} for each in ("APP_1", "APP_2")]
    assert json.loads(done.stdout) == {"listed": 2, "changes": changes, "replayed": 3, "dry_run": False}
    del listed.system_tokens["APP_2"]
    again = CliRunner().invoke(app, ["apps", "sync"])
    assert again.stdout.splitlines()[0] == "absent             ding1  APP_2"
    assert replayed == [["APP_1", "APP_2"]]
    assert [each for each in waited if each >= 5 * POLL_S], "so long the edge may still refuse their callbacks"
    status = CliRunner().invoke(app, ["reconcile", "status"])
    assert "absent in DingTalk: APP_2" in status.stdout
    for each in (SECRET, TOKEN, "the-token-of-app-2", "fake-corp-token"):
        assert each not in planned.output + done.output + again.output + status.output


def test_a_corp_that_cannot_be_synced_stops_no_other(
    listed: FakeDingTalk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskbridge.reconcile.app._RELOADED_S", 0)
    right = (tmp_path / "apps.toml").read_text().partition("[[apps]]")[0]
    wrong = right.replace('"ding1"', '"ding0"').replace(SECRET, "a-wrong-secret")
    (tmp_path / "apps.toml").write_text(wrong + right)
    failed = CliRunner().invoke(app, ["apps", "sync"])
    assert (failed.exit_code, "ding0" in str(failed.exception)) == (1, True)
    assert listed.system_tokens["APP_1"] in (tmp_path / "credentials.toml").read_text()


@pytest.mark.usefixtures("listed")
def test_without_kafka_the_file_is_synced_and_the_replay_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskbridge.reconcile.app._RELOADED_S", 0)
    failed = CliRunner().invoke(app, ["apps", "sync"])
    assert failed.exit_code == 1
    assert "the credentials file is up to date, but" in str(failed.exception)
    assert "APP_2" in (tmp_path / "credentials.toml").read_text()
