"""Upgrades are tested from releases before this one; a clone without them says what to do."""

from __future__ import annotations

import subprocess

import pytest

from support import needs, releases
from support.wheels import PYPROJECT, ROOT, commit_of, git

FROM = "TASKBRIDGE_UPGRADE_FROM"


@pytest.mark.parametrize("release", PYPROJECT["tool"]["taskbridge"])
def test_the_previous_release_came_before_this_one(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FROM, raising=False)
    commit = commit_of(release)
    command = [needs.program("git"), "merge-base", "--is-ancestor", commit, "HEAD"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0, f"{commit} is not before this one"


def test_the_release_whose_artifacts_are_upgraded_has_a_chart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FROM, raising=False)
    assert git("ls-tree", "--name-only", releases.last_release(), "deploy/chart") == "deploy/chart"


def test_another_release_may_be_given_by_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    commit = releases.last_release()
    monkeypatch.setenv(FROM, commit[:12])
    assert commit_of("previous-release") == releases.last_release() == commit


@pytest.mark.parametrize(("given", "problem"), [("HEAD", "is the commit that is checked out"), ("0" * 40, "unshallow")])
def test_no_release_is_upgraded_to_itself_or_from_a_commit_that_is_not_here(
    given: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FROM, given)
    with pytest.raises(pytest.fail.Exception, match=problem):
        releases.last_release()
