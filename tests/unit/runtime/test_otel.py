"""Spans: parents, links, sampling, and errors. A receiver that does not answer delays nothing."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.semconv.attributes import error_attributes, http_attributes
from opentelemetry.trace import SpanKind, StatusCode

from support.tracing import (
    NOT_SAMPLED,
    TRACE,
    TRACE_ID,
    CollectedSpans,
    parent_of,
    trace_of_span,
    traceparent_of_span,
)
from taskbridge.runtime import otel, tracing
from taskbridge.runtime.otel import Tracing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan


@pytest.fixture
def spans() -> CollectedSpans:
    return CollectedSpans()


def test_a_span_goes_on_with_its_parents_trace_and_names_itself_as_a_parent(spans: CollectedSpans) -> None:
    span = spans.tracing.start_span("POST /x", "SERVER", {"a": 1}, parent=TRACE, started_ns=5)
    assert spans.all == ()
    span.end()
    found = spans.only("POST /x")
    assert span.traceparent == traceparent_of_span(found)
    assert parent_of(found) == TRACE
    assert (found.kind, dict(found.attributes or {}), found.start_time) == (SpanKind.SERVER, {"a": 1}, 5)
    assert found.status.status_code is StatusCode.UNSET


def test_without_a_parent_a_trace_begins(spans: CollectedSpans) -> None:
    for _ in range(2):
        spans.tracing.start_span("POST /x", "SERVER", {}).end()
    first, second = spans.all
    assert parent_of(first) is None
    assert trace_of_span(first) != trace_of_span(second)


def test_who_is_not_sampled_stays_so_and_the_trace_goes_on(spans: CollectedSpans) -> None:
    span = spans.tracing.start_span("POST /x", "SERVER", {}, parent=NOT_SAMPLED)
    span.end()
    assert spans.all == ()
    assert not span.is_recorded
    assert span.traceparent[3:35] == TRACE_ID
    assert span.traceparent.endswith("-00")


class Stuck(SpanExporter):
    """A receiver that accepts the connection and never answers."""

    def __init__(self) -> None:
        self.exporting = threading.Event()
        self.let_go = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002 - as it is called
        self.exporting.set()
        self.let_go.wait()
        return SpanExportResult.FAILURE


def test_a_receiver_that_never_answers_holds_up_neither_spans_nor_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otel, "_LAST_S", 0.05)
    stuck = Stuck()
    processor = BatchSpanProcessor(stuck, max_queue_size=8, max_export_batch_size=4, schedule_delay_millis=1)
    with_it = Tracing(processor, service="tests", version="1")
    try:
        with_it.start_span("first", "SERVER", {}).end()
        assert stuck.exporting.wait(60)
        for _ in range(100):  # many more than may wait
            with_it.start_span("next", "SERVER", {}).end()
        with_it.close()
        assert not stuck.let_go.is_set()
    finally:
        stuck.let_go.set()


def test_the_end_sends_what_is_left() -> None:
    exported: list[str] = []

    class Exporter(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            exported.extend(each.name for each in spans)
            return SpanExportResult.SUCCESS

    ended = Tracing(BatchSpanProcessor(Exporter(), schedule_delay_millis=3_600_000), service="tests", version="1")
    ended.start_span("last", "SERVER", {}).end()
    ended.close()
    assert exported == ["last"]


def test_attributes_are_called_as_the_conventions_call_them() -> None:
    known = {
        value
        for module in (messaging_attributes, http_attributes, error_attributes)
        for name, value in vars(module).items()
        if name.isupper()
    }
    constants = {
        value
        for name, value in vars(tracing).items()
        if name.isupper() and not name.startswith("_") and name not in ("TRACEPARENT", "TYPE_CHECKING")
    }
    ours = constants | set(tracing.messaging("send", "topic"))
    assert {each for each in ours if not each.startswith("taskbridge.")} <= known
