"""Values by key, with the partition of each, in RocksDB on the disk of a rebuild; empty at each start."""

from __future__ import annotations

import struct
from contextlib import closing
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import rocksdict

from taskbridge.runtime.partition_reader import PartitionReader
from taskbridge.streams.table_versions import reader_config
from taskbridge.streams.tables.store import WITHOUT_WAL
from taskbridge.streams.transactions.positions import POSITION_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
    from pathlib import Path

    from confluent_kafka import Message

    from taskbridge.streams.transactions.offsets import Offsets

_BATCH_RECORDS = 2000
_BUFFER_BYTES = 64 << 20
_WRITE_BUFFER_BYTES = 32 << 20
DECIDED_S = 60.0
"""How long a transaction may be open: Kafka aborts a worker's after half of that."""
_PARTITION = struct.Struct(">H")
_Value = TypeVar("_Value")


class Located(NamedTuple):
    partition: int
    value: bytes


class Copy:
    """One RocksDB in an empty folder. It does not survive the process."""

    def __init__(self, path: Path) -> None:
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)  # noqa: FBT003 - its only parameter
        options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
        options.set_max_open_files(128)
        self._db: Any = rocksdict.Rdict(str(path), options)
        self.changed: dict[bytes, int] | None = None
        """The keys that were written since this was set to an empty dict, with the partition of each."""

    def get(self, key: bytes) -> Located | None:
        found: bytes | None = self._db.get(key)
        return None if found is None else _located(found)

    def items(self, start: bytes | None = None) -> Iterator[tuple[bytes, Located]]:
        """A snapshot of all values from the key ``start`` on, in the order of the keys."""
        return ((key, _located(stored)) for key, stored in self._db.items(from_key=start))

    def write(self, values: Mapping[bytes, Located | None]) -> None:
        if self.changed is not None:
            for key, value in values.items():
                there = self.get(key) if value is None else value
                if there is not None:
                    self.changed[key] = there.partition
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in values.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, _PARTITION.pack(value.partition) + value.value)
        self._db.write(batch, WITHOUT_WAL)

    def close(self) -> None:
        self._db.close()


class TopicCopy(Copy):
    """The latest value of each key of a compacted topic, as far as ``catch_up`` has read it."""

    def __init__(self, path: Path, topic: str, *, consumer: Mapping[str, object], offsets: Offsets) -> None:
        super().__init__(path)
        self.topic = topic
        self._offsets = offsets
        self._next: dict[int, int] = {}
        self.positions: dict[int, bytes] = {}
        """The position record of each partition of a changelog: see ``streams.transactions.positions``."""
        self._reader = bulk_reader(consumer)

    def catch_up(self, partitions: int, tick: Callable[[int, int], None]) -> None:
        """Apply all records that are written by now, and wait for the end of open transactions: raises Unreadable.

        ``tick`` receives the counts of records read and to read.
        """
        ends = self._offsets.ends(self.topic, range(partitions))
        firsts = self._offsets.begins(self.topic, range(partitions))
        self._next = {each: max(first, self._next.get(each, 0)) for each, first in firsts.items()}
        for batch in read_on(self._reader, self.topic, self._next, ends, tick):
            self._apply(batch)

    def close(self) -> None:
        self._reader.close()
        super().close()

    def _apply(self, batch: list[Message]) -> None:
        values: dict[bytes, Located | None] = {}
        for message in batch:
            partition, key, value = cast("int", message.partition()), cast("bytes", message.key()), message.value()
            if key != POSITION_KEY:
                values[key] = None if value is None else Located(partition, value)
            elif value is not None:
                self.positions[partition] = value
        self.write(values)


def _located(stored: bytes) -> Located:
    return Located(_PARTITION.unpack_from(stored)[0], stored[_PARTITION.size :])


def join_by_key(*sources: Iterable[tuple[bytes, _Value]]) -> Iterator[tuple[bytes, list[_Value | None]]]:
    def numbered(at: int) -> Iterator[tuple[bytes, int, _Value]]:
        return ((key, at, value) for key, value in sources[at])

    merged = merge(*map(numbered, range(len(sources))), key=itemgetter(0))
    for key, found in groupby(merged, key=itemgetter(0)):
        values: list[_Value | None] = [None] * len(sources)
        for _, at, value in found:
            values[at] = value
        yield key, values


def bulk_reader(consumer: Mapping[str, object]) -> PartitionReader:
    return PartitionReader(reader_config(consumer, buffer_bytes=_BUFFER_BYTES))


def read_on(
    reader: PartitionReader,
    topic: str,
    reached: dict[int, int],
    ends: Mapping[int, int],
    tick: Callable[[int, int], None],
) -> Generator[list[Message]]:
    starts = {each: reached[each] for each, end in ends.items() if end > reached[each]}
    total = sum(ends[each] - start for each, start in starts.items())
    with closing(reader.read(topic, starts, ends, batch=_BATCH_RECORDS, quiet_s=DECIDED_S)) as batches:
        for batch in batches:
            yield batch
            reached.update(reader.reached)
            tick(sum(reached[each] - start for each, start in starts.items()), total)
