"""Checks whether a spool file is sound, and saves every intact row of one that is not.

SQLite recovers first, and its result after a power failure is the truth. Pages are read one by one only if it finds
damage; a row is intact if its own checksum matches. The damaged file is moved aside. It is deleted only if SQLite could
read all of it, so that all its rows are elsewhere too, and later such files exist.
"""

from __future__ import annotations

import contextlib
import sqlite3
import struct
import sys
import time
from dataclasses import dataclass, field
from itertools import islice, product
from operator import itemgetter
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import structlog

from taskbridge.edge.kafka.record import RowDamaged, record_of, row_of
from taskbridge.edge.spool.folder import WHOLE
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
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from taskbridge.edge.kafka.record import Row, SpooledRecord

_log = structlog.stdlib.get_logger(__name__)


_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_STEP = _FRAME.size + PAGE_BYTES
_MAGIC = (0x377F0682, 0x377F0683)
_LEAF = 0x0D


_INTEGER_SIZES = (0, 1, 2, 3, 4, 6, 8)
_FLOAT, _ZERO, _ONE, _FIRST_BLOB = 7, 8, 9, 12
_RECORD_COLUMNS, _SET_ASIDE_COLUMNS, _SCHEMA_COLUMNS = 8, 9, 3
KEYED_BY_ROW_ID = (_RECORD_COLUMNS, _SET_ASIDE_COLUMNS)
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
"""Of such files: all their rows are in a new file, and a failing disk leaves one after the other."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One page in the log."""

    index: int
    """From 1, as SQLite counts."""
    page: int
    commits: bool
    """It is the last one of its transaction."""


def frames_of(log: Path) -> list[Frame]:
    """The frames of the log's present use, with any checksum; those of earlier uses are left out."""
    found: list[Frame] = []
    try:
        with log.open("rb") as file:
            header = _read(file, 0, _HEADER.size)
            first = _read(file, _HEADER.size, _FRAME.size)
            if len(first) < _FRAME.size:
                return found
            # A header is synced before the first frame: one that is damaged did not lose its frames.
            salts = _HEADER.unpack(header)[4:6] if _is_sound(header) else _FRAME.unpack(first)[2:4]
            for index in range(1, (log.stat().st_size - _HEADER.size) // _STEP + 1):
                raw = _read(file, _place_of(index) - _FRAME.size, _FRAME.size)
                if len(raw) < _FRAME.size:
                    continue
                page, size, salt1, salt2, _, _ = _FRAME.unpack(raw)
                if (salt1, salt2) == salts:
                    found.append(Frame(index, page, commits=size > 0))
    except FileNotFoundError:
        pass
    return found


def rows_of(
    path: Path, keyed_by_row_id: Sequence[int], *, behind: int | None = None
) -> Iterator[tuple[list[Any], bool]]:
    """Every row that can still be read, and whether it is of the newest version of its page.

    In tables of so many columns, the first is the row's id. With ``behind``, only rows of frames behind that one.
    """
    with _Versions(path) as versions:
        for number, at in versions.all(behind or 0):
            if behind is not None and at is None:
                continue
            page = versions.page(number, at)
            start = 100 if number == 1 else 0
            if len(page) <= start + 8 or page[start] != _LEAF:
                continue
            newest = at == versions.newest(number)
            # What is not on this page: as it was when the page was written, or else as it is now.
            moments = {versions.commit_of(at), versions.last}
            cells = int.from_bytes(page[start + 3 : start + 5], "big")
            for pointer in struct.iter_unpack(">H", page[start + 8 : start + 8 + 2 * min(cells, PAGE_BYTES // 4)]):
                for until in moments:
                    # The next cell may be sound.
                    with contextlib.suppress(IndexError, ValueError, struct.error, OverflowError):
                        yield _cell(versions, page, until, keyed_by_row_id, pointer[0]), newest


class _Versions:
    """The versions of each page, read one at a time: the file may be larger than memory."""

    def __init__(self, path: Path) -> None:
        log = path.with_name(path.name + "-wal")
        frames = frames_of(log)
        self.last = frames[-1].index if frames else 0
        self._commits = [each.index for each in frames if each.commits]
        self._frames: dict[int, list[int]] = {}
        for each in frames:
            self._frames.setdefault(each.page, []).append(each.index)
        self._count = -(-path.stat().st_size // PAGE_BYTES) if path.exists() else 0
        self._file = path.open("rb") if path.exists() else None
        self._log = log.open("rb") if frames else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._file, self._log):
            if each is not None:
                each.close()

    def all(self, behind: int) -> Iterator[tuple[int, int | None]]:
        """Each page's number and versions: frames, newest first, then None for the file."""
        for number in sorted({*range(1, self._count + 1), *self._frames}):
            yield from ((number, each) for each in reversed(self._frames.get(number, ())) if each > behind)
            yield number, None

    def newest(self, number: int) -> int | None:
        return self._frames[number][-1] if number in self._frames else None

    def commit_of(self, frame: int | None) -> int:
        """The end of the transaction that a version belongs to; 0 for those in the file."""
        return 0 if frame is None else next((each for each in self._commits if each >= frame), self.last)

    def page(self, number: int, frame: int | None) -> bytes:
        if frame is not None and self._log is not None:
            return _read(self._log, _place_of(frame), PAGE_BYTES)
        return _read(self._file, (number - 1) * PAGE_BYTES, PAGE_BYTES) if self._file is not None else b""

    def page_until(self, number: int, until: int) -> bytes:
        return self.page(number, next((each for each in reversed(self._frames.get(number, ())) if each <= until), None))


def _place_of(frame: int) -> int:
    return _HEADER.size + (frame - 1) * _STEP + _FRAME.size


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    try:
        file.seek(at)
        return file.read(size)
    except (OSError, ValueError):  # a bad sector affects its own page, not the others
        return b""


def _is_sound(header: bytes) -> bool:
    """Whether SQLite would believe the log's header."""
    magic, _, page_bytes, _, _, _, sum1, sum2 = _HEADER.unpack(header)
    first = second = 0
    for even, odd in islice(struct.iter_unpack(">2I" if magic & 1 else "<2I", header), 3):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return magic in _MAGIC and page_bytes == PAGE_BYTES and (first, second) == (sum1, sum2)


def _cell(versions: _Versions, page: bytes, until: int, keyed_by_row_id: Sequence[int], at: int) -> list[Any]:
    size, at = _varint(page, at)
    rowid, at = _varint(page, at)
    most = PAGE_BYTES - 35
    local = size
    if size > most:
        least = (PAGE_BYTES - 12) * 32 // 255 - 23
        local = least + (size - least) % (PAGE_BYTES - 4)
        local = local if local <= most else least
    payload = bytearray(page[at : at + local])
    follows = int.from_bytes(page[at + local : at + local + 4], "big")
    seen: set[int] = set()
    while follows and follows not in seen and len(payload) < size:
        seen.add(follows)
        further = versions.page_until(follows, until)
        payload += further[4:]
        follows = int.from_bytes(further[:4], "big")
    if len(payload) < size:
        raise ValueError("the row ends before its end")
    return _values(bytes(payload[:size]), keyed_by_row_id, rowid)


def _values(payload: bytes, keyed_by_row_id: Sequence[int], rowid: int) -> list[Any]:
    header, at = _varint(payload, 0)
    kinds: list[int] = []
    while at < header:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    at = header
    values: list[Any] = []
    for kind in kinds:
        size = _size_of(kind)
        raw = payload[at : at + size]
        if len(raw) < size:
            raise ValueError("the row ends before its end")
        at += size
        values.append(_value_of(kind, raw))
    if values and values[0] is None and len(values) in keyed_by_row_id:
        values[0] = rowid  # an INTEGER PRIMARY KEY is stored as the row's id
    return values


def _size_of(kind: int) -> int:
    if kind >= _FIRST_BLOB:
        return (kind - _FIRST_BLOB) // 2
    return 8 if kind == _FLOAT else 0 if kind > _FLOAT else _INTEGER_SIZES[kind]


def _value_of(kind: int, raw: bytes) -> Any:
    if kind >= _FIRST_BLOB:
        return raw.decode("utf-8", "surrogateescape") if kind % 2 else raw
    if kind == _FLOAT:
        return struct.unpack(">d", raw)[0]
    if kind in (_ZERO, _ONE):
        return kind - _ZERO
    return None if kind == 0 else int.from_bytes(raw, "big", signed=True)


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        byte = content[at + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:  # noqa: PLR2004 - the bit that says "more"
            return value, at + index + 1
    return value << 8 | content[at + 8], at + 9


@dataclass(slots=True)
class Salvage:
    """Rows of all tables, distinguished by their columns; of each record the intact versions count."""

    schemas: set[SchemaRef] = field(default_factory=set[SchemaRef])
    _records: dict[tuple[int, int], SpooledRecord] = field(default_factory=dict[tuple[int, int], "SpooledRecord"])
    """By position and time: a position may have been used twice."""
    _set_aside: dict[int, Sequence[Any]] = field(default_factory=dict[int, "Sequence[Any]"])
    _damaged: dict[int, Sequence[Any]] = field(default_factory=dict[int, "Sequence[Any]"])

    def add(self, row: Sequence[Any], *, newest: bool) -> None:
        """Keep a row if it is intact; if it is not, and no older version of a page, keep it aside."""
        if len(row) == _SCHEMA_COLUMNS and all(isinstance(each, str) for each in row):
            schema = SchemaRef(row[1], row[2])
            with contextlib.suppress(ValueError):
                if schema.key == row[0]:
                    self.schemas.add(schema)
        elif len(row) == _SET_ASIDE_COLUMNS:
            self._set_aside[row[0]] = row
        elif len(row) == _RECORD_COLUMNS:
            try:
                record = record_of(row)
                self._records[record.position, record.created_at] = record
            except (RowDamaged, ValueError, TypeError):
                if newest:
                    self._damaged[row[0]] = row

    @property
    def records(self) -> list[Row]:
        """The intact ones, in order, each at a position of its own."""
        found: list[Row] = []
        for (position, created_at), record in sorted(self._records.items(), key=itemgetter(0)):
            found.append(
                row_of(record, position=max(position, found[-1][0] + 1 if found else 0), created_at=created_at)
            )
        return found

    @property
    def damaged(self) -> dict[int, Sequence[Any]]:
        """Those of which no version is intact."""
        intact = {position for position, _ in self._records}
        return {position: row for position, row in self._damaged.items() if position not in intact}

    @property
    def set_aside(self) -> list[Sequence[Any]]:
        """Set aside before, or damaged, with the reason; text that is none as bytes."""
        aside = {position: (*row, DAMAGED) for position, row in self.damaged.items()} | self._set_aside
        return [[_storable(each) for each in row] for row in aside.values()]


def _storable(value: Any) -> Any:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) and not value.isascii() else value


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
        # Also after a crash in the middle of this: the recovered file is whole, even with others next to it.
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
        store.start_log(schemas)
    except SpoolFull:
        store.close()
        raise
    except BaseException:
        store.abandon()
        raise
    return Opened(store, aside, saved, damaged)


def examine(path: Path) -> str | None:
    """The problem of a spool file that no process has open, or None; changes nothing. A missing file is sound.

    Raises:
        SpoolFull, SpoolBusy, SpoolBroken: that cannot be said now.
    """
    if not path.exists():
        return "its log stands alone" if frames_of(_with_suffix(path, "-wal")) else None
    problem, accepted = _sqlite_check(path)
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
    problem, accepted = _sqlite_check(path)
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


def _sqlite_check(path: Path) -> tuple[str | None, int]:
    """What SQLite finds wrong, and how many frames of the log belong to transactions that it accepts.

    It treats a wrong checksum as the end of the log: a power failure leaves that after the last sync.

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

    A power failure leaves one at most: each is synced before the next is begun, and a start empties the log.
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
