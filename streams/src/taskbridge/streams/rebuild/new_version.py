"""The new version of all instances, computed on this machine's disk and compared with the live version."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from msgspec.structs import replace

from taskbridge.schemas.codec import task_state_codec
from taskbridge.schemas.topics import TASK_EVENTS, TASK_STATES
from taskbridge.streams.contract.start import notification_bytes
from taskbridge.streams.cores.core import fold_within_limits, target_partition
from taskbridge.streams.cores.native import choose_core
from taskbridge.streams.fold.instance import EARLIEST, LATEST
from taskbridge.streams.fold.stored_instance import age_of, have_equal_contents, restamped, state_value
from taskbridge.streams.instances.pending_notifications import (
    FIRST_INSTANCE,
    PendingNotifications,
    instance_key,
    notifications_of,
    pending_key,
    read_pending,
    write_pending,
)
from taskbridge.streams.instances.upkeep import is_expired
from taskbridge.streams.rebuild.copies import Copy, Located, bulk_reader, join_by_key, read_on
from taskbridge.streams.rebuild.sources import LocalStores, Source, Sources
from taskbridge.streams.table_versions import instances_changelog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from confluent_kafka import Message

    from taskbridge.runtime.partition_reader import PartitionReader
    from taskbridge.schemas.events import TaskNotification
    from taskbridge.schemas.registry import Registry
    from taskbridge.streams.cores.core import Core
    from taskbridge.streams.positions import Bounds
    from taskbridge.streams.rebuild.operation import Operation
    from taskbridge.streams.rebuild.sources import Known

_GENERATION = 0
"""No group."""
_MARGIN_MS = 60 * 60 * 1000
"""How much later an event may have been written than one after it on the topic; and how much before the time that it
states, which may be 5 minutes ahead."""
_Copy = TypeVar("_Copy", bound=Copy)


@dataclass(slots=True)
class Counts:
    """The counts of a rebuild, by the names that the command prints."""

    events: int = 0
    rejected: int = 0
    """Records on the events topic that cannot be folded; they are dead letters already."""
    instances: int = 0
    carried_over: int = 0
    """Instances without events on the topic, copied from the live version unchanged."""
    built_upon: int = 0
    """Instances whose first events are deleted: the rest were folded onto the live version's state."""
    from_stores: int = 0
    """Of the two above: read from a local store, because the live version's changelog lacks them."""
    from_published: int = 0
    """Of the two above: read from the published state, because no store has them either."""
    let_go: int = 0
    """Instances that still have events, but whose retention is over."""
    lost: int = 0
    """Instances without events and without a readable state."""
    states: int = 0
    """States that changed, and are published."""
    notifications: int = 0


class FetchedRecord(NamedTuple):
    """A record as the fold accepts it, and its time."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    written_ms: int


def complete_from(reader: PartitionReader, bounds: Mapping[int, Bounds]) -> int:
    """A time after everything that was deleted from the events, by the first record that each partition still has.

    Of all partitions: when their number grew, an instance's later events went to another one.
    """
    cut = {each: bound for each, bound in bounds.items() if bound.first > 0}
    firsts: dict[int, int] = {}
    starts = {each: bound.first for each, bound in cut.items()}
    ends = {each: bound.end for each, bound in cut.items()}
    with closing(reader.read(TASK_EVENTS.name, starts, ends)) as batches:
        for batch in batches:
            for message in batch:
                firsts.setdefault(cast("int", message.partition()), message.timestamp()[1])
            if firsts.keys() == cut.keys():
                break
    if firsts.keys() != cut.keys():
        return LATEST
    return max(firsts.values()) + _MARGIN_MS if firsts else EARLIEST


@dataclass(eq=False)
class EventFold:
    """Folds every event on the topic, without notifications, as workers do; continues where it stopped."""

    run: Operation
    new: Copy
    """Receives each instance as a worker stores it."""
    core: Core
    partitions: int
    """Of the new version: an instance is stored on the partition of its key."""
    base: Callable[[bytes], bytes | None]
    """Returns the stored state onto which the events of an instance are folded, by key."""

    def __post_init__(self) -> None:
        # Workers and rebuild reject an event with larger notifications.
        self._notification_bytes = notification_bytes(self.run.offsets)
        self.bounds: dict[int, Bounds] = {}
        """The first offset of each partition at the start, and its end at the last check."""
        self.reached: dict[int, int] = {}
        """The offset after the last folded event of each partition."""
        self.complete_from = EARLIEST
        """All events of an instance that began later are on the topic, unless Kafka has lost some."""
        self.folded = self.rejected = 0
        self._reader = bulk_reader(self.run.consumer)

    def catch_up(self, partitions: int) -> None:
        """Fold up to the workers' positions.

        Not further: workers fold later events, and publish their notifications with the right cause.

        Raises:
            KafkaException, TimeoutError: Kafka refuses, or does not answer.
            Unreadable: events were deleted before they could be read.
        """
        positions = self.run.workers.positions()
        bounds = self.run.offsets.bounds(TASK_EVENTS.name, range(partitions))
        if not self.bounds:
            self.complete_from = complete_from(self._reader, bounds)
        for each, bound in bounds.items():
            self.bounds[each] = self.bounds.get(each, bound)._replace(end=bound.end)
            self.reached.setdefault(each, bound.first)
        ends = {each: min(bound.end, positions.get(each, bound.end)) for each, bound in bounds.items()}
        for batch in read_on(self._reader, TASK_EVENTS.name, self.reached, ends, self.run.ticker("events")):
            fetched: dict[tuple[int, int], list[FetchedRecord]] = {}
            for message in batch:
                record = _record(message)
                target = target_partition(record.key, self.partitions) if record.key else record.partition
                fetched.setdefault((record.partition, target), []).append(record)
            for (_, target), records in fetched.items():
                self._fold(target, records)

    def close(self) -> None:
        self._reader.close()

    def _fold(self, target: int, records: list[FetchedRecord]) -> None:
        def read(keys: list[bytes]) -> list[bytes | None]:
            found = {key: self.new.get(key) for key in keys}
            return [self.base(key) if at is None else at.value for key, at in found.items()]

        result = fold_within_limits(
            partial(self.core.fold, [*records], read, generation=_GENERATION),
            [*records],
            notification_bytes=self._notification_bytes,
        )
        self.folded += result.folded
        self.rejected += len(result.rejected)
        # An instance is as old as its last event, so that retention removes it again.
        written_ms = {record.key: record.written_ms for record in records}
        stored = {key: restamped(value, written_ms=written_ms[key]) for key, value in result.stored.items()}
        self.new.write({key: Located(target, value) for key, value in stored.items()})
        self.core.cache(result, generation=_GENERATION)


def _record(message: Message) -> FetchedRecord:
    partition, offset = cast("int", message.partition()), cast("int", message.offset())
    key, value = cast("Any", message.key()), cast("Any", message.value())
    return FetchedRecord(TASK_EVENTS.name, partition, offset, key, value, (), message.timestamp()[1])


class Outcome(NamedTuple):
    """The new state of one instance, and its pending notifications."""

    key: bytes
    new: Located
    pending: PendingNotifications
    notifications: list[TaskNotification]


class NewVersion:
    """The rebuilt instances; ``catch_up`` is repeated, each time with fewer new events."""

    def __init__(self, run: Operation, registry: Registry, folder: Path, *, live: int, partitions: int) -> None:
        """``live`` is the live version, and ``partitions`` the number of partitions of the new one."""
        self._run = run
        self._live = live
        self._states = task_state_codec(registry)
        self._resources = ExitStack()
        self.counts = Counts()
        changelog = instances_changelog(live).name
        self._partitions = there = run.topics()
        described = run.offsets.topics([changelog, TASK_EVENTS.name])
        ids = {name: each.topic_id for name, each in described.items()}
        self._named = run.workers.changelogs(live)
        self._is_sound = changelog in ids and self._named <= {ids[changelog]}
        if self._is_sound:
            self._is_sound = not any(run.offsets.begins(changelog, range(there[changelog])).values())
        self._has_pending = False
        """Whether the last rebuild has left pending notifications."""
        self.new = self._opened(Copy(folder / "new"))
        self._old = self._opened(run.copy_of(changelog, folder / "old")) if changelog in ids else None
        self._published = self._opened(run.copy_of(TASK_STATES.name, folder / "published"))
        self._stores = self._opened(LocalStores(folder / "stores", retention_days=run.settings.retention_days))
        settings = run.settings
        core = choose_core(registry, cached_instances=settings.live_instances, form_fields=settings.form_fields)
        self._fold = EventFold(run, self.new, core=core, partitions=partitions, base=self._base)
        self._resources.callback(self._fold.close)
        self._sources = Sources(
            self._old,
            ids.get(changelog),
            self._stores,
            self._published,
            is_sound=self._is_sound,
            states=self._states,
            events_id=ids[TASK_EVENTS.name],
            bounds=self._fold.bounds,
            partitions=partitions,
        )

    def close(self) -> None:
        self._resources.close()

    def read(self) -> None:
        """Read all sources.

        Raises:
            StoreInUse: a worker uses a store that is needed.
        """
        run = self._run
        if not self._is_sound:
            changelog = instances_changelog(self._live).name
            run.report(
                f"{changelog} is missing or truncated: local stores and published states complete what events lack"
            )
        self._stores.read(
            run.settings.data_dir,
            self._live,
            changelogs=self._named,
            needed=not self._is_sound,
            report=run.report,
            tick=run.ticker("local stores"),
        )
        self.catch_up()
        copies = [copy for copy in (self._old, self._stores) if copy is not None]
        self._has_pending = any(next(iter(copy), FIRST_INSTANCE) < FIRST_INSTANCE for copy in copies)

    def catch_up(self) -> None:
        """Read up to the positions of the live version, and add instances without events from the other sources.

        In this order: a published state is in the changelog too, unless the changelog has lost it; and an instance that
        is not folded by then has no events left.
        """
        there, ticker = self._partitions, self._run.ticker
        self._published.catch_up(there.get(TASK_STATES.name, 0), ticker("published states"))
        if self._old is not None:
            self._old.catch_up(there[self._old.topic], ticker("live states"))
        self._fold.catch_up(there[TASK_EVENTS.name])
        self.counts.events, self.counts.rejected = self._fold.folded, self._fold.rejected
        is_first = self.new.changed is None
        if is_first:
            self.counts.lost = self.counts.instances = 0
        now_ms, days = time.time_ns() // 1_000_000, self._run.settings.retention_days
        tick = ticker("instances")
        for number, (key, (old, store, published, new)) in enumerate(self._rows()):
            tick(number, number)
            if new is None:
                known = self._sources.best(key, old, store, published)
                if known is None:
                    # Present in a store only: deleted, not lost.
                    self.counts.lost += is_first and old is not None
                    continue
                self.new.write({key: self._counted(known)})
                self.counts.carried_over += 1
            elif is_expired(age_of(new.value), now_ms=now_ms, days=days) and not (old or store or published):
                self.counts.let_go += 1
                self.new.write({key: None})
                continue
            self.counts.instances += 1

    def compare(self, version: int) -> None:
        """Store the pending notifications of each changed instance under a key of their own."""
        is_first = self.new.changed is None
        for outcome in self.outcomes(version):
            if outcome.notifications or not outcome.pending.is_published:
                pending = Located(outcome.new.partition, write_pending(outcome.pending))
                self.new.write({pending_key(outcome.key): pending})
            elif not is_first:
                self.new.write({pending_key(outcome.key): None})
        for copy in (self._old, self._published):
            if copy is not None:
                copy.changed = {}

    def outcomes(self, version: int, *, everything: bool = False) -> Iterator[Outcome]:
        """Compare the instances with the old version.

        ``everything``: of all instances, for readers without any earlier notification.
        """
        tick = self._run.ticker("compared")
        for number, (key, row) in enumerate(self._all_rows() if everything else self._rows()):
            tick(number, max(number, self.counts.instances))
            if row[-1] is None:
                continue
            outcome = self._outcome(key, row, row[-1], version, everything=everything)
            if everything:
                self.counts.states += 1
                self.counts.notifications += len(outcome.notifications)
            yield outcome

    def _outcome(
        self, key: bytes, row: Sequence[Located | None], new: Located, version: int, *, everything: bool
    ) -> Outcome:
        old, store, published, _ = row
        state = None if age_of(new.value).is_deleted else state_value(new.value)
        is_published = not everything and state == (None if published is None else published.value)
        earlier = self._sources.pending(key, store) if self._has_pending else None
        if not everything and earlier is None and old is not None and have_equal_contents(old.value, new.value):
            return Outcome(
                key, new, PendingNotifications(is_published, is_certain=True, notifications=0, before=old.value), []
            )
        known = self._sources.best(key, old, store, published)
        # Only the changelog is certain about earlier notifications.
        is_certain = old is None if known is None else known.source is Source.CHANGELOG
        before = None if known is None else known.stored.value
        if earlier is not None:
            before, is_certain = earlier.before, earlier.is_certain and is_certain
        pending = PendingNotifications(is_published, is_certain and not everything, 0, before)
        notifications = notifications_of(pending, new.value, self._states, version=version)
        return Outcome(key, new, replace(pending, notifications=len(notifications)), notifications)

    def count(self) -> None:
        """Count the complete result."""
        self.counts.instances = 0
        for key, stored in self.new.items():
            if key < FIRST_INSTANCE:
                pending = read_pending(stored.value)
                self.counts.states += not pending.is_published
                self.counts.notifications += pending.notifications
            else:
                self.counts.instances += 1

    @property
    def reached(self) -> Mapping[int, int]:
        """The offset after the last folded event of each partition."""
        return self._fold.reached

    def _base(self, key: bytes) -> bytes | None:
        """The state onto which events are folded; None if all events of the instance are still there."""
        known = self._sources.of(key)
        if known is None or self._sources.has_all_events(known, complete_from=self._fold.complete_from):
            return None
        self.counts.built_upon += 1
        return self._counted(known).value

    def _counted(self, known: Known) -> Located:
        self.counts.from_stores += known.source is Source.STORE
        self.counts.from_published += known.source is Source.PUBLISHED
        return self._sources.on_target_partition(known)

    def _rows(self) -> Iterator[tuple[bytes, Sequence[Located | None]]]:
        """The values of each source by instance; after the first comparison, of changed instances only."""
        if self.new.changed is None:
            yield from self._all_rows()
            return
        sources = (self._old, self._stores, self._published, self.new)
        changed = {instance_key(key) for copy in sources if copy is not None for key in copy.changed or ()}
        for key in sorted(changed):
            yield key, [None if copy is None else copy.get(key) for copy in sources]

    def _all_rows(self) -> Iterator[tuple[bytes, Sequence[Located | None]]]:
        """By instance: the values in the changelog, a store, the published states, and the new version."""
        sources = (self._old, self._stores, self._published, self.new)
        return join_by_key(*(() if copy is None else copy.items(FIRST_INSTANCE) for copy in sources))

    def _opened(self, copy: _Copy) -> _Copy:
        return self._resources.enter_context(closing(copy))
