"""The artifacts of the last release: its packages, its chart and its image."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from release import image
from release.source import export
from support.cached import cached
from support.wheels import ROOT, commit_of, uv

if TYPE_CHECKING:
    from pathlib import Path


def last_release() -> str:
    return commit_of("previous-artifacts")


def built(commit: str, folder: Path) -> Path:
    """The artifacts of ``make release`` without the image; built once on a machine."""
    command = ("run", "--quiet", "--only-group", "release", "python", "-m", "release", "--no-image")
    environment = {"UV_PROJECT_ENVIRONMENT": str(folder / "environment"), "PYTHONPATH": str(ROOT / "tools")}

    def make(out: Path) -> None:
        uv(*command, "--commit", commit, "--out", str(out), checkout=ROOT, **environment)

    return cached(f"artifacts-{commit[:16]}", make)


def image_of(commit: str, artifacts: Path, folder: Path) -> Path:
    """Its image; built once on a machine."""

    def make(archive: Path) -> None:
        for name in ("tree", "out"):
            (folder / name).mkdir()
        source = export(folder / "tree", signed=False, commit=commit)
        shutil.copy(image.build(source, artifacts, folder / "out"), archive)

    return cached(f"image-{commit[:16]}.tar", make)


def version_of(artifacts: Path) -> str:
    (constraints,) = artifacts.glob("*-constraints.txt")
    return constraints.name.split("-")[1]
