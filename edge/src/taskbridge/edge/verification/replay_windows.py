"""What remembers verified signatures: a file that all workers share, or memory while one looks or tries.

Each callback claims its mark under a lock, so that of two workers at the same moment exactly one is the first. The
native core claims where nothing is in the way: ``native/src/edge/replay_window.rs``. Whatever it leaves, and how the
file is made ready, is here, which is its specification.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
import zlib
from typing import TYPE_CHECKING

import structlog

from taskbridge.edge.verification.replays import Mark
from taskbridge.runtime.locks import try_lock
from taskbridge.schemas.events import Action

try:
    from taskbridge.native._native import ReplayWindow as Core
except ImportError:  # installed without the extra `native`
    Core = None

if TYPE_CHECKING:
    from pathlib import Path

    from taskbridge.native._native import ReplayWindow

FILE_NAME = "replays.window"

WAYS = 8
_HEADER = struct.Struct("<8sHHI")
_MAGIC = b"tbreplay"
_VERSION = 1
_SLOTS_AT = 4096
_SLOT = struct.Struct("<8s8sIB")
_SLOT_BYTES = _SLOT.size + 3  # three bytes of checksum: a slot that was written halfway counts as empty
_SET_BYTES = WAYS * _SLOT_BYTES
_AGES = struct.Struct("<" + "16xI4x" * WAYS)
"""When each of a set's slots was written."""

_NUMBERED = (Action.UNKNOWN, Action.CREATED, Action.COMPLETED, Action.CANCELLED, Action.DELETED, Action.COPIED)
"""An action's place is its number in the file, so none may be moved."""
_NUMBER_OF = {action: number for number, action in enumerate(_NUMBERED)}

_LOCK_ATTEMPTS = 50
_LOCK_PAUSE_S = 0.0001
_REOPEN_S = 1.0
_WARN_S = 10.0

_TAG_BYTES = 8
"""Half of the digest tells the marks of a set apart; the other half says which set, and is not kept."""

_log = structlog.stdlib.get_logger(__name__)


class MemoryWindow:
    """Remembers while the process lives, beside what ``known_before`` holds, which is only read."""

    core = None

    def __init__(self, known_before: FileWindow | None = None) -> None:
        self._known_before = known_before
        self._marks: dict[bytes, Mark] = {}

    def claim(self, mark: Mark) -> Mark | None:
        found = self._known_before and self._known_before.find(mark.digest)
        if found is None:
            found = self._marks.get(mark.digest)
        if found is None:
            self._marks[mark.digest] = mark
        return found


class FileWindow:
    """The latest ``entries`` digests, in a file of fixed size that all workers share and that survives them.

    A set-associative table: a digest has one place for eight marks, and the oldest of them makes room. Reads and writes
    of 200 bytes, which the page cache answers: a memory map would kill the process with SIGBUS on a full disk. A file
    that cannot be used never costs a callback; it is logged, and the window is then as if it were empty.
    """

    def __init__(self, path: Path, *, entries: int) -> None:
        self._path = path
        self._sets = max(1, entries // WAYS)
        self._fd: int | None = None
        self.core: ReplayWindow | None = None
        self._try_again_at = self._warn_again_at = 0.0
        self.problem: str | None = None
        """Why nothing is remembered now; None while all is well."""

    @classmethod
    def existing(cls, path: Path) -> FileWindow | None:
        """The window that an edge left or has in use, of whatever size; None where there is none."""
        try:
            with path.open("rb") as file:
                magic, version, ways, sets = _HEADER.unpack(file.read(_HEADER.size))
        except (OSError, struct.error):
            return None
        return cls(path, entries=sets * WAYS) if (magic, version, ways) == (_MAGIC, _VERSION, WAYS) else None

    def claim(self, mark: Mark) -> Mark | None:
        # What it did before it left the rest to us may be done again: a mark stands for its own event.
        if self.core is not None:
            found = self.core.claim(mark.digest, mark.event, _NUMBER_OF[mark.action], int(time.time()))
            if found is True:
                return None
            if found is not None:
                return _mark(mark.digest, *found)
        try:
            fd = self._opened()
            if fd is None:
                return None
            _lock(fd)
            try:
                return self._claim(fd, mark)
            finally:
                fcntl.flock(fd, fcntl.LOCK_UN)
        except OSError as error:
            self._failed(error)
            return None

    def find(self, digest: bytes) -> Mark | None:
        """What the digest stands for, without remembering anything."""
        try:
            fd = self._opened()
            return None if fd is None else _known(self._read_set(fd, self._at(digest)), digest)
        except OSError as error:
            self._failed(error)
            return None

    def open(self) -> None:
        """Make the file ready, so that the first callback does not have to."""
        try:
            self._opened()
        except OSError as error:
            self._failed(error)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = self.core = None

    def _claim(self, fd: int, mark: Mark) -> Mark | None:
        at = self._at(mark.digest)
        slots = self._read_set(fd, at)
        known = _known(slots, mark.digest)
        if known is None:
            packed = _SLOT.pack(mark.digest[:_TAG_BYTES], mark.event, int(time.time()), _NUMBER_OF[mark.action])
            os.pwrite(fd, packed + _checksum(packed), at + _way_to_use(slots) * _SLOT_BYTES)
        return known

    def _read_set(self, fd: int, at: int) -> bytes:
        # A file that was cut short reads as empty beyond its end.
        return os.pread(fd, _SET_BYTES, at).ljust(_SET_BYTES, b"\0")

    def _at(self, digest: bytes) -> int:
        return _SLOTS_AT + int.from_bytes(digest[_TAG_BYTES:], "little") % self._sets * _SET_BYTES

    def _opened(self) -> int | None:
        if self._fd is None and time.monotonic() >= self._try_again_at:
            self._try_again_at = time.monotonic() + _REOPEN_S
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                _lock(fd)
                try:
                    self._prepare(fd)
                finally:
                    fcntl.flock(fd, fcntl.LOCK_UN)
                self.core = Core and Core(self._path, sets=self._sets)
            except OSError:
                os.close(fd)
                raise
            self._fd = fd
            self.problem = None
        return self._fd

    def _prepare(self, fd: int) -> None:
        wanted = _HEADER.pack(_MAGIC, _VERSION, WAYS, self._sets)
        if os.pread(fd, len(wanted), 0) == wanted:
            return
        if os.fstat(fd).st_size > 0:
            _log.warning("replay_window_started_anew", path=str(self._path), problem="damaged, or of another size")
        size = _SLOTS_AT + self._sets * _SET_BYTES
        os.ftruncate(fd, 0)
        try:
            # All of its room, now: what grew with the callbacks would take what the spool counts on.
            os.posix_fallocate(fd, 0, size)
        except OSError:  # it remembers what finds room
            os.ftruncate(fd, 0)
            os.ftruncate(fd, size)
        os.pwrite(fd, wanted, 0)

    def _failed(self, error: OSError) -> None:
        self.problem = error.strerror or str(error)
        if time.monotonic() >= self._warn_again_at:
            self._warn_again_at = time.monotonic() + _WARN_S
            _log.error("replay_window_failed", path=str(self._path), problem=self.problem)
        self.close()


def _lock(fd: int) -> None:
    """Between looking and writing no other worker may claim the same digest. Held for microseconds.

    A worker that was stopped while it held the lock must not stop the others: they go on without.
    """
    try_lock(fd, tries=_LOCK_ATTEMPTS, pause_s=_LOCK_PAUSE_S)


def _known(slots: bytes, digest: bytes) -> Mark | None:
    """What the digest stands for, by a slot that is whole."""
    tag = digest[:_TAG_BYTES]
    at = slots.find(tag)
    while at >= 0:
        # It may also be found across two slots, or within another's values.
        if at % _SLOT_BYTES == 0 and _is_whole(slots, at):
            _, event, _, number = _SLOT.unpack_from(slots, at)
            return _mark(digest, event, number)
        at = slots.find(tag, at + 1)
    return None


def _mark(digest: bytes, event: bytes, number: int) -> Mark:
    return Mark(digest, event, _NUMBERED[number] if number < len(_NUMBERED) else Action.UNKNOWN)


def _way_to_use(slots: bytes) -> int:
    """The slot that makes room: the oldest."""
    ages = _AGES.unpack(slots)
    latest = ages.index(max(ages))
    # One that is not whole may say any time, also one that never comes.
    return ages.index(min(ages)) if _is_whole(slots, latest * _SLOT_BYTES) else latest


def _is_whole(slots: bytes, at: int) -> bool:
    end = at + _SLOT.size
    return slots[end : at + _SLOT_BYTES] == _checksum(slots[at:end])


def _checksum(packed: bytes) -> bytes:
    return zlib.crc32(packed).to_bytes(4, "little")[:3]
