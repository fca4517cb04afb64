"""What an operator does with endpoints and deliveries: list, test, replay, disable and enable. Blocks."""

from __future__ import annotations

import asyncio
import os
import uuid
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace
from sqlalchemy import func, select

from taskbridge.runtime.database import database_of, now_ms
from taskbridge.runtime.settings import load_settings
from taskbridge.schemas.cloudevents import iso
from taskbridge.schemas.errors import OperatorError
from taskbridge.webhooks import store
from taskbridge.webhooks.app import other_id
from taskbridge.webhooks.endpoints import EndpointsFile
from taskbridge.webhooks.formats.base import EXAMPLE
from taskbridge.webhooks.guard import Guard
from taskbridge.webhooks.notifications import entry_of, event_of
from taskbridge.webhooks.sender import Sender
from taskbridge.webhooks.settings import WebhooksSettings
from taskbridge.webhooks.store import Delivery, Waiting
from taskbridge.webhooks.tables import Outcome, deliveries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from taskbridge.runtime.database import Database
    from taskbridge.schemas.events import TaskNotification
    from taskbridge.webhooks.endpoints import Endpoint
    from taskbridge.webhooks.store import Result


class Operations:
    """On the endpoints file and the database of the settings; the service may run meanwhile."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Raises ConfigurationError."""
        self._settings = load_settings(WebhooksSettings, environment)
        self._endpoints = EndpointsFile(self._settings.endpoints_file, environment).current.by_name

    def endpoints(self) -> Iterator[dict[str, Any]]:
        """The endpoints of the file, and what waits for them."""
        with database_of("webhooks", self._settings, alone=False) as database:
            known, waiting, counts = store.states(database), store.waiting(database), _counts(database)
        for name, endpoint in sorted(self._endpoints.items()):
            state, here = known.get(name), waiting.get(name, Waiting())
            yield {
                "id": name,
                "url": endpoint.entry.url,
                "format": endpoint.entry.format,
                "state": "new" if state is None else "disabled" if state.disabled is not None else "enabled",
                "disabled": None if state is None else state.disabled,
                "failing_since": None if state is None else _iso(state.failing_since),
                "waiting": here.deliveries,
                "oldest_s": round(here.oldest_s, 1),
                "given_up": counts.get((name, Outcome.GIVEN_UP), 0),
                "delivered": counts.get((name, Outcome.DELIVERED), 0),
            }

    def deliveries(self, endpoint: str | None, outcome: Outcome | None, most: int) -> Iterator[dict[str, Any]]:
        """The latest first."""
        query = select(deliveries).order_by(deliveries.c.at.desc(), deliveries.c.id.desc()).limit(most)
        if endpoint is not None:
            query = query.where(deliveries.c.endpoint == endpoint)
        if outcome is not None:
            query = query.where(deliveries.c.outcome == outcome)
        with database_of("webhooks", self._settings, alone=False) as database, database.read() as connection:
            rows = connection.execute(query).all()
        for row in rows:
            yield {
                "id": row.id,
                "endpoint": row.endpoint,
                "webhook_id": row.webhook_id,
                "at": iso(row.at),
                "outcome": Outcome(row.outcome).name.lower(),
                "attempts": row.attempts,
                "attempted_at": _iso(row.attempted_at),
                "status": row.status,
                "problem": row.problem,
                "data": msgspec.json.decode(row.data)["data"],
            }

    def replay(self, endpoint: str, ids: Sequence[int], since_ms: int | None, outcome: Outcome) -> int:
        """Deliver again; returns how many."""
        self._check(endpoint)
        with database_of("webhooks", self._settings, alone=False) as database:
            return store.replay(database, endpoint, ids=ids, since=since_ms, outcome=outcome)

    def set_enabled(self, endpoint: str, *, reason: str | None) -> None:
        """Enable an endpoint, or disable it for this reason."""
        self._check(endpoint)
        with database_of("webhooks", self._settings, alone=False) as database:
            store.register(database, {endpoint: self._endpoints[endpoint].entry.start == "present"})
            store.set_enabled(database, endpoint, reason=reason)

    def test(self, endpoint: str) -> Result:
        """Send an example to the endpoint now, once."""
        self._check(endpoint)
        chosen = self._endpoints[endpoint]
        notification = example(chosen)
        now = now_ms()
        delivery = Delivery(0, entry_of(notification), notification.notification_id, event_of(notification), 0, now)
        with database_of("webhooks", self._settings, alone=False) as database:
            return asyncio.run(self._attempt(database, chosen, delivery))

    async def _attempt(self, database: Database, endpoint: Endpoint, delivery: Delivery) -> Result:
        async def find(*arguments: str) -> str | None:
            return await asyncio.to_thread(other_id, database, *arguments)

        sender = Sender(endpoint, Guard(self._settings.allowed_networks), find)
        try:
            return await sender.attempt(delivery)
        finally:
            await sender.close()

    def _check(self, endpoint: str) -> None:
        if endpoint not in self._endpoints:
            known = ", ".join(sorted(self._endpoints)) or "none"
            raise OperatorError(f"the endpoints file has no {endpoint!r}; it has: {known}")


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


def _counts(database: Database) -> dict[tuple[str, Outcome], int]:
    query = select(deliveries.c.endpoint, deliveries.c.outcome, func.count())
    with database.read() as connection:
        rows = connection.execute(query.group_by(deliveries.c.endpoint, deliveries.c.outcome))
        return {(endpoint, Outcome(outcome)): count for endpoint, outcome, count in rows}


def _iso(moment: int | None) -> str | None:
    return None if moment is None else iso(moment)
