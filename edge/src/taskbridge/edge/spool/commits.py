"""The thread that writes one spool file: whatever waits when it is free shares the next transaction and its fsync."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from taskbridge.edge.spool.errors import SpoolBroken, SpoolBusy, SpoolFull

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from taskbridge.edge.kafka.record import Row
    from taskbridge.edge.spool.metrics import SpoolMetrics
    from taskbridge.edge.spool.store import Store

_LINGER_S = 0.002
_MAX_COMMIT_ROWS = 1000
_MAX_COMMIT_BYTES = 16 << 20
_RETRY_S = 1.0
_FLOOR_BYTES = 64 << 20
_FLOOR_SHARE = 0.05

_log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class Put:
    row: Row
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
    refused: SpoolFull | None
    """Why the puts did not happen; None when they did."""
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
        metrics: SpoolMetrics,
        free_bytes: Callable[[], tuple[int, int]] | None,
    ) -> None:
        """``settle`` and ``fail`` are called on the loop; ``free_bytes`` gives what the disk has free, and in all."""
        self.refused: SpoolFull | None = None
        """Why nothing can be written now; it is tried again by itself."""
        self._store = store
        self._path = path
        self._in_file = rows_in_file
        self._settle = settle
        self._fail = fail
        self._metrics = metrics
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
            work = Work(removals=left)
            left = []
            try:
                self._gather(work)
                # Once more than once: after a failure, nothing may touch the file again.
                problem = problem or self._problem
                if problem is None:
                    left = self._commit(work)
            except BaseException as error:  # noqa: BLE001 - whatever it is, somebody waits to hear of it
                problem = str(error) if isinstance(error, SpoolBroken) else f"its writer failed: {error!r}"
            if problem is not None:
                self._call_on_loop(self._fail, work, problem)
            if work.stop:
                return

    def _gather(self, work: Work) -> None:
        # Without room, look again by itself: nobody sends callbacks to an edge that is not ready.
        waits = self.refused is not None or bool(work.removals)
        try:
            work.add(self._queue.get(timeout=_RETRY_S if waits else None))
        except queue.Empty:
            return
        deadline = time.monotonic() + _LINGER_S
        while not work.stop and not work.is_large:
            try:
                work.add(self._queue.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                break

    def _commit(self, work: Work) -> list[Remove]:
        """Write one transaction; returns the removals that found no room and are to be tried again.

        Raises:
            SpoolBroken
        """
        started = time.perf_counter()
        delete = [position for each in work.removals for position in each.delete]
        set_aside = [pair for each in work.removals for pair in each.set_aside]
        rows = [each.row for each in work.puts]
        refused = self._short_of(work.size) or self._try(rows, delete, set_aside)
        # What is delivered may go even when nothing new has room.
        removed = refused is None or (not isinstance(refused, SpoolBusy) and self._try((), delete, set_aside) is None)
        if rows and refused is None:
            self._metrics.committed(seconds=time.perf_counter() - started, rows=len(rows))
        self._say(refused)
        self._in_file += 0 if refused else len(rows)
        self._in_file -= len(delete) + len(set_aside) if removed else 0
        emptied = removed and bool(delete) and self._in_file == 0
        self._call_on_loop(self._settle, Outcome(work, refused, removed, emptied))
        with contextlib.suppress(SpoolFull):
            self._store.checkpoint(emptied=emptied)
        return [] if removed else work.removals

    def _try(
        self, rows: Sequence[Row], delete: Sequence[int], set_aside: Sequence[tuple[int, str]]
    ) -> SpoolFull | None:
        # A transaction of nothing tells whether the file is still locked.
        if rows or delete or set_aside or isinstance(self.refused, SpoolBusy):
            try:
                self._store.write(rows, delete=delete, set_aside=set_aside)
            except SpoolFull as error:
                return error
        return None

    def _short_of(self, size: int) -> SpoolFull | None:
        free, total = self._free_bytes()
        # What is in the log is written once more into the file, and a delete needs room too.
        floor = min(_FLOOR_BYTES, int(total * _FLOOR_SHARE)) + 2 * size + self._store.log_bytes
        return SpoolFull("the spool's disk is full") if free < floor else None

    def _say(self, refused: SpoolFull | None) -> None:
        if refused is not None and self.refused is None:
            _log.error("spool_full", file=str(self._path), problem=str(refused))
        elif self.refused is not None and refused is None:
            _log.info("spool_has_room", file=str(self._path))
        self.refused = refused

    def _free_bytes_of_disk(self) -> tuple[int, int]:
        try:
            found = os.statvfs(self._path.parent)
        except OSError as error:
            raise SpoolBroken(f"the spool's disk: {error}") from error
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    def _call_on_loop(self, call: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop may be gone when the process ends
            self._loop.call_soon_threadsafe(call, *arguments)
