"""Writes and reads whole topics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from confluent_kafka import Consumer, Producer, TopicPartition
from tests.bench.command import NotCounted
from tests.bench.streams.checker import Reference
from tests.bench.streams.workload import workload

from taskbridge.cli.terminal import Heartbeat
from taskbridge.runtime.kafka import consumer_config, producer_config
from taskbridge.schemas.cloudevents import event_headers
from taskbridge.schemas.codec import task_event_codec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from confluent_kafka import KafkaError, Message
    from tests.bench.streams.setup import Setup

_BATCH = 10_000
_FLUSH_S = 120.0
_READ_S = 60.0
_BACKLOG = 100_000
_ERRORS_ONLY = 3  # a broker that has just started is not ready for idempotent producers yet: retried


class Found(NamedTuple):
    """A record that was read; ``at`` is when the broker appended it, in seconds."""

    key: bytes
    value: bytes | None
    ce_id: bytes | None
    at: float


class Writer:
    """A producer that remembers whether everything was delivered."""

    def __init__(self, setup: Setup, *, linger_ms: int = 20) -> None:
        config = {"linger.ms": linger_ms, "batch.size": 512 << 10, "queue.buffering.max.messages": 2 * _BACKLOG}
        config["log_level"] = _ERRORS_ONLY
        self._producer = Producer(producer_config(setup.bootstrap_servers) | config)
        self._failed: list[KafkaError] = []

    def write(self, topic: str, key: bytes, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        if len(self._producer) > _BACKLOG:
            self._producer.flush(_FLUSH_S)
        self._producer.produce(topic, key=key, value=value, headers=list(headers), on_delivery=self._delivered)
        self.poll()

    def poll(self) -> None:
        """Let what is due be sent and reported."""
        self._producer.poll(0)

    def finish(self) -> None:
        """Returns once all of it is on the topic.

        Raises:
            NotCounted: something was not delivered.
        """
        left = self._producer.flush(_FLUSH_S)
        if left or self._failed:
            raise NotCounted(f"{left or len(self._failed)} records were not delivered: {self._failed[:1]}")

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failed.append(error)


def preload(setup: Setup, topic: str, events: int) -> Reference:
    """Write the reference job's events to a topic that is made for them; returns what they must come to."""
    setup.kafka.create(topic, setup.partitions, {})
    codec = task_event_codec(setup.registry)
    writer, reference = Writer(setup), Reference()
    heartbeat = Heartbeat(setup.progress)
    for key, event in workload(events):
        writer.write(topic, key, codec.encode(event), event_headers(event))
        reference.apply(key, event)
        if reference.events % 1000 == 0:
            heartbeat.beat(f"writing {topic} and folding the reference: {reference.events:,} of {events:,} events")
    writer.finish()
    return reference


def read_all(setup: Setup, topic: str) -> Iterator[Found]:
    """Every record of the topic, each partition in its order."""
    partitions = setup.partitions
    ends = dict(enumerate(setup.kafka.ends(topic, partitions)))
    assigned = [TopicPartition(topic, partition, 0) for partition, end in ends.items() if end > 0]
    consumer = Consumer(consumer_config(setup.bootstrap_servers, "bench-reader"))
    try:
        consumer.assign(assigned)
        deadline = time.monotonic() + _READ_S
        # By the position: the last record may be followed by the marker of its transaction.
        while any(at.offset < ends[at.partition] for at in consumer.position(assigned)):
            for message in consumer.consume(_BATCH, 0.2):
                if message.error() is not None:
                    continue
                deadline = time.monotonic() + _READ_S
                yield _found(message)
            if time.monotonic() > deadline:
                raise NotCounted(f"{topic} cannot be read to its end")
    finally:
        consumer.close()


def fill(setup: Setup, topic: str, records: Iterable[tuple[bytes, bytes]], *, what: str) -> None:
    """Write these to a topic, and print progress."""
    writer, heartbeat = Writer(setup), Heartbeat(setup.progress)
    for count, (key, value) in enumerate(records, 1):
        writer.write(topic, key, value)
        if count % 1000 == 0:
            heartbeat.beat(f"writing {count:,} {what}")
    writer.finish()


def _found(message: Message) -> Found:
    key: Any = message.key()
    value: Any = message.value()
    _, at_ms = message.timestamp()
    ce_id = next((text for name, text in message.headers() or [] if name == "ce_id"), None)
    return Found(key, value, ce_id if isinstance(ce_id, bytes) else None, at_ms / 1000)
