"""Writes one spool file: ``Spool`` on the event loop, ``Committer`` in a thread.

A record goes in, and a future is done when it is on the disk. All records that wait when the thread is free share the
next transaction and its fsync.
"""

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

from taskbridge.edge.kafka.record import RowDamaged, record_of, row_of
from taskbridge.edge.spool.metrics import SpoolMetrics
from taskbridge.edge.spool.store import DAMAGED, SpoolBroken, SpoolBusy, SpoolFull

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from taskbridge.edge.kafka.record import Record, Row, SpooledRecord
    from taskbridge.edge.spool.folder import Claim, Occupancy
    from taskbridge.edge.spool.store import Store

_log = structlog.stdlib.get_logger(__name__)


_LINGER_S = 0.002
_MAX_COMMIT_ROWS = 1000
_MAX_COMMIT_BYTES = 16 << 20
_RETRY_S = 1.0
_FLOOR_BYTES = 64 << 20
_FLOOR_SHARE = 0.05


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
    """Writes records from the event loop, and reports to the loop once per transaction.

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
            except BaseException as error:  # noqa: BLE001 - the futures must get the error
                problem = str(error) if isinstance(error, SpoolBroken) else f"its writer failed: {error!r}"
            if problem is not None:
                self._call_on_loop(self._fail, work, problem)
            if work.stop:
                return

    def _gather(self, work: Work) -> None:
        # Without room, try again without a new record: an edge that is not ready receives no callbacks.
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

        Raises SpoolBroken.
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
        # An empty transaction shows whether the file is still locked.
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


class Spool:
    """One spool file and its writer. All methods belong to the event loop, and none of them waits for the disk."""

    def __init__(
        self,
        store: Store,
        claim: Claim,
        occupancy: Occupancy,
        *,
        max_bytes: int,
        metrics: SpoolMetrics | None = None,
        free_bytes: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        self.claim = claim
        self.broken: str | None = None
        self._store = store
        self._occupancy = occupancy
        self._max_bytes = max_bytes
        self._metrics = metrics or SpoolMetrics()
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._next_position = store.next_position
        self.waiting, self.size, self._oldest, self.set_aside = store.totals()
        self._stopped = False
        self._refused_bytes = 0
        self._queued = 0
        self._held = 0
        self._unremoved: set[int] = set()
        self._update_slot()
        self._committer = Committer(
            store,
            claim.path,
            rows_in_file=self.waiting,
            settle=self._settle,
            fail=self._fail,
            metrics=self._metrics,
            free_bytes=free_bytes,
        )

    # waiting: records not delivered yet, on the disk or on their way there. size: bytes on the disk or on their way.

    def put(self, record: Record) -> asyncio.Future[None]:
        """Accept a record. It is durable when the future is done, and not accepted when the future fails.

        Raises SpoolFull or SpoolBroken if it is not accepted.
        """
        if self.broken is not None or self._stopped:
            raise SpoolBroken(self.broken or "the spool is closed")
        if self.refused is not None:
            raise type(self.refused)(str(self.refused))
        if self._occupancy.total_bytes() + record.size > self._max_bytes:
            self._refused_bytes = record.size
            raise SpoolFull("the spool has reached EDGE_SPOOL_MAX_BYTES")
        self._refused_bytes = 0
        position, self._next_position = self._next_position, self._next_position + 1
        created_at = time.time_ns()
        done: asyncio.Future[None] = self._loop.create_future()
        self._oldest = self._oldest or created_at
        self.waiting += 1
        self._queued += 1
        self.size += record.size
        self._update_slot()
        self._changed.set()
        self._committer.hand_over(Put(row_of(record, position=position, created_at=created_at), record.size, done))
        return done

    def remove(
        self, delivered: Sequence[SpooledRecord], set_aside: Sequence[tuple[int, str]] = ()
    ) -> asyncio.Future[None]:
        """Forget what is delivered and set aside what never can be. They no longer wait, from this moment on."""
        done: asyncio.Future[None] = self._loop.create_future()
        size = sum(each.size for each in delivered)
        self.waiting -= len(delivered) + len(set_aside)
        self.set_aside += len(set_aside)
        self._update_slot()
        if self._stopped:
            done.set_result(None)
        else:
            self._committer.hand_over(Remove([each.position for each in delivered], set_aside, size, done))
        return done

    async def read(self, after: int, *, count: int, max_bytes: int) -> list[SpooledRecord]:
        """So many records behind a position as are on the disk, in order; damaged ones are set aside.

        Raises SpoolBroken.
        """
        try:
            rows = await asyncio.to_thread(self._store.read, after, count=count)
        except SpoolBroken as error:
            self._break(str(error))
            raise
        records, damaged, size = list["SpooledRecord"](), list[tuple[int, str]](), 0
        for row in rows:
            if row[0] in self._unremoved:
                continue
            try:
                record = record_of(row)
            except (RowDamaged, ValueError, TypeError):
                _log.error("spool_row_damaged", file=str(self.claim.path), position=row[0])
                damaged.append((row[0], DAMAGED))
                self._metrics.row_damaged()
                continue
            size += record.size
            if records and size > max_bytes:
                break
            records.append(record)
        if damaged:
            await self.remove((), damaged)
        return records

    def schema_texts(self) -> dict[str, tuple[str, str]]:
        return self._store.schema_texts()

    def oldest_is(self, created_at: int) -> None:
        """The drainer has seen what the oldest record is."""
        self._oldest = created_at
        self._update_slot()

    def hold(self, count: int) -> None:
        """So many of those that wait cannot be delivered now."""
        self._held = count
        self._changed.set()
        self._update_slot()

    async def until_moving(self) -> None:
        """Return when there is a record to deliver that is not held, or that may have changed."""
        if self.waiting <= self._held:
            self._changed.clear()
            await self._changed.wait()

    @property
    def refused(self) -> SpoolFull | None:
        return self._committer.refused

    @property
    def is_over_bound(self) -> bool:
        """The last record was refused for the bound on bytes, and would be now."""
        return self._refused_bytes > 0 and self._occupancy.total_bytes() + self._refused_bytes > self._max_bytes

    async def close(self, *, remove: bool = False) -> None:
        """Write accepted records, and leave the rest to the next owner; an empty file may be removed."""
        self._stopped = True
        await self._committer.stop()
        if self.broken is None:
            await asyncio.to_thread(self._store.close)
            if remove and not self.waiting:
                self.claim.path.unlink()
        self.claim.release()

    def _update_slot(self) -> None:
        if self.broken is not None:
            # No record leaves a broken file, so no new one may wait for it.
            self._occupancy.set(self.claim.number, oldest=0, count=0, size=self.size)
            return
        if not self.waiting:
            self._oldest = 0
        self._occupancy.set(
            self.claim.number, oldest=self._oldest, count=self.waiting, size=max(self.size, 0), held=self._held
        )

    def _break(self, problem: str) -> None:
        if self.broken is None:
            self.broken = problem
            self._committer.give_up(problem)
            _log.error("spool_broken", file=str(self.claim.path), problem=problem)
            self._store.abandon()
        self._changed.set()
        self._update_slot()

    # The committer calls these: one wake-up for everything that one commit was about.

    def _settle(self, outcome: Outcome) -> None:
        work, refused = outcome.work, outcome.refused
        self._queued -= len(work.puts)
        if refused is not None:
            self.waiting -= len(work.puts)
            self.size -= work.size
        gone = (position for each in work.removals for position in (*each.delete, *(at for at, _ in each.set_aside)))
        if outcome.removed:
            self.size -= sum(each.size for each in work.removals)
            if self._unremoved:
                self._unremoved.difference_update(gone)
        else:
            self._unremoved.update(gone)
        if outcome.emptied and not self._queued:
            self.size = 0  # what an earlier process left was counted by its own estimate
        self._update_slot()
        for put in work.puts:
            if not put.done.done():
                if refused is not None:
                    put.done.set_exception(type(refused)(str(refused)))
                else:
                    put.done.set_result(None)
        for removal in work.removals:
            # Also one that waits for room: the record is delivered, and is not read again.
            if not removal.done.done():
                removal.done.set_result(None)

    def _fail(self, work: Work, problem: str) -> None:
        self._break(problem)
        for each in (*work.puts, *work.removals):
            if not each.done.done():
                each.done.set_exception(SpoolBroken(problem))
