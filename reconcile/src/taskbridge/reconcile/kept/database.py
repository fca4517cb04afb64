"""The file in which reconcile keeps what must outlive it: calls, cursors, states, absences, and what was found."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from taskbridge.schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "reconcile.db"
_BUSY_S = 30.0
"""How long a command waits for the service, and the other way round: each holds the file for milliseconds."""


def open_database(folder: Path) -> sqlite3.Connection:
    """The database in this folder, made where it is missing. Each statement is durable when it returns.

    Raises:
        ConfigurationError: the folder or the file cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(folder / FILE_NAME, timeout=_BUSY_S, isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
    except (OSError, sqlite3.Error) as error:
        raise ConfigurationError(f"data folder {folder}: {error}") from error
    return database
