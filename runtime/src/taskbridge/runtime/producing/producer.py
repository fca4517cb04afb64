"""A producer that tells asyncio when a record is durable."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING, Protocol

from confluent_kafka import KafkaError, KafkaException, Producer

from taskbridge.runtime.acls import is_refusal, not_allowed
from taskbridge.runtime.kafka import LIBRDKAFKA
from taskbridge.runtime.producing.report_signal import close_signal, report_signal
from taskbridge.schemas.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from confluent_kafka import Message

_POLL_S = 0.001
_SIGNALLED_POLL_S = 0.02
"""Where a signal tells of reports: in case that one was lost."""
_IDLE_POLL_S = 0.1
"""Nothing is outstanding then but librdkafka's own log lines."""
_FLUSH_S = 5
_ANY_PARTITION = -1

_NEVER = frozenset({
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_RECORD,
    KafkaError._INVALID_DIFFERENT_RECORD,  # noqa: SLF001 - how the library names its codes
    KafkaError.INVALID_TIMESTAMP,
    KafkaError.POLICY_VIOLATION,
    KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
})  # fmt: skip
"""What a broker has against a record itself: it says the same however often it is asked."""
_GONE = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})  # noqa: SLF001 - as above


class DeliveryFailed(OperatorError):
    """Kafka did not acknowledge the record. Whether it was written is not known."""

    def __init__(self, message: str, error: KafkaError | None = None) -> None:
        super().__init__(message)
        code = None if error is None else error.code()
        self.is_final = code in _NEVER
        """The broker will never take the record, or another one that went out together with it."""
        self.too_large = code == KafkaError.MSG_SIZE_TOO_LARGE
        """It is larger than the broker takes, or another one that went out together with it is."""
        self.topic_is_gone = code in _GONE


class QueueFull(OperatorError):
    """The producer holds as much as it may; nothing was taken on."""


class Delivery(Protocol):
    """What becomes of one record: a future, or what stands in for one."""

    def done(self) -> bool: ...

    def set_result(self, result: None, /) -> None: ...

    def set_exception(self, error: Exception, /) -> None: ...


Outgoing = tuple[Delivery, str, "bytes | None", "bytes | None", "Sequence[tuple[str, bytes]]"]
"""The delivery, and the record: topic, key, value, headers."""


class AsyncProducer:
    """Produces from one asyncio loop. Each future is done by the delivery report, never earlier.

    What one turn of the loop produces is handed to librdkafka at its end, all in a row: singly, each record would wake
    librdkafka's thread for itself. The loop fetches the reports itself, every millisecond while any is outstanding. A
    thread that waits for them would take the interpreter's lock from the loop at every system call, and wake it for a
    handful of records each time.
    """

    is_dead = False
    """It met a fatal error, and will never deliver anything again: it has to be replaced."""

    def __init__(self, config: Mapping[str, object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._producer = Producer(dict(config), logger=LIBRDKAFKA)
        self._outgoing: list[Outgoing] = []
        self._is_busy = False
        self._fatal: KafkaError | None = None
        self._busy_poll_s = _POLL_S
        self._signal = report_signal(self._producer)
        if self._signal is not None:
            self._busy_poll_s = _SIGNALLED_POLL_S
            self._loop.add_reader(self._signal, self._signalled, self._signal)
        self._next_poll = self._loop.call_soon(self._poll)

    def produce(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> asyncio.Future[None]:
        """Send one record. The future is done once all in-sync replicas have it.

        Else it raises QueueFull when the record was not taken on, and DeliveryFailed when it was not acknowledged, or
        was refused at once, for being larger than a record may be for example.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        self.send(future, topic, key=key, value=value, headers=headers)
        return future

    def send(
        self,
        delivery: Delivery,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """As ``produce``; the delivery is told what the future would be, but never before this returns."""
        if not self._outgoing:
            self._loop.call_soon(self._hand_over)
        self._outgoing.append((delivery, topic, key, value, headers))

    async def answers(self, *, timeout_s: float = 1.0) -> bool:
        """Whether a broker answers a metadata request now."""
        try:
            await asyncio.to_thread(self._producer.list_topics, timeout=timeout_s)
        except KafkaException:
            return False
        return True

    @property
    def pending(self) -> int:
        """Records and reports that are not through yet."""
        return len(self._producer) + len(self._outgoing)

    async def close(self, *, timeout_s: float = _FLUSH_S) -> int:
        """Wait, within bounds, for what was handed over; returns how many records are left without an answer.

        It is of no use any more then.
        """
        deadline = self._loop.time() + timeout_s
        while self.pending and self._loop.time() < deadline:  # noqa: ASYNC110 - librdkafka has no event for it
            await asyncio.sleep(_POLL_S)
        self._next_poll.cancel()
        if self._signal is not None:
            self._loop.remove_reader(self._signal)
            close_signal(self._signal, self._producer)
        left = self.pending
        await asyncio.to_thread(self._destroy)
        return left

    def _destroy(self) -> None:
        """Blocks until librdkafka's threads have ended, which may be waiting for a name server."""
        del self._producer

    def _hand_over(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        for delivery, topic, key, value, headers in outgoing:
            if delivery.done():
                continue  # given up in the same turn: it is on its way to elsewhere
            try:
                # By place: the library looks each name up anew, a third of the call.
                report = partial(self._report, delivery, topic)
                self._producer.produce(topic, value, key, _ANY_PARTITION, report, None, 0, list(headers))
            except BufferError:
                delivery.set_exception(QueueFull("the Kafka producer's queue is full"))
            except KafkaException as error:
                delivery.set_exception(self._failure(topic, self._fatal or error.args[0]))
            except Exception as error:  # noqa: BLE001 - whatever it is, those who wait for these records hear of it
                delivery.set_exception(DeliveryFailed(f"{topic}: {error}"))
        if not self._is_busy:
            self._is_busy = True
            self._next_poll.cancel()
            self._next_poll = self._loop.call_later(self._busy_poll_s, self._poll)

    def _signalled(self, signal: int) -> None:
        os.eventfd_read(signal)
        self._fetch()

    def _poll(self) -> None:
        try:
            self._fetch()
        finally:
            self._is_busy = self.pending > 0
            self._next_poll = self._loop.call_later(self._busy_poll_s if self._is_busy else _IDLE_POLL_S, self._poll)

    def _fetch(self) -> None:
        try:
            self._producer.poll(0)
        except KafkaException as error:
            # Of a fatal error the library tells here only; reports say that their records were purged.
            if not error.args[0].fatal():
                raise
            self.is_dead, self._fatal = True, error.args[0]

    def _report(self, delivery: Delivery, topic: str, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            if not delivery.done():  # else it was given up
                delivery.set_result(None)
        elif error.code() == KafkaError._PURGE_QUEUE:  # noqa: SLF001 - its documented name
            # The fatal error that says why is told by the same poll, behind the reports.
            self._loop.call_soon(self._fail, delivery, topic, error)
        else:
            self._fail(delivery, topic, error)

    def _fail(self, delivery: Delivery, topic: str, error: KafkaError) -> None:
        failure = self._failure(topic, self._fatal or error)
        if not delivery.done():
            delivery.set_exception(failure)

    def _failure(self, topic: str, error: KafkaError) -> DeliveryFailed:
        self.is_dead = self.is_dead or error.code() == KafkaError._FATAL  # noqa: SLF001 - its documented name
        why = not_allowed(f"Write on topic {topic}") if is_refusal(error) else error.str()
        return DeliveryFailed(f"{topic}: {why}", error)


async def within(timeout_s: float, delivery: asyncio.Future[None]) -> None:
    """Return once it is delivered; a quarter of what ``asyncio.timeout`` costs, since only one future may be given up.

    Raises:
        TimeoutError: it takes longer.
        DeliveryFailed: as the delivery says.
    """
    timer = asyncio.get_running_loop().call_later(timeout_s, _give_up, delivery)
    try:
        await delivery
    finally:
        timer.cancel()


def _give_up(delivery: asyncio.Future[None]) -> None:
    if not delivery.done():
        delivery.set_exception(TimeoutError())
