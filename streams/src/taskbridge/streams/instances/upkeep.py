"""Changes to instances that no event causes: retention, and the notifications that a rebuild left pending.

Deleted instances are stored for 30 days, so that a late event does not bring them back. Finished ones are stored for
ever unless ``STREAMS_RETENTION_DAYS`` is set; when they expire, they leave every view too. Both run in the background,
a few instances at a time, and survive restarts: stores and changelogs have all that they need.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import structlog

from taskbridge.schemas.cloudevents import state_headers
from taskbridge.schemas.events import SOURCE_TASKBRIDGE, Action, TaskEvent, event_id_for
from taskbridge.schemas.topics import REPLAYED_DAYS
from taskbridge.streams.cores.core import notification_record
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.fold.stored_instance import Age, age_of, unpack
from taskbridge.streams.fold.views import notifications
from taskbridge.streams.instances.pending_notifications import (
    UNTOLD,
    UNTOLD_END,
    instance_key,
    read_untold,
    state_record,
    told_of,
    untold_key,
)
from taskbridge.streams.tables.store import PartitionNotHeld, naming

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import TaskNotification, TaskState
    from taskbridge.streams.cores.core import Read
    from taskbridge.streams.fold.instance import Instance
    from taskbridge.streams.instances.task_agent import TaskAgent
    from taskbridge.streams.records import RecordWithHeaders
    from taskbridge.streams.tables.store import Store

DELETED_DAYS = REPLAYED_DAYS

_DAY_MS = 24 * 60 * 60 * 1000
_PAUSE_S = 1.0
_LOOKED_AT = 2000
"""How many instances are looked at a second: a million in eight minutes, for some milliseconds of each second."""
_REST_S = 3600.0

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Retention:
    """Looks through the stores of the active partitions, a little at a time, over and over."""

    agent: TaskAgent
    store: Store
    states: Codec[TaskState]
    notifications: Codec[TaskNotification]
    changelog: str
    actives: Callable[[], Collection[int]]
    days: int
    """How long a finished instance is kept; 0 is for ever."""

    async def keep(self) -> None:
        """Never returns."""
        while True:
            actives = sorted(self.actives())
            for partition in actives:
                await self._look_through(partition)
            await asyncio.sleep(_REST_S if actives else _PAUSE_S)

    async def _look_through(self, partition: int) -> None:
        position: bytes | None = b""
        while position is not None:
            await asyncio.sleep(_PAUSE_S)
            try:
                stored, position = self.store.scan(partition, position, limit=_LOOKED_AT)
            except PartitionNotHeld:
                return
            if partition not in self.actives():
                return
            now_ms = time.time_ns() // 1_000_000
            with naming(self.changelog, partition):
                expired = [key for key, value in stored if is_expired(age_of(value), now_ms=now_ms, days=self.days)]
            if expired:
                try:
                    await self.agent.write_beside(partition, partial(self._farewells, partition, expired))
                except PartitionNotHeld:
                    return

    def _farewells(self, partition: int, keys: list[bytes]) -> Beside:
        """What to tell when these instances go, but for those that are not to go after all."""
        now_ms = time.time_ns() // 1_000_000
        gone: list[bytes] = []
        states: list[RecordWithHeaders] = []
        told: list[RecordWithHeaders] = []
        with naming(self.changelog, partition):
            for key, stored in zip(keys, self.store.read_many(partition, keys), strict=True):
                if stored is None or not is_expired(age_of(stored), now_ms=now_ms, days=self.days):
                    continue
                instance = unpack(stored, self.states)
                gone.append(key)
                states.append((key, None, state_headers(instance.state, deleted=True)))
                told += [notification_record(each, self.notifications) for each in farewell(instance, now_ms=now_ms)]
        if gone:
            log.info("instances_expired", partition=partition, count=len(gone))
        return Beside(gone, states, told)


def is_expired(age: Age, *, now_ms: int, days: int) -> bool:
    """Whether an instance may go: the age is of its last change, as this machine's clock told it."""
    kept_days = DELETED_DAYS if age.is_deleted else days if age.is_finished else 0
    return kept_days > 0 and now_ms - age.written_ms > kept_days * _DAY_MS


def farewell(instance: Instance, *, now_ms: int) -> list[TaskNotification]:
    """What takes every line of the instance away; nothing where it is deleted."""
    state = instance.state
    named = {"instance_id": state.instance_id, "revision": str(state.revision)}
    event = TaskEvent(
        event_id=event_id_for(SOURCE_TASKBRIDGE, "expired", named),
        source=state.source,
        action=Action.DELETED,
        corp_id=state.corp_id,
        app_type=state.app_type,
        instance_id=state.instance_id,
        occurred_at=now_ms,
        received_at=now_ms,
    )
    return notifications(instance, fold(instance, event), event)


_TOGETHER = 200
"""Instances in one transaction: some 30 ms of the loop's time, in which no event is folded."""


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
