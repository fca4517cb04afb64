"""Reads the pages of an SQLite file and of its write-ahead log without SQLite, which stops at the first damage.

The log's pages are laid over the file's. Formats: https://www.sqlite.org/fileformat2.html
"""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge.spool.store import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_WAL_HEADER = struct.Struct(">8I")
WAL_HEADER_BYTES = _WAL_HEADER.size
_FRAME_HEADER = struct.Struct(">6I")
_WAL_MAGIC = (0x377F0682, 0x377F0683)
_LEAF = 0x0D


@dataclass(slots=True)
class Log:
    """The pages of a write-ahead log: the last committed version of each."""

    pages: dict[int, bytes] = field(default_factory=dict[int, bytes])
    damaged: bool = False


def read_log(path: Path) -> Log:
    """Read a log as SQLite does, and beyond: SQLite takes a wrong checksum for the end, whatever follows it.

    A damaged log gives the pages of every frame that belongs to it, the rows in them tell for themselves.
    """
    log = Log()
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return log
    if len(content) < _WAL_HEADER.size + _FRAME_HEADER.size + PAGE_BYTES:
        return log
    magic, _, page_bytes, _, salt1, salt2, sum1, sum2 = _WAL_HEADER.unpack_from(content)
    order = ">" if magic & 1 else "<"
    chain = _chained(order, content[: _WAL_HEADER.size - 8], (0, 0))
    if magic not in _WAL_MAGIC or page_bytes != PAGE_BYTES or chain != (sum1, sum2):
        log.damaged = True
        (salt1, salt2) = _FRAME_HEADER.unpack_from(content, _WAL_HEADER.size)[2:4]
    pending: dict[int, bytes] = {}
    valid = not log.damaged
    step = _FRAME_HEADER.size + PAGE_BYTES
    for at in range(_WAL_HEADER.size, len(content) - step + 1, step):
        number, commits, frame1, frame2, sum1, sum2 = _FRAME_HEADER.unpack_from(content, at)
        if (frame1, frame2) != (salt1, salt2):
            continue  # of an earlier use of the file
        page = content[at + _FRAME_HEADER.size : at + step]
        if valid:
            chain = _chained(order, page, _chained(order, content[at : at + 8], chain))
            if chain != (sum1, sum2):
                valid, log.damaged = False, True
        pending[number] = page
        if commits:
            log.pages |= pending
            pending = {}
    if log.damaged:
        log.pages |= pending
    return log


def _chained(order: str, content: bytes, start: tuple[int, int]) -> tuple[int, int]:
    first, second = start
    for even, odd in struct.iter_unpack(f"{order}2I", content):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second


class _Pages:
    """The newest version of each page, one at a time: the file may be larger than memory."""

    def __init__(self, path: Path) -> None:
        self._log = read_log(path.with_name(path.name + "-wal")).pages
        self._file = path.open("rb") if path.exists() else None
        size = path.stat().st_size if path.exists() else 0
        self.numbers: Iterable[int] = sorted({*range(1, -(-size // PAGE_BYTES) + 1), *self._log})

    def __getitem__(self, number: int) -> bytes:
        if number in self._log:
            return self._log[number]
        if self._file is None:
            return b""
        try:
            self._file.seek((number - 1) * PAGE_BYTES)
            return self._file.read(PAGE_BYTES)
        except OSError:  # a bad sector takes its own page, not the others
            return b""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def rows_of(path: Path, keyed_by_row_id: Sequence[int]) -> Iterator[list[Any]]:
    """Every row that can still be read, page by page; in tables of so many columns, the first is the row's id."""
    with contextlib.closing(_Pages(path)) as pages:
        for number in pages.numbers:
            page = pages[number]
            start = 100 if number == 1 else 0
            if len(page) <= start + 8 or page[start] != _LEAF:
                continue
            cells = int.from_bytes(page[start + 3 : start + 5], "big")
            for cell in range(min(cells, PAGE_BYTES // 4)):
                at = start + 8 + 2 * cell
                # Whatever a damaged cell looks like, the next one may be sound.
                with contextlib.suppress(IndexError, ValueError, struct.error, UnicodeDecodeError, OverflowError):
                    yield _cell(pages, page, keyed_by_row_id, int.from_bytes(page[at : at + 2], "big"))


def _cell(pages: _Pages, page: bytes, keyed_by_row_id: Sequence[int], at: int) -> list[Any]:
    size, at = _varint(page, at)
    rowid, at = _varint(page, at)
    most = PAGE_BYTES - 35
    local = size
    if size > most:
        least = (PAGE_BYTES - 12) * 32 // 255 - 23
        local = least + (size - least) % (PAGE_BYTES - 4)
        local = local if local <= most else least
    payload = bytearray(page[at : at + local])
    follows = int.from_bytes(page[at + local : at + local + 4], "big") if size > local else 0
    seen: set[int] = set()
    while follows and follows not in seen and len(payload) < size:
        seen.add(follows)
        further = pages[follows]
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
        values[0] = rowid  # an INTEGER PRIMARY KEY stands in the row's id
    return values


_INTEGER_SIZES = (0, 1, 2, 3, 4, 6, 8)
_FLOAT, _ZERO, _ONE, _FIRST_BLOB = 7, 8, 9, 12


def _size_of(kind: int) -> int:
    if kind >= _FIRST_BLOB:
        return (kind - _FIRST_BLOB) // 2
    return 8 if kind == _FLOAT else 0 if kind > _FLOAT else _INTEGER_SIZES[kind]


def _value_of(kind: int, raw: bytes) -> Any:
    if kind >= _FIRST_BLOB:
        return raw.decode() if kind % 2 else raw
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
