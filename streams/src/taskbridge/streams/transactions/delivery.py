"""What one chunk came to, on its way into a transaction, and who waits for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from taskbridge.streams.encoded_records import EncodedRecords, PythonRecords
from taskbridge.streams.transactions.bulk_producer import Sent

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Sequence

    from confluent_kafka import TopicPartition
    from faust.types import TP

    from taskbridge.streams.records import RecordWithHeaders


class TransactionalProducer(Protocol):
    """What ``BulkProducer`` says of each of these."""

    def claim(self) -> None: ...
    def begin(self) -> None: ...
    def send(self, topic: str, records: Sequence[RecordWithHeaders], *, partition: int = -1) -> Sent: ...
    def commit(self, offsets: Sequence[TopicPartition] = (), group: bytes | None = None) -> None: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...


class Batch(NamedTuple):
    """Records for one topic."""

    topic: str
    records: Sequence[RecordWithHeaders]
    partition: int = -1
    """-1: by each record's key."""


@dataclass(slots=True, eq=False)
class Delivery:
    source: TP
    next_offset: int
    batches: Sequence[Batch]
    group: bytes
    done: asyncio.Future[list[int]]
    sent: list[Sent] = field(default_factory=list[Sent])
    records: int = field(init=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        # Counted where they are handed over, so that what cannot be counted fails there.
        self.records = sum(len(batch.records) for batch in self.batches)
        self.size = sum(value_bytes(batch.records) for batch in self.batches)


def send(producer: TransactionalProducer, batch: Batch) -> Sent:
    return producer.send(batch.topic, batch.records, partition=batch.partition) if batch.records else Sent()


def value_bytes(records: Sequence[RecordWithHeaders]) -> int:
    return (records if isinstance(records, EncodedRecords) else PythonRecords(records)).value_bytes


def tell(deliveries: Iterable[Delivery], failure: BaseException | None) -> None:
    for delivery in deliveries:
        if delivery.done.done():  # nobody waits for it any more
            continue
        if failure is None:
            delivery.done.set_result([each.last_offset for each in delivery.sent])
        else:
            delivery.done.set_exception(failure)
            delivery.done.exception()  # the first is told; asyncio need not complain of those that nobody awaits then
