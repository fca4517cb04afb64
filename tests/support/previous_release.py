"""The release before this one, built of its commit into wheels, in an environment of its own.

Its commit is ``previous-release`` of ``[tool.taskbridge]`` in ``pyproject.toml``; TASKBRIDGE_UPGRADE_FROM names another
one, or a tag.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import fastavro
import pytest

import needs
from installed_parts import CAN_BUILD_NATIVE, NATIVE, PYPROJECT, ROOT, Installed, built, install
from taskbridge.schemas.registry import schema_text
from taskbridge.schemas.topics import ALL

if TYPE_CHECKING:
    from pathlib import Path

    from taskbridge.schemas.codec import Codec

RECORDS = tuple(sorted({topic.record for topic in ALL if topic.record is not None}))
_PARTS = ("schemas", "client", "runtime", "edge", "cli", "streams")


@dataclass(frozen=True)
class PreviousRelease:
    commit: str
    sources: Path
    installed: Installed

    @property
    def python(self) -> str:
        return self.installed.program("python")

    def changed(self) -> list[str]:
        """The records whose schemas are others now, or which it did not have."""
        return [each for each in RECORDS if self._schema(each) != json.loads(schema_text(each))]

    def seen(self, codec: Codec[Any], record: Any) -> str:
        """What a reader with its schema finds in a record of ours."""
        ours, its = json.loads(codec.schema.text), self._schema(type(record).__name__)
        return str(fastavro.schemaless_reader(io.BytesIO(codec.encode_body(record)), ours, its))

    def _schema(self, record: str) -> Any:
        file = self.sources / "schemas" / "src" / "taskbridge" / "schemas" / "avro" / f"{record}.avsc"
        return json.loads(file.read_text("utf-8")) if file.exists() else None


def previous_release(folder: Path) -> PreviousRelease:
    """With the native core where this checkout has it."""
    wanted = os.environ.get("TASKBRIDGE_UPGRADE_FROM") or PYPROJECT["tool"]["taskbridge"]["previous-release"]
    archive = subprocess.run([needs.program("git"), "archive", wanted], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode != 0:
        problem = archive.stderr.decode().strip()
        pytest.fail(f"the previous release, {wanted}, is not in this clone ({problem}): git fetch --unshallow")
    sources = folder / "sources"
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(sources, filter="data")
    cargo = _compiled_dependencies(folder / "cargo", of=sources)
    pyproject = tomllib.loads((sources / "pyproject.toml").read_text("utf-8"))
    parts = ("native", *_PARTS) if CAN_BUILD_NATIVE else _PARTS
    with ThreadPoolExecutor(len(parts)) as building:
        wheels = building.map(partial(built, folder=folder / "wheels", checkout=sources, CARGO_TARGET_DIR=cargo), parts)
    extra = "[native]" if CAN_BUILD_NATIVE else ""
    return PreviousRelease(wanted, sources, install(folder, *wheels, extra=extra, pyproject=pyproject))


def _compiled_dependencies(folder: Path, *, of: Path) -> str:
    """A folder for cargo that has what this checkout's native core was built with, where that was built here.

    A copy: cargo knows a crate by its place in its workspace and its files by their times, and so would take either
    core for the other where both are built in one folder.
    """
    # Not what cargo's own tests are built with, which is thrice as much.
    if (compiled := NATIVE / "target" / "release").exists():
        shutil.copytree(compiled, folder / "release")
    for each in of.rglob("*.rs"):
        each.touch()
    return str(folder)
