"""Fold every event on the topic, from the first to the last, without notifications."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from taskbridge.schemas.topics import TASK_EVENTS
from taskbridge.streams.contract.contract import notification_bytes
from taskbridge.streams.cores.core import fold_within_limits, target_partition
from taskbridge.streams.fold.chunk import EVENTS_LOST
from taskbridge.streams.fold.stored_instance import event_offsets, restamped, with_event_offsets
from taskbridge.streams.rebuild.sources.copies import Kept, bulk_reader, read_on

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from confluent_kafka import Message

    from taskbridge.streams.cores.core import Core
    from taskbridge.streams.positions.offsets import Bounds
    from taskbridge.streams.rebuild.operation import Operation
    from taskbridge.streams.rebuild.sources.copies import Copy

_GENERATION = 0
"""No group."""


class FetchedRecord(NamedTuple):
    """A record as the fold accepts it, and its time."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    written_ms: int


@dataclass(eq=False)
class EventFold:
    """Continues where it stopped; each instance is in the copy ``new`` as a worker stores it."""

    run: Operation
    new: Copy
    folding: Core
    """The same fold as in workers."""
    homes: int
    """The number of partitions of the new version: an instance is stored on the partition of its key."""
    base: Callable[[bytes], bytes | None]
    """Returns the stored state onto which the events of an instance are folded, by key."""

    def __post_init__(self) -> None:
        # Workers and rebuild reject an event with larger notifications.
        self._notification_bytes = notification_bytes(self.run.offsets)
        self.bounds: dict[int, Bounds] = {}
        """The first offset of each partition at the start, and its end at the last check."""
        self.reached: dict[int, int] = {}
        """The offset after the last folded event of each partition."""
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
        for partition, bound in bounds.items():
            self.bounds[partition] = self.bounds.get(partition, bound)._replace(end=bound.end)
            self.reached.setdefault(partition, bound.first)
        ends = {each: min(bound.end, positions.get(each, bound.end)) for each, bound in bounds.items()}
        for batch in read_on(self._reader, TASK_EVENTS.name, self.reached, ends, self.run.ticker("events")):
            self._fold(batch)

    def close(self) -> None:
        self._reader.close()

    def _fold(self, batch: list[Message]) -> None:
        fetched: dict[tuple[int, int], list[FetchedRecord]] = {}
        for message in batch:
            record = _record(message)
            home = target_partition(record.key, self.homes) if record.key else record.partition
            fetched.setdefault((record.partition, home), []).append(record)
        for (partition, home), records in fetched.items():
            self._fold_at(home, records, is_away=home != partition)

    def _fold_at(self, home: int, records: list[FetchedRecord], *, is_away: bool) -> None:
        """``is_away``: their offsets are another partition's, and say nothing where the instance is kept."""
        before: dict[bytes, bytes | None] = {}

        def read(keys: list[bytes]) -> list[bytes | None]:
            before.update((key, self._read(key)) for key in keys)
            return [before[key] for key in keys]

        if is_away:
            # So that all of them are read.
            self.folding.forget({record.key for record in records if record.key})
        result = fold_within_limits(
            partial(self.folding.fold, [*records], read, generation=_GENERATION),
            [*records],
            notification_bytes=self._notification_bytes,
        )
        self.folded += result.folded
        self.rejected += len(result.rejected)
        # An instance is as old as its last event: what retention had let go of is let go of again.
        written_ms = {record.key: record.written_ms for record in records}
        stored = {key: restamped(value, written_ms=written_ms[key]) for key, value in result.stored.items()}
        if is_away:
            stored = {key: with_event_offsets(value, _offsets(before.get(key))) for key, value in stored.items()}
        self.new.write({key: Kept(home, value) for key, value in stored.items()})
        if is_away:
            self.folding.forget(stored)
        else:
            self.folding.cache(result, generation=_GENERATION)

    def _read(self, key: bytes) -> bytes | None:
        found = self.new.get(key)
        return self.base(key) if found is None else found.value


def _offsets(stored: bytes | None) -> tuple[int, ...]:
    return EVENTS_LOST if stored is None else event_offsets(stored) or EVENTS_LOST


def _record(message: Message) -> FetchedRecord:
    partition, offset = cast("int", message.partition()), cast("int", message.offset())
    key, value = cast("Any", message.key()), cast("Any", message.value())
    return FetchedRecord(TASK_EVENTS.name, partition, offset, key, value, (), message.timestamp()[1])
