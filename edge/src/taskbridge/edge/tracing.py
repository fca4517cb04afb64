"""Spans around the publication of an event, where traces are enabled.

Only a verified callback makes spans: nobody else can fill a trace, or the queue of spans for export.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING

from structlog.contextvars import bind_contextvars

from taskbridge.edge.answers import refused
from taskbridge.edge.decision.callbacks import PUSH
from taskbridge.edge.decision.decide import source_of
from taskbridge.edge.events import Durability
from taskbridge.runtime import tracing as names
from taskbridge.runtime.tracing import TRACEPARENT, trace_id_of, traceparent_of, valid_traceparent
from taskbridge.schemas.topics import TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from taskbridge.edge.events import Decided
    from taskbridge.edge.kafka.record import SpooledRecord
    from taskbridge.edge.publisher import KafkaPublisher
    from taskbridge.edge.request import Received
    from taskbridge.runtime.otel import Tracing

_TOPIC = TASK_EVENTS.name
_OURS = 500
"""From this status on, the fault is ours."""


def publish_traced(
    tracing: Tracing,
    publisher: KafkaPublisher,
    received: Received,
    decided: Decided,
    then: Callable[[Durability | Exception], None],
) -> None:
    """Publish with a span for the request, and within it one for the event, whose context is in the record's headers.

    The log lines of the publication, and of ``then``, name the trace.
    """
    route = _route_of(received)
    request = tracing.start_span(
        names.request(received.method, route),
        "SERVER",
        {names.METHOD: received.method, names.ROUTE: route, names.APP_TYPE: decided.app_type},
        parent=valid_traceparent(received.headers.get(TRACEPARENT)),
        started_ns=received.received_at * 1_000_000,
    )
    sending = tracing.start_span(
        names.message("send", _TOPIC),
        "PRODUCER",
        {**names.messaging("send", _TOPIC), names.MESSAGE_ID: decided.event_id, names.KEY: decided.instance_id},
        parent=request.traceparent,
    )
    context = copy_context()

    def end(outcome: Durability | Exception) -> None:
        status, failed = 200, None
        if isinstance(outcome, Exception):
            status, failed = int(refused(outcome)[0]), type(outcome).__name__
        else:
            sending.set({names.DURABILITY: outcome.value})
            if outcome is Durability.SPOOL:
                # It is sent later: ``trace_drained``.
                sending.set(names.messaging("create", _TOPIC), name=names.message("create", _TOPIC))
        sending.end(error=failed)
        request.set({names.STATUS: status})
        request.end(error=failed if status >= _OURS else None)
        context.run(then, outcome)

    context.run(bind_contextvars, trace_id=trace_id_of(request.traceparent))
    try:
        context.run(publisher.publish_then, decided, traceparent=sending.traceparent, then=end)
    except Exception as error:  # noqa: BLE001 - the same for each error
        end(error)


def _route_of(received: Received) -> str:
    if source_of(received.path) is None:
        return f"/yida/tasks/{received.wire_action}"
    return "/sources/{source}/tasks" + ("" if received.wire_action == PUSH else f"/{received.wire_action}")


def trace_drained(tracing: Tracing, records: Sequence[SpooledRecord]) -> None:
    """A span for each spooled event with a trace, as long as it waited: hours perhaps, and in another process."""
    for record in records:
        parent = traceparent_of(record.headers)
        if record.topic == _TOPIC and parent is not None:
            attributes = {**names.messaging("send", _TOPIC), names.SPOOLED: True}
            tracing.start_span(
                names.message("send", _TOPIC), "CLIENT", attributes, parent=parent, started_ns=record.created_at
            ).end()
