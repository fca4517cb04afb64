"""Changes to instances that no event causes: retention, and pending notifications.

Deleted instances are stored for 30 days, so that a late event does not bring them back. Finished ones are stored for
ever unless ``STREAMS_RETENTION_DAYS`` is set; when they expire, they leave every view too. Both run in the background,
a few instances at a time, and survive restarts: stores and changelogs have all that they need.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from taskbridge.schemas.cloudevents import state_headers
from taskbridge.schemas.events import Action, TaskNotification
from taskbridge.schemas.topics import REPLAYED_DAYS
from taskbridge.streams.fold.core import notification_record
from taskbridge.streams.fold.instance import Instance, fold
from taskbridge.streams.fold.stored_instance import Age, age_of, unpack
from taskbridge.streams.fold.views import notifications
from taskbridge.streams.instances.pending_notifications import (
    PENDING_END,
    PENDING_PREFIX,
    InstanceChanges,
    instance_key,
    own_event,
)
from taskbridge.streams.tables.store import PartitionNotHeld, explaining_unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from taskbridge.streams.instances.task_agent import TaskAgent
    from taskbridge.streams.records import RecordWithHeaders

DELETED_DAYS = REPLAYED_DAYS

_DAY_MS = 24 * 60 * 60 * 1000
_PAUSE_S = 1.0
_REST_S = 3600.0
_SCANNED = 2000
"""Instances that are scanned per second: a million in eight minutes, with a few milliseconds of each second."""
_PUBLISHED = 200
"""Instances in one transaction: about 30 ms of the loop's time, in which no event is folded."""

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Upkeep:
    agent: TaskAgent
    actives: Callable[[], Collection[int]]
    days: int
    """Days that a finished instance is stored; 0: for ever."""

    async def publish(self) -> None:
        """Publish what is pending. Never returns: partitions come and go."""
        while True:
            for partition in sorted(set(self.actives()) - self.agent.pending.published):
                with suppress(PartitionNotHeld):
                    await self._publish(partition)
            await asyncio.sleep(_PAUSE_S)

    async def delete_expired(self) -> None:
        """Scan the stores, where nothing is pending: it would be deleted with its instance. Never returns."""
        while True:
            partitions = sorted(self.agent.pending.published.intersection(self.actives()))
            for partition in partitions:
                with suppress(PartitionNotHeld):
                    await self._scan(partition)
            await asyncio.sleep(_REST_S if partitions else _PAUSE_S)

    async def _publish(self, partition: int) -> None:
        # From the last key on, because reading over deleted keys takes time.
        start, count = PENDING_PREFIX, 0
        while found := self.agent.store.scan(partition, start, PENDING_END, limit=_PUBLISHED):
            keys = [instance_key(name) for name, _ in found]
            if partition not in self.actives() or not await self.agent.write_changes(
                partition, partial(self._pending, partition, keys)
            ):
                return
            start, count = found[-1][0] + b"\x00", count + len(found)
        if partition in self.actives():
            self.agent.pending.published.add(partition)
        if count:
            log.info("rebuilt_instances_published", partition=partition, count=count)

    def _pending(self, partition: int, keys: list[bytes]) -> InstanceChanges:
        with explaining_unreadable(self.agent.changelog, partition):
            return self.agent.pending.of(partition, keys, partial(self.agent.store.read_many, partition))

    async def _scan(self, partition: int) -> None:
        start = b""
        while stored := self.agent.store.scan(partition, start, limit=_SCANNED):
            await asyncio.sleep(_PAUSE_S)
            if partition not in self.actives():
                return
            start = stored[-1][0] + b"\x00"
            now_ms = time.time_ns() // 1_000_000
            with explaining_unreadable(self.agent.changelog, partition):
                expired = [key for key, value in stored if is_expired(age_of(value), now_ms=now_ms, days=self.days)]
            if expired:
                await self.agent.write_changes(partition, partial(self._removals, partition, expired))

    def _removals(self, partition: int, keys: list[bytes]) -> InstanceChanges:
        now_ms = time.time_ns() // 1_000_000
        gone: list[bytes] = []
        states: list[RecordWithHeaders] = []
        published: list[RecordWithHeaders] = []
        with explaining_unreadable(self.agent.changelog, partition):
            for key, stored in zip(keys, self.agent.store.read_many(partition, keys), strict=True):
                if stored is None or not is_expired(age_of(stored), now_ms=now_ms, days=self.days):
                    continue
                instance = unpack(stored, self.agent.pending.states)
                gone.append(key)
                states.append((key, None, state_headers(instance.state, deleted=True)))
                removed = removals(instance, now_ms=now_ms)
                published += [notification_record(each, self.agent.pending.notifications) for each in removed]
        if gone:
            log.info("instances_expired", partition=partition, count=len(gone))
        return InstanceChanges(gone, states, published)


def is_expired(age: Age, *, now_ms: int, days: int) -> bool:
    """Whether an instance is to be deleted, by the time of its last change on this machine's clock."""
    stored_days = DELETED_DAYS if age.is_deleted else days if age.is_finished else 0
    return stored_days > 0 and now_ms - age.written_ms > stored_days * _DAY_MS


def removals(instance: Instance, *, now_ms: int) -> list[TaskNotification]:
    """The notifications that remove every entry of the instance; none if it is deleted already."""
    state = instance.state
    event = own_event(
        state, "expired", {"revision": state.revision}, action=Action.DELETED, source=state.source, at=now_ms
    )
    return notifications(instance, fold(instance, event), event)
