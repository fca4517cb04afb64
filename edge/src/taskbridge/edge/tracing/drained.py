"""What waited on the disk goes on in its trace when Kafka has it: hours later, and by another process too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.runtime import tracing as names
from taskbridge.runtime.tracing import traceparent_of
from taskbridge.schemas.topics import TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskbridge.edge.kafka.record import SpooledRecord
    from taskbridge.runtime.otel import Tracing

_TOPIC = TASK_EVENTS.name


def trace_drained(tracing: Tracing, records: Sequence[SpooledRecord]) -> None:
    """A span for each event that has a trace, as long as it waited."""
    for record in records:
        parent = traceparent_of(record.headers)
        if record.topic == _TOPIC and parent is not None:
            attributes = {**names.messaging("send", _TOPIC), names.SPOOLED: True}
            tracing.start_span(
                names.message("send", _TOPIC), "CLIENT", attributes, parent=parent, started_ns=record.created_at
            ).end()
