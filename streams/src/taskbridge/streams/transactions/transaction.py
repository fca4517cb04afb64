"""Writes single records in transactions, one after the other: for what is not in a hurry and must be whole."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException, TopicPartition

from taskbridge.streams.positions.kept_position import POSITION_KEY, KeptPosition, write_position
from taskbridge.streams.positions.mark import write_metadata
from taskbridge.streams.transactions.bulk_producer import BulkProducer
from taskbridge.streams.transactions.group_metadata import Membership, group_metadata

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from taskbridge.streams.positions.mark import Ground

_NOBODY = Membership(-1, "", None)


class TransactionalWriter(BulkProducer):
    """The only one who can write under its transactional id, from ``claim`` until somebody else claims it."""

    @contextmanager
    def transaction(self) -> Generator[None]:
        """All that is sent within is written, or nothing is; after a lost answer to the commit it may be all."""
        self.begin()
        try:
            yield
            self.commit()
        except BaseException:
            # So that no reader waits for its end. Whoever claims the id next does it as well.
            with suppress(KafkaException):
                self.abort()
            raise

    def write(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        *,
        partition: int = -1,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Add a record to the transaction; -1 is the partition of its key. A full queue is waited for."""
        self.send(topic, [(key, value, list(headers))], partition=partition)

    def hand_over(self, group: str, source: str, ground: Ground, positions: Mapping[int, int]) -> None:
        """Add where a group, of which nobody is at work, goes on in ``source``, to its positions and to the changelog.

        The positions name the ground: what is lost of that before anybody is at work again is missed.
        """
        metadata = write_metadata("", ground.mark)
        for partition, offset in positions.items():
            kept = write_position(KeptPosition(ground.source_id, offset))
            self.write(ground.changelog, POSITION_KEY, kept, partition=partition)
        offsets = [TopicPartition(source, partition, offset, metadata) for partition, offset in positions.items()]
        if offsets:
            self.send_offsets(offsets, group_metadata(group, _NOBODY))
