"""Sends what a chunk comes to: many records in one call, and one answer when Kafka has all of them.

``service.kafka.AsyncProducer`` makes a future for every record, which is right for a callback that waits for its own;
a chunk waits for all of its records together, so here a report costs no Python at all.

With a ``transactional.id`` a chunk is one transaction: readers see all of it or nothing, and once another producer has
taken the id over, every further write of this one fails, however late it arrives at a broker.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.errors import OperatorError
from service.kafka import DeliveryFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from confluent_kafka import Message

_FLUSH_S = 5
_CLAIM_S = 30
_COMMIT_S = 60

_TAKEN_OVER = (
    KafkaError._FENCED,  # noqa: SLF001 - how the library names its codes
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_ID_MAPPING,
)

type_reports = dict["KafkaError | None", "Message"]
"""Error → a record that met it. Under None stands the last record that was delivered."""

type_outgoing = dict[str, Any]
"""``key`` and ``value`` of a record without headers. librdkafka adds ``_error`` where it did not take it on."""
type_with_headers = tuple[bytes | None, bytes | None, Any]
"""Key, value, headers: a list of names and bytes, for which the library's type hints have no room."""


class Fenced(OperatorError):
    """Another worker has taken the partition over; nothing of the chunk was written. This worker was away too long."""


class BulkProducer:
    """Sends the records of one chunk at a time. Nothing is known of any of them before ``delivered`` returns."""

    def __init__(self, config: Mapping[str, object]) -> None:
        self._producer = Producer(dict(config), logger=logging.getLogger("librdkafka"))
        self._transactional = "transactional.id" in config
        self._open = False
        self._reports: list[type_reports] = []
        # Its own: where Kafka does not answer, every producer waits, and others of the process must not wait with them.
        self._thread = ThreadPoolExecutor(1, "chunk-commit")

    def claim(self) -> None:
        """Take the transactional id over from whoever had it; what they had open is undone. Once, before all else.

        Blocks.

        Raises:
            KafkaException: Kafka does not answer, or does not allow it.
        """
        self._producer.init_transactions(_CLAIM_S)

    def send(self, topic: str, records: list[type_outgoing], *, partition: int = -1) -> type_reports:
        """Hand over records; the answer is filled in until ``delivered`` returns. A full queue is waited for.

        Raises:
            DeliveryFailed: one of them cannot be sent, e.g. it is larger than a record may be.
        """
        reports = self._new_reports()
        while records:
            # In the order of the reports the last one wins; a dict's own method is called without Python code.
            self._producer.produce_batch(topic, records, partition=partition, on_delivery=reports.__setitem__)
            records = [record for record in records if "_error" in record]
            for record in records:
                error: KafkaError = record.pop("_error")
                if error.code() != error._QUEUE_FULL:  # noqa: SLF001 - how the library names its codes
                    raise DeliveryFailed(f"{topic}: {error.str()}", error)
            if records:
                self._producer.flush()
        return reports

    def send_with_headers(self, topic: str, records: Sequence[type_with_headers]) -> None:
        """The same for records with headers, which can only be handed over one by one.

        Raises:
            DeliveryFailed: as above.
        """
        report = self._new_reports().__setitem__
        produce = self._producer.produce
        for key, value, headers in records:
            while True:
                try:
                    produce(topic, key=key, value=value, headers=headers, on_delivery=report)
                except BufferError:
                    self._producer.flush()
                except KafkaException as error:
                    raise DeliveryFailed(f"{topic}: {error}", error.args[0]) from error
                else:
                    break

    async def delivered(self) -> None:
        """Return once all in-sync replicas have everything that was handed over.

        Raises:
            DeliveryFailed: they have not; which records they have is not known.
            Fenced: the transactional id is another producer's.
        """
        if self._open:
            self._open = False
            await self._in_thread(self._commit)
        elif len(self._producer):
            # Sends at once, without waiting for the linger.
            await self._in_thread(self._producer.flush)
        reports, self._reports = self._reports, []
        for error, record in ((error, record) for each in reports for error, record in each.items()):
            if error is not None:
                raise DeliveryFailed(f"{record.topic()}: {error.str()}", error)

    async def close(self) -> None:
        """Wait, within bounds, for what was handed over."""
        await self._in_thread(self._producer.flush, _FLUSH_S)

    async def _in_thread(self, wait: Callable[..., object], *arguments: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, wait, *arguments)

    def _commit(self) -> None:
        deadline = time.monotonic() + _COMMIT_S
        while True:
            try:
                self._producer.commit_transaction(_COMMIT_S)
            except KafkaException as raised:
                error: KafkaError = raised.args[0]
                if error.retriable() and time.monotonic() < deadline:
                    continue
                # It is not aborted here: the worker stops, and whoever claims the id next aborts what is open.
                if error.code() in _TAKEN_OVER:
                    raise Fenced(error.str()) from raised
                raise DeliveryFailed(f"a chunk could not be committed: {error.str()}", error) from raised
            else:
                return

    def _new_reports(self) -> type_reports:
        if self._transactional and not self._open:
            self._producer.begin_transaction()
            self._open = True
        reports: type_reports = {}
        self._reports.append(reports)
        return reports


def last_offset(reports: type_reports) -> int:
    """The offset of the last record of one partition, once they are delivered; -1 where there was none."""
    last = reports.get(None)
    if last is None:
        return -1
    offset = last.offset()
    assert offset is not None
    return offset
