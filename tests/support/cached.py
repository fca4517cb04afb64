"""Files and folders of the cache folder, each made once on a machine, by whichever process is first."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from taskbridge.local.artifacts import cache_folder
from taskbridge.local.host import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def cached(name: str, make: Callable[[Path], object]) -> Path:
    """``name`` in the cache folder; where it is missing, ``make`` creates it at the path that it is given.

    It becomes visible by one rename, and the other processes wait for it.
    """
    home = cache_folder(os.environ) / name
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        with locked(home.with_name(f"{name}.lock"), progress=print, waiting_for=f"waiting for {name}"):
            if not home.exists():
                with tempfile.TemporaryDirectory(dir=home.parent, ignore_cleanup_errors=True) as unfinished:
                    make(made := Path(unfinished, name))
                    made.rename(home)
    return home


def digest_of(sources: Iterable[Path], *versions: str) -> str:
    """For a name that changes with what the file or folder is made of."""
    content = b"".join([*(each.encode() for each in versions), *(each.read_bytes() for each in sources)])
    return hashlib.sha256(content).hexdigest()[:12]
