"""Brings the table to each new assignment: restores and standbys by the chunk, where Faust reads record by record.

After a rebalance: lost partitions are closed, active ones are restored to the end of their changelog, streams resume,
and standbys follow in the background.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import structlog
from confluent_kafka import KafkaException
from faust import Service

from taskbridge.schemas.topics import TASK_EVENTS
from taskbridge.streams.engine.app import consumer_of, poll, tables_of
from taskbridge.streams.table_versions import TOMBSTONE_RETENTION_MS
from taskbridge.streams.tables.changelog_reader import ChangelogReader
from taskbridge.streams.tables.store import Store, StorePosition, explaining_unreadable
from taskbridge.streams.transactions.group_commit import Overtaken
from taskbridge.streams.transactions.offsets import Offsets
from taskbridge.streams.transactions.positions import POSITION_KEY, Bounds, RecordedPosition, read_position

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

    import faust
    from faust.types import TP

    from taskbridge.streams.transactions.takeover import Takeover

log = structlog.get_logger(__name__)

_OLDEST_MS = TOMBSTONE_RETENTION_MS * 3 // 4
"""An older store may have missed a deletion whose tombstone is gone."""
_RETRY_S = 1.0


class Superseded(Exception):
    """Another rebalance began, and its assignment counts."""


class Assignment(NamedTuple):
    actives: frozenset[int]
    standbys: frozenset[int]


def assignment_of(assignor: Any, changelog: str) -> Assignment:
    actives, standbys = assignor.assigned_actives(), assignor.assigned_standbys()
    return Assignment(
        frozenset(tp.partition for tp in actives if tp.topic == changelog),
        frozenset(tp.partition for tp in standbys - actives if tp.topic == changelog),
    )


class Start(NamedTuple):
    offset: int
    wipe_because: str | None = None


def starting_point(position: StorePosition | None, bounds: Bounds, *, changelog_id: str, now_ms: int) -> Start:
    """Where a store at ``position`` continues in a changelog that has offsets within ``bounds``. Pure."""
    if position is None:
        return Start(bounds.first)
    if position.changelog_id != changelog_id:
        return Start(bounds.first, "it belongs to another changelog")
    if not bounds.first <= position.offset + 1 <= bounds.end:
        return Start(
            bounds.first, f"it is at offset {position.offset}, the changelog from {bounds.first} to {bounds.end}"
        )
    if now_ms - position.at_ms > _OLDEST_MS:
        return Start(bounds.first, "it is older than the changelog's tombstones")
    return Start(position.offset + 1)


@dataclass(eq=False)
class TableRecovery:
    """The table's store and the reader of its changelog.

    One party at a time writes to a partition's store: the reader, until ``restore`` is done; then the agent, until
    ``close_all_but`` is called without the partition.
    """

    store: Store
    topic: str
    reader: ChangelogReader
    offsets: Offsets

    async def close_all_but(self, *, actives: Collection[int], standbys: Collection[int]) -> None:
        """Stop all other restorations and standbys, and close the stores of other partitions. Standbys continue."""
        await asyncio.wrap_future(self.reader.leave_all_but(standbys))
        for partition in self.store.held - set(actives) - set(standbys):
            log.info("store_closed", partition=partition)
            await asyncio.to_thread(self.store.release, partition)

    async def restore(self, partitions: Collection[int]) -> asyncio.Future[list[None]]:
        restoring = asyncio.gather(*await self._follow(partitions, standby=False))
        # A rebalance may come before it is awaited.
        restoring.add_done_callback(lambda done: done.cancelled() or done.exception())
        return restoring

    async def stand_by(self, partitions: Collection[int]) -> None:
        """Follow these near the end of the changelog, until ``close_all_but`` or ``restore``."""
        await self._follow(set(partitions) - set(self.reader.followed), standby=True)

    async def _follow(self, partitions: Collection[int], *, standby: bool) -> list[asyncio.Future[None]]:
        if not partitions:
            return []
        ends = await asyncio.to_thread(self._open, partitions)
        return [
            asyncio.wrap_future(self.reader.follow(partition, start=start, end=end, standby=standby))
            for partition, (start, end) in ends.items()
        ]

    def _open(self, partitions: Collection[int]) -> dict[int, tuple[int, int]]:
        """Open these stores and empty those that are out of date; where each continues, and its current end. Blocks."""
        store = self.store
        changelog_id = self.offsets.topic_id(self.topic)
        store.follow(changelog_id)
        bounds = self.offsets.bounds(self.topic, partitions)
        # The last records may be in an open transaction, and their writer's store has them.
        written = self.offsets.ends(self.topic, partitions)
        found: dict[int, tuple[int, int]] = {}
        for partition in partitions:
            store.hold(partition)
            start = starting_point(
                store.position(partition),
                Bounds(bounds[partition].first, written[partition]),
                changelog_id=changelog_id,
                now_ms=time.time_ns() // 1_000_000,
            )
            if start.wipe_because is not None:
                log.error("store_emptied", partition=partition, because=start.wipe_because)
                store.wipe(partition)
            found[partition] = (start.offset, bounds[partition].end)
        return found


class Recovery(Service):
    """Applies each assignment. Faust requires ``completed`` and the methods ``on_…``."""

    def __init__(
        self,
        app: faust.App,
        store: Store,
        changelog: str,
        reading: Mapping[str, object],
        takeover: Takeover,
        *,
        admit: Callable[[], None],
        on_emptied: Callable[[], None],
    ) -> None:
        """``takeover`` makes this worker the only writer for its partitions, before they are restored.

        ``reading``: the consumer's properties for the changelog. ``admit`` blocks, and raises if this worker may not
        work although it joined the group; it is called first. ``on_emptied``: a damaged store was emptied.
        """
        self.app = app
        self._manager = tables_of(app)
        self._store, self._changelog = store, changelog
        self._reading = reading
        self._takeover = takeover
        self._admit = admit
        self._on_emptied = on_emptied
        self.completed = asyncio.Event()
        self._changed = asyncio.Event()
        self._generation = 0
        self.table: TableRecovery | None = None
        self.assignment: Assignment | None = None
        self.restored_records = 0
        super().__init__(beacon=self._manager.beacon)

    async def on_start(self) -> None:
        fail = partial(_call_soon, asyncio.get_running_loop(), self._fail)
        self._store.report_to(damaged=fail, emptied=self._on_emptied)
        reader = ChangelogReader(self._reading, self._changelog, self._store, fail)
        self.table = TableRecovery(self._store, self._changelog, reader, Offsets(self._reading))

    async def on_stop(self) -> None:
        self._changed.set()
        if self.table is not None:
            await asyncio.to_thread(self.table.reader.close)
        self._store.close()

    def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Nothing: reading on is harmless until the new assignment is known."""

    async def on_rebalance(
        self,
        assigned: set[TP],  # noqa: ARG002 - the assignor distinguishes actives and standbys
        revoked: set[TP],  # noqa: ARG002
        newly_assigned: set[TP],  # noqa: ARG002
        generation_id: int = 0,
    ) -> None:
        if generation_id == self.app.consumer_generation_id:
            self._generation = generation_id
            self._changed.set()

    @Service.task
    async def _follow_assignments(self) -> None:
        while not self.should_stop:
            await self.wait_for_stopped(cast("Any", self._changed))
            if self.should_stop:
                return
            self._changed.clear()
            try:
                await self._apply_assignments(self._generation)
            except Superseded:
                log.info("recovery_aborted_by_rebalance")
            except Exception as error:
                log.exception("tables_not_recovered")
                await self.app.crash(error)
                return

    async def _apply_assignments(self, generation: int) -> None:
        started = time.monotonic()
        self.app.in_recovery = True
        table, takeover = self.table, self._takeover
        assert table is not None, "started"
        actives, standbys = self.assignment = assignment_of(self.app.assignor, table.topic)
        before = table.reader.applied
        await table.close_all_but(actives=actives, standbys=standbys)
        sources = [tp for tp in self.app.assignor.assigned_actives() if tp.topic != table.topic]
        # Before the changelog's ends are read: afterwards no record of a former owner can follow.
        await self._retried(lambda: asyncio.to_thread(self._admit))
        committed = await self._retried(lambda: self._as_chunk(lambda: takeover.claim_partitions(sources)))
        await self._unless_changed(await self._retried(lambda: table.restore(actives)))
        self.restored_records = table.reader.applied - before
        recorded = _recorded_positions(table, sources)
        await self._retried(
            lambda: self._as_chunk(lambda: takeover.commit_positions(committed, recorded, generation=generation))
        )
        log.info(
            "tables_recovered",
            active=sorted(actives),
            standby=sorted(standbys),
            records=self.restored_records,
            seconds=round(time.monotonic() - started, 3),
        )
        await self._go_live(generation)
        await self._retried(lambda: table.stand_by(standbys))
        self._manager.on_standbys_ready()

    async def _as_chunk(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """A rebalance waits for it as for a chunk, because its commit would be refused afterwards."""
        consumer = consumer_of(self.app)
        if consumer.is_leaving:
            raise Superseded
        with consumer.working():
            return await work()

    async def _go_live(self, generation: int) -> None:
        """Resume the streams from the committed positions. The steps and their order are Faust's."""
        app, consumer = self.app, consumer_of(self.app)
        await app.on_rebalance_complete.send()
        app.in_recovery = False
        if self._changed.is_set() or app.consumer_generation_id != generation:
            raise Superseded
        consumer.resume_partitions({tp for tp in consumer.assignment() if tp.topic == TASK_EVENTS.name})
        await self._unless_changed(asyncio.ensure_future(consumer.perform_seek()))
        if consumer.is_leaving or app.consumer_generation_id != generation:
            raise Superseded
        consumer.forbid_skipping()
        self.completed.set()
        app.flow_control.resume()
        consumer.resume_flow()
        await poll(app)
        self._manager.on_actives_ready()
        app.on_rebalance_end()

    async def _retried(self, request: Callable[[], Any]) -> Any:
        while True:
            try:
                return await request()
            except Overtaken as error:
                raise Superseded from error
            except (KafkaException, TimeoutError) as error:
                log.warning("takeover_waits", problem=str(error))
                await self._unless_changed(asyncio.ensure_future(asyncio.sleep(_RETRY_S)))

    async def _unless_changed(self, work: asyncio.Future[Any]) -> None:
        changed = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait({work, changed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
        if self._changed.is_set():
            work.cancel()
            raise Superseded
        await work

    def _fail(self, error: BaseException) -> None:
        log.error("table_update_failed", problem=str(error))
        self.add_future(self.app.crash(error))


def _recorded_positions(table: TableRecovery, sources: Iterable[TP]) -> dict[TP, RecordedPosition | None]:
    found: dict[TP, RecordedPosition | None] = {}
    for source in sources:
        with explaining_unreadable(table.topic, source.partition):
            found[source] = read_position(table.store.read(source.partition, POSITION_KEY))
    return found


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[[BaseException], None], error: BaseException) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, error)
