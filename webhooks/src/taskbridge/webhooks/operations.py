"""What an operator does with endpoints and deliveries: list, test, replay, disable and enable."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace
from sqlalchemy import Row, select

from taskbridge.runtime.database import Database, Threads, now_ms
from taskbridge.runtime.refusals import Unknown
from taskbridge.runtime.remembered import Remembered
from taskbridge.runtime.settings import FileBroken
from taskbridge.schemas.cloudevents import iso, optional_iso
from taskbridge.schemas.errors import OperatorError
from taskbridge.webhooks import store
from taskbridge.webhooks.delivery_client import DeliveryClient
from taskbridge.webhooks.formats.base import EXAMPLE
from taskbridge.webhooks.notifications import entry_of, event_of, other_id
from taskbridge.webhooks.store import Delivery, Replayed, Result, Waiting
from taskbridge.webhooks.tables import Outcome, deliveries

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from taskbridge.runtime.guard import Guard
    from taskbridge.schemas.events import TaskNotification
    from taskbridge.webhooks.endpoints import Endpoint

T = TypeVar("T")


class UnknownEndpoint(Unknown, OperatorError, status=404, kind="unknown"):
    """The endpoints file has none of this name."""


class Operations:
    """For the commands and the HTTP side.

    ``endpoints`` gives those of the file, by name. Where it raises FileBroken, those that the database knows are used.
    """

    def __init__(
        self, database: Database, endpoints: Callable[[], Mapping[str, Endpoint]], guard: Guard, threads: Threads
    ) -> None:
        self._database, self._endpoints, self._guard, self._threads = database, endpoints, guard, threads
        self._tests = Remembered[Result](0)

    @property
    def problem(self) -> str | None:
        """Why the file is not used; None if it is."""
        try:
            self._endpoints()
        except FileBroken as error:
            return str(error)
        return None

    def endpoints(self) -> list[dict[str, Any]]:
        """The endpoints of the file, and removed ones with deliveries: what waits for them, and what failed last."""
        known = store.states(self._database)
        endpoints = self._endpoints_or(known)
        names = {*endpoints, *known}
        waiting = store.waiting(self._database, names)
        given_up = store.waiting(self._database, names, Outcome.GIVEN_UP)
        found: list[dict[str, Any]] = []
        for name in sorted({*endpoints, *waiting, *given_up}):
            state, here, endpoint = known.get(name), waiting.get(name, Waiting()), endpoints.get(name)
            condition = "new" if state is None else state.condition
            found.append(
                {
                    "id": name,
                    "url": None if endpoint is None else _shown_url(endpoint.entry.url),
                    "format": None if endpoint is None else endpoint.entry.format,
                    "state": condition if name in endpoints else "removed",
                    "disabled": None if state is None else state.disabled,
                    "failing_since": None if state is None else optional_iso(state.failing_since),
                    "waiting": here.deliveries,
                    "oldest_s": round(here.oldest_s, 1),
                    "given_up": given_up.get(name, Waiting()).deliveries,
                    "failures": [_delivery(row) for row in store.failures(self._database, name)],
                }
            )
        return found

    def deliveries(
        self,
        endpoint: str | None,
        outcome: Outcome | None,
        most: int,
        *,
        problem: str | None = None,
        delivery_id: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The latest first; only those with the problem, or the one with the id, if they are given."""
        query = select(deliveries).order_by(deliveries.c.at.desc(), deliveries.c.id.desc()).limit(most)
        if endpoint is not None:
            query = query.where(deliveries.c.endpoint == endpoint)
        if outcome is not None:
            query = query.where(deliveries.c.outcome == outcome)
        if problem is not None:
            query = query.where(deliveries.c.problem == problem)
        if delivery_id is not None:
            query = query.where(deliveries.c.id == delivery_id)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        for row in rows:
            yield {**_delivery(row), "endpoint": row.endpoint, "data": msgspec.json.decode(row.data)["data"]}

    def replay(
        self, endpoint: str, ids: Sequence[int] = (), since_ms: int | None = None, outcome: Outcome = Outcome.GIVEN_UP
    ) -> Replayed:
        """Deliver again, without ids and time all that were given up."""
        self._check(endpoint)
        return store.replay(self._database, endpoint, ids=ids, since=since_ms, outcome=outcome)

    def set_enabled(self, endpoint: str, *, reason: str | None) -> None:
        chosen = self._check(endpoint)
        if chosen is not None:
            store.register(self._database, {endpoint: chosen.entry.start == "present"})
        store.set_enabled(self._database, endpoint, reason=reason)

    async def test(self, endpoint: str) -> dict[str, Any]:
        """Send an example to the endpoint now, once; who requests it meanwhile gets the same answer."""
        chosen = _of(endpoint, self._endpoints())
        result = await self._tests.of(endpoint, lambda: self._attempt(chosen))
        problem = result.problem or None
        return {"id": endpoint, "delivered": result.delivered, "status": result.status, "problem": problem}

    async def other_id(self, corp_id: str, user_id: str, name: str) -> str | None:
        return await self._threads.run(other_id, self._database, corp_id, user_id, name)

    async def _attempt(self, endpoint: Endpoint) -> Result:
        notification = example(endpoint)
        event = event_of(notification)
        delivery = Delivery(0, entry_of(notification), notification.notification_id, event, 0, now_ms())
        sender = DeliveryClient(endpoint, self._guard, self.other_id)
        try:
            return await sender.attempt(delivery)
        finally:
            await sender.close()

    def _check(self, endpoint: str) -> Endpoint | None:
        """The endpoint, or None for one that only the database knows. Raises UnknownEndpoint."""
        return _of(endpoint, self._endpoints_or(store.states(self._database)))

    def _endpoints_or(self, known: Collection[str]) -> Mapping[str, Endpoint | None]:
        try:
            return self._endpoints()
        except FileBroken:
            return dict.fromkeys(known)


def _of(name: str, endpoints: Mapping[str, T]) -> T:
    if name not in endpoints:
        known = ", ".join(sorted(endpoints)) or "none"
        raise UnknownEndpoint(f"the endpoints file has no {name!r}; it has: {known}")
    return endpoints[name]


def example(endpoint: Endpoint) -> TaskNotification:
    """One that the endpoint wants, as far as its filters name what it wants."""
    entry, now = endpoint.entry, now_ms()
    return replace(
        EXAMPLE,
        notification_id=str(uuid.uuid4()),
        corp_id=min(entry.corps),
        recipient_id=min(entry.people or ["test"]),
        app_type=min(entry.apps or ["TEST"]),
        occurred_at=now,
        entered_at=now,
        updated_at=now,
    )


def _shown_url(url: str) -> str:
    """Without path and query: robots have their tokens there."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{'/…' if parts.path.strip('/') or parts.query else ''}"


def _delivery(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "webhook_id": row.webhook_id,
        "at": iso(row.at),
        "outcome": Outcome(row.outcome).name.lower(),
        "attempts": row.attempts,
        "attempted_at": optional_iso(row.attempted_at),
        "status": row.status,
        "problem": row.problem,
    }
