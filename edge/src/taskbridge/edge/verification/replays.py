"""Stores which event each verified signature proved, so that a copy cannot prove another one.

Yida signs values only. A client that sees a callback can send its values and its ``sign`` again for another action,
under other names, or split at other places: each such copy has the digest of the original. The first event that a
digest proves is its event; a repetition of that event passes, because it changes nothing.

Other systems sign a message's id, but not the action of its path: their messages are stored by id.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import struct
import time
from typing import TYPE_CHECKING, Protocol

import structlog

from taskbridge.edge.errors import Unverified
from taskbridge.edge.events import EVENT_BYTES, Mark
from taskbridge.edge.verification.signature import SIGN
from taskbridge.runtime import standard_webhooks
from taskbridge.runtime.process import try_lock
from taskbridge.schemas.events import SOURCE_YIDA, Action

if TYPE_CHECKING:
    from pathlib import Path

    from taskbridge.schemas.events import TaskEvent

CROSS_ACTION = "cross-action-replay"
ALTERED = "altered-replay"
"""The same action with other parameters: a value was split elsewhere, or a key renamed or added."""


class Window(Protocol):
    def claim(self, mark: Mark) -> Mark | None:
        """Store the mark if its digest is new, else return the stored mark with this digest."""
        ...


def claim(mark: Mark | None, window: Window, *, sender: str | None = None, other_scheme: bool = False) -> None:
    """Claim a signature for its event, before the event is durable: of two copies only one may pass.

    An event without a mark cannot be copied. ``sender`` and ``other_scheme`` describe the refusal.

    Raises Unverified if the signature proved another event; ``reason`` says whether of another action.
    """
    known = mark and window.claim(mark)
    if mark is not None and known is not None and known.event != mark.event:
        refusal = Unverified(CROSS_ACTION, other_scheme=other_scheme)
        refusal.reason = ALTERED if known.action is mark.action else CROSS_ACTION
        refusal.app_type = sender
        raise refusal


def refuse_replay(event: TaskEvent, window: Window) -> None:
    """As ``claim``, for the signature of an event or the id of its message."""
    claim(mark_of(event), window)


def mark_of(event: TaskEvent) -> Mark | None:
    if event.source == SOURCE_YIDA:
        digest = bytes.fromhex(event.raw_parameters[SIGN].strip())
    elif standard_webhooks.ID in event.raw_parameters:
        # A sender signs each retry again, with the same id.
        digest = event.raw_parameters[standard_webhooks.ID].encode()
    else:
        return None
    return Mark.of(digest, event.event_id, event.action, event.source)


_SOURCE_SHARE = 4
"""A source gets a quarter of the entries: after five minutes the timestamp rejects a message."""

_WAYS = 32
_ENTRIES_PER_SET = 16
"""Twice the space that the entries need. One set in 3,600 gets more than 32 of the latest entries."""
_HASHED = struct.Struct("<6sQ")
"""The hash of a digest: its tag within its set, and the number of the set."""
_TAG_BYTES = 6
_SLOT_BYTES = _TAG_BYTES + EVENT_BYTES + 1
_SET_BYTES = _WAYS * _SLOT_BYTES
"""One sector, which the disk writes as a whole or not at all."""

_HEADER = struct.Struct("<8sII16s")
_MAGIC = b"tbreplay"
_VERSION = 2
_KEY_BYTES = 16
_SETS_AT = 4096

_NUMBERED = (Action.UNKNOWN, Action.CREATED, Action.COMPLETED, Action.CANCELLED, Action.DELETED, Action.COPIED)
"""The index of an action is its number in the file: append, never reorder."""
_NUMBER_OF = {action: bytes([number]) for number, action in enumerate(_NUMBERED)}

_EXCLUSIVE = fcntl.LOCK_EX | fcntl.LOCK_NB
_LOCK_ATTEMPTS = 50
_LOCK_PAUSE_S = 0.0001
_PREPARE_ATTEMPTS = 1000
_PREPARE_PAUSE_S = 0.001
_REOPEN_S = 1.0
_WARN_S = 10.0

_log = structlog.stdlib.get_logger(__name__)


class MemoryWindow:
    """A window in memory, on top of ``known_before``, which it only reads."""

    def __init__(self, known_before: FileWindows | None = None) -> None:
        self._known_before = known_before
        self._marks: dict[tuple[str, bytes], Mark] = {}

    def claim(self, mark: Mark) -> Mark | None:
        found = self._known_before and self._known_before.find(mark)
        if found is None:
            found = self._marks.get((mark.source, mark.digest))
        if found is None:
            self._marks[mark.source, mark.digest] = mark
        return found


class FileWindows:
    """A window for Yida and one per source, so that no source evicts marks of another sender."""

    def __init__(self, folder: Path, *, entries: int | None) -> None:
        """``entries`` is the size of Yida's window; None means the size of the existing one."""
        self._folder = folder
        sets = _sets_in(self.path()) if entries is None else -(-entries // _ENTRIES_PER_SET)
        self._entries = sets and sets * _ENTRIES_PER_SET
        self._windows: dict[str, FileWindow] = {}

    @property
    def problem(self) -> str | None:
        """Why a window cannot be used now; None if all can."""
        return next((each.problem for each in list(self._windows.values()) if each.problem is not None), None)

    def path(self, source: str = SOURCE_YIDA) -> Path:
        return self._folder / f"replays-{source}.window"

    def claim(self, mark: Mark) -> Mark | None:
        window = self._window(mark.source)
        return window and window.claim(mark)

    def find(self, mark: Mark) -> Mark | None:
        """The stored mark with the same digest. Stores nothing."""
        window = self._window(mark.source) if self.path(mark.source).exists() else None
        return window and window.find(mark)

    def open(self) -> bool:
        """Open Yida's window before the first callback; False if it does not exist and no size is given."""
        window = self._window(SOURCE_YIDA)
        if window is not None:
            window.open()
        return window is not None

    def close(self) -> None:
        for each in self._windows.values():
            each.close()

    def _window(self, source: str) -> FileWindow | None:
        if self._entries and source not in self._windows:
            share = 1 if source == SOURCE_YIDA else _SOURCE_SHARE
            self._windows[source] = FileWindow(self.path(source), entries=self._entries // share)
        return self._windows.get(source)


def _sets_in(path: Path) -> int | None:
    """The number of sets in the header of an existing window; None if there is none."""
    try:
        with path.open("rb") as file:
            magic, version, sets, _ = _HEADER.unpack(file.read(_HEADER.size))
    except (OSError, struct.error):
        return None
    return sets if (magic, version) == (_MAGIC, _VERSION) else None


class FileWindow:
    """The latest ``entries`` digests, in a file of fixed size that all edges of a folder share and that survives them.

    A claim reads and writes under a lock: of two edges that claim a signature at once, exactly one is first. A hash
    with the file's own random key assigns a digest to a set, so nobody can choose digests that evict a certain one. A
    set has 32 marks, the newest first, and drops the oldest: no clock decides. The file is not memory-mapped, because
    a full disk would then end the process with SIGBUS. If the file cannot be used, no callback fails: the error is
    logged, and the window counts as empty.
    """

    def __init__(self, path: Path, *, entries: int) -> None:
        self._path = path
        self._sets = -(-entries // _ENTRIES_PER_SET)
        self._fd: int | None = None
        self._keyed: hashlib.blake2b
        self._try_again_at = self._warn_again_at = 0.0
        self.problem: str | None = None
        """Why the file cannot be used now; None if it can."""

    def claim(self, mark: Mark, *, remember: bool = True) -> Mark | None:
        """Store the mark if its digest is new, else return the stored mark with this digest."""
        try:
            fd = self._opened() if self._fd is None else self._fd
            if fd is None:
                return None
            keyed = self._keyed.copy()
            keyed.update(mark.digest)
            tag, number = _HASHED.unpack(keyed.digest())
            at = _SETS_AT + number % self._sets * _SET_BYTES
            # No other edge may claim the same digest in between. Held for microseconds.
            try:
                fcntl.flock(fd, _EXCLUSIVE)
            except BlockingIOError:
                # An edge that is suspended with the lock must not stop the others: they continue without it.
                try_lock(fd, tries=_LOCK_ATTEMPTS, pause_s=_LOCK_PAUSE_S)
            try:
                # A truncated file reads as empty beyond its end.
                slots = os.pread(fd, _SET_BYTES, at).ljust(_SET_BYTES, b"\0")
                known = _known(slots, tag, mark) if tag in slots else None
                if known is None and remember:
                    slot = tag + mark.event + _NUMBER_OF[mark.action]
                    os.pwrite(fd, slot + slots[:-_SLOT_BYTES], at)
                return known
            finally:
                fcntl.flock(fd, fcntl.LOCK_UN)
        except OSError as error:
            self._failed(error)
            return None

    def find(self, mark: Mark) -> Mark | None:
        return self.claim(mark, remember=False)

    def open(self) -> None:
        try:
            self._opened()
        except OSError as error:
            self._failed(error)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _opened(self) -> int | None:
        if self._fd is None and time.monotonic() >= self._try_again_at:
            self._try_again_at = time.monotonic() + _REOPEN_S
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                key = self._key(fd) or self._prepared(fd)
            except OSError:
                os.close(fd)
                raise
            self._keyed = hashlib.blake2b(key=key, digest_size=_HASHED.size)
            self._fd = fd
            self.problem = None
        return self._fd

    def _key(self, fd: int) -> bytes | None:
        """The key in the header; None if the file is not a window of this size."""
        header = os.pread(fd, _HEADER.size, 0)
        key = header[-_KEY_BYTES:]
        return key if header == _HEADER.pack(_MAGIC, _VERSION, self._sets, key) else None

    def _prepared(self, fd: int) -> bytes:
        """The key of the file, after this edge or another has made it an empty window."""
        if not try_lock(fd, tries=_PREPARE_ATTEMPTS, pause_s=_PREPARE_PAUSE_S):
            # With two keys, edges would not find each other's marks.
            raise BlockingIOError(errno.EWOULDBLOCK, "another process holds the lock for too long")
        try:
            return self._key(fd) or self._prepare(fd)
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)

    def _prepare(self, fd: int) -> bytes:
        if os.fstat(fd).st_size > 0:
            _log.warning("replay_window_replaced", path=str(self._path), problem="damaged, or of another size")
        os.ftruncate(fd, 0)
        try:
            # Allocate all of it now: a growing file would use disk space that the spool counts on.
            os.posix_fallocate(fd, 0, _SETS_AT + self._sets * _SET_BYTES)
        except OSError:  # it stores what fits
            os.ftruncate(fd, 0)
        key = os.urandom(_KEY_BYTES)
        os.pwrite(fd, _HEADER.pack(_MAGIC, _VERSION, self._sets, key), 0)
        return key

    def _failed(self, error: OSError) -> None:
        self.problem = error.strerror or str(error)
        if time.monotonic() >= self._warn_again_at:
            self._warn_again_at = time.monotonic() + _WARN_S
            _log.error("replay_window_failed", path=str(self._path), problem=self.problem)
        self.close()


def _known(slots: bytes, tag: bytes, mark: Mark) -> Mark | None:
    """The mark of the slot with this tag."""
    for at in range(0, _SET_BYTES, _SLOT_BYTES):
        if slots.startswith(tag, at):
            event, number = slots[at + _TAG_BYTES : at + _SLOT_BYTES - 1], slots[at + _SLOT_BYTES - 1]
            action = _NUMBERED[number] if number < len(_NUMBERED) else Action.UNKNOWN
            return Mark(mark.digest, event, action, mark.source)
    return None
