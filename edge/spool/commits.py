"""The thread that writes one spool file: whatever waits when it is free shares the next transaction and its fsync."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import structlog

from edge.spool.errors import SpoolBroken, SpoolFull

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edge.spool.record import type_row
    from edge.spool.store import Store

_LINGER_S = 0.002
_MAX_COMMIT_ROWS = 1000
_MAX_COMMIT_BYTES = 16 << 20
_RETRY_S = 1.0
_FLOOR_BYTES = 64 << 20
_FLOOR_SHARE = 0.05

_log = structlog.stdlib.get_logger(__name__)


class SpoolObserver(Protocol):
    """What wants to know of a spool's commits; called on the writer's thread."""

    def committed(self, *, seconds: float, rows: int) -> None: ...

    def row_damaged(self) -> None: ...


@dataclass(slots=True)
class Put:
    row: type_row
    size: int
    done: asyncio.Future[None]


@dataclass(slots=True)
class Remove:
    delete: Sequence[int]
    set_aside: Sequence[tuple[int, str]]
    size: int
    done: asyncio.Future[None]


@dataclass(slots=True)
class Work:
    puts: list[Put] = field(default_factory=list[Put])
    removals: list[Remove] = field(default_factory=list[Remove])
    size: int = 0
    stop: bool = False

    def add(self, each: Put | Remove | None) -> None:
        if each is None:
            self.stop = True
        elif isinstance(each, Put):
            self.puts.append(each)
            self.size += each.size
        else:
            self.removals.append(each)

    @property
    def is_large(self) -> bool:
        return len(self.puts) + len(self.removals) >= _MAX_COMMIT_ROWS or self.size >= _MAX_COMMIT_BYTES


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one transaction."""

    work: Work
    full: bool
    """The disk has no room: the puts did not happen."""
    removed: bool
    """The removals did happen."""
    emptied: bool
    """The file holds no records now."""


class Committer:
    """Writes what it is handed from the event loop, and tells the loop, once for each transaction.

    After a failure it never touches the file again.
    """

    def __init__(
        self,
        store: Store,
        path: Path,
        *,
        rows_in_file: int,
        settle: Callable[[Outcome], None],
        fail: Callable[[Work, str], None],
        observer: SpoolObserver | None,
        free_bytes: Callable[[], tuple[int, int]] | None,
    ) -> None:
        """``settle`` and ``fail`` are called on the loop; ``free_bytes`` gives what the disk has free, and in all."""
        self.disk_full = False
        self._store = store
        self._path = path
        self._in_file = rows_in_file
        self._settle = settle
        self._fail = fail
        self._observer = observer
        self._free_bytes = free_bytes or self._free_bytes_of_disk
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Put | Remove | None] = queue.SimpleQueue()
        self._problem: str | None = None
        self._thread = threading.Thread(target=self._write, name=f"spool-{path.stem}", daemon=True)
        self._thread.start()

    def hand_over(self, each: Put | Remove) -> None:
        self._queue.put(each)

    def give_up(self, problem: str) -> None:
        """Never touch the file again; what is handed over fails."""
        self._problem = problem

    async def stop(self) -> None:
        """Return when everything that was handed over is written, or has failed."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    # From here on: the thread.

    def _write(self) -> None:
        left: list[Remove] = []
        problem: str | None = None
        while True:
            work = self._gather(left)
            left = []
            # Once more than once: after a failure, nothing may touch the file again.
            problem = problem or self._problem
            if problem is None:
                try:
                    left = self._commit(work)
                except SpoolBroken as error:
                    problem = str(error)
            if problem is not None:
                self._call_on_loop(self._fail, work, problem)
            if work.stop:
                return

    def _gather(self, left: list[Remove]) -> Work:
        work = Work(removals=list(left))
        # Without room, look again by itself: nobody sends callbacks to an edge that is not ready.
        waits = self.disk_full or bool(left)
        try:
            work.add(self._queue.get(timeout=_RETRY_S if waits else None))
        except queue.Empty:
            return work
        deadline = time.monotonic() + _LINGER_S
        while not work.stop and not work.is_large:
            try:
                work.add(self._queue.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                break
        return work

    def _commit(self, work: Work) -> list[Remove]:
        """Write one transaction; returns the removals that found no room and are to be tried again.

        Raises:
            SpoolBroken
        """
        started = time.perf_counter()
        delete = [position for each in work.removals for position in each.delete]
        set_aside = [pair for each in work.removals for pair in each.set_aside]
        rows = [each.row for each in work.puts]
        full = self._is_short_of(work.size) or not self._fits(rows, delete, set_aside)
        # What is delivered may go even when nothing new has room.
        removed = not full or self._fits((), delete, set_aside)
        if rows and not full and self._observer is not None:
            self._observer.committed(seconds=time.perf_counter() - started, rows=len(rows))
        self._say_full(full)
        self._in_file += 0 if full else len(rows)
        self._in_file -= len(delete) + len(set_aside) if removed else 0
        emptied = removed and bool(delete) and self._in_file == 0
        self._call_on_loop(self._settle, Outcome(work, full, removed, emptied))
        with contextlib.suppress(SpoolFull):
            self._store.checkpoint(emptied=emptied)
        return [] if removed else work.removals

    def _fits(self, rows: Sequence[type_row], delete: list[int], set_aside: list[tuple[int, str]]) -> bool:
        if rows or delete or set_aside:
            try:
                self._store.write(rows, delete=delete, set_aside=set_aside)
            except SpoolFull:
                return False
        return True

    def _is_short_of(self, size: int) -> bool:
        free, total = self._free_bytes()
        # What is in the log is written once more into the file, and a delete needs room too.
        return free < min(_FLOOR_BYTES, int(total * _FLOOR_SHARE)) + 2 * size + self._store.log_bytes

    def _say_full(self, full: bool) -> None:  # noqa: FBT001 - a state
        if full and not self.disk_full:
            _log.error("spool_disk_full", file=str(self._path))
        elif self.disk_full and not full:
            _log.info("spool_has_room", file=str(self._path))
        self.disk_full = full

    def _free_bytes_of_disk(self) -> tuple[int, int]:
        try:
            found = os.statvfs(self._path.parent)
        except OSError as error:
            raise SpoolBroken(f"the spool's disk: {error}") from error
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    def _call_on_loop(self, call: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop may be gone when the process ends
            self._loop.call_soon_threadsafe(call, *arguments)
