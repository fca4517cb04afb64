"""The spool on its event loop: records go in, and a future says when they are on the disk."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from taskbridge.edge.kafka.record import RowDamaged, record_of, row_of
from taskbridge.edge.spool.commits import Committer, Put, Remove
from taskbridge.edge.spool.errors import SpoolBroken, SpoolFull
from taskbridge.edge.spool.metrics import SpoolMetrics
from taskbridge.edge.spool.store import DAMAGED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskbridge.edge.kafka.record import Record, SpooledRecord
    from taskbridge.edge.spool.commits import Outcome, Work
    from taskbridge.edge.spool.files import Claim, Occupancy
    from taskbridge.edge.spool.store import Store

_log = structlog.stdlib.get_logger(__name__)


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
        self._last_created = 0
        self._stopped = False
        self._refused_bytes = 0
        self._queued = 0
        self._held = 0
        self._unremoved: set[int] = set()
        self._tell()
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
        """Take a record on; it is durable when the future is done, and not taken on when the future fails.

        Raises:
            SpoolFull, SpoolBroken: not taken on.
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
        self._last_created = created_at = max(time.time_ns(), self._last_created + 1)
        done: asyncio.Future[None] = self._loop.create_future()
        self._oldest = self._oldest or created_at
        self.waiting += 1
        self._queued += 1
        self.size += record.size
        self._tell()
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
        self._tell()
        if self._stopped:
            done.set_result(None)
        else:
            self._committer.hand_over(Remove([each.position for each in delivered], set_aside, size, done))
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
        self._tell()

    def hold(self, count: int) -> None:
        """So many of those that wait cannot be delivered now."""
        self._held = count
        self._changed.set()
        self._tell()

    async def until_moving(self) -> None:
        """Return when there is anything to deliver beside what is held, or that may have changed."""
        if self.waiting <= self._held:
            self._changed.clear()
            await self._changed.wait()

    @property
    def refused(self) -> SpoolFull | None:
        """Why nothing can be written now."""
        return self._committer.refused

    @property
    def is_over_bound(self) -> bool:
        """The last record was refused for the bound on bytes, and would be now."""
        return self._refused_bytes > 0 and self._occupancy.total_bytes() + self._refused_bytes > self._max_bytes

    async def close(self, *, remove: bool = False) -> None:
        """Write what was taken on, and leave the rest to whoever owns the file next; an empty file may be removed."""
        self._stopped = True
        await self._committer.stop()
        if self.broken is None:
            await asyncio.to_thread(self._store.close)
            if remove and not self.waiting:
                self.claim.path.unlink()
        self.claim.release()

    def _tell(self) -> None:
        if self.broken is not None:
            # Nothing leaves a broken file, so nobody may wait for it.
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
        self._tell()

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
        self._tell()
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
