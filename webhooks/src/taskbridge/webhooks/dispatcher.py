"""Delivers what waits: a task for each endpoint, so that a slow or dead one takes nothing from the others."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from taskbridge.runtime.database import Database, DatabaseUnavailable, Threads, now_ms
from taskbridge.webhooks import store
from taskbridge.webhooks.delivery_client import DeliveryClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from taskbridge.webhooks.endpoints import Endpoint
    from taskbridge.webhooks.guard import Guard
    from taskbridge.webhooks.metrics import Metrics
    from taskbridge.webhooks.store import Delivery, EndpointState, Result

_LOOK_S = 1.0
"""How often the file and the states of endpoints are looked at, and what became due elsewhere."""
_RETRY_S = 1.0
_GATHER_S = 0.005
"""Attempts that end within it are recorded together: a transaction costs as much as several of them."""
_PROBE_S = 30.0
"""How long at most a receiver that has failed is left alone."""

log = structlog.get_logger(__name__)


class Courier:
    def __init__(self, dispatcher: Dispatcher, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._dispatcher = dispatcher
        self._client = DeliveryClient(endpoint, dispatcher.guard, dispatcher.other_id)
        entry, by = endpoint.entry, uuid.uuid4().hex
        self._queues = store.Queues(dispatcher.database, entry.name, by=by, collapse=entry.collapse)
        self._running: set[asyncio.Task[None]] = set()
        self._ended: list[Result] = []
        self._wake = asyncio.Event()
        self._next_slot = self._next_probe = 0.0
        self._failures = 0
        """Since the last success."""
        self.enabled, self._stopping = True, False
        self.is_idle = False
        """Whether it waits for nothing but the next delivery."""
        self.problem: str | None = None
        self.task = asyncio.create_task(self._run(), name=f"courier {endpoint.name}")

    def wake(self) -> None:
        self._wake.set()

    async def stop(self) -> None:
        """Let attempts end and record them; one that takes too long is repeated by the next process."""
        self.enabled, self._stopping = False, True
        self.wake()
        # Not cancelled while it claims: nobody would send the claimed deliveries until the claim expires.
        await asyncio.wait([self.task], timeout=self._dispatcher.grace_s)
        if self._running:
            await asyncio.wait(self._running, timeout=self._dispatcher.grace_s)
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        for each in self._running:
            each.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        with suppress(Exception):  # the next process repeats what is not recorded
            await self._turn(0)
        await self._client.close()

    async def _run(self) -> None:
        while not self._stopping:
            if self._running:
                await asyncio.sleep(_GATHER_S)
            self._wake.clear()
            try:
                free, pause_s = self._room()
                found = await self._turn(free)
                self.problem = None
                for each in found:
                    task = asyncio.create_task(self._attempt(each))
                    self._running.add(task)
                    task.add_done_callback(self._done)
                if not found and not self._ended:
                    await self._rest(pause_s)
            except DatabaseUnavailable as error:
                self.problem = str(error)
                await asyncio.sleep(_RETRY_S)
            except Exception as error:
                # Nobody would start this courier again: its endpoint would get nothing until the process ends.
                self.problem = f"deliveries to {self.endpoint.name} wait: {type(error).__name__}"
                log.exception("courier_failed", endpoint=self.endpoint.name)
                await asyncio.sleep(_RETRY_S)

    def _room(self) -> tuple[int, float]:
        """How many requests may begin now; if none, after how many seconds that may change without a wake-up."""
        now, entry = time.monotonic(), self.endpoint.entry
        free = entry.in_flight - len(self._running)
        if not self.enabled or free <= 0:
            return 0, _LOOK_S
        if self._failures >= entry.in_flight:
            # It is away: one request at a time finds out when it is back, and spares both sides.
            if self._running:
                return 0, _LOOK_S
            if now < self._next_probe:
                return 0, self._next_probe - now
            free = 1
        if (rate := entry.requests_per_s) is not None:
            # A second's worth at once: then no burst follows a pause.
            self._next_slot = max(self._next_slot, now - max(0, 1 - 1 / rate))
            if now < self._next_slot:
                return 0, self._next_slot - now
            free = min(free, 1 + int((now - self._next_slot) * rate))
        return free, 0

    async def _turn(self, most: int) -> list[Delivery]:
        """Record the attempts that ended, and claim the next deliveries, in one transaction."""
        results, self._ended = self._ended, []
        if not results and not most:
            return []
        try:
            found = await self._dispatcher.threads.run(self._stored, results, most)
        except Exception:
            self._ended = results + self._ended
            raise
        if (rate := self.endpoint.entry.requests_per_s) is not None:
            self._next_slot += len(found) / rate
        return found

    def _stored(self, results: list[Result], most: int) -> list[Delivery]:
        with self._dispatcher.database.write() as connection:
            if results:
                self._queues.finish(connection, results)
            return self._queues.claim(connection, most) if most else []

    async def _attempt(self, delivery: Delivery) -> None:
        result = await self._client.attempt(delivery)
        self._ended.append(result)
        self._failures = 0 if result.delivered else self._failures + 1
        self._next_probe = time.monotonic() + min(_PROBE_S, self._failures / self.endpoint.entry.in_flight)
        self._dispatcher.metrics.attempt(self.endpoint.name, result)
        if not result.delivered:
            log.warning(
                "delivery_failed",
                endpoint=self.endpoint.name,
                webhook_id=delivery.webhook_id,
                attempt=delivery.attempts + 1,
                problem=result.problem,
                retry_in_s=None if result.retry_in_ms is None else result.retry_in_ms // 1000,
            )

    def _done(self, attempt: asyncio.Task[None]) -> None:
        self._running.discard(attempt)
        self.wake()

    async def _rest(self, pause_s: float) -> None:
        """Until something is added or due, an attempt ends, or another one may begin."""
        if self._running or pause_s:
            await self._woken_within(pause_s or _LOOK_S)
            return
        name = self.endpoint.name
        due = await self._dispatcher.threads.run(store.next_due, self._dispatcher.database, [name])
        if due.get(name, math.inf) <= now_ms():
            return  # what was claimed had been delivered: other queues have their turn
        # Nothing is claimed while nothing is due: that is a transaction that writes.
        self.is_idle = True
        await self._wake.wait()
        self.is_idle = False

    async def _woken_within(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(min(_LOOK_S, seconds)):
                await self._wake.wait()


class Dispatcher:
    """The couriers of all endpoints of the file. Everything but ``added`` belongs to the event loop."""

    def __init__(
        self,
        database: Database,
        guard: Guard,
        metrics: Metrics,
        threads: Threads,
        other_id: Callable[[str, str, str], Awaitable[str | None]],
        *,
        grace_s: float = 5.0,
    ) -> None:
        self.database, self.guard, self.metrics, self.threads = database, guard, metrics, threads
        self.other_id = other_id
        self.grace_s = grace_s
        self._couriers: dict[str, Courier] = {}
        self._problem: str | None = None
        self._loop = asyncio.get_running_loop()
        self._looking = asyncio.create_task(self._look(), name="dispatcher")

    @property
    def problem(self) -> str | None:
        """Why an endpoint gets nothing at the moment; None if each does."""
        problems = (each.problem for each in self._couriers.values() if each.problem is not None)
        return self._problem or next(problems, None)

    def added(self, names: Iterable[str]) -> None:
        """These endpoints have something new. From any thread."""
        self._loop.call_soon_threadsafe(self._woken, list(names))

    async def _look(self) -> None:
        """Wake idle couriers when something becomes due: again after a failure, or added by another process.

        One query for all of them, because most endpoints are idle most of the time.
        """
        while True:
            await asyncio.sleep(_LOOK_S)
            idle = [name for name, courier in self._couriers.items() if courier.is_idle]
            try:
                found = await self.threads.run(store.next_due, self.database, idle) if idle else {}
            except Exception as error:
                is_away = isinstance(error, DatabaseUnavailable)
                self._problem = str(error) if is_away else f"deliveries wait: {type(error).__name__}"
                log.warning("due_deliveries_not_read", exc_info=not is_away)
                continue
            self._problem = None
            for name, due in found.items():
                if (pause_s := (due - now_ms()) / 1000) < _LOOK_S:
                    self._loop.call_later(max(0.0, pause_s), self._woken, [name])

    def _woken(self, names: list[str]) -> None:
        for name in names:
            if (courier := self._couriers.get(name)) is not None:
                courier.wake()

    async def use(self, endpoints: Mapping[str, Endpoint], states: Mapping[str, EndpointState]) -> None:
        """Deliver to these endpoints, and to no others. One that changed gets new connections."""
        gone = [
            name
            for name, courier in self._couriers.items()
            if name not in endpoints or endpoints[name] != courier.endpoint
        ]
        await asyncio.gather(*(self._couriers.pop(name).stop() for name in gone))
        for name, endpoint in endpoints.items():
            state = states.get(name)
            if name not in self._couriers:
                self._couriers[name] = Courier(self, endpoint)
            courier, enabled = self._couriers[name], state is not None and state.disabled is None
            if courier.enabled != enabled:
                log.warning("endpoint_enabled" if enabled else "endpoint_disabled", endpoint=name)
                courier.enabled = enabled
                courier.wake()

    async def stop(self) -> None:
        self._looking.cancel()
        await asyncio.gather(self._looking, return_exceptions=True)
        await asyncio.gather(*(each.stop() for each in self._couriers.values()))
        self._couriers.clear()
