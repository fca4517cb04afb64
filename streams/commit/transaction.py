"""Writes records in transactions, one after the other, and blocks: for what is not in a hurry and must be whole."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.errors import OperatorError
from service.kafka import DeliveryFailed

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

_CLAIM_S = 60
_COMMIT_S = 600
_ROOM_S = 0.1

_TAKEN_OVER = (
    KafkaError._FENCED,  # noqa: SLF001 - how the library names its codes
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_ID_MAPPING,
)


class TakenOver(OperatorError):
    """Somebody else writes under this transactional id now, or the transaction took too long. It was undone."""


class TransactionalWriter:
    """The only one who can write under its transactional id, from ``claim`` until somebody else claims it."""

    def __init__(self, config: Mapping[str, object], transactional_id: str, *, timeout_ms: int = 60_000) -> None:
        """``timeout_ms``: after this long Kafka undoes a transaction whose writer does not end it."""
        self._id = transactional_id
        self._producer = Producer(
            {**config, "transactional.id": transactional_id, "transaction.timeout.ms": timeout_ms},
            logger=logging.getLogger("librdkafka"),
        )

    def claim(self) -> None:
        """Undo what an earlier writer left open, and keep it from writing any more. Once, before all else.

        Raises:
            DeliveryFailed: Kafka does not answer, or does not allow it.
        """
        try:
            self._producer.init_transactions(_CLAIM_S)
        except KafkaException as error:
            raise self._failure(error) from error

    @contextmanager
    def transaction(self) -> Generator[None]:
        """All that is sent within is written, or nothing is.

        Raises:
            TakenOver: another writer has claimed the id; nothing was written.
            DeliveryFailed: it failed otherwise. Nothing was written, unless the answer to the commit was lost.
        """
        try:
            self._producer.begin_transaction()
            yield
            self._commit()
        except BaseException as error:
            with suppress(KafkaException):
                self._producer.abort_transaction(_CLAIM_S)
            if isinstance(error, KafkaException):
                raise self._failure(error) from error
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
        """Add a record to the transaction; -1 is the partition of its key."""
        produce: Any = self._producer.produce
        while True:
            try:
                produce(topic, key=key, value=value, partition=partition, headers=list(headers))
            except BufferError:
                self._producer.poll(_ROOM_S)
            else:
                return

    def _commit(self) -> None:
        deadline = time.monotonic() + _COMMIT_S
        while True:
            try:
                self._producer.commit_transaction(_COMMIT_S)
            except KafkaException as error:
                reason: KafkaError = error.args[0]
                if not reason.retriable() or time.monotonic() > deadline:
                    raise
            else:
                return

    def _failure(self, error: KafkaException) -> OperatorError:
        reason: KafkaError = error.args[0]
        if reason.code() in _TAKEN_OVER:
            return TakenOver(f"{self._id} was taken over: {reason.str()}")
        return DeliveryFailed(f"{self._id}: {reason.str()}", reason)
