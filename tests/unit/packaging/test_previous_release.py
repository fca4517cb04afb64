"""The release that upgrades are tried from is in this repository's history, and a clone without it says what to do."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from support import needs
from support.wheels import PYPROJECT, ROOT, previous_release

if TYPE_CHECKING:
    from pathlib import Path


def test_the_previous_release_came_before_this_one() -> None:
    commit = PYPROJECT["tool"]["taskbridge"]["previous-release"]
    command = [needs.program("git"), "merge-base", "--is-ancestor", commit, "HEAD"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"{commit} is not in the history of this clone: git fetch --unshallow\n{found.stderr}"


def test_a_clone_without_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKBRIDGE_UPGRADE_FROM", "0" * 40)
    with pytest.raises(pytest.fail.Exception, match=r"is not in this clone .*: git fetch --unshallow"):
        previous_release(tmp_path)
