"""Kafka clients configured as the contract demands, and a producer that tells asyncio when a record is durable."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from schemas.errors import ConfigurationError, OperatorError
from schemas.topics import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from confluent_kafka import Message

PARTITIONER = "murmur2_random"
"""The Java client's hash, so that producers in Java and this one put a key on the same partition."""

_REQUEST_OVERHEAD_BYTES = 1 << 20
_POLL_S = 0.1
_FLUSH_S = 5


class DeliveryFailed(OperatorError):
    """Kafka did not acknowledge the record. Whether it was written is not known."""

    def __init__(self, message: str, error: KafkaError | None = None) -> None:
        super().__init__(message)
        self.too_large = error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE
        """The record, or another one that went out together with it, is larger than the broker takes."""
        self.fatal = error is not None and error.fatal()
        """The producer will never deliver anything again: it has to be replaced."""


class QueueFull(OperatorError):
    """The producer holds as much as it may; nothing was taken on."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """Where an acknowledged record stands."""

    topic: str
    partition: int
    offset: int


def read_kafka_config(path: Path | None) -> dict[str, str]:
    """Extra librdkafka properties from a file of ``name=value`` lines; ``#`` starts a comment line.

    Raises:
        ConfigurationError: the file cannot be read, or a line has no ``=``.
    """
    if path is None:
        return {}
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"Kafka config file {path}: {error}") from error
    properties: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            name, separator, value = text.partition("=")
            if not separator or not name.strip():
                raise ConfigurationError(f"Kafka config file {path}, line {number}: expected name=value")
            properties[name.strip()] = value.strip()
    return properties


def client_config(bootstrap_servers: str, extra: Mapping[str, str] | None = None) -> dict[str, object]:
    """What every client needs to reach the brokers; ``extra`` wins."""
    return {"bootstrap.servers": bootstrap_servers, "socket.keepalive.enable": True, **(extra or {})}


def producer_config(bootstrap_servers: str, extra: Mapping[str, str] | None = None) -> dict[str, object]:
    """A producer whose acknowledgement means: on all in-sync replicas, once, in order per key."""
    return {
        **client_config(bootstrap_servers),
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": PARTITIONER,
        "compression.type": "lz4",
        "linger.ms": 2,
        "message.max.bytes": MAX_MESSAGE_BYTES + _REQUEST_OVERHEAD_BYTES,
        "message.timeout.ms": 30_000,
        # A broker that comes back is found within a second, not after the default ten.
        "reconnect.backoff.max.ms": 1000,
        **(extra or {}),
    }


def consumer_config(bootstrap_servers: str, group: str, extra: Mapping[str, str] | None = None) -> dict[str, object]:
    """A consumer that reads from the beginning, takes records of any size that the contract allows, commits nothing."""
    return {
        **client_config(bootstrap_servers),
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "fetch.message.max.bytes": MAX_MESSAGE_BYTES + _REQUEST_OVERHEAD_BYTES,
        "reconnect.backoff.max.ms": 1000,
        **(extra or {}),
    }


def admin_client(bootstrap_servers: str, extra: Mapping[str, str] | None = None) -> AdminClient:
    config: dict[str, Any] = client_config(bootstrap_servers, extra)
    return AdminClient(config, logger=logging.getLogger("librdkafka"))


class AsyncProducer:
    """Produces from one asyncio loop. Each future is resolved by the delivery report, never earlier.

    Delivery reports arrive on a thread of their own and are handed to the loop in batches: one wake-up, many futures.
    """

    def __init__(self, config: Mapping[str, object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._producer = Producer(dict(config), logger=logging.getLogger("librdkafka"))
        self._reports: list[tuple[asyncio.Future[Delivered], Delivered | DeliveryFailed]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="kafka-producer", daemon=True)
        self._thread.start()

    def produce(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int = -1,
    ) -> asyncio.Future[Delivered]:
        """Hand over one record. The future gives its place once all in-sync replicas have it, or raises DeliveryFailed.

        Raises:
            QueueFull: not taken on.
            DeliveryFailed: refused at once, e.g. larger than a record may be.
        """
        future: asyncio.Future[Delivered] = self._loop.create_future()

        def report(error: KafkaError | None, message: Message) -> None:
            self._reports.append((future, _outcome(topic, error, message)))

        try:
            self._producer.produce(
                topic, key=key, value=value, headers=list(headers), partition=partition, on_delivery=report
            )
        except BufferError as error:
            raise QueueFull("the Kafka producer's queue is full") from error
        except KafkaException as error:
            raise DeliveryFailed(f"{topic}: {error}", error.args[0]) from error
        return future

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
        return len(self._producer)

    async def close(self, *, timeout_s: float = _FLUSH_S) -> int:
        """Wait, within bounds, for what was handed over; returns how many records are left without an answer."""
        left = await asyncio.to_thread(self._producer.flush, timeout_s)
        self._stopping.set()
        await asyncio.to_thread(self._thread.join)
        self._hand_over()
        return left

    def _poll(self) -> None:
        while not self._stopping.is_set():
            self._producer.poll(_POLL_S)
            self._hand_over()

    def _hand_over(self) -> None:
        if self._reports:
            reports, self._reports = self._reports, []
            # The loop may be gone when the process ends; nobody waits for these futures then.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_resolve, reports)


async def within(timeout_s: float, delivery: asyncio.Future[Delivered]) -> Delivered:
    """What the delivery gives; a quarter of what ``asyncio.timeout`` costs, since there is one future to give up only.

    Raises:
        TimeoutError: it takes longer.
        DeliveryFailed: as the delivery says.
    """
    timer = asyncio.get_running_loop().call_later(timeout_s, _give_up, delivery)
    try:
        return await delivery
    finally:
        timer.cancel()


def _give_up(delivery: asyncio.Future[Delivered]) -> None:
    if not delivery.done():
        delivery.set_exception(TimeoutError())


def _outcome(topic: str, error: KafkaError | None, message: Message) -> Delivered | DeliveryFailed:
    if error is not None:
        return DeliveryFailed(f"{topic}: {error.str()}", error)
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    return Delivered(topic, partition, offset)


def _resolve(reports: list[tuple[asyncio.Future[Delivered], Delivered | DeliveryFailed]]) -> None:
    for future, outcome in reports:
        if not future.done():  # cancelled by a time limit
            if isinstance(outcome, DeliveryFailed):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
