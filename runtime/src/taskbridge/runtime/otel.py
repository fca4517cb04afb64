"""Spans by OpenTelemetry's SDK: the only module that imports it. Their export never delays a service.

Spans wait in a bounded queue, which a thread of the SDK exports. A span is dropped when the queue is full, or when the
receiver does not answer. Parents and links are given by ``traceparent``: nothing depends on the context of a task.
There is no global provider, because libraries would then export spans with contents that nobody has checked.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from taskbridge.runtime.tracing import ERROR, Attributes, Kind, flags_of, span_id_of, trace_id_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry import trace

_LAST_S = 3.0
_UNNAMED = "unknown_service"
"""The SDK's name for a service that the environment does not name."""


@dataclass(frozen=True, slots=True)
class Span:
    _span: trace.Span

    @property
    def traceparent(self) -> str:
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    @property
    def is_recorded(self) -> bool:
        return self._span.is_recording()

    def set(self, attributes: Attributes, *, name: str | None = None) -> None:
        """Set attributes, and a new name, that were not known at the start."""
        self._span.set_attributes(attributes)
        if name is not None:
            self._span.update_name(name)

    def end(self, *, error: str | None = None) -> None:
        """``error`` is the class of the error. Its message stays out of traces: it may repeat what people wrote."""
        if error is not None:
            self._span.set_attribute(ERROR, error)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class Tracing:
    def __init__(self, processor: SpanProcessor, *, service: str, version: str) -> None:
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith(_UNNAMED):
            resource = resource.merge(Resource({SERVICE_NAME: service}))
        resource = resource.merge(Resource({SERVICE_VERSION: version}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("taskbridge", version)

    @classmethod
    def exporting(cls, service: str, version: str) -> Self:
        return cls(BatchSpanProcessor(OTLPSpanExporter()), service=service, version=version)

    def start_span(
        self,
        name: str,
        kind: Kind,
        attributes: Attributes,
        *,
        parent: str | None = None,
        links: Sequence[str] = (),
        started_ns: int | None = None,
    ) -> Span:
        """``parent`` and ``links`` are valid traceparents; without a parent a new trace begins."""
        context = Context() if parent is None else _context(parent)
        span = self._tracer.start_span(
            name,
            context,
            SpanKind[kind],
            attributes,
            links=[Link(_span_context(each)) for each in links],
            start_time=started_ns,
            record_exception=False,
            set_status_on_exception=False,
        )
        return Span(span)

    def close(self) -> None:
        """Export the remaining spans for at most some seconds. Blocks."""
        closing = threading.Thread(target=self._provider.shutdown, name="tracing-end", daemon=True)
        closing.start()
        closing.join(_LAST_S)


def _context(traceparent: str) -> Context:
    return set_span_in_context(NonRecordingSpan(_span_context(traceparent)), Context())


def _span_context(traceparent: str) -> SpanContext:
    trace_id, span_id = int(trace_id_of(traceparent), 16), int(span_id_of(traceparent), 16)
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags_of(traceparent)))
