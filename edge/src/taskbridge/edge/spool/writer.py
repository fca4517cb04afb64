"""Writes one spool file: a record goes in, and a future is done when it is on the disk.

All records that wait when the disk is free share the next transaction and its fsync.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from taskbridge.edge.kafka.record import RowDamaged, record_of, row_of
from taskbridge.edge.spool.metrics import SpoolMetrics
from taskbridge.edge.spool.store import DAMAGED, SpoolBroken, SpoolBusy, SpoolFull

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskbridge.edge.kafka.record import Record, Row, SpooledRecord
    from taskbridge.edge.spool.folder import Claim
    from taskbridge.edge.spool.store import Store, Totals

_log = structlog.stdlib.get_logger(__name__)


_MAX_COMMIT_ROWS = 1000
_MAX_COMMIT_BYTES = 16 << 20
_RETRY_S = 1.0
_FLOOR_BYTES = 64 << 20
_FLOOR_SHARE = 0.05
_SCHEMA_AT = 5
"""In a row, where its schema's key is."""


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


class Spool:
    """One spool file. All methods belong to the event loop, and none of them waits for the disk.

    One thread writes the file. After a failure nothing touches the file again.
    """

    def __init__(
        self,
        store: Store,
        totals: Totals,
        claim: Claim,
        *,
        max_bytes: int,
        used_bytes: Callable[[], int] | None = None,
        metrics: SpoolMetrics | None = None,
        free_bytes: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        """``used_bytes``: what counts against ``max_bytes``, if that is more than this file.

        ``free_bytes`` gives what the disk has free, and in all.
        """
        self.claim = claim
        self.broken: str | None = None
        self.refused: SpoolFull | None = None
        """Why nothing can be written now; it is tried again by itself."""
        self._store = store
        self._max_bytes = max_bytes
        self._used_bytes = used_bytes or (lambda: self.size)
        self._metrics = metrics or SpoolMetrics()
        self._free_bytes = free_bytes or self._free_bytes_of_disk
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._next_position = store.next_position
        self.waiting, self.size, self._oldest, self.set_aside = totals
        self._in_file = self.waiting
        self._stopped = False
        self._refused_bytes = 0
        self._held = 0
        self._unremoved: set[int] = set()
        self._schemas: dict[str, tuple[str, str]] = {}
        self._puts: list[Put] = []
        self._removals: list[Remove] = []
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"spool-{claim.path.stem}")
        self._writing = asyncio.create_task(self._write())

    # waiting: records not delivered yet, on the disk or on their way there. size: bytes on the disk or on their way.

    def put(self, record: Record) -> asyncio.Future[None]:
        """Accept a record. It is durable when the future is done, and not accepted when the future fails.

        Raises SpoolFull or SpoolBroken if it is not accepted.
        """
        if self.broken is not None or self._stopped:
            raise SpoolBroken(self.broken or "the spool is closed")
        if self.refused is not None:
            raise type(self.refused)(str(self.refused))
        size = record.size
        if self._used_bytes() + size > self._max_bytes:
            self._refused_bytes = size
            raise SpoolFull("the spool has reached EDGE_SPOOL_MAX_BYTES")
        self._refused_bytes = 0
        position, self._next_position = self._next_position, self._next_position + 1
        created_at = time.time_ns()
        done: asyncio.Future[None] = self._loop.create_future()
        self._oldest = self.oldest or created_at
        self.waiting += 1
        self.size += size
        self._changed.set()
        self._puts.append(Put(row_of(record, position=position, created_at=created_at), size, done))
        self._arrived.set()
        return done

    def remove(
        self, delivered: Sequence[SpooledRecord], set_aside: Sequence[tuple[int, str]] = ()
    ) -> asyncio.Future[None]:
        """Forget what is delivered and set aside what never can be. They no longer wait, from this moment on."""
        done: asyncio.Future[None] = self._loop.create_future()
        self.waiting -= len(delivered) + len(set_aside)
        self.set_aside += len(set_aside)
        if self.broken is not None:
            done.set_exception(SpoolBroken(self.broken))
        elif self._stopped:
            done.set_result(None)
        else:
            size = sum(each.size for each in delivered)
            self._removals.append(Remove([each.position for each in delivered], set_aside, size, done))
            self._arrived.set()
        return done

    async def read(self, after: int, *, count: int, max_bytes: int) -> list[SpooledRecord]:
        """So many records behind a position as are on the disk, in order; damaged ones are set aside.

        Raises SpoolBroken.
        """
        try:
            rows = await asyncio.to_thread(self._store.read, after, count=count)
            if any(row[_SCHEMA_AT] not in self._schemas for row in rows):
                self._schemas = await asyncio.to_thread(self._store.schema_texts)
        except SpoolBroken as error:
            self._break(str(error))
            raise
        records, damaged, size = list["SpooledRecord"](), list[tuple[int, str]](), 0
        for row in rows:
            if row[0] in self._unremoved:
                continue
            try:
                record = self._sound(record_of(row))
            except (RowDamaged, ValueError, TypeError) as error:
                _log.error("spool_row_damaged", file=str(self.claim.path), position=row[0], problem=str(error))
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

    async def requeue(self) -> int:
        """Return what the broker refused to those that wait; returns how many.

        Raises:
            SpoolFull, SpoolBusy: not now.
            SpoolBroken
        """
        try:
            count = await self._loop.run_in_executor(self._thread, self._store.requeue)
        except SpoolBroken as error:
            self._break(str(error))
            raise
        self.waiting += count
        self._in_file += count
        self.set_aside -= count
        self._changed.set()
        return count

    def schema_texts(self) -> dict[str, tuple[str, str]]:
        return self._store.schema_texts()

    def _sound(self, record: SpooledRecord) -> SpooledRecord:
        if record.schema not in self._schemas:
            raise RowDamaged("its schema is missing, so nobody can give the schema's id")
        return record

    @property
    def oldest(self) -> int:
        """When the oldest undelivered record came, in nanoseconds since the epoch; 0 when there is none."""
        return self._oldest if self.waiting else 0

    def oldest_is(self, created_at: int) -> None:
        """The drainer has seen what the oldest record is."""
        self._oldest = created_at

    @property
    def moving(self) -> int:
        """Records that can be delivered now, as far as is known. None leaves a broken file."""
        return max(0, self.waiting - self._held) if self.broken is None else 0

    def hold(self, count: int) -> None:
        """So many of those that wait cannot be delivered now."""
        self._held = count
        self._changed.set()

    async def until_moving(self) -> None:
        """Return when there is a record to deliver that is not held, or that may have changed."""
        if self.waiting <= self._held:
            self._changed.clear()
            await self._changed.wait()

    @property
    def is_over_bound(self) -> bool:
        """The last record was refused for the bound on bytes, and would be now."""
        return self._refused_bytes > 0 and self._used_bytes() + self._refused_bytes > self._max_bytes

    async def close(self, *, remove: bool = False) -> None:
        """Write accepted records, and leave the rest to the next owner; an empty file may be removed."""
        self._stopped = True
        self._arrived.set()
        await self._writing
        self._thread.shutdown(wait=False)
        if self.broken is None:
            await asyncio.to_thread(self._store.close)
            if remove and not self.waiting:
                self.claim.path.unlink()
        self.claim.release()

    async def _write(self) -> None:
        """Until the end: everything that waits becomes one transaction."""
        postponed: list[Remove] = []
        while self.broken is None and not (self._stopped and not self._puts and not self._removals):
            # Without room, try again without a new record: an edge that is not ready receives no callbacks.
            await self._until_work(at_most_s=_RETRY_S if postponed or self.refused is not None else None)
            if self.broken is not None:  # its reader found that
                break
            removals, self._removals = [*postponed, *self._removals], []
            puts = self._next_puts()
            if not (puts or removals or self.refused):
                continue
            try:
                refused, removed, is_log_long = await self._loop.run_in_executor(
                    self._thread, self._commit, puts, removals
                )
                postponed = [] if removed else removals
                is_emptied = self._settle(puts, removals, refused, removed=removed)
                if (is_emptied or is_log_long) and self.broken is None:
                    left = await self._loop.run_in_executor(self._thread, self._checkpoint, is_emptied)
                    if left is not None:
                        self.size = left + sum(each.size for each in self._puts)
            except Exception as error:  # noqa: BLE001 - the futures must get the error
                self._break(str(error) if isinstance(error, SpoolBroken) else f"its writer failed: {error!r}")
                _end([*puts, *removals], SpoolBroken(self.broken))
        if self.broken is not None:
            _end([*self._puts, *self._removals], SpoolBroken(self.broken))

    async def _until_work(self, *, at_most_s: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._arrived.wait()
        self._arrived.clear()

    def _next_puts(self) -> list[Put]:
        count = size = 0
        for count, each in enumerate(self._puts, start=1):
            size += each.size
            if count >= _MAX_COMMIT_ROWS or size >= _MAX_COMMIT_BYTES:
                break
        puts, self._puts = self._puts[:count], self._puts[count:]
        if self._puts:
            self._arrived.set()
        return puts

    def _settle(
        self, puts: Sequence[Put], removals: Sequence[Remove], refused: SpoolFull | None, *, removed: bool
    ) -> bool:
        """Note what became of one transaction, and report it; returns whether the file holds no records now."""
        self._say(refused)
        if refused is None:
            self._in_file += len(puts)
        else:
            self.waiting -= len(puts)
            self.size -= sum(each.size for each in puts)
        gone = [position for each in removals for position in (*each.delete, *(at for at, _ in each.set_aside))]
        if removed:
            self.size = max(0, self.size - sum(each.size for each in removals))
            self._in_file -= len(gone)
            self._unremoved.difference_update(gone)
        else:
            self._unremoved.update(gone)
        is_emptied = removed and self._in_file == 0 and any(each.delete for each in removals)
        if is_emptied and not self._puts and not self.set_aside:
            self.size = 0  # what an earlier process left was counted by an estimate
        _end(puts, refused)
        # Also those that wait for room: the records are delivered, and are not read again.
        _end(removals, None)
        return is_emptied

    def _say(self, refused: SpoolFull | None) -> None:
        if refused is not None and self.refused is None:
            _log.error("spool_full", file=str(self.claim.path), problem=str(refused))
        elif self.refused is not None and refused is None:
            _log.info("spool_has_room", file=str(self.claim.path))
        self.refused = refused

    def _break(self, problem: str) -> None:
        if self.broken is None:
            self.broken = problem
            _log.error("spool_broken", file=str(self.claim.path), problem=problem)
            self._store.abandon()
        self._changed.set()
        self._arrived.set()

    # From here on: the thread.

    def _commit(self, puts: Sequence[Put], removals: Sequence[Remove]) -> tuple[SpoolFull | None, bool, bool]:
        """Write one transaction.

        Returns why the puts were refused, if they were; whether the removals happened; whether the log is long now.

        Raises SpoolBroken.
        """
        started = time.perf_counter()
        delete = [position for each in removals for position in each.delete]
        set_aside = [pair for each in removals for pair in each.set_aside]
        rows = [each.row for each in puts]
        refused = self._short_of(sum(each.size for each in puts)) or self._try(rows, delete, set_aside)
        # What is delivered may go even when nothing new has room.
        removed = refused is None or (not isinstance(refused, SpoolBusy) and self._try((), delete, set_aside) is None)
        if rows and refused is None:
            self._metrics.committed(seconds=time.perf_counter() - started, rows=len(rows))
        return refused, removed, self._store.is_log_long

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

    def _checkpoint(self, is_emptied: bool) -> int | None:  # noqa: FBT001 - an executor passes positions
        """Returns the size of what is set aside in a file without other records, if that can be said now."""
        with contextlib.suppress(SpoolFull):
            self._store.checkpoint(emptied=is_emptied)
            return self._store.totals().size if is_emptied and self.set_aside else None
        return None

    def _short_of(self, size: int) -> SpoolFull | None:
        free, total = self._free_bytes()
        # What is in the log is written once more into the file, and a delete needs room too.
        floor = min(_FLOOR_BYTES, int(total * _FLOOR_SHARE)) + 2 * size + self._store.log_bytes
        return SpoolFull("the spool's disk is full") if free < floor else None

    def _free_bytes_of_disk(self) -> tuple[int, int]:
        try:
            found = os.statvfs(self.claim.path.parent)
        except OSError as error:
            raise SpoolBroken(f"the spool's disk: {error}") from error
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def _end(work: Sequence[Put | Remove], error: Exception | None) -> None:
    for each in work:
        if each.done.done():
            continue
        if error is None:
            each.done.set_result(None)
        else:
            each.done.set_exception(type(error)(str(error)))
