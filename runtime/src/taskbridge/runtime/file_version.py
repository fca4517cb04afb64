"""Tells whether a settings file is another one than before, so that it is read again only then."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

POLL_S = 1.0
"""How often a file that may change is looked at."""

Version = tuple[int, ...] | None


def version_of(path: Path) -> Version:
    """What differs whenever the file was written, replaced, or its permissions mended; None where it cannot be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
