"""The artifacts of the last release, which is the last tag, or TASKBRIDGE_UPGRADE_FROM=COMMIT."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from release import image
from release.source import export
from support import needs
from support.wheels import ROOT, uv
from taskbridge.local.artifacts import cache_folder

if TYPE_CHECKING:
    from pathlib import Path


def git(*arguments: str) -> str:
    done = subprocess.run([needs.program("git"), *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def last_release() -> str | None:
    """Its commit, None where there is none."""
    return os.environ.get("TASKBRIDGE_UPGRADE_FROM") or git("describe", "--tags", "--abbrev=0") or None


def built(commit: str, folder: Path) -> Path:
    """The artifacts of ``make release`` without the image; built once on a machine."""
    found = _resolved(commit)
    home = cache_folder(os.environ) / f"artifacts-{found[:16]}"
    if not home.exists():
        command = ("run", "--quiet", "--only-group", "release", "python", "-m", "release", "--no-image")
        environment = {"UV_PROJECT_ENVIRONMENT": str(folder / "environment"), "PYTHONPATH": str(ROOT / "tools")}
        uv(*command, "--commit", found, "--out", str(folder / "dist"), checkout=ROOT, **environment)
        shutil.copytree(folder / "dist", part := home.with_name(f"{home.name}-{os.getpid()}"))
        part.rename(home)
    return home


def image_of(commit: str, artifacts: Path, folder: Path) -> Path:
    """Its image; built once on a machine."""
    found = _resolved(commit)
    home = cache_folder(os.environ) / f"image-{found[:16]}.tar"
    if not home.exists():
        for name in ("tree", "out"):
            (folder / name).mkdir()
        archive = image.build(export(folder / "tree", signed=False, commit=found), artifacts, folder / "out")
        shutil.copy(archive, part := home.with_name(f"{home.name}-{os.getpid()}"))
        part.rename(home)
    return home


def version_of(artifacts: Path) -> str:
    (constraints,) = artifacts.glob("*-constraints.txt")
    return constraints.name.split("-")[1]


def _resolved(commit: str) -> str:
    found = git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    assert found, f"{commit} is not in this clone: git fetch --unshallow"
    return found
