"""The sources of a release: the files of one commit, without anything else that lies in the checkout."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from native import PATH, UV

__all__ = ["PATH", "ROOT", "UV", "Source", "export"]

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Source:
    tree: Path
    commit: str
    time: int
    """Of the commit, in seconds: the only time that an artifact names."""

    @property
    def pyproject(self) -> dict[str, Any]:
        return tomllib.loads((self.tree / "pyproject.toml").read_text("utf-8"))

    @property
    def version(self) -> str:
        return self.pyproject["project"]["version"]

    @property
    def name(self) -> str:
        """Of each file that is not a Python package."""
        return f"taskbridge-{self.version}"

    def run(self, *command: str | Path, folder: Path | None = None, **environment: str) -> str:
        """What a command prints. What it builds depends on the commit only."""
        stable = {"SOURCE_DATE_EPOCH": str(self.time), "PYTHONHASHSEED": "0", "PATH": PATH, **environment}
        done = subprocess.run(
            [str(each) for each in command],
            cwd=folder or self.tree,
            env={**os.environ, **stable},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
        return done.stdout


def export(folder: Path, *, signed: bool, root: Path = ROOT) -> Source:
    """The files of HEAD. ``git archive`` also writes the commit into ``taskbridge/cli/commit.txt``."""

    def git(*arguments: str) -> bytes:
        try:
            done = subprocess.run(["git", *arguments], cwd=root, check=False, capture_output=True)
        except FileNotFoundError:
            sys.exit("a release is built from a commit: install git")
        if done.returncode != 0:
            sys.exit(f"a release is built from a commit: git {arguments[0]}: {done.stderr.decode().strip()}")
        return done.stdout

    if git("rev-parse", "--show-prefix").strip():
        sys.exit(f"a release is built from a commit: {root} is a folder of another checkout")
    commit, time = git("log", "-1", "--no-show-signature", "--format=%H %ct").decode().split()
    if git("status", "--porcelain"):
        if signed:  # The tools that build are the changed ones.
            sys.exit("the checkout has changes that are not committed: it signs nothing")
        sys.stderr.write("the checkout has changes that are not committed: the release leaves them out\n")
    with tarfile.open(fileobj=io.BytesIO(git("archive", commit))) as files:
        files.extractall(folder, filter="data")
    return Source(folder, commit, int(time))
