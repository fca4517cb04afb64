"""The spool folder: which process owns which file, and shared memory that shows to all of them what each file holds.

Files are numbered: ``0.db``, ``1.db``, … with ``0.lock``, ``1.lock``, …. The process that holds a lock owns the file.
The kernel releases the lock when the process ends, however it ends; then another process may claim the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskbridge.edge.spool.store import SpoolFull, sync
from taskbridge.runtime.process import try_lock

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path


MAX_FILES = 256
UNKNOWN_AGE = 1
"""The greatest age: the owner of the file has not read it yet."""

_PAIR = struct.Struct("=QQ")
_ALL_PAIRS = struct.Struct(f"={2 * MAX_FILES}Q")
_SIZES_AT, _AGES_AT, _END = MAX_FILES * 8, MAX_FILES * 24, MAX_FILES * 40
_EMPTY = bytes(_SIZES_AT)


_FIRST_PAUSE_S = 1.0
_LAST_PAUSE_S = 10.0


@dataclass(slots=True)
class Claim:
    """A spool file that this process owns until it lets go."""

    number: int
    path: Path
    _lock: int

    def release(self) -> None:
        os.close(self._lock)


@dataclass(frozen=True, slots=True)
class Slot:
    oldest: int
    """When the oldest undelivered record came, in nanoseconds since the epoch; 0 when there is none."""
    count: int
    size: int
    held: int
    """Records that cannot be delivered now: their partitions accept none, or their schema's id is not known."""


class Occupancy:
    """What each spool file of the folder holds now, seen by all its processes; it costs no system call to look.

    Only the order among several workers and the shared bound on bytes rest on it, never durability: what it says after
    a power loss does not matter, because every owner writes its slot again.
    """

    def __init__(self, memory: mmap.mmap | None = None) -> None:
        """Without ``memory``, as if the folder were empty."""
        self._memory = memory or mmap.mmap(-1, _END)

    def set(self, number: int, *, oldest: int, count: int, size: int, held: int = 0) -> None:
        # Deliverable records come first, so that one comparison shows whether there are any in the folder.
        moving = 0 if held and held >= count else oldest
        self._memory[number * 8 : number * 8 + 8] = moving.to_bytes(8, "little")
        _PAIR.pack_into(self._memory, _SIZES_AT + number * _PAIR.size, count, size)
        _PAIR.pack_into(self._memory, _AGES_AT + number * _PAIR.size, oldest, held)

    def anything_moves(self) -> bool:
        return self._memory[:_SIZES_AT] != _EMPTY

    def slots(self) -> dict[int, Slot]:
        ages, sizes = (_ALL_PAIRS.unpack_from(self._memory, at) for at in (_AGES_AT, _SIZES_AT))
        slots = zip(ages[::2], sizes[::2], sizes[1::2], ages[1::2], strict=True)
        return {number: Slot(*slot) for number, slot in enumerate(slots) if slot[0] or slot[2]}

    def total_moving(self) -> int:
        return sum(max(0, slot.count - slot.held) for slot in self.slots().values())

    def total_bytes(self) -> int:
        # Asked for with every record that is put.
        return sum(_ALL_PAIRS.unpack_from(self._memory, _SIZES_AT)[1::2])

    def total_count(self) -> int:
        return sum(_ALL_PAIRS.unpack_from(self._memory, _SIZES_AT)[::2])


class SpoolFolder:
    """The folder of the spool files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_prepared = False
        self.occupancy = Occupancy()

    def prepare(self) -> None:
        """Make the folder, durably. Raises SpoolFull if the disk has no room for it now, or it cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # Another process may have made them just now: a power failure must lose no name on the path to the records.
            disk = self.path.stat().st_dev
            for each in self.path.absolute().parents:
                if each.stat().st_dev == disk:
                    with contextlib.suppress(PermissionError):  # what we cannot read, we did not make
                        sync(each)
            if not self.is_prepared:
                self.occupancy = Occupancy(_shared_memory(self.path / "page"))
                self.is_prepared = True
        except OSError as error:
            raise SpoolFull(f"the spool's folder: {error}") from error

    def claim_own(self, but: Container[int] = ()) -> Claim:
        """The first file that nobody owns, empty or not: so a worker continues with its predecessor's records.

        Raises SpoolFull if no lock file can be made, or all are in use.
        """
        for number in range(MAX_FILES):
            claim = self._claim(number) if number not in but else None
            if claim is not None:
                return claim
        raise SpoolFull(f"{MAX_FILES} processes use the spool's folder already")

    def claim_orphans(self, but: Container[int] = ()) -> list[Claim]:
        """Files without an owner, among those that exist or whose slot is not empty."""
        slots = self.occupancy.slots()
        found: list[Claim] = []
        for number in sorted({*slots, *self.numbers()}):
            claim = self._claim(number) if number not in but else None
            if claim is not None and self._worth_opening(claim):
                found.append(claim)
        return found

    def file(self, number: int) -> Path:
        return self.path / f"{number}.db"

    def numbers(self) -> list[int]:
        return sorted(int(each.stem) for each in self.path.glob("*.db") if each.stem.isdigit())

    def damaged(self) -> list[Path]:
        """Files that were moved aside."""
        return sorted(each for each in self.path.glob("*.db.damaged-*") if not each.name.endswith("-wal"))

    def owner(self, number: int) -> int | None:
        """The process that owns a file; None if there is none."""
        path = self.path / f"{number}.lock"
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(path.read_text() or 0)
        else:
            return None
        finally:
            os.close(descriptor)

    def _claim(self, number: int) -> Claim | None:
        try:
            lock = os.open(self.path / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SpoolFull(f"the spool's lock: {error}") from error
        if not try_lock(lock):
            os.close(lock)
            return None
        os.ftruncate(lock, 0)
        # For people only, so a full disk may keep it from being written.
        try:
            os.pwrite(lock, str(os.getpid()).encode(), 0)
        except OSError:
            os.ftruncate(lock, 0)
        # Until it is read, no record may overtake its records.
        self.occupancy.set(number, oldest=UNKNOWN_AGE, count=0, size=0)
        return Claim(number, self.file(number), lock)

    def _worth_opening(self, claim: Claim) -> bool:
        if claim.path.exists():
            return True
        self.occupancy.set(claim.number, oldest=0, count=0, size=0)
        claim.release()
        return False


class FolderCounts:
    """What waits in a spool folder, of all processes that share it; nothing before it is prepared."""

    def __init__(self, folder: SpoolFolder) -> None:
        self.folder = folder

    @property
    def waiting(self) -> int:
        return self.folder.occupancy.total_count()

    @property
    def size(self) -> int:
        return self.folder.occupancy.total_bytes()

    @property
    def oldest_age_s(self) -> float:
        oldest = [each.oldest for each in self.folder.occupancy.slots().values() if each.oldest]
        return max(0.0, time.time() - min(oldest) / 1e9) if oldest else 0.0

    @property
    def moving(self) -> int:
        """Those of them that can be delivered now, as far as is known."""
        return self.folder.occupancy.total_moving()

    def anything_moves(self) -> bool:
        return self.folder.occupancy.anything_moves()


def _shared_memory(path: Path) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # Written, not just extended: touching a hole on a full disk would kill the process.
        found = os.fstat(descriptor).st_size
        if found < _END:
            os.pwrite(descriptor, bytes(_END - found), found)
        return mmap.mmap(descriptor, _END)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class _Trouble:
    problem: str
    pause_s: float
    until: float


class Unopened:
    """Those of one process; another may have opened them since."""

    def __init__(self, folder: SpoolFolder) -> None:
        self._folder = folder
        self._found: dict[int, _Trouble] = {}

    def add(self, number: int, problem: str) -> None:
        """Leave the file alone for a while, longer each time. One that is not even there is no trouble."""
        if self._folder.file(number).exists():
            before = self._found.get(number)
            pause_s = _FIRST_PAUSE_S if before is None else min(2 * before.pause_s, _LAST_PAUSE_S)
            self._found[number] = _Trouble(problem, pause_s, time.monotonic() + pause_s)

    def paused(self) -> set[int]:
        """Those that are not to be tried yet."""
        now = time.monotonic()
        return {number for number, each in self._found.items() if now < each.until}

    def there(self) -> set[int]:
        """Those that exist, even if another process has opened them since: new records do not go there."""
        return {number for number in self._found if self._folder.file(number).exists()}

    def problems(self, *, opened: Container[int]) -> dict[int, str]:
        """Of those that no process has open; ``opened`` are those of this process. Their records are not known."""
        owners = {number: self._folder.owner(number) for number in self.there() if number not in opened}
        return {number: self._found[number].problem for number, owner in owners.items() if owner in (None, os.getpid())}
