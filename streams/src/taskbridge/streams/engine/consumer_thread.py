"""aiokafka's consumer in its thread, with what Faust has no settings for; it fetches events.

The native core reads what was fetched: one object per record, and none per header. Fetching, order, and skipping of
aborted transactions and markers remain aiokafka's, as do batches that the core does not read: compressed, of an older
format, or damaged. A header name that is not UTF-8 stops aiokafka at its record for ever; here U+FFFD replaces the
invalid bytes.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import OffsetResetStrategy
from aiokafka.errors import OffsetOutOfRangeError
from aiokafka.record.default_records import _DefaultRecordBatchPy  # pyright: ignore[reportPrivateUsage]
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint_py
from faust.transport.drivers import aiokafka as driver

from taskbridge.schemas.errors import OperatorError
from taskbridge.streams.engine.transaction_requests import Membership
from taskbridge.streams.records import native

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from faust.types import TP


_LENGTH, _AFTER_LENGTH = 8, 12
"""Where a batch has its length, and where the counted bytes begin."""


class RebalanceListener(driver.ConsumerRebalanceListener):
    """Prevents aiokafka from fetching changelogs: it would hold the first megabytes of each for ever."""

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        thread = cast("Any", self._thread)
        changelogs = thread.app.tables.changelog_topics
        aiokafka = thread._ensure_consumer()  # noqa: SLF001
        thread.allow_skipping(may=True)
        aiokafka.pause(*(tp for tp in assigned if tp.topic in changelogs))
        thread.consumer.joined(_membership(aiokafka))
        await super().on_partitions_assigned(assigned)


def _membership(aiokafka: Any) -> Membership:
    found = aiokafka._coordinator  # noqa: SLF001 - only it has the member's id
    return Membership(found.group_id, found.generation, found.member_id, found._group_instance_id)  # noqa: SLF001


class ConsumerThread(driver.AIOKafkaConsumerThread):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.polled: dict[TP, int] = {}

    def _create_worker_consumer(self, transport: Any) -> Any:
        install_native_reader()
        aiokafka = cast("Any", super()._create_worker_consumer(transport))
        # Records of unfinished and aborted transactions must not be folded.
        aiokafka._isolation_level = "read_committed"  # noqa: SLF001
        return aiokafka

    async def _fetch_records(self, consumer: Any, *args: Any, **options: Any) -> Any:
        """The records of one poll. A partition with more records comes last in the next poll.

        aiokafka would continue with the same partition until it has passed on all that it fetched, some megabytes
        later, while the queues of all other partitions are empty.
        """
        try:
            fetched = await super()._fetch_records(consumer, *args, **options)
        except OffsetOutOfRangeError as error:
            raise OperatorError(
                f"records were deleted before they were read, or the topic was truncated: {error}"
            ) from error
        waiting = consumer._fetcher._records  # noqa: SLF001 - polled in this dict's order
        for tp, records in fetched.items():
            self.polled[tp] = records[-1].offset + 1
            if tp in waiting:
                waiting[tp] = waiting.pop(tp)
        return fetched

    async def seek_to_committed(self) -> Any:
        thread = cast("Any", self)
        changelogs = thread.app.tables.changelog_topics
        return await self.call_thread(seek_to_committed, thread._ensure_consumer(), changelogs)  # noqa: SLF001

    def allow_skipping(self, *, may: bool) -> None:
        """Whether a missing offset is silently replaced by the first one: only until all partitions have resumed."""
        fetcher = cast("Any", self)._ensure_consumer()._fetcher  # noqa: SLF001
        strategy = OffsetResetStrategy.EARLIEST if may else OffsetResetStrategy.NONE
        fetcher._default_reset_strategy = strategy  # noqa: SLF001 - otherwise set only at construction

    def fetch_position(self, tp: TP) -> int:
        subscription = cast("Any", self)._ensure_consumer()._subscription.subscription  # noqa: SLF001
        assignment = None if subscription is None else subscription.assignment
        state = None if assignment is None else assignment.state_value(tp)
        return state.position if state is not None and state.has_valid_position else 0


async def seek_to_committed(aiokafka: Any, changelogs: Collection[str]) -> Mapping[TP, int | None]:
    """Seek each partition to its committed offset, or to its beginning if there is none.

    aiokafka alone leaves the latter, and those with offset 0, where they are: after records that were fetched and
    perhaps dropped. ``changelogs`` are not fetched.
    """
    committed: Mapping[TP, int | None] = await aiokafka.seek_to_committed()
    for tp, offset in committed.items():
        if offset == 0:
            aiokafka.seek(tp, 0)
    if unread := [tp for tp, offset in committed.items() if offset is None and tp.topic not in changelogs]:
        await aiokafka.seek_to_beginning(*unread)
    return committed


class FetchedBatch:
    """A batch for aiokafka whose checksum is read already, and whose records are read by the core or ``_lossy``."""

    is_control_batch = False

    def __init__(self, batch: Any, records: Iterable[Any]) -> None:
        self.base_offset, self.next_offset = batch.base_offset, batch.next_offset
        self.producer_id, self.is_transactional = batch.producer_id, batch.is_transactional
        self._records = records

    def __iter__(self) -> Iterator[Any]:
        return iter(self._records)

    def validate_crc(self) -> bool:
        return True


class _Lossy(bytearray):
    """Text that is read from it has U+FFFD in place of invalid UTF-8."""

    def __getitem__(self, at: Any) -> Any:
        found = cast("Any", super()).__getitem__(at)
        return _Lossy(found) if isinstance(at, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        return super().decode(encoding, errors)


class _LossyBatch(_DefaultRecordBatchPy):  # type: ignore[misc] # the C version reads text in no other way
    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer = _Lossy(self._buffer)

    def _read_msg(self, decode_varint: Any = decode_varint_py) -> Any:
        # That in C reads behind the buffer, and the process crashes.
        return super()._read_msg(decode_varint)


def _lossy(batch: Any, data: bytes) -> Iterator[Any]:
    read = 0
    try:
        for read, record in enumerate(batch, 1):  # noqa: B007
            yield record
    except UnicodeDecodeError:
        yield from islice(_LossyBatch(data), read, None)


class FetchedRecords(MemoryRecords):
    """Replaces aiokafka's own: the batches of one partition."""

    def __init__(self, data: bytes) -> None:
        cast("Any", super()).__init__(data)
        self._data = data
        self._begin = 0
        self.tp: TP | None = None

    def next_batch(self) -> Any:
        batch = cast("Any", super()).next_batch()
        begin = self._begin
        length = int.from_bytes(self._data[begin + _LENGTH : begin + _AFTER_LENGTH], "big")
        self._begin = end = begin + _AFTER_LENGTH + length
        assert self.tp is not None, "FetchedPartition sets it"
        records = native and native.read_batch(self._data, begin, end, *self.tp)
        if records is None:
            if batch.is_control_batch or not batch.validate_crc():
                return batch
            records = _lossy(batch, self._data[begin:end])
        return FetchedBatch(batch, records)


class FetchedPartition(fetcher.PartitionRecords):
    def __init__(self, tp: TP, records: FetchedRecords, *arguments: Any) -> None:
        records.tp = tp
        super().__init__(tp, records, *arguments)

    def _consumer_record(self, tp: TP, record: Any) -> Any:
        own = cast("Any", super())
        is_whole = native is not None and type(record) is native.FetchedRecord
        return record if is_whole else own._consumer_record(tp, record)  # noqa: SLF001 - its own


def install_native_reader() -> None:
    fetcher.MemoryRecords = FetchedRecords
    fetcher.PartitionRecords = FetchedPartition
