"""The path of a callback with spans, which replaces the plain one where traces are enabled.

Only a verified callback makes spans: nobody else can fill a trace, or the queue of spans for export.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace
from structlog.contextvars import bind_contextvars

from taskbridge.edge.callbacks import PUSH
from taskbridge.edge.decision import source_of
from taskbridge.edge.errors import NotDurable, Rejection
from taskbridge.edge.publisher import Durability
from taskbridge.edge.routes import STATUS, UNAVAILABLE, CallbackRoutes
from taskbridge.runtime import tracing as names
from taskbridge.runtime.tracing import TRACEPARENT, trace_id_of, traceparent_of, valid_traceparent
from taskbridge.schemas.topics import TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskbridge.edge.events import Decided
    from taskbridge.edge.kafka.record import SpooledRecord
    from taskbridge.edge.request import Received
    from taskbridge.runtime.otel import Tracing

_TOPIC = TASK_EVENTS.name
_OURS = 500
"""From this status on, the fault is ours."""


@dataclass(frozen=True, kw_only=True)
class TracedRoutes(CallbackRoutes):
    """A span for the request, and within it one for the event, whose context is in the record's headers."""

    tracing: Tracing

    async def _publish(self, decided: Decided, received: Received) -> Durability:
        route = _route_of(received)
        request = self.tracing.start_span(
            names.request(received.method, route),
            "SERVER",
            {names.METHOD: received.method, names.ROUTE: route, names.APP_TYPE: decided.app_type},
            parent=valid_traceparent(received.headers.get(TRACEPARENT)),
            started_ns=received.received_at * 1_000_000,
        )
        bind_contextvars(trace_id=trace_id_of(request.traceparent))
        sending = self.tracing.start_span(
            names.message("send", _TOPIC),
            "PRODUCER",
            {**names.messaging("send", _TOPIC), names.MESSAGE_ID: decided.event_id, names.KEY: decided.instance_id},
            parent=request.traceparent,
        )
        headers = {**received.headers, TRACEPARENT: sending.traceparent}
        status, failed = 200, None
        try:
            durability = await super()._publish(decided, replace(received, headers=headers))
        except BaseException as error:
            failed = type(error).__name__
            status = _status_of(error)
            raise
        else:
            sending.set({names.DURABILITY: durability.value})
            if durability is Durability.SPOOL:
                # It is sent later: ``trace_drained``.
                sending.set(names.messaging("create", _TOPIC), name=names.message("create", _TOPIC))
            return durability
        finally:
            sending.end(error=failed)
            request.set({names.STATUS: status})
            request.end(error=failed if status >= _OURS else None)


def _route_of(received: Received) -> str:
    if source_of(received.path) is None:
        return f"/yida/tasks/{received.wire_action}"
    return "/sources/{source}/tasks" + ("" if received.wire_action == PUSH else f"/{received.wire_action}")


def _status_of(error: BaseException) -> int:
    if isinstance(error, Rejection):
        return STATUS[type(error)][0]
    return UNAVAILABLE[0] if isinstance(error, NotDurable) else _OURS


def trace_drained(tracing: Tracing, records: Sequence[SpooledRecord]) -> None:
    """A span for each spooled event with a trace, as long as it waited: hours perhaps, and in another process."""
    for record in records:
        parent = traceparent_of(record.headers)
        if record.topic == _TOPIC and parent is not None:
            attributes = {**names.messaging("send", _TOPIC), names.SPOOLED: True}
            tracing.start_span(
                names.message("send", _TOPIC), "CLIENT", attributes, parent=parent, started_ns=record.created_at
            ).end()
