"""Brings tables to each new assignment: restores and standbys by the chunk, where Faust reads record by record.

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

from taskbridge.schemas.errors import OperatorError
from taskbridge.streams.engine.app import consumer_of, poll, tables_of
from taskbridge.streams.offsets import Offsets
from taskbridge.streams.positions import POSITION_KEY, Bounds, read_position
from taskbridge.streams.table_versions import TOMBSTONES_KEPT_MS, mend
from taskbridge.streams.tables.changelog_reader import ChangelogReader
from taskbridge.streams.tables.store import naming
from taskbridge.streams.transactions.group_commit import Overtaken
from taskbridge.streams.transactions.takeover import Owned

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

    import faust
    from faust.types import TP

    from taskbridge.streams.positions import KeptPosition
    from taskbridge.streams.tables.changelog_reader import Followed
    from taskbridge.streams.tables.store import Store, StorePosition
    from taskbridge.streams.transactions.takeover import Takeover

log = structlog.get_logger(__name__)

_OLDEST_MS = TOMBSTONES_KEPT_MS * 3 // 4


class StoreOfAnother(OperatorError):
    """A store holds more than its changelog: it is what is left, and is not emptied to match."""


class Misassigned(OperatorError):
    """Events were assigned without the changelog of their partition: they cannot be folded here."""


class Wanted(NamedTuple):
    """One table's partitions as the group's leader assigned them to this worker."""

    actives: frozenset[int]
    standbys: frozenset[int]


def assigned(assignor: Any, changelogs: Collection[str]) -> dict[str, Wanted]:
    """By changelog topic.

    Raises:
        Misassigned: there is an active partition of events without that of each table.
    """
    actives, standbys = assignor.assigned_actives(), assignor.assigned_standbys()
    wanted = {
        topic: Wanted(
            frozenset(tp.partition for tp in actives if tp.topic == topic),
            frozenset(tp.partition for tp in standbys - actives if tp.topic == topic),
        )
        for topic in changelogs
    }
    events = {tp.partition for tp in actives if tp.topic not in changelogs}
    for topic, each in wanted.items():
        if missing := events - each.actives:
            raise Misassigned(f"partitions {sorted(missing)} were assigned, but not those of {topic}")
    return wanted


class Start(NamedTuple):
    """Where to read on. With a reason to wipe, what the store holds cannot be built upon."""

    offset: int
    wipe_because: str | None = None


def starting_point(
    position: StorePosition | None, bounds: Bounds, *, changelog_id: str, is_known: bool, now_ms: int
) -> Start:
    """Where a store at ``position`` goes on in a changelog that was written within ``bounds``. Pure.

    ``is_known``: the group's positions name this very changelog, so that what another one left is out of date.

    Raises:
        StoreOfAnother: the changelog has lost what the store has.
    """
    if position is None:
        return Start(bounds.first)
    if position.changelog_id != changelog_id:
        if is_known:
            return Start(bounds.first, "it belongs to an abandoned changelog")
        raise StoreOfAnother("the changelog was deleted and recreated, and no position of the group confirms it")
    if position.offset >= bounds.end:
        raise StoreOfAnother(f"it is at offset {position.offset} of a changelog that ends at {bounds.end}")
    if position.offset + 1 < bounds.first:
        raise StoreOfAnother(f"the changelog begins at {bounds.first}, after its offset {position.offset}")
    if now_ms - position.at_ms > _OLDEST_MS:
        return Start(bounds.first, "it is older than the changelog's tombstones")
    return Start(position.offset + 1)


@dataclass(eq=False)
class TableKeeper:
    """One table's store and the reader of its changelog.

    At any moment one party writes to a partition's store: the reader, until ``restore`` is over, and the agent from
    then on, until ``give_up`` was told that the partition is no longer active.
    """

    store: Store
    topic: str
    reader: ChangelogReader
    offsets: Offsets
    is_known: bool = False
    """The group's positions name this very changelog."""

    @property
    def followed(self) -> dict[int, Followed]:
        """The partitions that are being restored or on standby."""
        return self.reader.followed

    @property
    def applied(self) -> int:
        """Changelog records that were applied since the start of the process."""
        return self.reader.applied

    async def give_up(self, *, actives: Collection[int], standbys: Collection[int]) -> None:
        """Stop reading what is no standby any more, and close what is neither. Standbys go on undisturbed."""
        await asyncio.wrap_future(self.reader.leave_all_but(standbys))
        for partition in self.store.held - set(actives) - set(standbys):
            log.info("store_closed", partition=partition)
            await asyncio.to_thread(self.store.release, partition)

    async def restore(self, partitions: Collection[int]) -> asyncio.Future[list[None]]:
        """Begin to restore these; the future is done when each is at the end that its changelog has now.

        Raises:
            KafkaException: Kafka refuses, or cannot be reached.
            TimeoutError: it does not answer.
        """
        restoring = asyncio.gather(*await self._follow(partitions, standby=False))
        # A rebalance may come before anybody awaits it.
        restoring.add_done_callback(lambda done: done.cancelled() or done.exception())
        return restoring

    async def stand_by(self, partitions: Collection[int]) -> None:
        """Keep these near the end of the changelog, until ``give_up`` or ``restore`` says otherwise.

        Raises:
            KafkaException: Kafka refuses, or cannot be reached.
            TimeoutError: it does not answer.
        """
        await self._follow(set(partitions) - set(self.reader.followed), standby=True)

    async def touch(self, partitions: Collection[int]) -> None:
        """Say of these, which are active, that their positions still hold."""
        for partition in self.store.held.intersection(partitions):
            self.store.touch(partition)

    def close(self) -> None:
        """Stop reading. Blocks until nothing more is written."""
        self.reader.close()

    async def _follow(self, partitions: Collection[int], *, standby: bool) -> list[asyncio.Future[None]]:
        if not partitions:
            return []
        ends = await asyncio.to_thread(self._open, partitions)
        return [
            asyncio.wrap_future(self.reader.follow(partition, start=start, end=end, standby=standby))
            for partition, (start, end) in ends.items()
        ]

    def _open(self, partitions: Collection[int]) -> dict[int, tuple[int, int]]:
        """Open these, empty those that are out of date; where each goes on, and where it ends now. Blocks.

        Raises:
            StoreOfAnother: a changelog has lost what a store has.
        """
        store = self.store
        changelog_id = self.offsets.topic_id(self.topic)
        store.follow(changelog_id)
        bounds = self.offsets.bounds(self.topic, partitions)
        # What was written last may not be decided yet, and the store of who wrote it has it.
        written = self.offsets.ends(self.topic, partitions)
        found: dict[int, tuple[int, int]] = {}
        for partition in partitions:
            store.hold(partition)
            position = store.position(partition)
            try:
                start = starting_point(
                    position,
                    Bounds(bounds[partition].first, written[partition]),
                    changelog_id=changelog_id,
                    is_known=self.is_known,
                    now_ms=time.time_ns() // 1_000_000,
                )
            except StoreOfAnother as error:
                raise StoreOfAnother(
                    f"{self.topic}, partition {partition}: {error}. The local store is not changed:"
                    f" {store.partition_path(partition)}. {mend(self.topic)}"
                ) from error
            because = start.wipe_because
            if position is None and not store.is_empty(partition):
                because = "it has no position"
            if because is not None:
                log.error("store_emptied", partition=partition, because=because)
                store.wipe(partition)
            found[partition] = (start.offset, bounds[partition].end)
        return found


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
