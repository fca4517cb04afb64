"""From an event to its notifications, while events come at a fixed rate."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import Consumer, TopicPartition
from tests.bench.command import NotCounted
from tests.bench.streams.checker import Decoder, Reference
from tests.bench.streams.contenders import LOW_LINGER_MS
from tests.bench.streams.records import Writer
from tests.bench.streams.running import Running, drop_topics, make_topics
from tests.bench.streams.workload import workload

from taskbridge.runtime.kafka import consumer_config
from taskbridge.schemas.codec import task_event_codec
from taskbridge.schemas.topics import TASK_EVENTS, TASK_NOTIFICATIONS

if TYPE_CHECKING:
    from tests.bench.streams.contenders import Channels, Contender
    from tests.bench.streams.setup import Setup

RATE = 1000
BACKLOG = 40_000
"""Events on the topic at the start, processed at full speed: a JIT compiler needs them."""
WARM_UP_S = 3
"""So long the load goes on then before the clock counts."""
KAFKA_WARM_UP_S = 40
"""So long each goes through all of it before the first round, for the JIT compiler of a Kafka that was just started."""

_TIMEOUT_S = 120.0
_TICK_S = 0.001
_LAST_S = 60.0


@dataclass(frozen=True, slots=True)
class Latency:
    p50_ms: float
    p99_ms: float
    max_ms: float


class _Arrival(NamedTuple):
    at: float
    value: bytes


def measure_latency(contender: Contender, setup: Setup, *, seconds: int, label: str) -> Latency:
    """Produce RATE events a second; each is timed from the moment it was due until a consumer has its notification.

    Raises:
        NotCounted: a notification is missing.
    """
    channels = contender.channels(label, TASK_EVENTS.name)
    folder = setup.folder / f"{contender.name}-{label}"
    setup.kafka.create(TASK_EVENTS.name, setup.partitions, {})
    make_topics(setup, channels)
    codec, reference = task_event_codec(setup.registry), Reference()
    events: list[tuple[bytes, bytes]] = []
    ids: list[str] = []
    for key, event in workload(BACKLOG + (WARM_UP_S + seconds) * RATE):
        reference.apply(key, event)
        events.append((key, codec.encode(event)))
        ids.append(event.event_id)
    arrivals: list[_Arrival] = []
    over = threading.Event()
    reader = threading.Thread(target=_read, args=(setup, channels, arrivals, over))
    with Running(contender, channels, folder, timeout_s=_TIMEOUT_S, linger_ms=LOW_LINGER_MS):
        reader.start()
        try:
            _write(setup, events[:BACKLOG])
            _wait(arrivals, reference.notified[BACKLOG])
            began = _feed(setup, events[BACKLOG:])
            _wait(arrivals, reference.notified[-1])
        finally:
            over.set()
            reader.join()
    drop_topics(setup, channels)
    shutil.rmtree(folder, ignore_errors=True)
    if len(arrivals) < reference.notified[-1]:
        raise NotCounted(f"{contender.name}: {len(arrivals)} notifications of {reference.notified[-1]} came")
    # A repeat has the id of the event that it repeats, and would be timed from that one.
    due = {event_id: began + number / RATE for number, event_id in enumerate(ids[BACKLOG:])}
    times = Counter(ids)
    counted = {event_id for event_id in ids[BACKLOG + WARM_UP_S * RATE :] if times[event_id] == 1}
    decoder = Decoder("TaskNotification", setup.schema_id(TASK_NOTIFICATIONS))
    found: list[float] = []
    for arrival in arrivals:
        event_id = decoder.decode(arrival.value)["event_id"]
        if event_id in counted:
            found.append((arrival.at - due[event_id]) * 1000)
    found.sort()
    return Latency(found[len(found) // 2], found[int(len(found) * 0.99)], found[-1])


def _write(setup: Setup, events: list[tuple[bytes, bytes]]) -> None:
    writer = Writer(setup)
    for key, value in events:
        writer.write(TASK_EVENTS.name, key, value)
    writer.finish()


def _wait(arrivals: list[_Arrival], many: int) -> None:
    """Return when so many have arrived, or will not arrive in time, which the caller notices."""
    deadline = time.monotonic() + _LAST_S
    while len(arrivals) < many and time.monotonic() < deadline:
        time.sleep(0.1)


def _feed(setup: Setup, events: list[tuple[bytes, bytes]]) -> float:
    """Produce on schedule without waiting for results; return when the first event was due."""
    writer = Writer(setup, linger_ms=0)
    began = time.time() + 0.1
    sent = 0
    while sent < len(events):
        elapsed_s = time.time() - began
        due = min(int(elapsed_s * RATE) + 1, len(events)) if elapsed_s >= 0 else 0
        for key, value in events[sent:due]:
            writer.write(TASK_EVENTS.name, key, value)
        sent = max(sent, due)
        time.sleep(_TICK_S)
    writer.finish()
    return began


def _read(setup: Setup, channels: Channels, arrivals: list[_Arrival], over: threading.Event) -> None:
    consumer = Consumer(consumer_config(setup.bootstrap_servers, "bench-latency"))
    consumer.assign([TopicPartition(channels.notifications, each, 0) for each in range(setup.partitions)])
    while not over.is_set():
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            arrivals.append(_Arrival(time.time(), message.value() or b""))
    consumer.close()
