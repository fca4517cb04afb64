"""Which process owns which spool file, and shared memory that tells all of them what each file holds.

Files are numbered: ``0.db``, ``1.db``, … beside ``0.lock``, ``1.lock``, …. Who holds a lock owns the file; the kernel
lets go of it when the process ends, however it ends, and then the next one may take it.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskbridge.edge.spool.errors import SpoolFull
from taskbridge.edge.spool.store import sync

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

MAX_FILES = 256
UNKNOWN_AGE = 1
"""As old as can be: whoever owns the file has not looked into it yet."""

WHOLE = "-whole"
"""How the name of a damaged file ends that was read to its end, so that all it held is elsewhere too."""

_SLOT = struct.Struct("=QQQQQ")
_SIZES = struct.Struct("=QQ")
_ALL_SIZES = struct.Struct(f"={2 * MAX_FILES}Q")
_AGES = struct.Struct("=QQ")
_SIZES_AT, _AGES_AT = MAX_FILES * 8, MAX_FILES * 24
_EMPTY = bytes(MAX_FILES * 8)


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
    """So many of the records cannot be delivered now: their partitions take none, or nobody knows their schema's id."""


class Occupancy:
    """What each spool file of the folder holds now, seen by all its processes; it costs no system call to look.

    Only the order among several workers and the shared bound on bytes rest on it, never durability: what it says after
    a power loss does not matter, every owner writes its slot anew.
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # Written, not just extended: touching a hole on a full disk would kill the process.
            found = os.fstat(descriptor).st_size
            if found < MAX_FILES * _SLOT.size:
                os.pwrite(descriptor, bytes(MAX_FILES * _SLOT.size - found), found)
            self._memory = mmap.mmap(descriptor, MAX_FILES * _SLOT.size)
        finally:
            os.close(descriptor)

    def set(self, number: int, *, oldest: int, count: int, size: int, held: int = 0) -> None:
        # What moves stands together at the front, so that one comparison tells whether anything does anywhere.
        moving = 0 if held and held >= count else oldest
        self._memory[number * 8 : number * 8 + 8] = moving.to_bytes(8, "little")
        _SIZES.pack_into(self._memory, _SIZES_AT + number * _SIZES.size, count, size)
        _AGES.pack_into(self._memory, _AGES_AT + number * _AGES.size, oldest, held)

    def anything_moves(self) -> bool:
        return self._memory[: MAX_FILES * 8] != _EMPTY

    def slots(self) -> dict[int, Slot]:
        """The slots of files that hold anything."""
        found: dict[int, Slot] = {}
        for number in range(MAX_FILES):
            count, size = _SIZES.unpack_from(self._memory, _SIZES_AT + number * _SIZES.size)
            oldest, held = _AGES.unpack_from(self._memory, _AGES_AT + number * _AGES.size)
            # An edge of an earlier version beside this one writes the first only.
            oldest = oldest or self._moving(number)
            if oldest or size:
                found[number] = Slot(oldest, count, size, held)
        return found

    def oldest_elsewhere(self, number: int) -> dict[int, int]:
        """When the oldest record came, of each other file that holds any."""
        return {other: slot.oldest for other, slot in self.slots().items() if slot.oldest and other != number}

    def total_moving(self) -> int:
        return sum(max(0, slot.count - slot.held) for slot in self.slots().values())

    def total_bytes(self) -> int:
        # Asked for with every record that is put.
        return sum(_ALL_SIZES.unpack_from(self._memory, _SIZES_AT)[1::2])

    def total_count(self) -> int:
        return sum(_ALL_SIZES.unpack_from(self._memory, _SIZES_AT)[::2])

    def close(self) -> None:
        self._memory.close()

    def _moving(self, number: int) -> int:
        return int.from_bytes(self._memory[number * 8 : number * 8 + 8], "little")


class SpoolFolder:
    """The folder of the spool files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._occupancy: Occupancy | None = None

    def prepare(self) -> None:
        """Make the folder, durably.

        Raises:
            SpoolFull: the disk has no room for it now, or it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # Whoever made them, and perhaps just now: no name on the way to the records may be lost with the power.
            disk = self.path.stat().st_dev
            for each in self.path.absolute().parents:
                if each.stat().st_dev == disk:
                    with contextlib.suppress(PermissionError):  # what we cannot read, we did not make
                        sync(each)
            if self._occupancy is None:
                self._occupancy = Occupancy(self.path / "page")
        except OSError as error:
            raise SpoolFull(f"the spool's folder: {error}") from error

    @property
    def is_prepared(self) -> bool:
        return self._occupancy is not None

    @property
    def occupancy(self) -> Occupancy:
        assert self._occupancy is not None, "prepare first"
        return self._occupancy

    def claim_own(self, but: Container[int] = ()) -> Claim:
        """The first file that nobody owns, whatever it holds: so a worker takes over what its predecessor left.

        Raises:
            SpoolFull: no lock file can be made, or all are taken.
        """
        for number in range(MAX_FILES):
            claim = self._claim(number) if number not in but else None
            if claim is not None:
                return claim
        raise SpoolFull(f"{MAX_FILES} processes share the spool's folder already")

    def claim_orphans(self, but: Container[int] = ()) -> list[Claim]:
        """Files that nobody owns, among those that exist or that are said to hold something."""
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
        """Of all the files that exist."""
        return sorted(int(each.stem) for each in self.path.glob("*.db") if each.stem.isdigit())

    def damaged(self) -> list[Path]:
        """Files that were moved aside."""
        return sorted(each for each in self.path.glob("*.db.damaged-*") if not each.name.endswith("-wal"))

    def owner(self, number: int) -> int | None:
        """The process that owns a file; None when nobody does."""
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

    def close(self) -> None:
        if self._occupancy is not None:
            self._occupancy.close()
            self._occupancy = None

    def _claim(self, number: int) -> Claim | None:
        try:
            lock = os.open(self.path / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SpoolFull(f"the spool's lock: {error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        os.ftruncate(lock, 0)
        # For people only, so a full disk may keep it from being written.
        try:
            os.pwrite(lock, str(os.getpid()).encode(), 0)
        except OSError:
            os.ftruncate(lock, 0)
        # Until it is read, nobody may overtake what it holds.
        self.occupancy.set(number, oldest=UNKNOWN_AGE, count=0, size=0)
        return Claim(number, self.file(number), lock)

    def _worth_opening(self, claim: Claim) -> bool:
        if claim.path.exists():
            return True
        self.occupancy.set(claim.number, oldest=0, count=0, size=0)
        claim.release()
        return False
