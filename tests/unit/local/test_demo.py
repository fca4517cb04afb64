"""The demo adds files to a folder, and changes none that is there."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from taskbridge.cli.program import main

if TYPE_CHECKING:
    from pathlib import Path

PRODUCTION = '[[apps]]\napp_type = "APP_REAL"\ncorp_id = "ding1"\nsystem_tokens = ["production-secret"]\n'


@pytest.mark.parametrize("option", ["--credentials", "--data-dir"])
def test_the_demo_ends_before_it_changes_a_credentials_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    path = tmp_path / "credentials.toml"
    path.write_text(PRODUCTION)
    given = path if option == "--credentials" else tmp_path
    monkeypatch.setattr(sys, "argv", ["taskbridge", "demo", option, str(given)])
    monkeypatch.setattr("taskbridge.local.bridge.choose_stack", None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == (
        f"taskbridge: {path} exists and has no app of the demo, which does not change it: choose another --credentials"
    )
    assert path.read_text() == PRODUCTION
    assert [each.name for each in tmp_path.iterdir()] == ["credentials.toml"]
