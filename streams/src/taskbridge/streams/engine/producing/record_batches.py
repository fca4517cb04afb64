"""Records on their way into one transaction, by partition, as Kafka stores them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from taskbridge.streams.transactions.bulk_producer import Sent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from taskbridge.streams.engine.producing.transaction_requests import Identity
    from taskbridge.streams.records import RecordWithHeaders

_MAGIC = 2
_BYTES = 1_000_000
"""Of a batch before it is packed. One record may be more."""
_SEQUENCES = 1 << 31

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


@dataclass(slots=True, eq=False)
class RecordBatch:
    """A batch of one partition; Kafka takes it once, by its sequence, however often it comes."""

    builder: Any
    sequence: int
    count: int = 0
    ends: list[tuple[Sent, int]] = field(default_factory=list["tuple[Sent, int]"])
    """Whose last record stands where in it."""
    _built: bytearray | None = None

    @property
    def data(self) -> bytearray:
        built = self._built
        if built is None:
            built = self._built = cast("bytearray", self.builder.build())
        return built

    @property
    def next_sequence(self) -> int:
        return (self.sequence + self.count) % _SEQUENCES

    def written(self, offset: int) -> None:
        """It begins at this offset."""
        for sent, at in self.ends:
            sent.last_offset = offset + at


class RecordBatches:
    """Of one claimed producer: fills batches, and counts each partition's sequence over its transactions."""

    def __init__(self, codec: int) -> None:
        self._of: Identity | None = None
        self._codec = codec
        self._sequences: dict[tuple[str, int], int] = {}
        self._open: dict[tuple[str, int], list[RecordBatch]] = {}

    def add(
        self,
        of: Identity,
        topic: str,
        records: Iterable[RecordWithHeaders],
        partition_of: Callable[[bytes | None], int],
    ) -> Sent:
        """Put records behind those of their partitions; a new epoch begins its sequences anew."""
        if of != self._of:
            self._of = of
            self._sequences.clear()
        sent, batch = Sent(), None
        now_ms = time.time_ns() // 1_000_000
        for key, value, headers in records:
            at = topic, partition_of(key)
            batches = self._open.get(at)
            if batches is None:
                batches = self._open[at] = [self._begin(self._sequences.get(at, 0))]
            batch = batches[-1]
            if batch.builder.append(batch.count, now_ms, key, value, headers) is None:  # it is full
                batch = self._begin(batch.next_sequence)
                batches.append(batch)
                batch.builder.append(0, now_ms, key, value, headers)
            batch.count += 1
        if batch is not None:
            batch.ends.append((sent, batch.count - 1))
        return sent

    def _begin(self, sequence: int) -> RecordBatch:
        of = self._of
        assert of is not None, "added"
        builder = DefaultRecordBatchBuilder(_MAGIC, self._codec, 1, of.producer_id, of.epoch, sequence, _BYTES)
        return RecordBatch(builder, sequence)

    def take(self) -> dict[tuple[str, int], list[RecordBatch]]:
        """All that was added since; of each partition in order."""
        taken, self._open = self._open, {}
        self._sequences.update((at, batches[-1].next_sequence) for at, batches in taken.items())
        return taken


def by_topic(partitions: Iterable[tuple[str, int]]) -> list[tuple[str, list[int]]]:
    """As requests name partitions."""
    found: dict[str, list[int]] = {}
    for topic, partition in partitions:
        found.setdefault(topic, []).append(partition)
    return list(found.items())
