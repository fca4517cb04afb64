"""Writes single records in transactions, one after the other: for what is not in a hurry and must be whole."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException, TopicPartition

from taskbridge.streams.positions.kept_position import POSITION_KEY, KeptPosition, write_position
from taskbridge.streams.positions.mark import write_metadata
from taskbridge.streams.transactions.bulk_producer import TRANSACTION_TIMEOUT_MS, BulkProducer
from taskbridge.streams.transactions.group_metadata import Membership, group_metadata

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from taskbridge.streams.positions.mark import Ground
    from taskbridge.streams.records import RecordWithHeaders

_NOBODY = Membership(-1, "", None)


class TransactionalWriter:
    """The only one who can write under its transactional id, from ``claim`` until somebody else claims it.

    Every method blocks, and raises as those of ``BulkProducer`` do.
    """

    def __init__(
        self, config: Mapping[str, object], transactional_id: str, *, timeout_ms: int = TRANSACTION_TIMEOUT_MS
    ) -> None:
        """``timeout_ms``: after this long Kafka undoes a transaction whose writer does not end it."""
        self._producer = BulkProducer(config, transactional_id, timeout_ms=timeout_ms)

    def claim(self) -> None:
        """Undo what an earlier writer left open, and keep it from writing any more. Once, before all else."""
        self._producer.claim()

    @contextmanager
    def transaction(self) -> Generator[None]:
        """All that is sent within is written, or nothing is; after a lost answer to the commit it may be all."""
        self._producer.begin()
        try:
            yield
            self._producer.commit()
        except BaseException:
            # So that no reader waits for its end. Whoever claims the id next does it as well.
            with suppress(KafkaException):
                self._producer.abort()
            raise

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        *,
        partition: int = -1,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Add a record to the transaction; -1 is the partition of its key. A full queue is waited for."""
        self._producer.send_with_headers(topic, [(key, value, list(headers))], partition=partition)

    def send_all(self, topic: str, records: Sequence[RecordWithHeaders]) -> None:
        """The same for many, each to the partition of its key."""
        self._producer.send_with_headers(topic, records)

    def hand_over(self, group: str, source: str, ground: Ground, positions: Mapping[int, int]) -> None:
        """Add where a group, of which nobody is at work, goes on in ``source``, to its positions and to the changelog.

        The positions name the ground: what is lost of that before anybody is at work again is missed.
        """
        metadata = write_metadata("", ground.mark)
        for partition, offset in positions.items():
            kept = write_position(KeptPosition(ground.source_id, offset))
            self.send(ground.changelog, POSITION_KEY, kept, partition=partition)
        offsets = [TopicPartition(source, partition, offset, metadata) for partition, offset in positions.items()]
        if offsets:
            self._producer.send_offsets(offsets, group_metadata(group, _NOBODY))
