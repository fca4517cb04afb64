"""Finds out whether a spool file is sound, and saves every intact row of one that is not.

SQLite recovers first, and what it makes of the file after a power failure is the truth. Only where it finds damage are
pages read one by one; a row is intact when its own checksum says so. The damaged file is moved aside. It is deleted
only where SQLite could read all of it, so that nothing is in it which is not elsewhere too, and later ones are there.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import time
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import structlog

from taskbridge.edge.spool.connections import read_only
from taskbridge.edge.spool.errors import SpoolBroken, SpoolFull, classified
from taskbridge.edge.spool.files import WHOLE
from taskbridge.edge.spool.recovery.pages import frames_of, rows_of
from taskbridge.edge.spool.recovery.salvage import KEYED_BY_ROW_ID, Salvage
from taskbridge.edge.spool.store import BROKEN_MARK, VERSION, Store, sync

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from taskbridge.schemas.registry import SchemaRef

_NOT_OF_THE_FILE = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_FULL,
)

_MISTRUSTED = "an I/O error in its last life"
"""Of a file that SQLite reads to its end all the same."""
_COPIES = 3
"""Of such files: what is in them was all taken over, and a failing disk leaves one after the other."""

_log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class Opened:
    """A sound spool file, and what had to be done for it."""

    store: Store
    damaged: Path | None
    """Where the damaged file is now."""
    rows_saved: int
    rows_damaged: int


def open_or_recover(path: Path, schemas: Sequence[SchemaRef]) -> Opened:
    """Open the spool file at ``path``; one that is missing is made, one that is damaged is replaced by what it holds.

    Raises:
        SpoolFull, SpoolBusy: not now.
        SpoolBroken: the disk fails; the next attempt replaces the file.
    """
    recovered = _with_suffix(path, ".recovered")
    aside, saved, damaged = None, 0, 0
    problem = None if recovered.exists() else examine(path)
    if problem is not None:
        salvage = read_intact(path)
        rows = salvage.records
        saved, damaged = len(rows), len(salvage.damaged)
        _log.error("spool_damaged", file=str(path), problem=problem, rows_saved=saved, rows_damaged=damaged)
        Store.create(recovered, {*schemas, *salvage.schemas}, rows, salvage.set_aside)
    if recovered.exists():
        # Also after a crash in the middle of this: the recovered file is whole, whatever stands beside it.
        aside = _move_aside(path, is_whole=problem == _MISTRUSTED)
        recovered.replace(path)
        _with_suffix(path, BROKEN_MARK).unlink(missing_ok=True)
        sync(path.parent)
        _forget_copies(path.parent)
    if not path.exists():
        # A log without its file would be applied to the new one.
        for suffix in ("-wal", "-shm", BROKEN_MARK):
            _with_suffix(path, suffix).unlink(missing_ok=True)
        Store.create(path, schemas)
    store = Store(path)
    try:
        store.begin(schemas)
    except SpoolFull:
        store.close()
        raise
    except BaseException:
        store.abandon()
        raise
    return Opened(store, aside, saved, damaged)


def examine(path: Path) -> str | None:
    """What is the matter with a spool file that nobody has open, or None; changes nothing. A missing one is sound.

    Raises:
        SpoolFull, SpoolBusy, SpoolBroken: that cannot be said now.
    """
    if not path.exists():
        return "its log stands alone" if frames_of(_with_suffix(path, "-wal")) else None
    problem, accepted = _asked(path)
    if problem is None and len(_commits_behind(path, accepted)) > 1:
        problem = "its log is damaged before its end"
    if problem is None and _with_suffix(path, BROKEN_MARK).exists():
        problem = _MISTRUSTED
    return problem


def read_intact(path: Path) -> Salvage:
    """All that a damaged spool file still holds: what SQLite reads, and every intact row of what it does not.

    So a row that was delivered may come back, and none is lost that is there in any version of its page.
    """
    salvage = Salvage()
    problem, accepted = _asked(path)
    for row, newest in rows_of(path, KEYED_BY_ROW_ID, behind=accepted if problem is None else None):
        salvage.add(row, newest=newest)
    if _is_empty(path):
        return salvage
    with contextlib.suppress(sqlite3.Error), contextlib.closing(read_only(path)) as reading:
        for table, order in product(("records", "set_aside", "schemas"), ("ASC", "DESC")):
            # From both ends, as far as SQLite gets.
            with contextlib.suppress(sqlite3.Error):
                for row in reading.execute(f"SELECT * FROM {table} ORDER BY rowid {order}"):  # noqa: S608 - constants
                    salvage.add(row, newest=True)
    return salvage


def _asked(path: Path) -> tuple[str | None, int]:
    """What SQLite finds wrong, and how many frames of the log belong to transactions that it accepts.

    It takes a wrong checksum for the end of the log: behind the last sync, that is what a power failure leaves.

    Raises:
        SpoolFull, SpoolBusy, SpoolBroken: it cannot look now, which says nothing about the file.
    """
    try:
        if _is_empty(path):
            return "it is empty", 0
        with contextlib.closing(read_only(path)) as reading:
            answer = reading.execute("PRAGMA quick_check(1)").fetchone()[0]
            version = reading.execute("PRAGMA user_version").fetchone()[0]
            tables = {name for (name,) in reading.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
            accepted = _accepted_frames(path)
    except OSError as error:
        raise SpoolBroken(f"the spool's file: {error}") from error
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_OF_THE_FILE:
            with classified():
                raise
        return str(error), 0
    if answer != "ok":
        return str(answer), accepted
    if version != VERSION or not {"records", "set_aside", "schemas"} <= tables:
        return "it is not a spool of this version", accepted
    return None, accepted


def _is_empty(path: Path) -> bool:
    """SQLite would take it for a new file, and delete its log."""
    return not path.exists() or path.stat().st_size == 0


def _accepted_frames(path: Path) -> int:
    """As SQLite says in the index that it makes of the log, in ``mxFrame``.

    See https://www.sqlite.org/walformat.html
    """
    with contextlib.suppress(FileNotFoundError), _with_suffix(path, "-shm").open("rb") as index:
        return int.from_bytes(index.read(20)[16:], sys.byteorder)
    return 0


def _commits_behind(path: Path, accepted: int) -> list[int]:
    """Transactions in the log behind the last one that SQLite accepts.

    A power failure leaves one at most: each is synced before the next is begun, and a start begins the log anew.
    """
    return [each.index for each in frames_of(_with_suffix(path, "-wal")) if each.commits and each.index > accepted]


def _move_aside(path: Path, *, is_whole: bool) -> Path | None:
    when = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{time.time_ns() % 10**9:09}"
    aside = _with_suffix(path, f".damaged-{when}{WHOLE if is_whole else ''}")
    for suffix in ("-wal", ""):
        with contextlib.suppress(FileNotFoundError):
            _with_suffix(path, suffix).replace(_with_suffix(aside, suffix))
    _with_suffix(path, "-shm").unlink(missing_ok=True)
    return aside


def _forget_copies(folder: Path) -> None:
    """Of the files that were moved aside whole, the last few stay; of the others each may be the only copy of a row."""
    whole = sorted(folder.glob(f"*.db.damaged-*{WHOLE}"), key=lambda each: each.name.partition(".damaged-")[2])
    for each in whole[:-_COPIES]:
        for suffix in ("-wal", ""):
            _with_suffix(each, suffix).unlink(missing_ok=True)
        _log.info("spool_copy_removed", file=str(each))


def _with_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
