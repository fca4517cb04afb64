"""The spool on its event loop: records go in, and a future says when they are on the disk. One thread does the writing.

Many callbacks share one fsync: whatever waits when the thread is free goes into the next transaction.
"""

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
from edge.spool.record import RowDamaged, record_of, row_of
from edge.spool.store import DAMAGED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge.spool.files import Claim, Page
    from edge.spool.record import Record, SpooledRecord, type_row
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
class _Put:
    row: type_row
    size: int
    done: asyncio.Future[None]


@dataclass(slots=True)
class _Remove:
    delete: Sequence[int]
    set_aside: Sequence[tuple[int, str]]
    size: int
    done: asyncio.Future[None]


@dataclass(slots=True)
class _Work:
    puts: list[_Put] = field(default_factory=list[_Put])
    removals: list[_Remove] = field(default_factory=list[_Remove])
    size: int = 0
    stop: bool = False

    def add(self, each: _Put | _Remove | None) -> None:
        if each is None:
            self.stop = True
        elif isinstance(each, _Put):
            self.puts.append(each)
            self.size += each.size
        else:
            self.removals.append(each)

    @property
    def is_large(self) -> bool:
        return len(self.puts) + len(self.removals) >= _MAX_COMMIT_ROWS or self.size >= _MAX_COMMIT_BYTES


class Spool:
    """One spool file and its writer. All methods belong to the event loop, and none of them waits for the disk."""

    def __init__(
        self,
        store: Store,
        claim: Claim,
        page: Page,
        *,
        max_bytes: int,
        observer: SpoolObserver | None = None,
        free_bytes: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        self.claim = claim
        self.broken: str | None = None
        self.disk_full = False
        self._store = store
        self._page = page
        self._max_bytes = max_bytes
        self._observer = observer
        self._free_bytes = free_bytes or self._free_bytes_of_disk
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Put | _Remove | None] = queue.SimpleQueue()
        self._changed = asyncio.Event()
        self._next_position = store.next_position
        self.waiting, self.size, self._oldest, self.set_aside = store.totals()
        self._in_file = self.waiting
        self.oldest_at = self._oldest
        self._last_created = 0
        self._stopped = False
        self._refused_bytes = 0
        self._queued = 0
        self._tell()
        self._thread = threading.Thread(target=self._write, name=f"spool-{claim.number}", daemon=True)
        self._thread.start()
        if self.waiting:
            self._changed.set()

    # waiting: records not delivered yet, on the disk or on their way there. size: bytes on the disk or on their way.

    def put(self, record: Record) -> asyncio.Future[None]:
        """Take a record on; it is durable when the future is done, and not taken on when the future fails.

        Raises:
            SpoolFull, SpoolBroken: not taken on.
        """
        if self.broken is not None or self._stopped:
            raise SpoolBroken(self.broken or "the spool is closed")
        if self.disk_full:
            raise SpoolFull("the disk of the spool is full")
        if self._page.total_bytes() + record.size > self._max_bytes:
            self._refused_bytes = record.size
            raise SpoolFull("the spool has reached its bound")
        self._refused_bytes = 0
        position, self._next_position = self._next_position, self._next_position + 1
        self._last_created = created_at = max(time.time_ns(), self._last_created + 1)
        done: asyncio.Future[None] = self._loop.create_future()
        self._oldest = self._oldest or created_at
        self.waiting += 1
        self._queued += 1
        self.size += record.size
        self._tell()
        self._changed.set()
        self._queue.put(_Put(row_of(record, position=position, created_at=created_at), record.size, done))
        return done

    def remove(
        self, delivered: Sequence[SpooledRecord], set_aside: Sequence[tuple[int, str]] = ()
    ) -> asyncio.Future[None]:
        """Forget what is delivered and set aside what never can be. They no longer wait, from this moment on."""
        done: asyncio.Future[None] = self._loop.create_future()
        size = sum(each.size for each in delivered)
        self.waiting -= len(delivered) + len(set_aside)
        self.set_aside += len(set_aside)
        self._tell()
        if self._stopped:
            done.set_result(None)
        else:
            self._queue.put(_Remove([each.position for each in delivered], set_aside, size, done))
        return done

    async def read(self, after: int, *, count: int, max_bytes: int) -> list[SpooledRecord]:
        """So many records behind a position as are on the disk, in order; damaged ones are set aside.

        Raises:
            SpoolBroken
        """
        try:
            rows = await asyncio.to_thread(self._store.read, after, count=count)
        except SpoolBroken as error:
            self._break(str(error))
            raise
        records, damaged, size = list["SpooledRecord"](), list[tuple[int, str]](), 0
        for row in rows:
            try:
                record = record_of(row)
            except (RowDamaged, ValueError, TypeError):
                _log.error("spool_row_damaged", file=str(self.claim.path), position=row[0])
                damaged.append((row[0], DAMAGED))
                if self._observer is not None:
                    self._observer.row_damaged()
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
        self._tell()

    async def until_waiting(self) -> None:
        """Return when there is anything to deliver."""
        while not self.waiting:
            self._changed.clear()
            await self._changed.wait()

    @property
    def is_over_bound(self) -> bool:
        """The last record was refused for the bound on bytes, and would be now."""
        return self._refused_bytes > 0 and self._page.total_bytes() + self._refused_bytes > self._max_bytes

    async def close(self, *, remove: bool = False) -> None:
        """Write what was taken on, and leave the rest to whoever owns the file next; an empty file may be removed."""
        self._stopped = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        if self.broken is None:
            await asyncio.to_thread(self._store.close)
            if remove and not self.waiting:
                self.claim.path.unlink()
                self._page.set(self.claim.number, oldest=0, count=0, size=0)
        self.claim.release()

    def _tell(self) -> None:
        if self.broken is not None:
            # Nothing leaves a broken file, so nobody may wait for it.
            self._page.set(self.claim.number, oldest=0, count=0, size=self.size)
            return
        if not self.waiting:
            self._oldest = 0
        self.oldest_at = self._oldest
        self._page.set(self.claim.number, oldest=self._oldest, count=self.waiting, size=max(self.size, 0))

    def _break(self, problem: str) -> None:
        if self.broken is None:
            self.broken = problem
            _log.error("spool_broken", file=str(self.claim.path), problem=problem)
            self._store.abandon()
        self._changed.set()
        self._tell()

    # From here on: the writer's thread.

    def _write(self) -> None:
        left: list[_Remove] = []
        problem: str | None = None
        while True:
            work = self._gather(left)
            left = []
            # Once more than once: after a failure, nothing may touch the file again.
            problem = problem or self.broken
            if problem is None:
                try:
                    left = self._commit(work)
                except SpoolBroken as error:
                    problem = str(error)
            if problem is not None:
                self._call_on_loop(self._fail, work, problem)
            if work.stop:
                return

    def _gather(self, left: list[_Remove]) -> _Work:
        work = _Work(removals=list(left))
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

    def _commit(self, work: _Work) -> list[_Remove]:
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
        self._call_on_loop(self._settle, work, full, removed, emptied)
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
            _log.error("spool_disk_full", file=str(self.claim.path))
        elif self.disk_full and not full:
            _log.info("spool_has_room", file=str(self.claim.path))
        self.disk_full = full

    def _free_bytes_of_disk(self) -> tuple[int, int]:
        try:
            found = os.statvfs(self.claim.path.parent)
        except OSError as error:
            raise SpoolBroken(f"the spool's disk: {error}") from error
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    def _call_on_loop(self, call: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop may be gone when the process ends
            self._loop.call_soon_threadsafe(call, *arguments)

    # On the loop again: one wake-up for everything that one commit was about.

    def _settle(self, work: _Work, full: bool, removed: bool, emptied: bool) -> None:  # noqa: FBT001 - states
        self._queued -= len(work.puts)
        if full:
            self.waiting -= len(work.puts)
            self.size -= work.size
        if removed:
            self.size -= sum(each.size for each in work.removals)
        if emptied and not self._queued:
            self.size = 0  # what an earlier process left was counted by its own estimate
        self._tell()
        for put in work.puts:
            if not put.done.done():
                if full:
                    put.done.set_exception(SpoolFull("the disk of the spool is full"))
                else:
                    put.done.set_result(None)
        for removal in work.removals:
            # Also one that waits for room: the record is delivered, and is not read again.
            if not removal.done.done():
                removal.done.set_result(None)

    def _fail(self, work: _Work, problem: str) -> None:
        self._break(problem)
        for each in (*work.puts, *work.removals):
            if not each.done.done():
                each.done.set_exception(SpoolBroken(problem))
