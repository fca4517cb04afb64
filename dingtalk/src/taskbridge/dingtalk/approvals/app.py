"""The service: posts DingTalk's own approvals to the edge, and acknowledges each event after the edge has stored it."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx2
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from taskbridge.dingtalk import workflow
from taskbridge.dingtalk.approvals import mapping
from taskbridge.dingtalk.approvals.missed import Budget, Missed
from taskbridge.dingtalk.approvals.settings import ApprovalsSettings
from taskbridge.dingtalk.approvals.stream import Stream
from taskbridge.dingtalk.apps import Corp
from taskbridge.dingtalk.calls import Later, calls_by_corp
from taskbridge.runtime import standard_webhooks
from taskbridge.runtime.bounded_http import open_http
from taskbridge.runtime.clock import SystemClock
from taskbridge.runtime.logs import configure_logs
from taskbridge.runtime.operation import operation_app, serve_until_stopped
from taskbridge.runtime.settings import load_settings
from taskbridge.schemas.errors import OperatorError, TaskbridgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fastapi import FastAPI

    from taskbridge.dingtalk.approvals.mapping import Event, Message
    from taskbridge.runtime.clock import Clock

_TIMEOUT_S = 10.0
_END_S = 20.0
_CALLS_PER_SECOND, _ATTEMPTS = 10.0, 2
_OK, _REFUSED = 200, (400, 413)
_CHARACTERS = 200

_log = structlog.stdlib.get_logger(__name__)


class EdgeUnavailable(OperatorError):
    """The edge did not answer that it stored a message."""


class EdgeRefused(TaskbridgeError):
    """The edge says that the message is malformed, and has put it in quarantine, or too large: it never accepts it."""


class Metrics:
    def __init__(self, is_connected: Callable[[], bool], unread: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.events = Counter(
            "taskbridge_approvals_events",
            "Events of DingTalk, by type and outcome: stored, ignored (changes no list), refused (malformed, and in the"
            " edge's quarantine, or too large), or later (not acknowledged).",
            ["type", "outcome"],
            registry=self.registry,
        )
        self.missed = Counter(
            "taskbridge_approvals_missed",
            "Changes about which no event came to this process, found by reading approvals and stored, by type.",
            ["type"],
            registry=self.registry,
        )
        self.calls = Counter(
            "taskbridge_approvals_calls",
            "Calls of DingTalk's API, by path and outcome: ok, or the name of the error.",
            ["path", "outcome"],
            registry=self.registry,
        )
        connected = Gauge("taskbridge_approvals_connected", "Whether DingTalk is connected.", registry=self.registry)
        connected.set_function(lambda: float(is_connected()))
        waiting = Gauge(
            "taskbridge_approvals_unread",
            "Approvals that may have changed without an event and are still to be read.",
            registry=self.registry,
        )
        waiting.set_function(unread)


class Service:
    """Accepts events of DingTalk: true means that all that follows from an event is durable at the edge."""

    def __init__(
        self, settings: ApprovalsSettings, *, dingtalk: httpx2.AsyncClient, edge: httpx2.AsyncClient, clock: Clock
    ) -> None:
        self._settings, self._edge, self._clock = settings, edge, clock
        self._key = standard_webhooks.key_of(settings.source_secret.get_secret_value())
        self._edge_problem: str | None = None
        self._metrics = Metrics(lambda: self.stream.problem is None, lambda: self.missed.unread)
        budget = Budget(_CALLS_PER_SECOND, settings.calls_per_day, clock)
        self._calls_of = calls_by_corp(dingtalk, budget, clock, attempts=_ATTEMPTS, on_call=self._called)
        calls = self._calls_of(self._corp(""))
        self.missed = Missed(calls, budget, clock, post=self._post_missed)
        self.stream = Stream(calls, clock, accept=self.accept, connected=self.missed.connected)
        self.registry = self._metrics.registry

    async def accept(self, event: Event) -> bool:
        """Whether the event may be acknowledged."""
        outcome = await self._store(event)
        # Only these types are labels: an application may be subscribed to anything.
        kind = event.event_type if event.event_type in mapping.EVENT_TYPES else "other"
        self._metrics.events.labels(kind, outcome).inc()
        if outcome in ("stored", "refused"):
            self.missed.heard(event)
        return outcome != "later"

    async def _post_missed(self, event: Event) -> bool:
        outcome = await self._store(event, leaves_none_open=True)
        if outcome == "stored":
            self._metrics.missed.labels(event.event_type).inc()
            _log.info("missed_event_stored", event_id=event.event_id)
        return outcome != "later"

    async def _store(self, event: Event, *, leaves_none_open: bool = False) -> str:
        """What became of the event: an outcome of the metric."""
        if not self._settings.remarks:
            event = event._replace(data={name: value for name, value in event.data.items() if name != "remark"})
        message = mapping.message_of(event, self._settings.source)
        outcome = "ignored"
        if message is not None:
            try:
                await self._post(message)
                if not leaves_none_open and mapping.may_leave_tasks_open(event):
                    await self._cancel_open_tasks(event)
                outcome, self._edge_problem = "stored", None
            except EdgeUnavailable as error:
                outcome, self._edge_problem = "later", str(error)
                _log.warning("event_not_stored", event_id=event.event_id, problem=self._edge_problem)
            except EdgeRefused as error:
                outcome, self._edge_problem = "refused", None
                _log.error("event_refused", event_id=event.event_id, problem=str(error))
            except Later as error:
                outcome = "later"
                _log.warning("tasks_not_read", event_id=event.event_id, problem=str(error))
        return outcome

    def _called(self, path: str, outcome: str) -> None:
        self._metrics.calls.labels(path, outcome).inc()

    async def _cancel_open_tasks(self, event: Event) -> None:
        request = workflow.GetProcessInstance(process_instance_id=str(event.data.get("processInstanceId")))
        try:
            answer = await self._calls_of(self._corp(event.corp_id or "")).get(request, workflow.ApprovalAnswer)
        except Later:
            raise
        except TaskbridgeError as error:
            # Somebody has to change something: no repetition of the event would help.
            _log.error("tasks_not_read", event_id=event.event_id, problem=str(error))
            return
        for each in mapping.cancellations(event, answer.result.tasks, self._settings.source):
            await self._post(each)

    def _corp(self, corp_id: str) -> Corp:
        return Corp(corp_id, self._settings.app_key, self._settings.app_secret)

    async def _post(self, message: Message) -> None:
        """Post a message to the edge.

        Raises:
            EdgeUnavailable: It is not stored.
            EdgeRefused: It never will be.
        """
        path = f"/sources/{self._settings.source}/tasks/{message.action}"
        now_s = str(self._clock.now_ms() // 1000)
        proof = standard_webhooks.signed_headers(message.message_id, now_s, message.body, keys=[self._key])
        headers = {"Content-Type": "application/cloudevents+json", **proof}
        try:
            response = await self._edge.post(path, content=message.body, headers=headers)
        except httpx2.HTTPError as error:
            raise EdgeUnavailable(
                f"the edge does not answer ({type(error).__name__}); check APPROVALS_EDGE_URL"
            ) from None
        if response.status_code in _REFUSED:
            raise EdgeRefused(f"the edge answered {response.status_code} to {path}: {response.text[:_CHARACTERS]}")
        if response.status_code != _OK:
            raise EdgeUnavailable(f"the edge answered {response.status_code} to {path}: {response.text[:_CHARACTERS]}")

    async def start(self) -> list[Coroutine[Any, Any, None]]:
        return [self.stream.run(), self.missed.run()]

    def http(self) -> FastAPI:
        return operation_app(
            "approvals",
            readiness=self.readiness,
            ready="Ready while DingTalk is connected and the edge stores what comes",
            registry=self.registry,
        )

    def readiness(self) -> dict[str, Any]:
        return {
            "ready": self.stream.problem is None and self._edge_problem is None,
            "dingtalk": self.stream.problem or "connected",
            "edge": self._edge_problem or "ok",
            "missed": self.missed.problem or "none",
        }


def run() -> None:
    """Work until SIGTERM or Ctrl-C, then exit with 0.

    Raises:
        ConfigurationError: before anything is started.
    """
    settings = load_settings(ApprovalsSettings, os.environ)
    configure_logs(settings.log_format, settings.log_level)
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(settings))


async def _serve(settings: ApprovalsSettings) -> None:
    async with (
        open_http(settings.api_url, timeout_s=_TIMEOUT_S) as dingtalk,
        open_http(settings.edge_url, timeout_s=_TIMEOUT_S) as edge,
    ):
        service = Service(settings, dingtalk=dingtalk, edge=edge, clock=SystemClock())
        address = settings.host, settings.port
        await serve_until_stopped(
            service.http(), service="approvals", address=address, end_s=_END_S, start=service.start
        )
