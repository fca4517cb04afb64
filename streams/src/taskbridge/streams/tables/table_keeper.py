"""Brings one table's partitions to where an assignment wants them: closed, on standby, or restored to the end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from taskbridge.schemas.errors import OperatorError
from taskbridge.streams.positions.changelog_topic import TOMBSTONES_KEPT_MS, mend
from taskbridge.streams.positions.offsets import Bounds

if TYPE_CHECKING:
    from collections.abc import Collection

    from taskbridge.streams.positions.offsets import Offsets
    from taskbridge.streams.tables.changelog import ChangelogReader, Followed
    from taskbridge.streams.tables.store import Store
    from taskbridge.streams.tables.store_files import StorePosition

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
