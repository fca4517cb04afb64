"""The sources of a release: the files of one commit, without anything else that lies in the checkout."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from native import PATH, UV

__all__ = ["HEAD", "PATH", "ROOT", "UV", "Source", "export", "say"]

ROOT = Path(__file__).parents[2]
HEAD = "HEAD"
_BEGAN = time.monotonic()


def say(line: str) -> None:
    """Progress: what begins now, or was left out, with the seconds since the start."""
    sys.stderr.write(f"{time.monotonic() - _BEGAN:4.0f} s  {line}\n")


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


def export(folder: Path, *, signed: bool, commit: str = HEAD, root: Path = ROOT) -> Source:
    """The files of a commit. ``git archive`` also writes the commit into ``taskbridge/cli/commit.txt``."""

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
    found, seconds = git("log", "-1", "--no-show-signature", "--format=%H %ct", commit, "--").decode().split()
    # The tools that build are the checkout's.
    if signed and found != git("rev-parse", HEAD).decode().strip():
        sys.exit("of another commit than the one that is checked out, it signs nothing")
    if git("status", "--porcelain"):
        if signed:
            sys.exit("the checkout has changes that are not committed: it signs nothing")
        say("the checkout has changes that are not committed: the release leaves them out")
    with tarfile.open(fileobj=io.BytesIO(git("archive", found))) as files:
        files.extractall(folder, filter="data")
    return Source(folder, found, int(seconds))
