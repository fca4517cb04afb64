"""Checks whether a spool file is sound, and saves what SQLite still reads of one that is not.

SQLite recovers first, and its result after a power failure is the truth. A row is intact if its own checksum matches. A
damaged file is moved aside and never deleted: it may hold the only copy of a row.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
import sys
import time
from dataclasses import dataclass
from itertools import count, islice, product
from typing import TYPE_CHECKING, Any

import structlog

from taskbridge.edge.kafka.record import RowDamaged, record_of, row_of
from taskbridge.edge.spool.store import (
    BROKEN_MARK,
    DAMAGED,
    PAGE_BYTES,
    VERSION,
    SpoolBroken,
    SpoolFull,
    Store,
    classified,
    read_only,
    sync,
)
from taskbridge.schemas.registry import SchemaRef

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from taskbridge.edge.kafka.record import Row
    from taskbridge.edge.spool.store import Totals

_log = structlog.stdlib.get_logger(__name__)


_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_MAGIC = (0x377F0682, 0x377F0683)
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


@dataclass(slots=True)
class Salvage:
    """What SQLite still reads of a damaged file."""

    schemas: set[SchemaRef]
    records: list[Row]
    """Those whose checksum matches, in order."""
    damaged: int
    """Those whose checksum does not."""
    set_aside: Sequence[Sequence[Any]]
    """Set aside before, or damaged, with the reason; text that is none as bytes."""


def read_intact(path: Path) -> Salvage:
    """The rows of a damaged spool file that SQLite reads, from both ends of each table."""
    found: dict[str, dict[Any, Sequence[Any]]] = {"records": {}, "set_aside": {}, "schemas": {}}
    if not _is_empty(path):
        with contextlib.suppress(sqlite3.Error), contextlib.closing(read_only(path)) as reading:
            for (table, rows), order in product(found.items(), ("ASC", "DESC")):
                with contextlib.suppress(sqlite3.Error):
                    for row in reading.execute(f"SELECT * FROM {table} ORDER BY rowid {order}"):  # noqa: S608 - constants
                        rows[row[0]] = row
    records: list[Row] = []
    aside: list[Sequence[Any]] = []
    for row in found["records"].values():
        try:
            record = record_of(row)
            records.append(row_of(record, position=record.position, created_at=record.created_at))
        except (RowDamaged, ValueError, TypeError):
            aside.append((*row, DAMAGED))
    schemas = set[SchemaRef]()
    for key, subject, text in found["schemas"].values():
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            if (schema := SchemaRef(subject, text)).key == key:
                schemas.add(schema)
    set_aside = [[_storable(each) for each in row] for row in (*aside, *found["set_aside"].values())]
    return Salvage(schemas, sorted(records), len(aside), set_aside)


def _storable(value: Any) -> Any:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) and not value.isascii() else value


@dataclass(slots=True)
class Opened:
    """A sound spool file, and what had to be done for it."""

    store: Store
    totals: Totals
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
        saved, damaged = len(rows), salvage.damaged
        _log.error("spool_damaged", file=str(path), problem=problem, rows_saved=saved, rows_damaged=damaged)
        Store.create(recovered, {*schemas, *salvage.schemas}, rows, salvage.set_aside)
    if recovered.exists():
        # Also after a crash in the middle of this: the recovered file is whole, even with others next to it.
        if problem == _MISTRUSTED:  # all that it held is in the recovered file
            _with_suffix(path, "-wal").unlink(missing_ok=True)
        else:
            aside = _move_aside(path)
        _with_suffix(path, "-shm").unlink(missing_ok=True)
        recovered.replace(path)
        _with_suffix(path, BROKEN_MARK).unlink(missing_ok=True)
        sync(path.parent)
    if not path.exists():
        # A log without its file would be applied to the new one.
        for suffix in ("-wal", "-shm", BROKEN_MARK):
            _with_suffix(path, suffix).unlink(missing_ok=True)
        Store.create(path, schemas)
    store = Store(path)
    try:
        store.start_log(schemas)
        totals = store.totals()
    except SpoolFull:
        store.close()
        raise
    except BaseException:
        store.abandon()
        raise
    return Opened(store, totals, aside, saved, damaged)


def examine(path: Path) -> str | None:
    """The problem of a spool file that no process has open, or None; changes nothing. A missing file is sound.

    Raises SpoolFull, SpoolBusy, SpoolBroken: that cannot be said now.
    """
    if not path.exists():
        return "its log stands alone" if _commits_behind(path, 0) else None
    problem, accepted = _sqlite_check(path)
    if problem is None and _commits_behind(path, accepted) > 1:
        problem = "its log is damaged before its end"
    if problem is None and _with_suffix(path, BROKEN_MARK).exists():
        problem = _MISTRUSTED
    return problem


def _sqlite_check(path: Path) -> tuple[str | None, int]:
    """What SQLite finds wrong, and how many frames of the log belong to transactions that it accepts.

    It treats a wrong checksum as the end of the log: a power failure leaves that after the last sync.

    Raises SpoolFull, SpoolBusy, SpoolBroken if it cannot look now, which says nothing about the file.
    """
    try:
        if _is_empty(path):
            return "it is empty", 0
        path.open("rb").close()  # else SQLite takes what cannot be opened for damage
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


def _commits_behind(path: Path, accepted: int) -> int:
    """Transactions in the log's present use behind the last frame that SQLite accepts.

    A power failure leaves one at most: each is synced before the next is begun, and a start empties the log.
    """
    commits = 0
    with contextlib.suppress(FileNotFoundError), _with_suffix(path, "-wal").open("rb") as log:
        header, salts = log.read(_HEADER.size), None
        if _is_sound(header):
            salts = _HEADER.unpack(header)[4:6]
        for number in count(1):
            if len(frame := log.read(_FRAME.size)) < _FRAME.size:
                break
            _, size, *own = _FRAME.unpack(frame)[:4]
            # A header is synced before the first frame: one that is damaged did not lose its frames.
            salts = salts or tuple(own)
            commits += size > 0 and tuple(own) == salts and number > accepted
            log.seek(PAGE_BYTES, os.SEEK_CUR)
    return commits


def _is_sound(header: bytes) -> bool:
    """Whether SQLite would believe the log's header."""
    if len(header) < _HEADER.size:
        return False
    magic, _, page_bytes, _, _, _, sum1, sum2 = _HEADER.unpack(header)
    first = second = 0
    for even, odd in islice(struct.iter_unpack(">2I" if magic & 1 else "<2I", header), 3):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return magic in _MAGIC and page_bytes == PAGE_BYTES and (first, second) == (sum1, sum2)


def _move_aside(path: Path) -> Path:
    when = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{time.time_ns() % 10**9:09}"
    aside = _with_suffix(path, f".damaged-{when}")
    for suffix in ("-wal", ""):
        with contextlib.suppress(FileNotFoundError):
            _with_suffix(path, suffix).replace(_with_suffix(aside, suffix))
    return aside


def _with_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
