"""One transactional producer a partition: only who has the partition now can still write what its events come to.

A worker that was frozen longer than its session, and wakes, goes on with the chunk that it had in work. The group has
given its partitions away meanwhile, but a record that it then produces would be taken like any other, and its older
state of an instance would hide the newer one. So the new owner claims the partition's transactional id before it reads
where the changelog ends; from then on Kafka refuses the old one's records, also those under way.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from streams.bulk_producer import BulkProducer
from streams.store import PartitionNotHeld

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

_TRANSACTION_TIMEOUT_MS = 60_000
_AT_ONCE = 16


class FencedProducers:
    """The producers of this worker's active partitions."""

    def __init__(
        self,
        config: Mapping[str, object],
        *,
        prefix: str,
        fencing: bool = True,
        make: Callable[[Mapping[str, object]], BulkProducer] = BulkProducer,
    ) -> None:
        """Without ``fencing`` there are no transactions, and what a frozen worker wrote too late is taken."""
        self._config = {**config, "transaction.timeout.ms": _TRANSACTION_TIMEOUT_MS} if fencing else dict(config)
        self._prefix = prefix if fencing else None
        self._make = make
        self._producers: dict[int, BulkProducer] = {}

    def of(self, partition: int) -> BulkProducer:
        """The producer for what comes of this partition's events.

        Raises:
            PartitionNotHeld: the partition was not claimed.
        """
        try:
            return self._producers[partition]
        except KeyError:
            raise PartitionNotHeld(f"partition {partition} was not claimed by this worker") from None

    def claim(self, partitions: Collection[int]) -> None:
        """Become the one who writes for these, and for no others. What is held already stays as it is. Blocks.

        Raises:
            KafkaException: Kafka does not answer, or does not allow it.
        """
        for partition in self._producers.keys() - set(partitions):
            del self._producers[partition]
        missing = [partition for partition in partitions if partition not in self._producers]
        if missing:
            # Side by side: each waits up to half a second for librdkafka's timers.
            with ThreadPoolExecutor(min(_AT_ONCE, len(missing))) as pool:
                self._producers.update(zip(missing, pool.map(self._claimed, missing), strict=True))

    async def close(self) -> None:
        """Nothing is waited for: what was not committed is not acknowledged either, and comes again."""
        self._producers.clear()

    def _claimed(self, partition: int) -> BulkProducer:
        if self._prefix is None:
            return self._make(self._config)
        producer = self._make({**self._config, "transactional.id": f"{self._prefix}-{partition}"})
        producer.claim()
        return producer
