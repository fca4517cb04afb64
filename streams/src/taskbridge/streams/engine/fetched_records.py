"""Has the native core read what aiokafka fetched: a record is one object then, without one for each of its headers.

Fetching, its order, and what is left out (aborted transactions, markers) stay aiokafka's. So does whatever the core
does not read: what is packed, of an older format, or damaged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from aiokafka.consumer import fetcher
from aiokafka.record.memory_records import MemoryRecords

from taskbridge.streams.native_core import native

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faust.types import TP

_LENGTH, _BEHIND_LENGTH = 8, 12
"""Where a batch has its length, and from where on that counts."""


class FetchedBatch:
    """What aiokafka asks of a batch whose records are read already, and their checksum with them."""

    is_control_batch = False

    def __init__(self, batch: Any, records: list[Any]) -> None:
        self.base_offset, self.next_offset = batch.base_offset, batch.next_offset
        self.producer_id, self.is_transactional = batch.producer_id, batch.is_transactional
        self._records = records

    def __iter__(self) -> Iterator[Any]:
        return iter(self._records)

    def validate_crc(self) -> bool:
        return True


class FetchedRecords:
    """In the place of aiokafka's ``MemoryRecords``: the batches of one partition."""

    def __init__(self, data: bytes) -> None:
        self._own: Any = MemoryRecords(data)
        self._data = data
        self._begin = 0
        self.tp: TP | None = None

    def has_next(self) -> bool:
        return self._own.has_next()

    def size_in_bytes(self) -> int:
        return self._own.size_in_bytes()

    def next_batch(self) -> Any:
        batch = self._own.next_batch()
        begin = self._begin
        length = int.from_bytes(self._data[begin + _LENGTH : begin + _BEHIND_LENGTH], "big")
        self._begin = end = begin + _BEHIND_LENGTH + length
        assert self.tp is not None, "whoever asks has said of what partition"
        assert native is not None, "only used where it is built"
        records = native.read_batch(self._data, begin, end, *self.tp)
        return batch if records is None else FetchedBatch(batch, records)


class FetchedPartition(fetcher.PartitionRecords):
    """Gives the core's records as they are."""

    def __init__(self, tp: TP, records: FetchedRecords, *arguments: Any) -> None:
        records.tp = tp
        super().__init__(tp, records, *arguments)

    def _consumer_record(self, tp: TP, record: Any) -> Any:
        assert native is not None, "only used where it is built"
        own = cast("Any", super())
        return record if type(record) is native.FetchedRecord else own._consumer_record(tp, record)  # noqa: SLF001 - its own


def read_natively() -> None:
    """From now on, in this process, where the core is built."""
    if native is not None:
        fetcher.MemoryRecords = FetchedRecords
        fetcher.PartitionRecords = FetchedPartition
