"""What goes wrong with a spool's file: it cannot be written now, or nothing that it says may be believed.

NotDurable
├── SpoolFull          rolled back whole; tried again by itself
│   └── SpoolBusy
└── SpoolBroken        never tried again on this file: its intact rows are taken over into a new one
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

from taskbridge.edge.errors import NotDurable

if TYPE_CHECKING:
    from collections.abc import Generator


class SpoolFull(NotDurable):
    """The spool has no room, by its own bound or on the disk; it takes callbacks again when there is."""


class SpoolBusy(SpoolFull):
    """Another process has locked the spool's file."""


class SpoolBroken(NotDurable):
    """Reading or writing the spool's file failed: nothing that it says can be believed any more."""


_FULL_CODES = frozenset({
    sqlite3.SQLITE_FULL,
    # The index of the log, which is rebuilt from it, could not grow: nothing was written, and there is no room.
    sqlite3.SQLITE_IOERR_SHMSIZE,
})  # fmt: skip


_BUSY_CODES = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_PRIMARY = 0xFF


@contextlib.contextmanager
def classified() -> Generator[None]:
    """Whatever SQLite raises, as one of these.

    Raises:
        SpoolFull, SpoolBusy, SpoolBroken
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0)
        if code in _FULL_CODES:
            raise SpoolFull("the spool's disk is full") from error
        if code & _PRIMARY in _BUSY_CODES:
            raise SpoolBusy("another process has locked the spool's file") from error
        raise SpoolBroken(f"the spool's file: {error}") from error
