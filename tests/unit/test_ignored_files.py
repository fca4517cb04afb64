"""What the program writes where it is started, and what has secrets, is not committed by mistake."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from taskbridge.cli.data_folder import DEFAULT
from taskbridge.edge.settings import EdgeSettings
from taskbridge.reconcile.settings import ReconcileSettings
from taskbridge.streams.settings import StreamsSettings

ROOT = Path(__file__).parents[2]
FOLDERS = [
    DEFAULT,
    *(each.model_fields["data_dir"].default for each in (EdgeSettings, StreamsSettings, ReconcileSettings)),
]
SECRETS = ["apps.toml", "credentials.toml", "tokens.toml"]


@pytest.mark.parametrize("name", [*(f"{each}/credentials.toml" for each in FOLDERS), *SECRETS])
def test_git_ignores_it(name: str) -> None:
    done = subprocess.run(["git", "check-ignore", "--no-index", name], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, f"{name} would be committed"
