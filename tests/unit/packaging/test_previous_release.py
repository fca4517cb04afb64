"""The release that upgrades are tried from is in this repository's history, and a clone without it says what to do."""

from __future__ import annotations

import subprocess

from support import needs
from support.wheels import PYPROJECT, ROOT


def test_the_previous_release_came_before_this_one() -> None:
    commit = PYPROJECT["tool"]["taskbridge"]["previous-release"]
    command = [needs.program("git"), "merge-base", "--is-ancestor", commit, "HEAD"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"{commit} is not in the history of this clone: git fetch --unshallow\n{found.stderr}"
