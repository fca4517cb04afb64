"""aiokafka's consumer in its thread, with what Faust has no settings for; it fetches events and notifications.

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
from faust.transport.drivers import aiokafka as driver

from taskbridge.schemas.errors import OperatorError
from taskbridge.streams.records import native
from taskbridge.streams.transactions.bulk_producer import Membership

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from faust.types import TP


class PositionGone(OperatorError):
    """The topic no longer has what comes next. Started again, the worker says what is missing and goes on behind it."""


class RebalanceListener(driver.ConsumerRebalanceListener):
    """Keeps aiokafka from fetching changelogs: it would hold the first megabytes of each for ever."""

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        thread = cast("Any", self._thread)
        changelogs = thread.app.tables.changelog_topics
        aiokafka = thread._ensure_consumer()  # noqa: SLF001
        thread.let_skip(may=True)
        aiokafka.pause(*(tp for tp in assigned if tp.topic in changelogs))
        thread.consumer.joined(_membership(aiokafka))
        await super().on_partitions_assigned(assigned)


def _membership(aiokafka: Any) -> Membership:
    coordinator = aiokafka._coordinator  # noqa: SLF001 - nobody else knows the member's id
    return Membership(coordinator.generation, coordinator.member_id, coordinator._group_instance_id)  # noqa: SLF001


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """aiokafka's consumer, with what Faust has no settings for."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.polled: dict[TP, int] = {}
        """Behind the last record of each partition that was polled, whoever has it by now."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        read_fetches()
        aiokafka = cast("Any", super()._create_worker_consumer(transport))
        # Of what another worker's transaction left unfinished, nothing is to be folded.
        aiokafka._isolation_level = "read_committed"  # noqa: SLF001
        return aiokafka

    async def _fetch_records(self, consumer: Any, *args: Any, **options: Any) -> Any:
        """Records of one poll. A partition that has more of them comes behind all others next time.

        aiokafka would go on with the same one until nothing is left of what it fetched, some megabytes later, while all
        other partition queues stand empty.
        """
        try:
            fetched = await super()._fetch_records(consumer, *args, **options)
        except OffsetOutOfRangeError as error:
            raise PositionGone(
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

    def let_skip(self, *, may: bool) -> None:
        """Whether a position that is not there is silently moved to what is: only until it is known where all go on."""
        fetcher = cast("Any", self)._ensure_consumer()._fetcher  # noqa: SLF001
        strategy = OffsetResetStrategy.EARLIEST if may else OffsetResetStrategy.NONE
        fetcher._default_reset_strategy = strategy  # noqa: SLF001 - a setting only where the consumer is made

    def fetch_position(self, tp: TP) -> int:
        """Where the next fetch begins; 0 where that is not known."""
        subscription = cast("Any", self)._ensure_consumer()._subscription.subscription  # noqa: SLF001
        assignment = None if subscription is None else subscription.assignment
        state = None if assignment is None else assignment.state_value(tp)
        return state.position if state is not None and state.has_valid_position else 0


async def seek_to_committed(aiokafka: Any, changelogs: Collection[str]) -> Mapping[TP, int | None]:
    """Every partition comes again from what is committed, and from its beginning where nothing is.

    aiokafka alone leaves the latter where they are, and those where 0 is committed: behind what was fetched and, it may
    be, dropped. ``changelogs`` are not fetched at all.
    """
    committed: Mapping[TP, int | None] = await aiokafka.seek_to_committed()
    for tp, offset in committed.items():
        if offset == 0:
            aiokafka.seek(tp, 0)
    if unread := [tp for tp, offset in committed.items() if offset is None and tp.topic not in changelogs]:
        await aiokafka.seek_to_beginning(*unread)
    return committed


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
