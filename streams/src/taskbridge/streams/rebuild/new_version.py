"""The new version of all instances, computed on this machine's disk, with the notifications that it leaves pending."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from taskbridge.schemas.codec import Codec, task_state_codec
from taskbridge.schemas.topics import TASK_EVENTS, TASK_STATES
from taskbridge.streams.contract.start import notification_bytes
from taskbridge.streams.fold.core import fold_within_limits
from taskbridge.streams.fold.instance import EARLIEST, LATEST, from_published
from taskbridge.streams.fold.native import choose_core
from taskbridge.streams.fold.stored_instance import (
    StoreUnreadable,
    age_of,
    are_events_lost,
    pack,
    restamped,
    state_value,
    unpack,
    with_events_lost,
)
from taskbridge.streams.instances.pending_notifications import (
    FIRST_INSTANCE,
    PENDING_PREFIX,
    Pending,
    instance_key,
    notifications_of,
    pending_key,
    read_pending,
    state_record,
    write_pending,
)
from taskbridge.streams.instances.upkeep import is_expired
from taskbridge.streams.rebuild.copies import Copy, Located, bulk_reader, join_by_key, read_on
from taskbridge.streams.records import RecordWithHeaders, target_partition
from taskbridge.streams.table_versions import instances_changelog
from taskbridge.streams.transactions.positions import Bounds, is_after_loss, position_if_readable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from confluent_kafka import Message

    from taskbridge.runtime.partition_reader import PartitionReader
    from taskbridge.schemas.events import TaskState
    from taskbridge.streams.rebuild.operation import Operation

_MARGIN_MS = 60 * 60 * 1000
"""How much later an event may have been written than one after it on the topic; and how much before the time that it
states, which may be 5 minutes ahead."""


@dataclass(slots=True)
class Counts:
    """The counts of a rebuild; ``taskbridge.cli.services`` explains each."""

    events: int = 0
    rejected: int = 0
    instances: int = 0
    carried_over: int = 0
    built_upon: int = 0
    from_published: int = 0
    let_go: int = 0
    lost: int = 0
    states: int = 0
    notifications: int = 0


class FetchedRecord(NamedTuple):
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
    starts = {each: bound.first for each, bound in bounds.items() if bound.first > 0}
    firsts: dict[int, int] = {}
    with closing(reader.read(TASK_EVENTS.name, starts, {each: bounds[each].end for each in starts})) as batches:
        for batch in batches:
            for message in batch:
                firsts.setdefault(cast("int", message.partition()), message.timestamp()[1])
            if len(firsts) == len(starts):
                break
    if len(firsts) < len(starts):
        return LATEST
    return max(firsts.values()) + _MARGIN_MS if firsts else EARLIEST


def are_positions_lost(positions: Iterable[tuple[int, bytes]], *, events_id: str, bounds: Mapping[int, Bounds]) -> bool:
    """Whether Kafka has lost events that were folded, before their time; ``positions`` are those of a changelog."""
    ends = {partition: bound.end for partition, bound in bounds.items()}
    return any(
        (position := position_if_readable(written)) is None
        or is_after_loss(position, source_id=events_id, end=ends.get(partition, 0))
        for partition, written in positions
    )


class Known(NamedTuple):
    stored: bytes
    is_published: bool
    """Only the published state is left, which lacks what decides between late events."""


def known_state(
    key: bytes, changelog: Located | None, published: Located | None, states: Codec[TaskState]
) -> Known | None:
    """The state in the live changelog; if it is not there or unreadable, the published one; else None."""
    if changelog is not None:
        with suppress(StoreUnreadable):
            if unpack(changelog.value, states).state.instance_id.encode() == key:
                return Known(changelog.value, is_published=False)
    if published is None:
        return None
    instance = from_published(states.decode(published.value))
    stored = pack(published.value, instance, now_ms=instance.state.updated_at, events_lost=True)
    return Known(stored, is_published=True)


class NewVersion:
    def __init__(
        self, run: Operation, folder: Path, *, live: int, partitions: int, number: int = 0, everything: bool = False
    ) -> None:
        """``live`` is the live version, and ``partitions`` the number of partitions of the new one.

        ``number`` and ``everything``: of what is pending, see ``Pending``.
        """
        self._run = run
        self._target_partitions, self._number, self._everything = partitions, number, everything
        self._states = task_state_codec(run.registry)
        # Workers and rebuild reject an event with larger notifications.
        self._notification_bytes = notification_bytes(run.offsets)
        self._there = run.topics()
        self._is_complete_from: int | None = None
        """All events of an instance that began later are on the topic."""
        self._are_events_lost = False
        self.counts = Counts()
        self.reached: dict[int, int] = {}
        settings = run.settings
        self._core = choose_core(run.registry, form_fields=settings.form_fields)
        self._resources = ExitStack()
        opened = self._resources.enter_context
        self._reader = opened(closing(bulk_reader(run.consumer)))
        self._new = opened(closing(Copy(folder / "new")))
        self._old = opened(closing(run.copy_of(instances_changelog(live).name, folder / "old")))
        self._published = opened(closing(run.copy_of(TASK_STATES.name, folder / "published")))

    def close(self) -> None:
        self._resources.close()

    def catch_up(self) -> None:
        """Read up to the positions of the live version, add instances without events, and store what is pending.

        In this order: a published state is in the changelog too, unless the changelog has lost it; and an instance that
        is not folded by then has no events left.
        """
        for copy in (self._published, self._old):
            copy.catch_up(self._there.get(copy.topic, 0), self._run.ticker(copy.topic))
        self._fold()
        tick = self._run.ticker("instances")
        for number, (key, row) in enumerate(self._rows()):
            tick(number, number)
            self._complete(key, *row)
        self._published.changed, self._old.changed = {}, {}

    def changes(self) -> Iterator[tuple[RecordWithHeaders, int]]:
        """All records with their partitions, and at later calls those that changed since the last one."""
        changed, self._new.changed = self._new.changed, {}
        if changed is None:
            return (((key, stored.value, []), stored.partition) for key, stored in self._new.items())
        values = ((key, partition, self._new.get(key)) for key, partition in changed.items())
        return (((key, stored and stored.value, []), partition) for key, partition, stored in values)

    def states(self) -> Iterator[tuple[RecordWithHeaders, int]]:
        stored = self._new.items(FIRST_INSTANCE)
        return ((state_record(key, each.value, self._states), -1) for key, each in stored)

    def count(self) -> None:
        self.counts.instances = 0
        for key, stored in self._new.items():
            if key >= FIRST_INSTANCE:
                self.counts.instances += 1
                continue
            self.counts.states += 1
            new = self._new.get(instance_key(key))
            if new is not None and not self._everything:
                pending = read_pending(stored.value)
                self.counts.notifications += len(notifications_of(pending, new.value, self._states))

    def _fold(self) -> None:
        """Fold up to the workers' positions.

        Not further: workers fold later events, and publish their notifications with the right cause.
        """
        positions = self._run.workers.positions()
        bounds = self._run.offsets.bounds(TASK_EVENTS.name, range(self._there[TASK_EVENTS.name]))
        if self._is_complete_from is None:
            self._is_complete_from = complete_from(self._reader, bounds)
            events_id = self._run.offsets.topic_id(TASK_EVENTS.name)
            self._are_events_lost = are_positions_lost(self._old.positions.items(), events_id=events_id, bounds=bounds)
        self.reached = {each: bound.first for each, bound in bounds.items()} | self.reached
        ends = {each: min(bound.end, positions.get(each, bound.end)) for each, bound in bounds.items()}
        for batch in read_on(self._reader, TASK_EVENTS.name, self.reached, ends, self._run.ticker("events")):
            fetched: dict[tuple[int, int], list[FetchedRecord]] = {}
            for message in batch:
                record = _record(message)
                target = self._target(record.key) if record.key else record.partition
                fetched.setdefault((record.partition, target), []).append(record)
            for (_, target), records in fetched.items():
                self._fold_records(target, records)

    def _fold_records(self, target: int, records: list[FetchedRecord]) -> None:
        def read(keys: list[bytes]) -> list[bytes | None]:
            found = {key: self._new.get(key) for key in keys}
            return [self._base(key) if at is None else at.value for key, at in found.items()]

        result = fold_within_limits(
            partial(self._core.fold, [*records], read), [*records], notification_bytes=self._notification_bytes
        )
        self.counts.events += result.folded
        self.counts.rejected += len(result.rejected)
        # An instance is as old as its last event, so that retention removes it again.
        written_ms = {record.key: record.written_ms for record in records}
        stored = {key: restamped(value, written_ms=written_ms[key]) for key, value in result.stored.items()}
        self._new.write({key: Located(target, value) for key, value in stored.items()})

    def _base(self, key: bytes) -> bytes | None:
        known = self._known(key, self._old.get(key), self._published.get(key))
        if known is None:
            return None
        began_at = unpack(known.stored, self._states).marks.began_at
        if began_at > cast("int", self._is_complete_from) and not are_events_lost(known.stored):
            return None
        self.counts.built_upon += 1
        self.counts.from_published += known.is_published
        return known.stored

    def _known(self, key: bytes, old: Located | None, published: Located | None) -> Known | None:
        """The known state; marked, if events that are in it are lost."""
        known = known_state(key, old, published, self._states)
        if known is None or not self._are_events_lost:
            return known
        return known._replace(stored=with_events_lost(known.stored))

    def _complete(
        self, key: bytes, old: Located | None, earlier: Located | None, published: Located | None, new: Located | None
    ) -> None:
        """Copy an instance without events, or drop an expired one, and store what is pending for it.

        ``earlier``: what was pending for it in the live version.
        """
        is_first = self._new.changed is None
        if new is None:
            known = self._known(key, old, published)
            if known is None:
                # Otherwise its retention has ended.
                self.counts.lost += is_first and old is not None
                return
            self.counts.carried_over += 1
            self.counts.from_published += known.is_published
            new = Located(self._target(key), known.stored)
            self._new.write({key: new})
        elif not (old or published) and self._is_expired(new.value):
            self.counts.let_go += 1
            self._new.write({key: None, pending_key(key): None})
            return
        state = None if age_of(new.value).is_deleted else state_value(new.value)
        # With everything, the states' topic is written by the rebuild.
        is_published = self._everything or state == (published and published.value)
        if self._everything or earlier is not None or not is_published:
            before, everything = self._before(key, old, earlier, published, new)
            pending = Pending(self._number, is_published, everything, before)
            self._new.write({pending_key(key): Located(new.partition, write_pending(pending))})
        elif not is_first:
            self._new.write({pending_key(key): None})

    def _before(
        self, key: bytes, old: Located | None, earlier: Located | None, published: Located | None, new: Located
    ) -> tuple[bytes | None, bool]:
        """The stored instance as last published, and whether everything is to be published all the same."""
        everything, known = self._everything, self._known(key, old, published)
        before = None if known is None else known.stored
        if earlier is not None:
            try:
                pending = read_pending(earlier.value)
            except StoreUnreadable:
                everything = True
            else:
                before, everything = pending.last_published(before), everything or pending.everything
        if everything and before is not None and state_value(before) == state_value(new.value):
            before = None
        return before, everything

    def _is_expired(self, stored: bytes) -> bool:
        return is_expired(age_of(stored), now_ms=time.time_ns() // 1_000_000, days=self._run.settings.retention_days)

    def _target(self, key: bytes) -> int:
        return target_partition(key, self._target_partitions)

    def _rows(self) -> Iterator[tuple[bytes, Sequence[Located | None]]]:
        """By instance: its value in the changelog, what was pending, the published state, and the new version.

        At first of all instances, later of those that changed.
        """
        old, published, new = self._old, self._published, self._new
        if new.changed is None:
            pending = takewhile(lambda item: item[0] < FIRST_INSTANCE, old.items(PENDING_PREFIX))
            earlier = ((instance_key(name), stored) for name, stored in pending)
            yield from join_by_key(
                old.items(FIRST_INSTANCE), earlier, published.items(FIRST_INSTANCE), new.items(FIRST_INSTANCE)
            )
            return
        changed = {instance_key(key) for copy in (old, published, new) for key in copy.changed or ()}
        for key in sorted(changed):
            yield key, [old.get(key), old.get(pending_key(key)), published.get(key), new.get(key)]


def _record(message: Message) -> FetchedRecord:
    partition, offset = cast("int", message.partition()), cast("int", message.offset())
    key, value = cast("Any", message.key()), cast("Any", message.value())
    return FetchedRecord(TASK_EVENTS.name, partition, offset, key, value, (), message.timestamp()[1])
