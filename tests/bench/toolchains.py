"""Builds peers that are not Python, once for each state of their sources, into the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from taskbridge.cli.terminal import call_with_heartbeat
from taskbridge.local.artifacts import cache_folder
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskbridge.cli.terminal import Progress

CHECKOUT = Path(__file__).parents[2]
SCHEMAS = CHECKOUT / "schemas" / "src" / "taskbridge" / "schemas" / "avro"


class ToolMissing(OperatorError):
    """A needed program is not installed; the message says how to get it."""


def need(program: str, remedy: str) -> str:
    """Where the program is.

    Raises:
        ToolMissing: nowhere; the message is one line with the remedy.
    """
    found = shutil.which(program)
    if found is None:
        raise ToolMissing(f"{program} is not installed: {remedy}")
    return found


def version_of(*argv: str) -> str:
    """The first line that a program prints of itself; some print it as an error."""
    outcome = subprocess.run(argv, capture_output=True, text=True, check=False)
    lines = (outcome.stdout + outcome.stderr).strip().splitlines()
    return lines[0].strip() if lines else "unknown"


def built(
    name: str,
    sources: Sequence[Path],
    argv: Sequence[str],
    cwd: Path,
    progress: Progress,
    *,
    prepare: Callable[[Path], None] | None = None,
) -> Path:
    """The folder that ``argv`` filled, ``{into}`` being its name there; done once for each state of the sources.

    ``prepare`` is called with the folder before ``argv`` runs.

    Raises:
        OperatorError: it does not build.
    """
    cache = cache_folder(os.environ) / "bench"
    home = cache / f"{name}-{_digest(sources)}"
    if home.exists():
        return home
    cache.mkdir(parents=True, exist_ok=True)
    # Under another name until it is whole: a build that was interrupted is done again.
    work = Path(tempfile.mkdtemp(prefix=f"{name}-building-", dir=cache))
    try:
        if prepare is not None:
            prepare(work)
        outcome = call_with_heartbeat(
            lambda: subprocess.run(
                [each.format(into=work) for each in argv], cwd=cwd, capture_output=True, text=True, check=False
            ),
            progress,
            f"building the {name} peer, once",
        )
        if outcome.returncode != 0:
            raise OperatorError(f"the {name} peer does not build: {(outcome.stderr or outcome.stdout).strip()[-800:]}")
        work.rename(home)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return home


def _digest(sources: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for source in sources:
        files = sorted(each for each in source.rglob("*") if each.is_file()) if source.is_dir() else [source]
        for each in files:
            digest.update(each.name.encode() + b"\0" + each.read_bytes())
    return digest.hexdigest()[:16]
