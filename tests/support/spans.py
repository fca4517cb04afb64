"""Spans kept in memory as they end, for tests of whatever makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from taskbridge.runtime.tracing.traceparent import trace_id_of
from taskbridge.runtime.tracing.tracing import Tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACE = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
NOT_SAMPLED = f"{TRACE[:-2]}00"


class KeptSpans:
    """``tracing`` makes them."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracing = Tracing(SimpleSpanProcessor(self._exporter), service="tests", version="1")

    @property
    def all(self) -> tuple[ReadableSpan, ...]:
        """In the order of their ends."""
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [each for each in self.all if each.name == name]

    def only(self, name: str) -> ReadableSpan:
        (found,) = self.named(name)
        return found


def traceparent_of_span(span: ReadableSpan) -> str:
    assert span.context is not None
    return as_traceparent(span.context)


def trace_of_span(span: ReadableSpan) -> str:
    return trace_id_of(traceparent_of_span(span))


def parent_of(span: ReadableSpan) -> str | None:
    return None if span.parent is None else as_traceparent(span.parent)


def links_of(span: ReadableSpan) -> list[str]:
    return [as_traceparent(each.context) for each in span.links]


def as_traceparent(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
