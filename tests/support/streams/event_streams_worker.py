"""The event streams of a worker without Faust: HTTP, hub and reader, fed by a plain consumer of the notifications."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, TopicPartition

from taskbridge.runtime.kafka import consumer_config
from taskbridge.schemas.codec import task_notification_codec
from taskbridge.schemas.topics import DEFAULT_PARTITIONS
from taskbridge.streams.api.access import Access
from taskbridge.streams.api.forwarding import Forwarding
from taskbridge.streams.api.owners import Owners
from taskbridge.streams.api.resolver import OwnerResolver
from taskbridge.streams.http import build_http, make_server
from taskbridge.streams.monitoring.metrics import Metrics
from taskbridge.streams.offsets import Offsets
from taskbridge.streams.sse.hub import Hub
from taskbridge.streams.sse.metrics import HubCollector
from taskbridge.streams.sse.missed import MissedReader
from taskbridge.streams.sse.routes import events_router

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from taskbridge.cli.connection import Connection


_CHANGELOG = "inbox"


class EventStreamsWorker:
    """Runs in a thread with a loop of its own, and has the partitions that it is given."""

    def __init__(
        self, connection: Connection, topic: str, partitions: Iterable[int], *, heartbeat_s: float = 15.0
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._codec = task_notification_codec(connection.registry)
        self._partitions = frozenset(partitions)
        self._heartbeat_s = heartbeat_s
        self._next: dict[int, int] = {}
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.others: Mapping[str, Any] = {}
        """URL → partitions of the other workers."""
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def start(self) -> EventStreamsWorker:
        self._thread.start()
        assert self._up.wait(20)
        return self

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def reached(self, partition: int) -> int:
        """The position of the first notification that it has not sent yet."""
        return self._next.get(partition, 0)

    def take(self, partitions: Iterable[int]) -> None:
        """As after a rebalance; new partitions start at the present end of the topic."""
        self._up.clear()

        def assigned() -> None:
            self._partitions = frozenset(partitions)
            self._changed = True
            self.hub.assigned(self._partitions)

        self._loop.call_soon_threadsafe(assigned)
        assert self._up.wait(20)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        config: dict[str, Any] = consumer_config(self._connection.bootstrap_servers, "tests-event-streams")
        self.hub = Hub(next_offset=self._next.get, most=20_000, most_of_person=20_000, heartbeat_s=self._heartbeat_s)
        offsets = Offsets(config)
        missed = MissedReader(config, offsets=offsets, codec=self._codec, topic=self._topic)
        owners = Owners(self.url)
        owners.join(
            partitions=DEFAULT_PARTITIONS,
            distribution=lambda: {url: {_CHANGELOG: found} for url, found in self.others.items()},
            actives=lambda: self._partitions,
            changelog=_CHANGELOG,
        )
        forwarding = Forwarding(None)
        metrics = Metrics()
        metrics.registry.register(HubCollector(self.hub))
        router = events_router(self.hub, lambda: missed, OwnerResolver(Access(tokens=None), owners, forwarding))
        server = make_server(build_http(lambda: {"ready": True}, metrics, routers=[router]))
        following = asyncio.create_task(self._follow(config, offsets))
        beating = asyncio.create_task(self._beat())
        serving = asyncio.create_task(server.serve([self._listening]))
        await self._stop.wait()
        self.hub.stop()
        server.should_exit = True
        await serving
        for each in (following, beating):
            each.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await each
        await missed.close()
        await forwarding.close()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s / 15)
            self.hub.beat(self._loop.time())

    async def _follow(self, config: dict[str, Any], offsets: Offsets) -> None:
        consumer = Consumer({**config, "isolation.level": "read_committed", "fetch.wait.max.ms": 20})
        self._changed = True
        try:
            while True:
                if self._changed:
                    self._changed = False
                    mine = sorted(self._partitions)
                    ends = await asyncio.to_thread(offsets.ends, self._topic, mine)
                    fresh = {each: end for each, end in ends.items() if each not in self._next}
                    self._next.update(fresh)
                    for gone in set(self._next) - set(mine):
                        del self._next[gone]
                    consumer.assign([TopicPartition(self._topic, each, self._next[each]) for each in mine])
                    self._up.set()
                for message in await asyncio.to_thread(consumer.consume, 500, 0.02):
                    assert message.error() is None
                    notification = self._codec.decode(message.value())
                    partition, offset = message.partition() or 0, message.offset() or 0
                    begins, self._next[partition] = self._next[partition], offset + 1
                    self.hub.told(partition, (begins, offset + 1), [(offset, notification)])
        finally:
            await asyncio.to_thread(consumer.close)
