"""Event streams, put together: the hub, the reader of what was missed, and the route to both."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from taskbridge.runtime.process import allow_open_files
from taskbridge.schemas.codec import task_notification_codec
from taskbridge.schemas.topics import TASK_NOTIFICATIONS
from taskbridge.streams.engine.parts import on_assigned
from taskbridge.streams.sse.hub import HEARTBEAT_S, Hub
from taskbridge.streams.sse.metrics import HubCollector
from taskbridge.streams.sse.missed import MissedReader
from taskbridge.streams.sse.routes import events_router

if TYPE_CHECKING:
    from collections.abc import Mapping

    import faust
    from fastapi import APIRouter
    from faust.types import TP

    from taskbridge.schemas.registry import Registry
    from taskbridge.streams.api.json_forms import Names
    from taskbridge.streams.api.resolver import OwnerResolver
    from taskbridge.streams.inbox.agent import InboxAgent
    from taskbridge.streams.monitoring.metrics import Metrics
    from taskbridge.streams.positions.offsets import Offsets

log = structlog.get_logger(__name__)

_OWN_FILES = 8192
"""Tables of two dozen partitions, with their standbys, and connections to Kafka and to other workers."""

_BEATS = 15
"""So many times within a heartbeat it is looked whose time has come."""


class EventStreams:
    """Made before anything is connected, as the task center is; ``open`` brings what is to be told."""

    def __init__(self, resolver: OwnerResolver, *, most: int, most_of_person: int, names: Names) -> None:
        allowed = allow_open_files(most + _OWN_FILES)
        if allowed < most + _OWN_FILES:
            most = max(1, allowed - _OWN_FILES)
            log.warning("fewer_event_streams_than_wanted", open_files_allowed=allowed, streams=most)
        self._resolver = resolver
        self._names = names
        self._agent: InboxAgent | None = None
        self.hub = Hub(next_offset=self._next_offset, most=most, most_of_person=most_of_person, names=names)
        self._missed: MissedReader | None = None

    @property
    def router(self) -> APIRouter:
        return events_router(self.hub, lambda: self._missed, self._resolver)

    def open(
        self,
        app: faust.App,
        agent: InboxAgent,
        *,
        consumer: Mapping[str, object],
        offsets: Offsets,
        registry: Registry,
        metrics: Metrics,
    ) -> None:
        """Pass on what the agent applies, and let go of the streams whose partitions leave."""
        self._agent = agent
        self._missed = MissedReader(
            consumer, offsets=offsets, codec=task_notification_codec(registry), names=self._names
        )
        metrics.registry.register(HubCollector(self.hub))
        agent.listen(self.hub.told)
        on_assigned(app, self._assigned)

    async def keep(self) -> None:
        """Heartbeats, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(HEARTBEAT_S / _BEATS)
            self.hub.beat(loop.time())

    def stop(self) -> None:
        """End all streams: the server waits for open answers before it ends."""
        self.hub.stop()

    async def close(self) -> None:
        if self._missed is not None:
            await self._missed.close()

    def _next_offset(self, partition: int) -> int | None:
        return None if self._agent is None else self._agent.next_offset(partition)

    async def _assigned(self, assigned: set[TP]) -> None:
        self.hub.assigned({tp.partition for tp in assigned if tp.topic == TASK_NOTIFICATIONS.name})
