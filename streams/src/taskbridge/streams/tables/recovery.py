"""Tables between assignments: Faust's table manager, with recovery and standbys by the chunk instead of by the record.

After a rebalance: partitions that went are closed, active ones restored to the end of their changelog, then the streams
go on, while standbys follow in the background. What Faust calls recovery reads record by record through the consumer.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import structlog
from confluent_kafka import KafkaException
from faust import Service

from taskbridge.streams.engine.parts import consumer_of, poll, tables_of
from taskbridge.streams.positions.kept_position import POSITION_KEY, read_position
from taskbridge.streams.positions.offsets import Offsets
from taskbridge.streams.tables.changelog import ChangelogReader
from taskbridge.streams.tables.table_keeper import TableKeeper, assigned
from taskbridge.streams.tables.unreadable import naming
from taskbridge.streams.transactions.group_commit import Overtaken
from taskbridge.streams.transactions.takeover import Owned

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

    import faust
    from faust.types import TP

    from taskbridge.streams.positions.kept_position import KeptPosition
    from taskbridge.streams.tables.table_keeper import Wanted
    from taskbridge.streams.transactions.takeover import Takeover

log = structlog.get_logger(__name__)

_RETRY_S = 1.0
_TOUCH_S = 3600.0


class Superseded(Exception):
    """Another rebalance began; its assignment is what counts."""


class Recovery(Service):
    """Follows the assignments. ``completed`` and the methods ``on_…`` are what Faust expects of it."""

    def __init__(
        self,
        app: faust.App,
        reading: Mapping[str, object],
        takeover: Takeover,
        *,
        admit: Callable[[], None],
        known: Collection[str],
        on_emptied: Callable[[], None],
    ) -> None:
        """``takeover`` makes this worker the only one that can write for its partitions, before they are restored.

        ``reading``: a consumer's properties, for the changelogs.
        ``admit`` raises where this worker may not work although it is in the group; it blocks, and comes before all
        else. ``known``: the changelogs that the group's positions name: a store of another one is out of date.
        ``on_emptied`` is notified when a damaged store is emptied.
        """
        self.app = app
        self._tables = tables_of(app)
        self._reading = reading
        self._takeover = takeover
        self._admit = admit
        self._known = known
        self._on_emptied = on_emptied
        self.completed = asyncio.Event()
        self._changed = asyncio.Event()
        self._generation = 0
        self._keepers: dict[str, TableKeeper] = {}
        self.wanted: dict[str, Wanted] = {}
        self.taken_over_records = 0
        """Changelog records that the last takeover had to read."""
        super().__init__(beacon=self._tables.beacon)

    @property
    def keepers(self) -> dict[str, TableKeeper]:
        """By changelog topic."""
        return self._keepers

    async def on_start(self) -> None:
        fail = partial(_call_soon, asyncio.get_running_loop(), self._fail)
        for topic, table in self._tables.changelogs.items():
            table.data.report_to(damaged=fail, emptied=self._on_emptied)
            reader = ChangelogReader(self._reading, topic, table.data, fail)
            self._keepers[topic] = TableKeeper(
                table.data, topic, reader, Offsets(self._reading), is_known=topic in self._known
            )

    async def on_stop(self) -> None:
        self._changed.set()
        for keeper in self._keepers.values():
            await asyncio.to_thread(keeper.close)

    def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Nothing yet: reading on does no harm until it is known what this worker keeps."""

    async def on_rebalance(
        self,
        assigned: set[TP],  # noqa: ARG002 - the assignor tells actives from standbys
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
                await self._take_on(self._generation)
            except Superseded:
                log.info("recovery_aborted_by_rebalance")
            except Exception as error:
                log.exception("tables_not_recovered")
                await self.app.crash(error)
                return

    @Service.task
    async def _touch(self) -> None:
        """Positions of quiet partitions stay young enough to be trusted at the next start."""
        async for _ in self.itertimer(_TOUCH_S, name="Recovery.touch"):
            if not self.app.rebalancing:
                for topic, keeper in self._keepers.items():
                    await keeper.touch(self.wanted[topic].actives if topic in self.wanted else ())

    async def _take_on(self, generation: int) -> None:
        started = time.monotonic()
        self.app.in_recovery = True
        self.wanted = assigned(self.app.assignor, self._keepers)
        before = sum(keeper.applied for keeper in self._keepers.values())
        for topic, keeper in self._keepers.items():
            await keeper.give_up(actives=self.wanted[topic].actives, standbys=self.wanted[topic].standbys)
        takeover, owned = self._takeover, self._owned()
        # Before anybody asks where the changelog ends: afterwards no record of an earlier owner can come.
        await self._retried(lambda: asyncio.to_thread(self._admit))
        committed = await self._retried(lambda: self._as_a_chunk(lambda: takeover.take(owned)))
        restoring = [
            await self._retried(lambda keeper=keeper, topic=topic: keeper.restore(self.wanted[topic].actives))
            for topic, keeper in self._keepers.items()
        ]
        await self._unless_changed(asyncio.gather(*restoring))
        self.taken_over_records = sum(keeper.applied for keeper in self._keepers.values()) - before
        kept = self._kept(committed)
        await self._retried(lambda: self._as_a_chunk(lambda: takeover.begin(committed, kept, generation=generation)))
        log.info(
            "tables_recovered",
            active=sorted(frozenset[int]().union(*(wanted.actives for wanted in self.wanted.values()))),
            standby=sorted(frozenset[int]().union(*(wanted.standbys for wanted in self.wanted.values()))),
            records=self.taken_over_records,
            seconds=round(time.monotonic() - started, 3),
        )
        await self._go_live(generation)
        for topic, keeper in self._keepers.items():
            await self._retried(lambda keeper=keeper, topic=topic: keeper.stand_by(self.wanted[topic].standbys))
        self._tables.on_standbys_ready()

    async def _as_a_chunk(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """A rebalance waits for it, as for a chunk: what it commits would be refused otherwise."""
        consumer = consumer_of(self.app)
        if consumer.is_leaving:
            raise Superseded
        with consumer.working():
            return await work()

    def _kept(self, sources: Iterable[TP]) -> dict[TP, KeptPosition | None]:
        """What the changelogs say themselves of how far these are folded."""
        found: dict[TP, KeptPosition | None] = {}
        for source in sources:
            changelog = self._takeover.changelog_of(source)
            if changelog in self._keepers:
                with naming(changelog, source.partition):
                    found[source] = read_position(self._keepers[changelog].store.read(source.partition, POSITION_KEY))
        return found

    def _owned(self) -> Owned:
        actives = self.app.assignor.assigned_actives()
        changelogs = frozenset(tp for tp in actives if tp.topic in self._keepers)
        return Owned(frozenset(actives) - changelogs, changelogs)

    async def _go_live(self, generation: int) -> None:
        """Let the streams go on from what is committed. The steps and their order are Faust's."""
        app, consumer = self.app, consumer_of(self.app)
        await app.on_rebalance_complete.send()
        app.in_recovery = False
        if self._changed.is_set() or app.consumer_generation_id != generation:
            raise Superseded
        consumer.resume_partitions({tp for tp in consumer.assignment() if tp.topic not in self._keepers})
        await self._unless_changed(asyncio.ensure_future(consumer.perform_seek()))
        if consumer.is_leaving or app.consumer_generation_id != generation:
            raise Superseded
        consumer.skip_nothing()
        self.completed.set()
        app.flow_control.resume()
        consumer.resume_flow()
        await poll(app)
        self._tables.on_actives_ready()
        app.on_rebalance_end()

    async def _retried(self, ask: Callable[[], Any]) -> Any:
        """What Kafka answers, however long it takes, unless another rebalance begins."""
        while True:
            try:
                return await ask()
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


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[[BaseException], None], error: BaseException) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, error)
