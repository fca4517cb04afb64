"""Operators see when each token was last used, or that it is unknown; tokens are never shown. New ones are valid."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from taskbridge.center.reminders.file import RemindersFile
from taskbridge.cli.program import app
from taskbridge.edge.verification.credentials import CredentialsFile, TokenUse, parse_credentials
from taskbridge.runtime.tokens import parse_tokens

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    (tmp_path / "app2").write_text("s3cret-3\n")
    path = tmp_path / "credentials.toml"
    path.write_text(
        '[[apps]]\napp_type = "APP_1"\nsystem_tokens = ["s3cret-1", "s3cret-2"]\n'
        '[[apps]]\napp_type = "APP_2"\nsystem_token_files = ["app2"]\n'
    )
    return path


def test_each_token_is_one_line_with_its_last_use(credentials: Path, tmp_path: Path) -> None:
    use = TokenUse(tmp_path)
    use.note(CredentialsFile(credentials).current.tokens[1])
    use.flush()
    arguments = ["tokens", "--credentials", str(credentials), "--data-dir", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    first, second, third = result.output.splitlines()
    assert first.startswith("APP_1  ")
    assert "apps.0.system_tokens.0  never used since 20" in first
    assert "apps.0.system_tokens.1  last used 20" in second
    assert "app2  never used since 20" in third
    assert "s3cret" not in result.output
    found = [json.loads(line) for line in CliRunner().invoke(app, [*arguments, "--json"]).output.splitlines()]
    assert [each["app_type"] for each in found] == ["APP_1", "APP_1", "APP_2"]
    assert [each["last_used"] is None for each in found] == [True, False, True]
    assert all(each["recorded_since"].endswith("Z") and len(each["token"]) == 8 for each in found)


def test_a_file_without_tokens_is_reported(tmp_path: Path) -> None:
    TokenUse(tmp_path).flush()
    (tmp_path / "credentials.toml").write_text("")
    result = CliRunner().invoke(app, ["tokens", "--data-dir", str(tmp_path)])
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"{tmp_path}/credentials.toml has no system token\n"


def test_a_new_token_is_valid_with_the_printed_entry() -> None:
    run = CliRunner().invoke(app, ["token", "new", 'the "portal"', "--corps", "ding1, ding2"])
    assert run.exit_code == 0
    token, _, entry = run.stdout.partition("\n")
    found = parse_tokens(entry).find(token)
    assert found is not None
    assert (found.name, found.corps) == ('the "portal"', ("ding1", "ding2"))
    assert token not in entry


def test_the_key_for_push_messages_is_in_a_file_of_its_own(tmp_path: Path) -> None:
    key, reminders = tmp_path / 'a "key".pem', tmp_path / "reminders.toml"
    arguments = ["token", "push", str(key), "--subject", "mailto:it@company.example"]
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 0
    reminders.write_text(run.stdout)
    found = RemindersFile(reminders).current.push_key
    assert found is not None
    assert key.stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in run.output
    # A key that is in use is not replaced.
    before = key.read_text()
    assert CliRunner().invoke(app, arguments).exit_code == 1
    assert key.read_text() == before
    assert CliRunner().invoke(app, [*arguments[:-1], "it@company.example"]).exit_code == 2
    again = CliRunner().invoke(app, ["token", "push", str(tmp_path / "2.pem"), *arguments[3:], "--json"])
    assert len(json.loads(again.stdout)["public_key"]) == 87


def test_a_new_secret_is_valid_with_the_printed_entry() -> None:
    run = CliRunner().invoke(app, ["token", "source", "flow-2", "--corp", "ding1"])
    assert run.exit_code == 0
    secret, _, entry = run.stdout.partition("\n")
    source = parse_credentials(entry).source("flow-2")
    assert source is not None
    assert (source.corp_id, [each.secret.get_secret_value() for each in source.tokens]) == ("ding1", [secret])
    found = json.loads(CliRunner().invoke(app, ["token", "source", "flow-2", "--corp", "ding1", "--json"]).stdout)
    assert (found["name"], found["corp_id"]) == ("flow-2", "ding1")
    assert found["secret"] not in ("", secret)
