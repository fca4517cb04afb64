"""Has the native core read what aiokafka fetched: a record is one object then, without one for each of its headers.

Fetching, its order, and what is left out (aborted transactions, markers) stay aiokafka's. So does whatever the core
does not read: what is packed, of an older format, or damaged. In the name of a header that is no UTF-8, which stops
aiokafka at the record for ever, a mark is in place of what is none.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy  # pyright: ignore[reportPrivateUsage]
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


class _Lossy(bytearray):
    """Every text that is read of it has marks in place of what is no UTF-8."""

    def __getitem__(self, at: Any) -> Any:
        found = cast("Any", super()).__getitem__(at)
        return _Lossy(found) if isinstance(at, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        return super().decode(encoding, errors)


class _LossyBatch(_DefaultRecordBatchPy):  # type: ignore[misc] # in C a text cannot be read otherwise
    """Reads as aiokafka does where it has no C."""

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer = _Lossy(self._buffer)


class OwnBatch:
    """What aiokafka reads, whatever the names of headers are."""

    def __init__(self, batch: Any, data: bytes) -> None:
        self._batch = batch
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        read = 0
        try:
            for read, record in enumerate(self._batch, 1):  # noqa: B007
                yield record
        except UnicodeDecodeError:
            yield from islice(_LossyBatch(self._data), read, None)


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
        records = native and native.read_batch(self._data, begin, end, *self.tp)
        return OwnBatch(batch, self._data[begin:end]) if records is None else FetchedBatch(batch, records)


class FetchedPartition(fetcher.PartitionRecords):
    """Gives the core's records as they are."""

    def __init__(self, tp: TP, records: FetchedRecords, *arguments: Any) -> None:
        records.tp = tp
        super().__init__(tp, records, *arguments)

    def _consumer_record(self, tp: TP, record: Any) -> Any:
        own = cast("Any", super())
        is_whole = native is not None and type(record) is native.FetchedRecord
        return record if is_whole else own._consumer_record(tp, record)  # noqa: SLF001 - its own


def read_fetches() -> None:
    """From now on, in this process."""
    fetcher.MemoryRecords = FetchedRecords
    fetcher.PartitionRecords = FetchedPartition
