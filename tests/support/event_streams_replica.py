"""The event streams of a replica without Kafka: HTTP and hub, fed by commits of a test."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import text

from support.live import CORP, add_changes
from taskbridge.center.access.access import Access
from taskbridge.center.api.events import HoldsStreams, events_router
from taskbridge.center.live.hub import Hub
from taskbridge.center.metrics import Metrics
from taskbridge.center.server import build_http
from taskbridge.center.tables import CHANGES_CHANNEL
from taskbridge.runtime.operation import listen, make_server

if TYPE_CHECKING:
    from taskbridge.runtime.database import Database


class EventStreamsReplica:
    """Runs in a thread with a loop of its own."""

    def __init__(self, database: Database, *, heartbeat_s: float = 15.0) -> None:
        self.database = database
        self._heartbeat_s = heartbeat_s
        self._listening = listen("127.0.0.1", 0, prefix="CENTER")
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def start(self) -> EventStreamsReplica:
        self._thread.start()
        assert self._up.wait(60)
        return self

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def publish(self, user_id: str, count: int = 1) -> list[str]:
        """Commit changes as the replica's follower does; returns the ids of the notifications."""
        with self.database.write() as connection:
            ids = add_changes(connection, self.database, user_id, count)
            if not self.database.is_sqlite:
                payload = msgspec.json.encode([(CORP, user_id)]).decode()
                connection.execute(
                    text("SELECT pg_notify(:channel, :payload)"), {"channel": CHANGES_CHANNEL, "payload": payload}
                )
        self.hub.changed([(CORP, user_id)])
        return ids

    async def _serve(self) -> None:
        async def ready() -> dict[str, Any]:
            return {"ready": True}

        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.hub = Hub(self.database, most=20_000, most_of_person=20_000, heartbeat_s=self._heartbeat_s)
        metrics = Metrics()
        metrics.registry.register(self.hub)
        server = make_server(
            HoldsStreams(build_http(ready, metrics, routers=[events_router(self.hub, Access(tokens=None))]))
        )
        running = asyncio.create_task(self.hub.run())
        serving = asyncio.create_task(server.serve([self._listening]))
        self._up.set()
        await self._stop.wait()
        self.hub.stop()
        server.should_exit = True
        await serving
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
