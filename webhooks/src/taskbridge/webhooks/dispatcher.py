"""Delivers what waits: a task for each endpoint, so that a slow or dead one takes nothing from the others."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import structlog

from taskbridge.runtime.database import Database, DatabaseUnavailable, Threads, now_ms
from taskbridge.webhooks import store
from taskbridge.webhooks.delivery_client import DeliveryClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from taskbridge.runtime.guard import Guard
    from taskbridge.webhooks.endpoints import Endpoint
    from taskbridge.webhooks.metrics import Metrics
    from taskbridge.webhooks.store import Delivery, EndpointState, Result

LOOK_S = 1.0
"""How often the file and the states of endpoints are looked at, and what became due elsewhere."""
_RETRY_S = 1.0
_GATHER_S = 0.05
"""Attempts that end within it are recorded together: a transaction costs as much as several of them."""
_AHEAD = 4
"""How many times as many deliveries as requests are claimed: a connection that gets free has its next one."""
_PROBE_S = 30.0
"""How long at most a receiver that has failed is left alone."""

log = structlog.get_logger(__name__)


class Claimed(NamedTuple):
    """What was claimed for a courier in the transaction that added it."""

    courier: Courier
    at_s: float
    deliveries: tuple[Delivery, ...]
    is_all: bool
    """Whether nothing else of the endpoint was due."""


class Courier:
    def __init__(self, dispatcher: Dispatcher, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._dispatcher = dispatcher
        self._client = DeliveryClient(endpoint, dispatcher.guard, dispatcher.other_id)
        self._queues = store.Queues(dispatcher.database, endpoint.entry.name, collapse=endpoint.entry.collapse)
        self._ready: deque[tuple[Delivery, float]] = deque()
        """Claimed, and when."""
        self._running: set[asyncio.Task[None]] = set()
        self._ended: list[Result] = []
        self._unsent: list[Delivery] = []
        """Claimed, but not to be sent any more."""
        self.handed = self._taken = 0
        """How many deliveries the follower has claimed, and how many of them have come here: it may be far ahead."""
        self._wake = asyncio.Event()
        self._next_slot = self._next_probe = self._next_turn = 0.0
        self._failures = 0
        """Since the last success."""
        self.enabled, self._stopping, self._is_over = True, False, False
        self.is_idle = False
        """Whether it waits for nothing but the next delivery."""
        self.problem: str | None = None
        self.task = asyncio.create_task(self._run(), name=f"courier {endpoint.name}")

    def wake(self) -> None:
        self._wake.set()

    def claim(self, connection: Connection) -> Claimed:
        """What is due, as far as it can be sent soon. From any thread, within a transaction that adds deliveries."""
        at_s, most = time.monotonic(), max(0, self._most(self._room()[0]) - (self.handed - self._taken))
        found = self._queues.claim(connection, most) if most else []
        return Claimed(self, at_s, tuple(found), is_all=len(found) < most)

    def send(self, claimed: Claimed) -> None:
        self._ready += ((each, claimed.at_s) for each in claimed.deliveries)
        self._taken += len(claimed.deliveries)
        self._begin()
        if self._is_over:  # the endpoint has changed meanwhile
            self.task = asyncio.create_task(self._last_turn())
        if self._ready or self._unsent or not claimed.is_all:
            self.wake()

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
        self._is_over = True
        await self._last_turn()
        await self._client.close()

    async def _last_turn(self) -> None:
        self._begin()
        with suppress(Exception):  # the next process repeats what is not recorded
            await self._turn(0)

    async def _run(self) -> None:
        while not self._stopping:
            try:
                await asyncio.sleep(self._next_turn - time.monotonic())
                self._wake.clear()
                most = self._most(self._begin()[0])
                found = await self._turn(most)
                self.problem = None
                _, pause_s = self._begin()
                is_starving = len(found) == most > 0 and not self._ready
                self._next_turn = 0 if is_starving else time.monotonic() + _GATHER_S
                if not (found or self._ended or self._unsent):
                    await self._rest(pause_s)
            except DatabaseUnavailable as error:
                self.problem = str(error)
                await asyncio.sleep(_RETRY_S)
            except Exception as error:
                # Nobody would start this courier again: its endpoint would get nothing until the process ends.
                self.problem = f"deliveries to {self.endpoint.name} wait: {type(error).__name__}"
                log.exception("courier_failed", endpoint=self.endpoint.name)
                await asyncio.sleep(_RETRY_S)

    def _begin(self) -> tuple[int, float]:
        """Begin requests for what is claimed; returns ``_room`` for further ones."""
        free, pause_s = self._room()
        while free and self._ready:
            (delivery, at_s), now = self._ready.popleft(), time.monotonic()
            # One that waited for longer could be sent while another replica has claimed it.
            if now - at_s > store.CLAIM_MS / 3000:
                self._unsent.append(delivery)
                continue
            if (rate := self.endpoint.entry.requests_per_s) is not None:
                self._next_slot = self._slot(rate, now) + 1 / rate
            task = asyncio.create_task(self._attempt(delivery))
            self._running.add(task)
            task.add_done_callback(self._done)
            free -= 1
        if not self.enabled or self._is_away:
            self._unsent += (each for each, _ in self._ready)
            self._ready.clear()
        return free, pause_s

    @property
    def _is_away(self) -> bool:
        return self._failures >= self.endpoint.entry.in_flight

    def _most(self, free: int) -> int:
        """How many deliveries to claim: ahead of free connections where nothing else limits requests."""
        entry = self.endpoint.entry
        if entry.collapse or entry.requests_per_s is not None or self._failures or not self.enabled:
            return free
        return max(0, entry.in_flight * _AHEAD - len(self._ready))

    def _room(self) -> tuple[int, float]:
        """How many requests may begin now; if none, after how many seconds that may change without a wake-up."""
        now, entry = time.monotonic(), self.endpoint.entry
        free = entry.in_flight - len(self._running)
        if not self.enabled or free <= 0:
            return 0, LOOK_S
        if self._is_away:
            # One request at a time finds out when it is back, and spares both sides.
            if self._running:
                return 0, LOOK_S
            if now < self._next_probe:
                return 0, self._next_probe - now
            free = 1
        if (rate := entry.requests_per_s) is not None:
            slot = self._slot(rate, now)
            if now < slot:
                return 0, slot - now
            free = min(free, 1 + int((now - slot) * rate))
        return free, 0

    def _slot(self, rate: float, now: float) -> float:
        """When the next request may begin. A second's worth at once: then no burst follows a pause."""
        return max(self._next_slot, now - max(0, 1 - 1 / rate))

    async def _turn(self, most: int) -> Sequence[Delivery]:
        """Record the attempts that ended, and claim the next deliveries, in one transaction."""
        (results, self._ended), (unsent, self._unsent) = (self._ended, []), (self._unsent, [])
        if not results and not unsent and not most:
            return ()
        at_s = time.monotonic()
        try:
            found = await self._dispatcher.threads.run(self._stored, results, unsent, most)
        except BaseException:  # also cancelled: to record it once more changes nothing
            self._ended, self._unsent = results + self._ended, unsent + self._unsent
            raise
        self._ready += ((each, at_s) for each in found)
        return found

    def _stored(self, results: list[Result], unsent: list[Delivery], most: int) -> list[Delivery]:
        with self._dispatcher.database.write() as connection:
            if results or unsent:
                self._queues.finish(connection, results, unsent)
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
        self._begin()
        self.wake()

    async def _rest(self, pause_s: float) -> None:
        """Until something is added or due, an attempt ends, or another one may begin."""
        if self._running or pause_s:
            await self._woken_within(pause_s or LOOK_S)
            return
        due = await self._dispatcher.threads.run(store.next_due, self._dispatcher.database, self.endpoint.name)
        if due is not None and due <= now_ms():
            return  # what was claimed had been delivered: other queues have their turn
        # Nothing is claimed while nothing is due: that is a transaction that writes.
        self.is_idle = True
        await self._wake.wait()
        self.is_idle = False

    async def _woken_within(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(min(LOOK_S, seconds)):
                await self._wake.wait()


class Dispatcher:
    """The couriers of all endpoints of the file. Only what says so may be called from other threads."""

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
        self._loop = asyncio.get_running_loop()

    @property
    def problem(self) -> str | None:
        """Why an endpoint gets nothing at the moment; None if each does."""
        return next((each.problem for each in self._couriers.values() if each.problem is not None), None)

    def claim(self, connection: Connection, names: Iterable[str]) -> list[Claimed]:
        """What was added for these endpoints within this transaction, claimed. From any thread; ``send`` follows."""
        couriers = (self._couriers.get(name) for name in sorted(names))
        return [each.claim(connection) for each in couriers if each is not None]

    def send(self, claimed: Collection[Claimed]) -> None:
        """After the commit, from the thread that has claimed."""
        for each in claimed:
            each.courier.handed += len(each.deliveries)
        self._loop.call_soon_threadsafe(self._send, list(claimed))

    def _send(self, claimed: Iterable[Claimed]) -> None:
        for each in claimed:
            each.courier.send(each)

    def added(self, names: Iterable[str]) -> None:
        """These endpoints have something new. From any thread."""
        self._loop.call_soon_threadsafe(self._woken, list(names))

    def _woken(self, names: list[str]) -> None:
        for name in names:
            if (courier := self._couriers.get(name)) is not None:
                courier.wake()

    async def use(self, endpoints: Mapping[str, Endpoint], states: Mapping[str, EndpointState]) -> None:
        """Deliver to these endpoints, and to no others. One that changed gets new connections.

        Idle couriers are woken when something becomes due within ``LOOK_S``: again after a failure, or added by another
        process. What is due later, the next call says.
        """
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
            if courier.is_idle and state is not None and state.next_due is not None:
                pause_s = (state.next_due - now_ms()) / 1000
                if pause_s < LOOK_S:
                    self._loop.call_later(max(0.0, pause_s), courier.wake)

    async def stop(self) -> None:
        await asyncio.gather(*(each.stop() for each in self._couriers.values()))
        self._couriers.clear()
