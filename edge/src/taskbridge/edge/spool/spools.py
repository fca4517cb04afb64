"""The spools of one process: its own, and those that it adopted; each with its drainer.

An operator may request to send rejected records again, in the running edge too. The request is a file next to the
spool's own, and the owner of the spool file follows it. So no other process ever writes to a file that is in use.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from taskbridge.edge.errors import NotDurable
from taskbridge.edge.spool.drainer import Drainer
from taskbridge.edge.spool.folder import SpoolFolder
from taskbridge.edge.spool.recovery import open_or_recover
from taskbridge.edge.spool.store import SpoolBroken, SpoolFull, sync
from taskbridge.edge.spool.writer import Spool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from taskbridge.edge.kafka.client import KafkaClient
    from taskbridge.edge.spool.folder import Claim
    from taskbridge.edge.spool.metrics import SpoolMetrics
    from taskbridge.schemas.registry import SchemaRef

_log = structlog.stdlib.get_logger(__name__)


_MAINTAIN_S = 1.0
_UNOPENED_S = 5.0
_STOP_S = 3.0


def request_requeue(path: Path) -> None:
    """Have what Kafka refused of the spool file at ``path`` tried once more."""
    _request_of(path).touch()


def is_requeue_requested(path: Path) -> bool:
    return _request_of(path).exists()


def _request_of(path: Path) -> Path:
    return path.with_suffix(".reclaim")


@dataclass(slots=True)
class _OpenSpool:
    spool: Spool
    drainer: Drainer
    task: asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class _Unopened:
    problem: str
    try_again_at: float


class Spools:
    """Opens, drains and closes spools; adopts orphans at its start and while it runs.

    A file that breaks is left; a new file replaces it, and its intact records are adopted like an orphan's.
    """

    def __init__(
        self, path: Path, schemas: Sequence[SchemaRef], kafka: KafkaClient, *, max_bytes: int, metrics: SpoolMetrics
    ) -> None:
        self.folder = SpoolFolder(path)
        self._problem = "is not open yet"
        self._broken: str | None = None
        self._schemas = schemas
        self._kafka = kafka
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._own: Spool | None = None
        self._open_spools: dict[int, _OpenSpool] = {}
        self._unopened: dict[int, _Unopened] = {}
        metrics.gauge("depth", "Records that wait for delivery to Kafka.", lambda: self.waiting)
        metrics.gauge("bytes", "Size of the spool, limited by EDGE_SPOOL_MAX_BYTES.", lambda: self.size)
        metrics.gauge("max_bytes", "Maximum size of the spool: EDGE_SPOOL_MAX_BYTES.", lambda: max_bytes)
        oldest = "Age of the oldest record that waits for delivery."
        metrics.gauge("oldest_seconds", oldest, lambda: self.oldest_age_s)
        metrics.gauge(
            "set_aside_records",
            "Records set aside because they cannot be delivered; see 'taskbridge spool status'.",
            lambda: self.set_aside,
        )
        metrics.gauge("full", "1 while the spool is full.", lambda: self.full)
        metrics.gauge("broken", "1 after an I/O error, until a new file is open.", lambda: self.broken is not None)
        without = "Files that cannot be opened now. The depth does not include their records."
        metrics.gauge("unopened_files", without, lambda: len(self.unopened))

    @property
    def waiting(self) -> int:
        return sum(each.spool.waiting for each in self._open_spools.values() if each.spool.broken is None)

    @property
    def size(self) -> int:
        return sum(each.spool.size for each in self._open_spools.values())

    @property
    def oldest_age_s(self) -> float:
        found = [each.spool.oldest for each in self._open_spools.values() if each.spool.broken is None]
        oldest = min(filter(None, found), default=None)
        return 0.0 if oldest is None else max(0.0, time.time() - oldest / 1e9)

    @property
    def moving(self) -> int:
        """Those that wait and can be delivered now, as far as is known."""
        return sum(each.spool.moving for each in self._open_spools.values())

    @property
    def own(self) -> Spool:
        """Where new records go. Raises SpoolFull or SpoolBroken if they cannot now."""
        if self._own is not None:
            return self._own
        if self._broken is not None:
            raise SpoolBroken(self._broken)
        raise SpoolFull(f"the spool: {self._problem}")

    @property
    def problem(self) -> str | None:
        """Why new records find no room; None while they do, and where the bound is the reason."""
        if self._own is None:
            return self._problem
        return None if self._own.refused is None else str(self._own.refused)

    @property
    def broken(self) -> str | None:
        """What broke the file that new records went to, until there is a new one."""
        return self._broken if self._own is None else self._own.broken

    @property
    def full(self) -> bool:
        return self._own is None or self._own.refused is not None or self._own.is_over_bound

    @property
    def unopened(self) -> dict[int, str]:
        """Files that broke or could not be opened, by any process, and why; what they hold is in no count."""
        found = {
            number: each.problem
            for number, each in self._unopened.items()
            if number not in self._open_spools
            and self.folder.file(number).exists()
            and self.folder.owner(number) in (None, os.getpid())
        }
        broken = {number: each.spool.broken for number, each in self._open_spools.items()}
        return found | {number: problem for number, problem in broken.items() if problem is not None}

    @property
    def set_aside(self) -> int:
        return sum(each.spool.set_aside for each in self._open_spools.values())

    async def start(self) -> None:
        """Open what can be opened now; a disk without room is tried again while it lives."""
        await self._survive(self._open_own)
        await self._survive(self.adopt)

    async def maintain(self) -> None:
        """Never returns: opens what could not be opened, and adopts what others left."""
        while True:
            await asyncio.sleep(_MAINTAIN_S)
            # Each even if another failed: orphans must be adopted though no new file can be made.
            for each in (self._leave_broken, self._open_own, self.adopt, self._close_empty):
                await self._survive(each)
            if not self.moving:
                self._kafka.forgive(but={place for each in self._open_spools.values() for place in each.drainer.behind})

    async def adopt(self) -> None:
        """Adopt every file without an owner, with its records; one that cannot be opened delays no other.

        Raises SpoolFull.
        """
        await self._prepare()
        now = time.monotonic()
        later = {number for number, each in self._unopened.items() if now < each.try_again_at}
        for claim in await asyncio.to_thread(self.folder.claim_orphans, later):
            await self._survive(partial(self._adopt, claim))
        await self._requeue()

    async def close(self) -> None:
        """Finish open deliveries in bounded time; the rest stays in the files for the next process."""
        for each in self._open_spools.values():
            each.drainer.stop()
        tasks = [each.task for each in self._open_spools.values()]
        # A drainer that waits (for records, for Kafka) does not see that it is to stop.
        idle = [each.task for each in self._open_spools.values() if not each.spool.waiting or not self._kafka.usable]
        for task in idle:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_STOP_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for each in self._open_spools.values():
            await each.spool.close()
        self._open_spools.clear()
        self._own, self._problem = None, "is closed"

    async def _prepare(self) -> None:
        if not self.folder.is_prepared:
            await asyncio.to_thread(self.folder.prepare)

    async def _survive(self, call: Callable[[], Awaitable[None]]) -> None:
        try:
            await call()
        except NotDurable as error:
            _log.warning("spool_upkeep_failed", problem=str(error))
        except Exception:  # noqa: BLE001 - maintenance must outlive any failure
            _log.exception("spool_upkeep_failed")

    async def _open_own(self) -> None:
        if self._own is not None:
            return
        try:
            await self._prepare()
            sound = [each.spool for each in self._open_spools.values() if each.spool.broken is None]
            # A file with trouble is left to adoption: it may take long, or never be opened.
            troubled = {number for number in self._unopened if self.folder.file(number).exists()}
            self._own = (
                sound[0] if sound else await self._open(await asyncio.to_thread(self.folder.claim_own, troubled))
            )
        except Exception as error:
            self._problem = str(error)
            raise
        self._broken = None

    async def _adopt(self, claim: Claim) -> None:
        spool = await self._open(claim)
        _log.info("spool_adopted", file=str(claim.path), records=spool.waiting)

    async def _leave_broken(self) -> None:
        for number, each in list(self._open_spools.items()):
            if each.spool.broken is None:
                continue
            self._metrics.file_broken()
            self._leave_alone(number, each.spool.broken)
            if each.spool is self._own:
                self._own, self._broken, self._problem = None, each.spool.broken, each.spool.broken
            await self._end(number)

    def _leave_alone(self, number: int, problem: str) -> None:
        self._unopened[number] = _Unopened(problem, time.monotonic() + _UNOPENED_S)

    async def _requeue(self) -> None:
        """Send set-aside records again where an operator requested it."""
        for each in list(self._open_spools.values()):
            if each.spool.broken is None and await asyncio.to_thread(is_requeue_requested, each.spool.claim.path):
                records = await each.spool.requeue()
                each.drainer.read_again()
                _log.info("spool_records_requeued", file=str(each.spool.claim.path), records=records)
                _request_of(each.spool.claim.path).unlink(missing_ok=True)

    async def _end(self, number: int, *, remove: bool = False) -> None:
        each = self._open_spools.pop(number)
        each.task.cancel()
        await asyncio.gather(each.task, return_exceptions=True)
        await each.spool.close(remove=remove)

    async def _open(self, claim: Claim) -> Spool:
        try:
            opened = await asyncio.to_thread(open_or_recover, claim.path, self._schemas)
        except Exception as error:
            # Its records are not known, so nothing waits for them; 'unopened' reports it.
            self._leave_alone(claim.number, str(error) or repr(error))
            claim.release()
            raise
        self._unopened.pop(claim.number, None)
        if opened.damaged is not None:
            self._metrics.file_damaged(rows_damaged=opened.rows_damaged)
            _log.error("spool_file_set_aside", file=str(opened.damaged), rows_saved=opened.rows_saved)
        spool = Spool(
            opened.store,
            opened.totals,
            claim,
            max_bytes=self._max_bytes,
            used_bytes=lambda: self.size,
            metrics=self._metrics,
        )
        if spool.waiting:
            _log.info("spool_file_opened", file=str(claim.path), records=spool.waiting)
        drainer = Drainer(spool, self._kafka, self._metrics)
        self._open_spools[claim.number] = _OpenSpool(spool, drainer, asyncio.create_task(drainer.run()))
        return spool

    async def _close_empty(self) -> None:
        """Close and remove adopted files that are empty: else every restart would add one.

        One with records set aside stays open and reported: it would be adopted again at once.
        """
        for number, each in list(self._open_spools.items()):
            spool = each.spool
            if spool is self._own or spool.waiting or spool.size > 0 or spool.set_aside or spool.broken is not None:
                continue
            await self._end(number, remove=True)
            await asyncio.to_thread(sync, self.folder.path)
