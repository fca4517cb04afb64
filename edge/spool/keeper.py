"""The spools of one process: its own, and those of processes that are gone; each with its drainer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from edge.errors import NotDurable
from edge.spool.drainer import Drainer
from edge.spool.elsewhere import holds_nothing
from edge.spool.errors import SpoolBroken, SpoolFull
from edge.spool.files import SpoolFolder
from edge.spool.recovery import open_or_recover
from edge.spool.store import sync
from edge.spool.writer import Spool

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edge.kafka_path import KafkaPath
    from edge.spool.files import Claim
    from edge.spool.metrics import SpoolMetrics
    from schemas.registry import SchemaRef

_TEND_S = 1.0
_STOP_S = 3.0

_log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class _Kept:
    spool: Spool
    drainer: Drainer
    task: asyncio.Task[None]


class SpoolKeeper:
    """Opens, drains and closes spools; takes over orphans at its start and for as long as it lives."""

    def __init__(
        self,
        path: Path,
        schemas: Sequence[SchemaRef],
        kafka: KafkaPath,
        *,
        max_bytes: int,
        metrics: SpoolMetrics,
    ) -> None:
        self.folder = SpoolFolder(path)
        self.problem: str | None = "is not open yet"
        self._schemas = schemas
        self._kafka = kafka
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._own: Spool | None = None
        self._kept: dict[int, _Kept] = {}

    @property
    def own(self) -> Spool:
        """Where new records go.

        Raises:
            SpoolFull, SpoolBroken: they cannot now.
        """
        broken = self.broken
        if broken is not None:
            raise SpoolBroken(broken)
        if self._own is None:
            raise SpoolFull(f"the spool: {self.problem}")
        return self._own

    @property
    def broken(self) -> str | None:
        for each in self._kept.values():
            if each.spool.broken is not None:
                return each.spool.broken
        return None

    @property
    def full(self) -> bool:
        return self._own is None or self._own.disk_full or self._own.is_over_bound

    @property
    def waiting(self) -> int:
        """Undelivered records of all processes that share the folder."""
        return self.folder.page.total_count() if self._is_prepared else 0

    @property
    def size(self) -> int:
        return self.folder.page.total_bytes() if self._is_prepared else 0

    @property
    def oldest_age_s(self) -> float:
        oldest = [each.oldest for each in self.folder.page.slots().values() if each.oldest] if self._is_prepared else []
        return max(0.0, time.time() - min(oldest) / 1e9) if oldest else 0.0

    @property
    def set_aside(self) -> int:
        return sum(each.spool.set_aside for each in self._kept.values())

    @property
    def moving(self) -> int:
        """Those of them that can be delivered now, as far as is known."""
        return self.folder.page.total_moving() if self._is_prepared else 0

    def anything_moves(self) -> bool:
        return self._is_prepared and self.folder.page.anything_moves()

    async def start(self) -> None:
        """Open what can be opened now; a disk without room is tried again while it lives."""
        with contextlib.suppress(NotDurable):
            await self._open_own()
            await self.adopt()

    async def tend(self) -> None:
        """Never returns: opens what could not be opened, and adopts what others left."""
        while True:
            await asyncio.sleep(_TEND_S)
            try:
                if self._own is None:
                    await self._open_own()
                await self.adopt()
                await self._let_go()
                if not self.anything_moves():
                    self._kafka.forgive(but={each for kept in self._kept.values() for each in kept.drainer.behind})
            except NotDurable as error:
                _log.warning("spool_not_tended", problem=str(error))
            except Exception:  # noqa: BLE001 - orphans must be adopted whatever happened once
                _log.exception("spool_not_tended")

    async def adopt(self) -> int:
        """Take over every file that nobody owns, with what it holds; returns how many.

        Raises:
            SpoolFull
        """
        await self._prepare()
        adopted = 0
        for claim in await asyncio.to_thread(self.folder.claim_orphans):
            spool = await self._open(claim)
            _log.info("spool_adopted", file=str(claim.path), records=spool.waiting)
            adopted += 1
        return adopted

    async def close(self) -> None:
        """Finish what is under way, in bounded time; the rest stays in the files for whoever comes next."""
        for kept in self._kept.values():
            kept.drainer.stop()
        tasks = [each.task for each in self._kept.values()]
        # A drainer that waits (for records, for Kafka) does not see that it is to stop.
        idle = [each.task for each in self._kept.values() if not each.spool.waiting or not self._kafka.usable]
        for task in idle:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_STOP_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for kept in self._kept.values():
            await kept.spool.close()
        self._kept.clear()
        self._own = None
        self.problem = "is closed"

    @property
    def _is_prepared(self) -> bool:
        return self.folder.is_prepared

    async def _prepare(self) -> None:
        if not self._is_prepared:
            await asyncio.to_thread(self.folder.prepare)

    async def _open_own(self) -> None:
        try:
            await self._prepare()
            claim = await asyncio.to_thread(self.folder.claim_own)
            self._own = await self._open(claim)
        except NotDurable as error:
            self.problem = str(error)
            raise
        self.problem = None

    async def _open(self, claim: Claim) -> Spool:
        try:
            opened = await asyncio.to_thread(open_or_recover, claim.path, self._schemas)
        except NotDurable:
            # Without the disk's room Kafka alone must do, unless there is something that nobody may overtake.
            if await asyncio.to_thread(holds_nothing, claim.path):
                self.folder.page.set(claim.number, oldest=0, count=0, size=0)
            claim.release()
            raise
        if opened.damaged is not None:
            self._metrics.file_damaged(rows_damaged=opened.rows_damaged)
            _log.error("spool_file_set_aside", file=str(opened.damaged), rows_saved=opened.rows_saved)
        page = self.folder.page
        spool = Spool(opened.store, claim, page, max_bytes=self._max_bytes, observer=self._metrics)
        if spool.waiting:
            _log.info("spool_holds", file=str(claim.path), records=spool.waiting)
        drainer = Drainer(spool, self._kafka, page, self._metrics)
        self._kept[claim.number] = _Kept(spool, drainer, asyncio.create_task(drainer.run()))
        return spool

    async def _let_go(self) -> None:
        """Close adopted files that are empty, and remove them: else every restart would add one."""
        for number, kept in list(self._kept.items()):
            if kept.spool is self._own or kept.spool.waiting or kept.spool.size > 0 or kept.spool.broken is not None:
                continue
            del self._kept[number]
            kept.task.cancel()
            await asyncio.gather(kept.task, return_exceptions=True)
            await kept.spool.close(remove=not kept.spool.set_aside)
            if not kept.spool.set_aside:
                await asyncio.to_thread(sync, self.folder.path)
