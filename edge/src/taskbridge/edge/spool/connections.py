"""How a spool's file is opened: by its owner, whose commit is on the disk when it returns, and by those who look."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

BUSY_S = 5


def owners_connection(path: Path) -> sqlite3.Connection:
    """A connection to an existing file, for any thread, which checkpoints only when it is told to."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_S
    )
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    assert mode == "wal", mode
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    # Delivered records leave nothing behind: neither people's form values, nor rows that a recovery would find again.
    connection.execute("PRAGMA secure_delete = ON")
    connection.text_factory = _text
    return connection


def read_only(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing, not even when it is closed; beside the owner's it may come and go."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=BUSY_S)
    connection.text_factory = _text
    return connection


def _text(raw: bytes) -> str:
    # Damaged text is a damaged row, which its checksum tells, and not an error of the whole file.
    return raw.decode("utf-8", "surrogateescape")
