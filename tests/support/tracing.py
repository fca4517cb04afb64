"""Spans: collected in memory as they end, or received over OTLP from a service, decoded by OpenTelemetry's protobuf."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Wire
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from taskbridge.runtime.otel import Tracing
from taskbridge.runtime.tracing import trace_id_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext


TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACE = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
NOT_SAMPLED = f"{TRACE[:-2]}00"


class CollectedSpans:
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


@dataclass(frozen=True)
class Received:
    """A received span."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent: str
    """Empty for the first of a trace."""
    links: tuple[tuple[str, str], ...]
    """Ids of traces and of spans."""
    attributes: dict[str, Any]
    start_ns: int
    end_ns: int
    is_error: bool


class OtlpReceiver:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[Received] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                is_right = (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
                if is_right:
                    receiver._store(ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200 if is_right else 404)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a service that is to export to this receiver, soon after a span has ended."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}

    def spans(self, trace_id: str | None = None) -> list[Received]:
        """All spans, or those of one trace, in the order of their start."""
        with self._lock:
            found = [each for each in self._spans if trace_id in (None, each.trace_id)]
        return sorted(found, key=lambda each: each.start_ns)

    def _store(self, request: ExportTraceServiceRequest) -> None:
        found = [
            _received(_attributes(resource.resource.attributes)["service.name"], span)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with self._lock:
            self._spans += found


def _received(service: str, span: Wire) -> Received:
    return Received(
        service=service,
        name=span.name,
        kind=Wire.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        links=tuple((each.trace_id.hex(), each.span_id.hex()) for each in span.links),
        attributes=_attributes(span.attributes),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        is_error=span.status.code == span.status.STATUS_CODE_ERROR,
    )


def _attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in pairs}
