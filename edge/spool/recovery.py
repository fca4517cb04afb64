"""Finds out whether a spool file is sound, and saves every intact row of one that is not.

SQLite stops at the first damage; here the pages are read one by one, and a row is intact when its own checksum says so.
The damaged file is moved aside, never deleted.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from edge.spool.connections import read_only
from edge.spool.pages import WAL_HEADER_BYTES, read_log, rows_of
from edge.spool.record import RowDamaged, record_of
from edge.spool.store import BROKEN_MARK, DAMAGED, PAGE_BYTES, VERSION, Store, sync
from schemas.registry import SchemaRef

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_RECORD_COLUMNS, _SET_ASIDE_COLUMNS, _SCHEMA_COLUMNS = 8, 9, 3

_log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class Opened:
    """A sound spool file, and what had to be done for it."""

    store: Store
    damaged: Path | None = None
    """Where the damaged file is now."""
    rows_saved: int = 0
    rows_damaged: int = 0


@dataclass(slots=True)
class Salvage:
    """What a damaged file still holds."""

    records: dict[int, Sequence[Any]] = field(default_factory=dict[int, "Sequence[Any]"])
    set_aside: dict[int, Sequence[Any]] = field(default_factory=dict[int, "Sequence[Any]"])
    schemas: set[SchemaRef] = field(default_factory=set[SchemaRef])
    rows_damaged: int = 0


def open_or_recover(path: Path, schemas: Sequence[SchemaRef]) -> Opened:
    """Open the spool file at ``path``; one that is missing is made, one that is damaged is replaced by what it holds.

    Raises:
        SpoolFull: no room for it now.
        SpoolBroken: even the new file cannot be opened.
    """
    recovered = _with_suffix(path, ".recovered")
    mark = _with_suffix(path, BROKEN_MARK)
    aside, saved, damaged = None, 0, 0
    problem = None if recovered.exists() else examine(path)
    if problem is None and mark.exists() and path.exists():
        problem = "an I/O error in its last life"
    if problem is not None:
        salvage = read_intact(path)
        saved, damaged = len(salvage.records), salvage.rows_damaged
        _log.error("spool_damaged", file=str(path), problem=problem, rows_saved=saved, rows_damaged=damaged)
        rows = (salvage.records[each] for each in sorted(salvage.records))
        Store.create(recovered, {*schemas, *salvage.schemas}, rows, salvage.set_aside.values())  # type: ignore[arg-type]
    if recovered.exists():
        # Also after a crash in the middle of this: the recovered file is whole, whatever stands beside it.
        aside = _move_aside(path)
        recovered.replace(path)
        mark.unlink(missing_ok=True)
        sync(path.parent)
    if not path.exists():
        # A log without its file would be applied to the new one.
        for suffix in ("-wal", "-shm"):
            _with_suffix(path, suffix).unlink(missing_ok=True)
        Store.create(path, schemas)
    mark.unlink(missing_ok=True)
    store = Store(path)
    store.add_schemas(schemas)
    return Opened(store, aside, saved, damaged)


def examine(path: Path) -> str | None:  # noqa: PLR0911 - one answer for each thing that can be the matter
    """What is the matter with a spool file, or None; changes nothing. A file that is missing is sound."""
    if not path.exists():
        return "its log stands alone" if _holds_frames(_with_suffix(path, "-wal")) else None
    try:
        size = path.stat().st_size
        if size == 0 or size % PAGE_BYTES:
            return f"{size} bytes are no whole number of pages"
        log = read_log(_with_suffix(path, "-wal"))
        if log.damaged:
            return "its log does not match its checksums"
        with contextlib.closing(read_only(path)) as reading:
            answer = reading.execute("PRAGMA quick_check(1)").fetchone()[0]
            version = reading.execute("PRAGMA user_version").fetchone()[0]
            tables = {name for (name,) in reading.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    except (sqlite3.Error, OSError) as error:
        return str(error)
    if answer != "ok":
        return str(answer)
    if version != VERSION or not {"records", "set_aside", "schemas"} <= tables:
        return "it is not a spool of this version"
    return None


def read_intact(path: Path) -> Salvage:
    """Every row of a spool file that can still be read; one whose checksum is wrong goes to those set aside."""
    salvage = Salvage()
    for row in rows_of(path, (_RECORD_COLUMNS, _SET_ASIDE_COLUMNS)):
        if len(row) == _SCHEMA_COLUMNS and all(isinstance(each, str) for each in row):
            schema = SchemaRef(row[1], row[2])
            with contextlib.suppress(ValueError):
                if schema.key == row[0]:
                    salvage.schemas.add(schema)
        elif len(row) == _SET_ASIDE_COLUMNS:
            salvage.set_aside.setdefault(row[0], row)
        elif len(row) == _RECORD_COLUMNS:
            try:
                salvage.records[record_of(row).position] = row
            except (RowDamaged, ValueError, TypeError):
                salvage.rows_damaged += 1
                salvage.set_aside.setdefault(row[0], (*row, DAMAGED))
    return salvage


def _holds_frames(path: Path) -> bool:
    return path.exists() and path.stat().st_size > WAL_HEADER_BYTES


def _move_aside(path: Path) -> Path | None:
    aside = _with_suffix(path, f".damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{time.time_ns() % 10**9:09}")
    for suffix in ("-wal", ""):
        with contextlib.suppress(FileNotFoundError):
            _with_suffix(path, suffix).replace(_with_suffix(aside, suffix))
    _with_suffix(path, "-shm").unlink(missing_ok=True)
    return aside


def _with_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
