"""Reads every version of every page of an SQLite file and of its log without SQLite, which stops at the first damage.

Whether a row is sound, its own checksum tells. Formats: https://www.sqlite.org/fileformat2.html
"""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from taskbridge.edge.spool.store import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_STEP = _FRAME.size + PAGE_BYTES
_MAGIC = (0x377F0682, 0x377F0683)
_LEAF = 0x0D


@dataclass(frozen=True, slots=True)
class Frame:
    """One page in the log."""

    index: int
    """From 1, as SQLite counts."""
    page: int
    commits: bool
    """It is the last one of its transaction."""


def frames_of(log: Path) -> list[Frame]:
    """The frames of the log's present use, whatever their checksums say; those of earlier uses are left out."""
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
                    # Whatever a damaged cell looks like, the next one may be sound.
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
    except (OSError, ValueError):  # a bad sector takes its own page, not the others
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
