"""Operators see which token still signs; where that is not known they are told so, and no token is ever shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from taskbridge.cli.program import app
from taskbridge.cli.tokens import report_tokens
from taskbridge.edge.verification.credentials import CredentialsFile
from taskbridge.edge.verification.token_use import TokenUse, UseUnknown, tidy_use

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
    tidy_use(tmp_path)
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


def test_a_file_without_tokens_is_said_to_be_one(tmp_path: Path) -> None:
    tidy_use(tmp_path)
    (tmp_path / "credentials.toml").write_text("")
    result = CliRunner().invoke(app, ["tokens", "--data-dir", str(tmp_path)])
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"{tmp_path}/credentials.toml has no token\n"


def test_of_a_folder_without_a_record_nothing_is_said(credentials: Path, tmp_path: Path) -> None:
    with pytest.raises(UseUnknown):
        report_tokens(credentials, tmp_path)
