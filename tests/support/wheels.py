"""Parts of this checkout, and the release before it, as wheels: each installed alone in an environment of its own."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastavro
import pytest

from release import packages
from support import needs
from support.cached import cached
from taskbridge.schemas.registry import schema_text
from taskbridge.schemas.topics import ALL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from taskbridge.schemas.codec import Codec


ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

NATIVE = ROOT / "native"
# rustup's own place is not on the PATH of a shell that is older than it.
_CARGO_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path.home() / ".cargo" / "bin")])
CAN_BUILD_NATIVE = os.environ.get("TASKBRIDGE_NATIVE_CORE") == "required" or bool(
    shutil.which("cargo", path=_CARGO_PATH) and importlib.util.find_spec("taskbridge.native")
)
WHERE_CARGO_BUILDS = pytest.mark.skipif(not CAN_BUILD_NATIVE, reason=needs.reason_of_no_core())
WHERE_THE_CORE_IS = pytest.mark.skipif(
    os.environ.get("TASKBRIDGE_NATIVE_CORE") != "required" and not importlib.util.find_spec("taskbridge.native"),
    reason=needs.reason_of_no_core(),
)
"""Without it the services run the Python implementation, and there is nothing to compare it with."""


def in_native(*command: str) -> subprocess.CompletedProcess[str]:
    """Run in the folder of the native core, where cargo is found."""
    environment = {**os.environ, "PATH": _CARGO_PATH}
    return subprocess.run(command, cwd=NATIVE, env=environment, capture_output=True, text=True, check=False)


def program_of_uv() -> str:
    # ``uv run`` sets UV to its own path: it need not be on the PATH.
    return os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")


def uv(*arguments: str, checkout: Path = ROOT, **environment: str) -> str:
    """What uv prints; an AssertionError with its words where it fails."""
    inherited = {**os.environ, "PATH": _CARGO_PATH, **environment}
    ended = subprocess.run(
        [program_of_uv(), *arguments], cwd=checkout, env=inherited, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def built(part: str, folder: Path, *, checkout: Path = ROOT, **environment: str) -> Path:
    """The wheel of ``taskbridge-{part}``."""
    what = "--package", f"taskbridge-{part}", "--out-dir", str(folder / part)
    uv("build", "--wheel", "--quiet", *what, checkout=checkout, **environment)
    (wheel,) = (folder / part).glob("*.whl")
    return wheel


def without_core(folder: Path) -> Path:
    """The wheel of ``taskbridge-native`` for systems that no wheel of the core fits."""
    project = packages.without_core(ROOT / "native", folder / "project")
    uv("build", "--wheel", "--quiet", "--out-dir", str(folder), str(project))
    return folder / f"taskbridge_native-{PYPROJECT['project']['version']}-py3-none-any.whl"


@dataclass(frozen=True)
class Installed:
    environment: Path
    folder: Path

    def program(self, name: str) -> str:
        return str(self.environment / "bin" / name)

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """With nothing in its environment that leads to this checkout; ``environment`` is added."""
        home = {name: os.environ[name] for name in ("HOME",) if name in os.environ}
        return subprocess.run(
            [self.program(command[0]), *command[1:]],
            cwd=self.folder,
            env={**home, "PATH": os.defpath, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def python(self, program: str) -> str:
        """What the program prints; it must end well."""
        ended = self.run("python", "-c", program)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def modules(self, *names: str) -> list[str]:
        """Those of them that are there."""
        return self.python(f"from importlib.util import find_spec; print(*filter(find_spec, {names!r}))").split()


def install(home: Path, *wheels: Path, extra: str = "", pyproject: Mapping[str, Any] = PYPROJECT) -> Installed:
    """Install the wheels, the last with ``extra``, at the tested versions, and no other of our packages.

    ``pyproject`` has those versions: that of this checkout, or of another.
    """
    environment, folder = home / "environment", home / "folder"
    folder.mkdir()
    uv("venv", "--quiet", "--python", sys.executable, str(environment))
    requirements = [f"{_distribution(each)} @ {each.as_uri()}" for each in wheels[:-1]]
    requirements.append(f"{_distribution(wheels[-1])}{extra} @ {wheels[-1].as_uri()}")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("\n".join(pyproject["tool"]["uv"]["constraint-dependencies"]))
        constraints.flush()
        command = ["pip", "install", "--quiet", "--python", str(environment), "--constraint", constraints.name]
        # Not in a checkout: what its pyproject.toml overrides is not for a user.
        try:
            uv(*command, "--offline", *requirements, checkout=folder)
        except AssertionError:  # uv's cache does not hold all of it
            uv(*command, *requirements, checkout=folder)
    return Installed(environment, folder)


def _distribution(wheel: Path) -> str:
    return re.sub("_", "-", wheel.name.split("-")[0])


RECORDS = tuple(sorted({topic.record for topic in ALL if topic.record is not None}))


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
        """The values that a reader with its schema decodes from our record."""
        ours, its = json.loads(codec.schema.text), self._schema(type(record).__name__)
        return str(fastavro.schemaless_reader(io.BytesIO(codec.encode_body(record)), ours, its))

    def _schema(self, record: str) -> Any:
        file = self.sources / "schemas" / "src" / "taskbridge" / "schemas" / "avro" / f"{record}.avsc"
        return json.loads(file.read_text("utf-8")) if file.exists() else None


def git(*arguments: str) -> str:
    """What it prints, empty where it fails."""
    done = subprocess.run([needs.program("git"), *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def commit_of(release: str) -> str:
    """The commit of a key of pyproject.toml's ``[tool.taskbridge]``, or of TASKBRIDGE_UPGRADE_FROM=COMMIT.

    An upgrade of a release to itself would show nothing: then the test fails.
    """
    named = os.environ.get("TASKBRIDGE_UPGRADE_FROM") or PYPROJECT["tool"]["taskbridge"][release]
    commit = git("rev-parse", "--verify", "--quiet", f"{named}^{{commit}}")
    if not commit:
        pytest.fail(f"the previous release, {named}, is not in this clone: git fetch --unshallow")
    if commit == git("rev-parse", "HEAD"):
        pytest.fail(f"the previous release, {named}, is the commit that is checked out: give an earlier one")
    return commit


def previous_release(folder: Path) -> PreviousRelease:
    """With the native core where this checkout has it. Its wheels are built once on a machine."""
    commit = commit_of("previous-release")
    archive = subprocess.run([needs.program("git"), "archive", commit], cwd=ROOT, capture_output=True, check=True)
    sources = folder / "sources"
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(sources, filter="data")
    pyproject = tomllib.loads((sources / "pyproject.toml").read_text("utf-8"))
    # Their folders' names, but for one.
    members = {Path(each).name.replace("deploy", "cli") for each in pyproject["tool"]["uv"]["workspace"]["members"]}
    # The last one is installed with its extra.
    parts = [*(["native"] if CAN_BUILD_NATIVE else []), *sorted(members - {"native", "streams"}), "streams"]

    def build(made: Path) -> None:
        cargo = _compiled_dependencies(folder / "cargo", of=sources)
        with ThreadPoolExecutor(len(parts)) as building:
            list(building.map(partial(built, folder=made, checkout=sources, CARGO_TARGET_DIR=cargo), parts))

    named = hashlib.sha256(archive.stdout + " ".join(parts).encode()).hexdigest()
    home = cached(f"release-{named[:16]}", build)
    wheels = [next((home / each).glob("*.whl")) for each in parts]
    extra = "[native]" if CAN_BUILD_NATIVE else ""
    return PreviousRelease(commit, sources, install(folder, *wheels, extra=extra, pyproject=pyproject))


def _compiled_dependencies(folder: Path, *, of: Path) -> str:
    """A folder for cargo that has what this checkout's native core was built with, where that was built here.

    A copy: cargo knows a crate by its place in its workspace and its files by their times, and so would take either
    core for the other where both are built in one folder.
    """
    # Not what cargo's own tests are built with, which is three times as much.
    if (compiled := NATIVE / "target" / "release").exists():
        shutil.copytree(compiled, folder / "release")
    for each in of.rglob("*.rs"):
        each.touch()
    return str(folder)
