"""The two things that go wrong with a spool's file: no room, or nothing that it says may be believed."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

from edge.errors import NotDurable

if TYPE_CHECKING:
    from collections.abc import Generator


class SpoolFull(NotDurable):
    """The spool has no room, by its own bound or on the disk; it takes callbacks again when there is."""


class SpoolBroken(NotDurable):
    """Reading or writing the spool's file failed: nothing that it says can be believed until the next start."""


_FULL_CODES = frozenset({
    sqlite3.SQLITE_FULL,
    # The index of the log, which is rebuilt from it, could not grow: nothing was written, and there is no room.
    sqlite3.SQLITE_IOERR | (19 << 8),  # SQLITE_IOERR_SHMSIZE
})  # fmt: skip


@contextlib.contextmanager
def classified() -> Generator[None]:
    """Whatever SQLite raises, as one of the two.

    Raises:
        SpoolFull, SpoolBroken
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code in _FULL_CODES:
            raise SpoolFull("the disk of the spool is full") from error
        raise SpoolBroken(f"the spool's file: {error}") from error
