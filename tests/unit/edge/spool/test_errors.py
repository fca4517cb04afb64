"""What SQLite's codes say of a file: no room, or locked, which passes, or that nothing in it may be believed."""

from __future__ import annotations

import sqlite3

import pytest

from taskbridge.edge.spool.errors import SpoolBroken, SpoolBusy, SpoolFull, classified


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_FULL, SpoolFull),
        (sqlite3.SQLITE_IOERR_SHMSIZE, SpoolFull),
        (sqlite3.SQLITE_IOERR_SHMMAP, SpoolBroken),
        (sqlite3.SQLITE_IOERR, SpoolBroken),
        (sqlite3.SQLITE_BUSY, SpoolBusy),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, SpoolBusy),
        (sqlite3.SQLITE_LOCKED, SpoolBusy),
        (sqlite3.SQLITE_CORRUPT, SpoolBroken),
    ],
)
def test_what_passes_is_told_from_what_does_not(code: int, expected: type[Exception]) -> None:
    error = sqlite3.OperationalError("injected")
    error.sqlite_errorcode = code
    with pytest.raises(SpoolFull if expected is SpoolBusy else expected) as raised, classified():
        raise error
    assert type(raised.value) is expected


def test_an_error_without_a_code_passes_for_no_room_with_nobody() -> None:
    with pytest.raises(SpoolBroken), classified():
        raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
