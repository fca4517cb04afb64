"""Delivers what waits: connections for each endpoint, so that a slow or dead one takes nothing from the others.

One transaction after the other records the attempts that ended and claims the next deliveries, of all endpoints: a
transaction for several endpoints costs little more than one for a single endpoint.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from taskbridge.runtime.database import Database, DatabaseUnavailable, Threads, now_ms
from taskbridge.webhooks import store
from taskbridge.webhooks.delivery_client import DeliveryClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

    from taskbridge.webhooks.endpoints import Endpoint
    from taskbridge.webhooks.guard import Guard
    from taskbridge.webhooks.metrics import Metrics
    from taskbridge.webhooks.store import Delivery, EndpointState, Result

_LOOK_S = 1.0
"""How often the database is asked what became due elsewhere."""
_RETRY_S = 1.0
_GATHER_S = 0.005
"""Attempts that end within it are recorded together: a transaction costs as much as several of them."""
_PROBE_S = 30.0
"""How long at most a receiver that has failed is left alone."""

log = structlog.get_logger(__name__)


class Courier:
    """The attempts at one endpoint: its connections, and how many requests may begin."""

    def __init__(self, dispatcher: Dispatcher, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._dispatcher = dispatcher
        self._client = DeliveryClient(endpoint, dispatcher.guard, dispatcher.other_id)
        self.running: set[asyncio.Task[None]] = set()
        self._next_slot = self._next_probe = 0.0
        self._failures = 0
        """Since the last success."""
        self.enabled = True
        self.due: float = 0
        """When its next delivery is due, as far as is known, in ms since the epoch."""
        self.problem: str | None = None

    async def stop(self, grace_s: float) -> None:
        """Let attempts end; one that takes too long is repeated by the next process."""
        if self.running:
            await asyncio.wait(self.running, timeout=grace_s)
        for each in self.running:
            each.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)
        await self._client.close()

    def room(self) -> tuple[int, float]:
        """How many requests may begin now; if none, after how many seconds that may change without a wake-up."""
        now, entry = time.monotonic(), self.endpoint.entry
        free = entry.in_flight - len(self.running)
        if not self.enabled or free <= 0:
            return 0, _LOOK_S
        if self._failures >= entry.in_flight:
            # It is away: one request at a time finds out when it is back, and spares both sides.
            if self.running:
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

    def pause_s(self) -> float:
        """How long nothing can be claimed for it, as far as is known."""
        free, pause_s = self.room()
        return max(0.0, (self.due - now_ms()) / 1000) if free else pause_s

    def begin(self, delivery: Delivery) -> None:
        if (rate := self.endpoint.entry.requests_per_s) is not None:
            self._next_slot += 1 / rate
        task = asyncio.create_task(self._attempt(delivery))
        self.running.add(task)
        task.add_done_callback(self._done)

    async def _attempt(self, delivery: Delivery) -> None:
        result = await self._client.attempt(delivery)
        self._failures = 0 if result.delivered else self._failures + 1
        self._next_probe = time.monotonic() + min(_PROBE_S, self._failures / self.endpoint.entry.in_flight)
        self._dispatcher.ended.append(result)
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
        self.running.discard(attempt)
        self._dispatcher.wake()


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
        self.guard, self.metrics, self.other_id = guard, metrics, other_id
        self.ended: list[Result] = []
        """Attempts that are not recorded yet."""
        self._database, self._threads = database, threads
        self._grace_s = grace_s
        self._couriers: dict[str, Courier] = {}
        self._collapse: Collection[str] = ()
        self._queues = store.Queues(database, by=uuid.uuid4().hex)
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._next_look = 0.0
        self._problem: str | None = None
        self._stopping = False
        self._task = asyncio.create_task(self._run(), name="dispatcher")

    @property
    def problem(self) -> str | None:
        """Why an endpoint gets nothing at the moment; None if each does."""
        problems = (each.problem for each in self._couriers.values() if each.problem is not None)
        return self._problem or next(problems, None)

    def added(self, names: Iterable[str]) -> None:
        """These endpoints have something new. From any thread."""
        self._loop.call_soon_threadsafe(self._due_now, list(names))

    def wake(self) -> None:
        self._wake.set()

    async def use(self, endpoints: Mapping[str, Endpoint], states: Mapping[str, EndpointState]) -> None:
        """Deliver to these endpoints, and to no others. One that changed gets new connections."""
        gone = [courier for name, courier in self._couriers.items() if endpoints.get(name) != courier.endpoint]
        for each in gone:
            del self._couriers[each.endpoint.name]
        self._collapse = {name for name, each in endpoints.items() if each.entry.collapse}
        for name, endpoint in endpoints.items():
            state = states.get(name)
            # At once: what is claimed while the connections of a former version are closed is sent by the new one.
            if name not in self._couriers:
                self._couriers[name] = Courier(self, endpoint)
                self.wake()
            courier, enabled = self._couriers[name], state is not None and state.disabled is None
            if courier.enabled != enabled:
                log.warning("endpoint_enabled" if enabled else "endpoint_disabled", endpoint=name)
                courier.enabled = enabled
                self._due_now([name])
        await asyncio.gather(*(each.stop(self._grace_s) for each in gone))

    async def stop(self) -> None:
        """Let attempts end and record them; the next process repeats what is not recorded."""
        self._stopping = True
        self.wake()
        # Not cancelled while it claims: nobody would send the claimed deliveries until the claim expires.
        await asyncio.wait([self._task], timeout=self._grace_s)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(*(each.stop(self._grace_s) for each in self._couriers.values()))
        with suppress(DatabaseUnavailable):
            await self._turn()
        self._couriers.clear()

    def _due_now(self, names: Iterable[str]) -> None:
        self._set_due(dict.fromkeys(names, 0))
        self.wake()

    async def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                await self._look()
                await self._turn()
                self._problem = None
                await self._rest()
            except DatabaseUnavailable as error:
                self._problem = str(error)
                await asyncio.sleep(_RETRY_S)
            except Exception as error:
                # Nobody would start it again: nothing would be delivered until the process ends.
                self._problem = f"deliveries wait: {type(error).__name__}"
                log.exception("dispatcher_failed")
                await asyncio.sleep(_RETRY_S)

    async def _look(self) -> None:
        """Once a second, what became due elsewhere: a query, for nothing is claimed while nothing is due."""
        if time.monotonic() < self._next_look:
            return
        idle = [name for name, each in self._couriers.items() if each.due > now_ms() and each.room()[0]]
        if idle:
            self._set_due(await self._threads.run(store.next_due, self._database, idle))
        self._next_look = time.monotonic() + _LOOK_S

    async def _turn(self) -> None:
        """Record the attempts that ended, and claim the next deliveries: of all endpoints in one transaction."""
        results, self.ended = self.ended, []
        rooms = {name: free for name, each in self._couriers.items() if not self._stopping and (free := each.room()[0])}
        now = now_ms()
        due = {name for name in rooms if self._couriers[name].due <= now}
        if not results and not due:
            return
        try:
            await self._step(results, rooms, due)
        except DatabaseUnavailable:
            raise
        except Exception:  # noqa: BLE001 - logged for the endpoint in question, whose rows must not stop the others
            for name in sorted(due | {each.delivery.endpoint for each in results}):
                mine, problem = [each for each in results if each.delivery.endpoint == name], None
                try:
                    await self._step(mine, {key: free for key, free in rooms.items() if key == name}, due & {name})
                except Exception as error:
                    # What is not recorded is sent again when its claim is over.
                    problem = f"deliveries to {name} wait: {type(error).__name__}"
                    log.exception("courier_failed", endpoint=name)
                if (courier := self._couriers.get(name)) is not None:
                    courier.problem = problem

    async def _step(self, results: list[Result], rooms: Mapping[str, int], due: Collection[str]) -> None:
        # Before the transaction: what is added while it runs is due after it.
        self._set_due(dict.fromkeys(due, math.inf))
        try:
            found, more = await self._threads.run(self._stored, results, rooms, due)
        except DatabaseUnavailable:
            self.ended = results + self.ended
            self._set_due(dict.fromkeys(due, 0))
            raise
        for each in found:
            if (courier := self._couriers.get(each.endpoint)) is not None:
                courier.problem = None
                courier.begin(each)
        self._set_due(more)

    def _stored(
        self, results: Sequence[Result], rooms: Mapping[str, int], due: Collection[str]
    ) -> tuple[list[Delivery], Mapping[str, float]]:
        """The claimed deliveries, and when endpoints that may have more are due."""
        with self._database.write() as connection:
            more = self._queues.finish(connection, results) if results else {}
            now = now_ms()
            most = {name: free for name, free in rooms.items() if name in due or more.get(name, math.inf) <= now}
            found = self._queues.claim(connection, most, collapse=self._collapse)
        claimed = Counter(each.endpoint for each in found)
        waits = {name: at for name, at in more.items() if name not in most}
        return found, {**waits, **{name: 0 for name, free in most.items() if claimed[name] >= free}}

    def _set_due(self, due: Mapping[str, float]) -> None:
        for name, at in due.items():
            if (courier := self._couriers.get(name)) is not None:
                courier.due = at if at == math.inf else min(courier.due, at)

    async def _rest(self) -> None:
        """Until something is added or due, an attempt ends, or another one may begin."""
        pauses = [each.pause_s() for each in self._couriers.values()]
        pause_s = min([self._next_look - time.monotonic(), *pauses])
        if pause_s > 0 and not self.ended:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
        if any(each.running for each in self._couriers.values()):
            await asyncio.sleep(_GATHER_S)
