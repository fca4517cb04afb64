"""A partition's store as it lies on a disk: how far it says it is, what of it is damaged, and what it holds.

Without Faust: a rebuild reads what workers have left, wherever it lies.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import rocksdict

from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OFFSET_KEY = b"__faust\0offset__"
"""Where a store says how far it is. The name is Faust's."""

WITHOUT_WAL: Any = rocksdict.WriteOptions()
WITHOUT_WAL.disable_wal = True  # its stubs take it for a method

_DAMAGE = ("Corruption", "IO error: No such file or directory")
"""How the library's errors begin, which have no classes, where a file is gone or reads otherwise than written."""


class StoreLocked(OperatorError):
    """Another process holds the data directory: each worker needs one of its own."""


class StoreDamaged(OperatorError):
    """A partition's store reads otherwise than it was written: opened again, it is emptied and restored."""


class StorePosition(NamedTuple):
    """How far a partition's store follows its changelog."""

    offset: int
    """Of the last record that is applied; the next one to read is behind it."""
    changelog_id: str
    """Kafka's id of the topic, so that a changelog that was deleted and made anew is not taken for the old one."""
    at_ms: int
    """When it was written."""


def position_now(offset: int, changelog_id: str) -> bytes:
    """What stands under ``OFFSET_KEY`` in a store that is at this offset now."""
    return f"{offset} {changelog_id} {time.time_ns() // 1_000_000}".encode()


def read_store_position(stored: bytes | None) -> StorePosition | None:
    """What ``position_now`` wrote; None where nothing was, or it cannot be told."""
    try:
        offset, changelog_id, at_ms = (stored or b"").decode("ascii", "replace").split(" ")
        return StorePosition(int(offset), changelog_id, int(at_ms))
    except ValueError:
        return None


def is_damage(error: Exception) -> bool:
    """Whether the library says with it that files are not as they were written."""
    return str(error).startswith(_DAMAGE)


def is_lock(error: Exception) -> bool:
    """Whether the library says with it that another process has the store open."""
    return "lock" in str(error).lower()


def damage_mark(path: Path) -> Path:
    """The file beside a store that says that damage was met in it."""
    return path.with_name(f"{path.name}.damaged")


def items_of(db: Any, start: bytes = b"", options: Any = None) -> Iterator[tuple[bytes, bytes]]:
    """Keys from ``start`` on, with their values, in their order.

    Raises the library's own error where there are more that cannot be read; its own ``items`` would just end there.
    """
    found = db.iter(options or rocksdict.ReadOptions())
    try:
        found.seek(start)
        while found.valid():
            yield found.key(), found.value()
            found.next()
        found.status()
    finally:
        # Or whoever keeps the error would keep the store open.
        del found
