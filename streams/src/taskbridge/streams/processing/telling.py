"""Tells what a rebuild left to be told, a few instances at a time, while events go on.

The queue of it is in the store and its changelog: a key for each instance, which goes in the transaction that tells of
it (``streams.processing.untold``). So it is as durable as states are, and whoever takes a partition over goes on.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import structlog

from taskbridge.streams.cores.core import notification_record
from taskbridge.streams.processing.untold import (
    UNTOLD,
    UNTOLD_END,
    instance_key,
    read_untold,
    state_record,
    told_of,
    untold_key,
)
from taskbridge.streams.tables.store import PartitionNotHeld
from taskbridge.streams.tables.unreadable import naming

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import TaskNotification, TaskState
    from taskbridge.streams.cores.core import Read
    from taskbridge.streams.processing.task_agent import TaskAgent
    from taskbridge.streams.records import RecordWithHeaders
    from taskbridge.streams.tables.store import Store

_TOGETHER = 200
"""Instances in one transaction: some 30 ms of the loop's time, in which no event is folded."""
_PAUSE_S = 1.0

log = structlog.get_logger(__name__)


class Beside(NamedTuple):
    """What is written of instances though it comes of no event."""

    gone: Collection[bytes] = ()
    """Keys that go from changelog and store."""
    states: Sequence[RecordWithHeaders] = ()
    notifications: Sequence[RecordWithHeaders] = ()


@dataclass(eq=False)
class UntoldInstances:
    """Of the version that is live, which only ever has fewer of them."""

    states: Codec[TaskState]
    notifications: Codec[TaskNotification]
    version: int
    told: set[int] = field(default_factory=set[int])
    """Partitions of which all is told."""

    def of(self, partition: int, keys: Iterable[bytes], read: Read) -> Beside:
        """What is to be told of those of these instances of which it has not been, before anything else is.

        Raises:
            StoreUnreadable: what is stored of one of them.
        """
        if partition in self.told:
            return Beside()
        names = [untold_key(key) for key in dict.fromkeys(keys)]
        found = {name: written for name, written in zip(names, read(names), strict=True) if written is not None}
        stored = read([instance_key(name) for name in found])
        states: list[RecordWithHeaders] = []
        notifications: list[RecordWithHeaders] = []
        for (name, written), instance in zip(found.items(), stored, strict=True):
            if instance is None:
                continue
            untold = read_untold(written)
            if not untold.is_published:
                states.append(state_record(instance_key(name), instance, self.states))
            told = told_of(untold, instance, self.states, version=self.version)
            notifications += [notification_record(each, self.notifications) for each in told]
        return Beside(found, states, notifications)


@dataclass(eq=False)
class Telling:
    """Of the active partitions, one after the other."""

    agent: TaskAgent
    store: Store
    changelog: str
    actives: Callable[[], Collection[int]]

    async def go_on(self) -> None:
        """Never returns: partitions come and go."""
        while True:
            for partition in sorted(set(self.actives()) - self.agent.untold.told):
                await self._tell(partition)
            await asyncio.sleep(_PAUSE_S)

    async def _tell(self, partition: int) -> None:
        # Not from the beginning again and again: what was taken away there has to be walked over.
        start, count = UNTOLD, 0
        while True:
            try:
                found = self.store.slice(partition, start, UNTOLD_END, limit=_TOGETHER)
            except PartitionNotHeld:
                return
            if partition not in self.actives():
                return
            if not found:
                break
            keys = [instance_key(name) for name, _ in found]
            try:
                if not await self.agent.write_beside(partition, lambda keys=keys: self._of(partition, keys)):
                    return
            except PartitionNotHeld:
                return
            start, count = found[-1][0] + b"\x00", count + len(found)
        self.agent.untold.told.add(partition)
        if count:
            log.info("rebuilt_instances_published", partition=partition, count=count)

    def _of(self, partition: int, keys: list[bytes]) -> Beside:
        with naming(self.changelog, partition):
            return self.agent.untold.of(partition, keys, lambda names: self.store.read_many(partition, names))
