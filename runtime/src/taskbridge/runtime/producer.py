"""Kafka producers: an asyncio producer whose futures end with the delivery report, and the errors of deliveries."""

from __future__ import annotations

import asyncio
import ctypes
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from taskbridge.runtime.kafka import LIBRDKAFKA, is_denied, not_allowed, producer_config
from taskbridge.schemas.errors import ConfigurationError, OperatorError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_POLL_S = 0.001
_SIGNALLED_POLL_S = 0.02
"""Where an eventfd signals reports: in case that a signal was lost."""
_IDLE_POLL_S = 0.1
"""While nothing is outstanding except librdkafka's own log lines."""
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
"""A broker rejects the record itself: to send it again does not help."""
_GONE = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})  # noqa: SLF001 - as above

_KNOWN_LIBRARY = ("2.16.1", 176)
"""Version of confluent-kafka, and size of its producer object, whose first member is librdkafka's handle."""
_NO_DESCRIPTOR = -1
_ONE = (1).to_bytes(8, "little")


class DeliveryFailed(OperatorError):
    """Kafka did not acknowledge the record. It may have been written."""

    def __init__(self, message: str, error: KafkaError | None = None) -> None:
        super().__init__(message)
        code = None if error is None else error.code()
        self.is_final = code in _NEVER
        """The broker always rejects the record, or another one of the same batch."""
        self.too_large = code == KafkaError.MSG_SIZE_TOO_LARGE
        """The record, or another one of the same batch, is larger than the broker accepts."""
        self.topic_is_gone = code in _GONE


class QueueFull(OperatorError):
    """The producer's queue is full; the record was not accepted."""


class Delivery(Protocol):
    """The outcome of one record: a future, or an object with the same methods."""

    def done(self) -> bool: ...

    def set_result(self, result: None, /) -> None: ...

    def set_exception(self, error: Exception, /) -> None: ...


Outgoing = tuple[Delivery, str, "bytes | None", "bytes | None", "Sequence[tuple[str, bytes]]"]


def make_producer(config: Mapping[str, object]) -> Producer:
    """The one place that makes librdkafka producers; ``config`` is based on ``producer_config``.

    Only the transaction client of the streams service does without it: it speaks Kafka's protocol itself.
    """
    try:
        return Producer(dict(config), logger=LIBRDKAFKA)
    except KafkaException as error:
        raise ConfigurationError(f"Kafka's configuration: {error.args[0].str()}") from error


class AsyncProducer:
    """Produces from one asyncio loop. Each future ends with the delivery report, never earlier.

    Records of one turn of the loop go to librdkafka together at its end: one by one, each would wake librdkafka's
    thread. The loop itself fetches the reports as soon as librdkafka signals them. A thread that waits for them would
    compete with the loop for the interpreter's lock at every system call.
    """

    is_dead = False
    """It met a fatal error and will never deliver again: it has to be replaced."""

    def __init__(self, config: Mapping[str, object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._producer = make_producer(config)
        self._outgoing: list[Outgoing] = []
        self._is_busy = False
        self._fatal: KafkaError | None = None
        self._busy_poll_s = _POLL_S
        self._signal = open_report_signal(self._producer)
        if self._signal is not None:
            self._busy_poll_s = _SIGNALLED_POLL_S
            self._loop.add_reader(self._signal, self._signalled, self._signal)
        self._next_poll = self._loop.call_soon(self._poll)

    @classmethod
    def connect(cls, bootstrap_servers: str, properties: Mapping[str, str]) -> Self:
        return cls(producer_config(bootstrap_servers, properties))

    def produce(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> asyncio.Future[None]:
        """Send one record. The future ends when all in-sync replicas have it.

        Otherwise the future raises QueueFull when the record was not accepted, and DeliveryFailed when it was not
        acknowledged, or was rejected at once, for example because of its size.
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
        """As ``produce``; ``delivery`` gets the future's outcome, but never before this returns."""
        if not self._outgoing:
            self._loop.call_soon(self._hand_over)
        self._outgoing.append((delivery, topic, key, value, headers))

    async def answers(self, *, timeout_s: float = 1.0) -> bool:
        try:
            await asyncio.to_thread(self._producer.list_topics, timeout=timeout_s)
        except KafkaException:
            return False
        return True

    @property
    def pending(self) -> int:
        return len(self._producer) + len(self._outgoing)

    async def close(self, *, timeout_s: float = _FLUSH_S) -> int:
        """Wait for outstanding records for at most this long; returns how many are left without an answer.

        The producer cannot be used afterwards.
        """
        deadline = self._loop.time() + timeout_s
        # Counted once: a log line that librdkafka queues after the last record counts as pending too.
        while (left := self.pending) and self._loop.time() < deadline:  # noqa: ASYNC110 - librdkafka has no event for it
            await asyncio.sleep(_POLL_S)
        self._next_poll.cancel()
        if self._signal is not None:
            self._loop.remove_reader(self._signal)
            close_report_signal(self._signal, self._producer)
        await asyncio.to_thread(self._destroy)
        return left

    def _destroy(self) -> None:
        """Blocks until librdkafka's threads have ended, which may be waiting for a name server."""
        del self._producer

    def _hand_over(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        for delivery, topic, key, value, headers in outgoing:
            if delivery.done():
                continue  # cancelled in the same turn: the record goes to the spool
            try:
                # By position: names cost a third of the call, because the library compares each one.
                report = partial(self._report, delivery, topic)
                self._producer.produce(topic, value, key, _ANY_PARTITION, report, None, 0, list(headers))
            except BufferError:
                delivery.set_exception(QueueFull("the Kafka producer's queue is full"))
            except KafkaException as error:
                delivery.set_exception(self._failure(topic, self._fatal or error.args[0]))
            except Exception as error:  # noqa: BLE001 - each caller that waits for its record must get any error
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
            # The library reports a fatal error only here; delivery reports say that their records were purged.
            if not error.args[0].fatal():
                raise
            self.is_dead, self._fatal = True, error.args[0]

    def _report(self, delivery: Delivery, topic: str, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            if not delivery.done():  # otherwise it was cancelled
                delivery.set_result(None)
        elif error.code() == KafkaError._PURGE_QUEUE:  # noqa: SLF001 - its documented name
            # The same poll raises the fatal error that says why, but after the reports.
            self._loop.call_soon(self._fail, delivery, topic, error)
        else:
            self._fail(delivery, topic, error)

    def _fail(self, delivery: Delivery, topic: str, error: KafkaError) -> None:
        failure = self._failure(topic, self._fatal or error)
        if not delivery.done():
            delivery.set_exception(failure)

    def _failure(self, topic: str, error: KafkaError) -> DeliveryFailed:
        self.is_dead = self.is_dead or error.code() == KafkaError._FATAL  # noqa: SLF001 - its documented name
        why = not_allowed(f"Write on topic {topic}") if is_denied(error) else error.str()
        return DeliveryFailed(f"{topic}: {why}", error)


# A descriptor that librdkafka makes readable as soon as it has delivery reports: one write for a batch of them.


def open_report_signal(producer: Producer) -> int | None:
    """An eventfd for ``close_report_signal``; None where this version of the library is unknown.

    librdkafka writes to it when a report comes into an empty queue, so reports that are already there need one poll.
    librdkafka has a function for it, which confluent-kafka does not offer. The layout of its objects is known for one
    version; with any other, reports are polled.
    """
    if (confluent_kafka.__version__, type(producer).__basicsize__) != _KNOWN_LIBRARY or _library() is None:
        return None
    descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    _set_descriptor(descriptor, producer)
    return descriptor


def close_report_signal(descriptor: int, producer: Producer) -> None:
    """Close the eventfd, after librdkafka has stopped to write to it.

    Otherwise librdkafka could write for as long as anything holds the producer, as ``list_topics`` does in a thread:
    the number may belong to a client's connection by then.
    """
    _set_descriptor(_NO_DESCRIPTOR, producer)
    os.close(descriptor)


def _library() -> ctypes.CDLL | None:
    found = list((Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs").glob("librdkafka-*"))
    return ctypes.CDLL(str(found[0])) if len(found) == 1 else None


def _set_descriptor(descriptor: int, producer: Producer) -> None:
    """Runs under the queue's lock, which librdkafka also holds while it writes."""
    library = _library()
    assert library is not None, "the version is known"
    queue_of = library.rd_kafka_queue_get_main
    queue_of.argtypes, queue_of.restype = [ctypes.c_void_p], ctypes.c_void_p
    enable = library.rd_kafka_queue_io_event_enable
    enable.argtypes, enable.restype = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t], None
    destroy = library.rd_kafka_queue_destroy
    destroy.argtypes, destroy.restype = [ctypes.c_void_p], None
    queue = queue_of(ctypes.c_void_p.from_address(id(producer) + object.__basicsize__))
    enable(queue, descriptor, _ONE, len(_ONE))
    destroy(queue)  # the reference, not the queue
