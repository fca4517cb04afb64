"""The spool folder: which process owns which file.

Files are numbered: ``0.db``, ``1.db``, … with ``0.lock``, ``1.lock``, …. The process that holds a lock owns the file.
The kernel releases the lock when the process ends, however it ends; then another process may claim the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskbridge.edge.spool.store import SpoolFull, sync
from taskbridge.runtime.process import try_lock

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path


MAX_FILES = 256


@dataclass(slots=True)
class Claim:
    """A spool file that this process owns until it lets go."""

    number: int
    path: Path
    _lock: int

    def release(self) -> None:
        os.close(self._lock)


class SpoolFolder:
    """The folder of the spool files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_prepared = False

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
        except OSError as error:
            raise SpoolFull(f"the spool's folder: {error}") from error
        self.is_prepared = True

    def claim_own(self, but: Container[int] = ()) -> Claim:
        """The first file that nobody owns, empty or not: so an edge continues with its predecessor's records.

        Raises SpoolFull if no lock file can be made, or all are in use.
        """
        for number in range(MAX_FILES):
            claim = self._claim(number) if number not in but else None
            if claim is not None:
                return claim
        raise SpoolFull(f"{MAX_FILES} processes use the spool's folder already")

    def claim_orphans(self, but: Container[int] = ()) -> list[Claim]:
        """The files that exist and have no owner.

        A file breaks, an edge of the same folder ends, or an earlier release had several processes: each leaves one.
        """
        found: list[Claim] = []
        for number in self.numbers():
            claim = self._claim(number) if number not in but else None
            if claim is not None and claim.path.exists():
                found.append(claim)
            elif claim is not None:  # another process has emptied and removed it
                claim.release()
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
        return Claim(number, self.file(number), lock)
