"""The operator's data: from the database, from the other services, and of this replica itself."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from collections import deque
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from taskbridge.center.access.refusals import WebhooksFailed
from taskbridge.center.operations.answers import (
    edge_of,
    lag_of,
    missed_of,
    partitions_of,
    shown_worker,
    totals_of,
    webhooks_of,
    worker_of,
)
from taskbridge.center.operations.records import REPORTING_S, Records
from taskbridge.center.operations.services import Services, detail_of, urls_of
from taskbridge.runtime.database import Database, DatabaseUnavailable, Threads, now_ms
from taskbridge.runtime.refusals import Unknown
from taskbridge.runtime.remembered import Remembered
from taskbridge.schemas.cloudevents import iso

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from taskbridge.center.access.access import Caller
    from taskbridge.center.operations.answers import EdgeTotals
    from taskbridge.center.settings import CenterSettings

ERRORS = 50
SAMPLE_S = 10
SAMPLES = 360
_A_MINUTE = 60 // SAMPLE_S
_FRESH_S = 5.0
_PAUSES = 20
"""How many times as long as the queries of the overview took, they are not repeated, however many pages are open."""
STORED = 50
_ENDPOINTS = "/v1/endpoints"
_MESSAGE_MAX = 400
_SHOWN = ("problem", "reason", "topic", "partition", "offset", "url", "records")
"""Of an event's values only those: they name places and causes. Others may come from callbacks, or name people."""


class LastErrors(logging.Handler):
    """Stores what was logged at WARNING and above; the same message again is counted with the first."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._stored: deque[dict[str, Any]] = deque(maxlen=STORED)

    def emit(self, record: logging.LogRecord) -> None:
        message = _message(record)
        for each in self._stored:
            if each["message"] == message:
                each["at"], each["times"] = record.created, each["times"] + 1
                return
        self._stored.append({"at": record.created, "level": record.levelname, "message": message, "times": 1})

    def share(self) -> list[dict[str, Any]]:
        """The latest first."""
        stored = sorted(self._stored, key=lambda each: each["at"], reverse=True)
        return [{**each, "at": iso(round(each["at"] * 1000))} for each in stored]


def _message(record: logging.LogRecord) -> str:
    if not isinstance(record.msg, dict):
        return record.getMessage()[:_MESSAGE_MAX]
    said = cast("dict[str, Any]", record.msg)
    shown = ", ".join(f"{name} {said[name]}" for name in _SHOWN if name in said)
    return (f"{said.get('event', '')}" + (f": {shown}" if shown else ""))[:_MESSAGE_MAX]


class History:
    """Samples of the last hour, for plots."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, EdgeTotals | None]] = deque(maxlen=SAMPLES)

    def add(self, *, now_s: float, lag_records: int, edges: EdgeTotals | None) -> None:
        """``edges`` is None if none could be reached."""
        self._samples.append((now_s, lag_records, edges))

    def shown(self) -> dict[str, Any]:
        edges = [each for _, _, each in self._samples]
        return {
            "times": [iso(round(at * 1000)) for at, _, _ in self._samples],
            "lag_records": [lag for _, lag, _ in self._samples],
            "spool_records": [0 if each is None else round(each.spool_records) for each in edges],
            "accepted_per_minute": _rates([each and each.accepted for each in edges]),
            "rejected_per_minute": _rates([each and each.rejected for each in edges]),
        }


def _rates(totals: Sequence[float | None]) -> list[int]:
    """What a counter grew by in the minute before each sample. One that fell was restarted, and counts from zero."""
    grown: list[float] = []
    last: float | None = None
    for total in totals:
        grown.append(0.0 if total is None or last is None else total - last if total >= last else total)
        last = last if total is None else total
    return [round(sum(grown[max(0, at + 1 - _A_MINUTE) : at + 1])) for at in range(len(grown))]


class OperationsReporter:
    """Of one replica. Any replica shows all of them: each stores its own part in the database."""

    def __init__(
        self,
        settings: CenterSettings,
        database: Database,
        threads: Threads,
        readiness: Callable[[], Awaitable[Mapping[str, Any]]],
        *,
        streams: Callable[[], int],
    ) -> None:
        """``readiness`` is the body of ``/readyz``; ``streams`` counts the open event streams."""
        self._threads, self._readiness, self._streams = threads, readiness, streams
        self._edge_urls, self._worker_urls = urls_of(settings.edge_urls), urls_of(settings.streams_urls)
        self._webhooks_urls, self._webhooks_token_file = urls_of(settings.webhooks_urls), settings.webhooks_token_file
        self._reconcile_url = settings.reconcile_url.strip().rstrip("/")
        self._database_kind = "sqlite" if database.is_sqlite else "postgresql"
        self._records = Records(database)
        self._services = Services()
        self._history = History()
        self._since = iso(now_ms())
        self._replica = f"{socket.gethostname()}:{settings.port or os.getpid()}"
        self._overviews = Remembered[dict[str, Any]](_FRESH_S, pauses=_PAUSES)
        self.errors = LastErrors()

    async def run(self) -> None:
        """Take a sample, and report this replica to the others, every ten seconds, until cancelled."""
        try:
            while True:
                edges, workers = await self._services_now()
                self._history.add(now_s=time.time(), lag_records=lag_of(workers), edges=totals_of(edges))
                share = await self._share()
                with suppress(DatabaseUnavailable):
                    await self._threads.write(self._records.report, self._replica, share, now_ms())
                await asyncio.sleep(SAMPLE_S - time.time() % SAMPLE_S)
        finally:
            with suppress(DatabaseUnavailable):
                await self._threads.write(self._records.leave, self._replica)

    async def overview(self) -> dict[str, Any]:
        """The state of the bridge, with services that cannot be reached; raises DatabaseUnavailable."""
        (edges, workers), missed, webhooks, found, share = await asyncio.gather(
            self._services_now(), self._missed(), self._webhooks(), self._from_database(), self._share()
        )
        at_ms = now_ms()
        shares: dict[str, tuple[int, dict[str, Any]]] = {**found["shares"], self._replica: (at_ms, share)}
        return {
            "at": iso(at_ms),
            "flow": found["flow"],
            "edges": edges,
            "quarantine": found["quarantine"],
            "dead_letters": found["dead_letters"],
            "missed": missed,
            "webhooks": webhooks,
            "partitions": partitions_of(workers),
            "workers": [shown_worker(each) for each in workers],
            "center": {
                "database": self._database_kind,
                "filled": (await self._readiness())["lists"]["filled"],
                "replicas": [_replica(name, *shares[name], now_ms=at_ms) for name in sorted(shares)],
            },
            "errors": _errors(found["errors"], shares),
            "history": self._history.shown(),
        }

    async def callbacks(self, instance_id: str, caller: Caller) -> dict[str, Any]:
        """Whether callbacks of this instance were received, and what became of them; raises DatabaseUnavailable."""
        return await self._threads.run(self._records.callbacks, instance_id, caller, now_ms())

    async def act(self, endpoint: str, action: str) -> dict[str, Any]:
        """Have a webhooks service send a test to an endpoint, or deliver again; returns what it answers.

        Raises Unknown if it does not know the endpoint, or none is set; WebhooksFailed if none answers, or it refuses.
        """
        if not self._webhooks_urls:
            raise Unknown("no webhooks service is known: set CENTER_WEBHOOKS_URLS")
        try:
            path = f"{_ENDPOINTS}/{endpoint}/{action}"
            status, body = await self._services.post(self._webhooks_urls, path, token=self._token())
            if status == HTTPStatus.OK:
                return json.loads(body)
        except (ConnectionError, ValueError) as error:
            raise WebhooksFailed(f"the webhooks service: {error}") from error
        said = f"the webhooks service answers {status}{detail_of(body)}"
        raise Unknown(said) if status == HTTPStatus.NOT_FOUND else WebhooksFailed(said)

    async def close(self) -> None:
        await self._services.close()

    async def _services_now(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        edges, workers = await asyncio.gather(
            self._services.answers(self._edge_urls), self._services.answers(self._worker_urls)
        )
        return [edge_of(each) for each in edges], [worker_of(each) for each in workers]

    async def _missed(self) -> dict[str, Any] | None:
        url = self._reconcile_url
        return missed_of(url, await self._services.json(f"{url}/status")) if url else None

    async def _webhooks(self) -> dict[str, Any] | None:
        if not self._webhooks_urls:
            return None
        return webhooks_of(await self._services.answers(self._webhooks_urls, _ENDPOINTS, token=self._token()))

    def _token(self) -> str:
        """Empty without a file; then the webhooks service says that it needs one."""
        with suppress(OSError, ValueError):
            return "" if self._webhooks_token_file is None else self._webhooks_token_file.read_text("utf-8").strip()
        return ""

    async def _from_database(self) -> dict[str, Any]:
        return await self._overviews.of("overview", lambda: self._threads.run(self._records.overview, now_ms()))

    async def _share(self) -> dict[str, Any]:
        """What other replicas show of this one."""
        ready = await self._readiness()
        return {
            "ready": ready["ready"],
            "problem": "; ".join(ready["problems"]) or None,
            "lag_records": sum(ready["lag"].values()),
            "sse_connections": self._streams(),
            "since": self._since,
            "errors": self.errors.share(),
        }


def _replica(name: str, at: int, share: Mapping[str, Any], *, now_ms: int) -> dict[str, Any]:
    shown = {each: value for each, value in share.items() if each != "errors"}
    reachable = now_ms - at < REPORTING_S * 1000
    return {"replica": name, "reachable": reachable, **shown, "ready": reachable and share["ready"]}


def _errors(skipped: Iterable[Mapping[str, Any]], shares: Mapping[str, tuple[int, Mapping[str, Any]]]) -> list[Any]:
    own = [{**each, "worker": name} for name, (_, share) in shares.items() for each in share["errors"]]
    return sorted([*skipped, *own], key=lambda each: each["at"], reverse=True)[:ERRORS]
