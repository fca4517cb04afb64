"""Folds every event on the topic, from the first that is left to the last, and tells nobody."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from taskbridge.runtime.partition_reader import PartitionReader
from taskbridge.schemas.topics import TASK_EVENTS
from taskbridge.streams.fold.homes import home_of
from taskbridge.streams.fold.stored_instance import event_offsets, restamped, with_event_offsets
from taskbridge.streams.folding.outgoing import fold_what_fits
from taskbridge.streams.positions.changelog_topic import reader_config
from taskbridge.streams.rebuild.comparison import GONE
from taskbridge.streams.rebuild.sources.copies import Kept

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from confluent_kafka import Message

    from taskbridge.streams.folding.folding import Folding
    from taskbridge.streams.positions.offsets import Bounds, Offsets
    from taskbridge.streams.rebuild.sources.copies import Copy

_CHUNK_RECORDS = 2000
_BUFFER_BYTES = 64 << 20
_GENERATION = 0
"""Of a group that there is none of."""


class FetchedRecord(NamedTuple):
    """A record in the shape that the fold takes, and when it was written."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    written_ms: int


class EventFold:
    """Reads on from where it stopped; whatever it met is in the copy ``new`` as a worker would have stored it."""

    def __init__(
        self,
        new: Copy,
        *,
        consumer: Mapping[str, object],
        offsets: Offsets,
        positions: Callable[[], Mapping[int, int]],
        folding: Folding,
        notification_bytes: int,
        partitions: int,
        base: Callable[[bytes], bytes | None],
    ) -> None:
        """``base`` gives what an instance is built upon, as it is stored, by its key.

        ``partitions`` there will be: an instance is kept where its key belongs among so many, wherever its events are.
        ``folding`` is the workers' own. ``positions`` tells how far they are: what comes after that is left to them.
        """
        self._new = new
        self._offsets = offsets
        self._positions = positions
        self._folding = folding
        self._notification_bytes = notification_bytes
        self._partitions = partitions
        self._base = base
        self.bounds: dict[int, Bounds] = {}
        """Of each partition of events: where it began when this did, and where it ended at the last look."""
        self.reached: dict[int, int] = {}
        """Behind the last event of each partition that is folded."""
        self.folded = self.rejected = 0
        self._reader = PartitionReader(reader_config(consumer, buffer_bytes=_BUFFER_BYTES))

    def catch_up(self, partitions: int, tick: Callable[[int, int], None]) -> None:
        """Fold what the workers have by now. ``tick`` is told again and again how much is folded, and of how much.

        Not what they have not: they fold that as ever, and tell people what happened, not that it came out another.

        Raises:
            KafkaException, TimeoutError: Kafka refuses, or does not answer.
            Unreadable: events were deleted before they could be read.
        """
        positions = self._positions()
        bounds = self._offsets.bounds(TASK_EVENTS.name, range(partitions))
        for partition, bound in bounds.items():
            self.bounds[partition] = self.bounds.get(partition, bound)._replace(end=bound.end)
            self.reached.setdefault(partition, bound.first)
        there = {each: min(bound.end, positions.get(each, bound.end)) for each, bound in bounds.items()}
        ends = {each: end for each, end in there.items() if end > self.reached[each]}
        began = sum(self.reached.values())
        total = sum(ends[each] - self.reached[each] for each in ends)
        starts = {each: self.reached[each] for each in ends}
        with closing(self._reader.read(TASK_EVENTS.name, starts, ends, batch=_CHUNK_RECORDS)) as batches:
            for batch in batches:
                self._fold(batch)
                self.reached.update(self._reader.reached)
                tick(sum(self.reached.values()) - began, total)

    def close(self) -> None:
        self._reader.close()

    def _fold(self, batch: list[Message]) -> None:
        fetched: dict[int, list[FetchedRecord]] = {}
        for message in batch:
            partition, offset = cast("int", message.partition()), cast("int", message.offset())
            fetched.setdefault(partition, []).append(_record(message, partition, offset))
        for partition, records in fetched.items():
            self._fold_records(partition, records)

    def _fold_records(self, partition: int, records: list[FetchedRecord]) -> None:
        homes: dict[int, list[FetchedRecord]] = {}
        for record in records:
            home = home_of(record.key, self._partitions) if record.key else partition
            homes.setdefault(home, []).append(record)
        for home, theirs in homes.items():
            self._fold_at(home, theirs, is_away=home != partition)

    def _fold_at(self, home: int, records: list[FetchedRecord], *, is_away: bool) -> None:
        """``is_away``: their offsets are another partition's, and say nothing where the instance is kept."""
        before: dict[bytes, bytes | None] = {}

        def read(keys: list[bytes]) -> list[bytes | None]:
            before.update((key, self._read(key)) for key in keys)
            return [before[key] for key in keys]

        if is_away:
            # So that all of them are read.
            self._folding.forget({record.key for record in records if record.key})
        result = fold_what_fits(
            partial(self._folding.fold, [*records], read, generation=_GENERATION),
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
        self._new.write({key: Kept(home, value) for key, value in stored.items()})
        if is_away:
            self._folding.forget(stored)
        else:
            self._folding.keep(result, generation=_GENERATION)

    def _read(self, key: bytes) -> bytes | None:
        found = self._new.get(key)
        return self._base(key) if found is None else found.value


def _offsets(stored: bytes | None) -> tuple[int, ...]:
    return GONE if stored is None else event_offsets(stored) or GONE


def _record(message: Message, partition: int, offset: int) -> FetchedRecord:
    _, written_ms = message.timestamp()
    key, value = cast("Any", message.key()), cast("Any", message.value())
    return FetchedRecord(TASK_EVENTS.name, partition, offset, key, value, (), written_ms)
