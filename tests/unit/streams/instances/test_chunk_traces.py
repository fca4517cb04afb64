"""Many traces come into a chunk, and each continues by itself: in both cores, recorded or only forwarded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from faust.types import TP
from msgspec.structs import replace
from opentelemetry.trace import SpanKind, StatusCode

from support.streams.fold_inputs import EVENTS, REGISTRY, FakeRecord, event, reading
from support.tracing import (
    NOT_SAMPLED,
    TRACE,
    TRACE_ID,
    CollectedSpans,
    links_of,
    parent_of,
    trace_of_span,
    traceparent_of_span,
)
from taskbridge.schemas.codec import task_event_head_codec, task_notification_codec, task_state_codec
from taskbridge.schemas.topics import TASK_EVENTS
from taskbridge.streams.fold.native import NativeCore
from taskbridge.streams.fold.python import PythonCore
from taskbridge.streams.instances.chunk_traces import follow, trace_of

if TYPE_CHECKING:
    from taskbridge.runtime.otel import Tracing
    from taskbridge.streams.fold.core import Core, Folded
    from taskbridge.streams.records import Chunk

PLACE = TP(TASK_EVENTS.name, 3)
OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PROCESS, SEND = "process taskbridge.task-events.v1", "send taskbridge.task-notifications.v1"
SSE = "send /v1/corps/{corp_id}/users/{user_id}/events"


@pytest.fixture
def spans() -> CollectedSpans:
    return CollectedSpans()


@pytest.fixture(params=[PythonCore, NativeCore])
def core(request: pytest.FixtureRequest) -> Core:
    return request.param(
        events=task_event_head_codec(REGISTRY),
        states=task_state_codec(REGISTRY),
        notifications=task_notification_codec(REGISTRY),
    )


def record(offset: int, instance_id: str, traceparent: str | None, *, recipients: tuple[str, ...]) -> FakeRecord:
    """Of a task that is new to each of these."""
    created = replace(
        event(task_id=f"T-{offset}", recipient_ids=recipients, event_id=f"e-{offset}"), instance_id=instance_id
    )
    headers = [("ce_id", b"e"), *([] if traceparent is None else [("traceparent", traceparent.encode())])]
    return FakeRecord(instance_id.encode(), EVENTS.encode(created), offset, headers=headers)


CHUNK: Any = [
    record(10, "I-1", TRACE, recipients=("ann", "bob")),
    record(11, "I-2", NOT_SAMPLED, recipients=("cai",)),
    record(12, "I-1", OTHER, recipients=("cai",)),
    record(13, "I-3", None, recipients=("ann",)),
]


def folded_by(core: Core, records: Chunk) -> Folded:
    return core.fold(records, reading({}))


def carried(folded: Folded) -> dict[int, set[str | None]]:
    """By the offset of the record that caused it, the traceparents of notifications."""
    found: dict[int, set[str | None]] = {}
    for (_, _, headers), cause in zip(folded.notifications, folded.causes(), strict=True):
        traceparent = dict(headers).get("traceparent")
        found.setdefault(cause, set()).add(None if traceparent is None else traceparent.decode())
    return found


def test_without_tracing_trace_contexts_are_passed_on(core: Core) -> None:
    folded = folded_by(core, CHUNK)
    trace = follow(None, PLACE, CHUNK)
    assert trace is not None
    with trace:
        trace.pass_on(folded)
        trace.committed()
    assert carried(folded) == {10: {TRACE}, 11: {NOT_SAMPLED}, 12: {OTHER}, 13: {None}}


def test_records_without_a_trace_are_no_work(spans: CollectedSpans) -> None:
    assert follow(spans.tracing, PLACE, CHUNK[3:]) is None


def test_a_chunk_is_one_span_with_links_and_notifications_are_in_each_records_trace(
    core: Core, spans: CollectedSpans
) -> None:
    folded = folded_by(core, CHUNK)
    trace = follow(spans.tracing, PLACE, CHUNK)
    assert trace is not None
    with trace:
        trace.pass_on(folded)
        assert spans.all == ()
        trace.committed()

    process = spans.only(PROCESS)
    assert (process.kind, parent_of(process), links_of(process)) == (SpanKind.CONSUMER, TRACE, [TRACE, OTHER])
    assert dict(process.attributes or {}) == {
        "messaging.system": "kafka",
        "messaging.destination.name": TASK_EVENTS.name,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.consumer.group.name": "taskbridge-streams",
        "messaging.destination.partition.id": "3",
        "messaging.batch.message_count": 4,
    }
    sent = {parent_of(each): each for each in spans.named(SEND)}
    assert sent.keys() == {TRACE, OTHER}
    assert all(links_of(each) == [traceparent_of_span(process)] for each in sent.values())
    assert {each.kind for each in sent.values()} == {SpanKind.PRODUCER}
    assert carried(folded) == {
        10: {traceparent_of_span(sent[TRACE])},
        11: {NOT_SAMPLED},
        12: {traceparent_of_span(sent[OTHER])},
        13: {None},
    }
    counts = [folded.causes().count(offset) for offset in (10, 12)]
    assert [(each.attributes or {})["messaging.batch.message_count"] for each in (sent[TRACE], sent[OTHER])] == counts


def test_a_single_record_is_the_parent_of_its_chunk(core: Core, spans: CollectedSpans) -> None:
    one: Any = CHUNK[:1]
    follow_through(spans.tracing, one, folded_by(core, one))
    process = spans.only(PROCESS)
    assert parent_of(process) == TRACE
    assert links_of(process) == [TRACE]
    assert {trace_of_span(each) for each in spans.all} == {TRACE_ID}


def test_a_repeated_event_is_traced_with_the_repetition(core: Core, spans: CollectedSpans) -> None:
    again: Any = [CHUNK[0], record(14, "I-1", OTHER, recipients=("ann", "bob"))]
    again[1] = FakeRecord(CHUNK[0].key, CHUNK[0].value, 14, headers=again[1].headers)
    folded = folded_by(core, again)
    follow_through(spans.tracing, again, folded)
    sent = {parent_of(each): traceparent_of_span(each) for each in spans.named(SEND)}
    assert carried(folded) == {10: {sent[TRACE]}, 14: {sent[OTHER]}}


def test_unsampled_records_make_no_spans(core: Core, spans: CollectedSpans) -> None:
    chunk: Any = CHUNK[1:2]
    folded = folded_by(core, chunk)
    follow_through(spans.tracing, chunk, folded)
    assert carried(folded) == {11: {NOT_SAMPLED}}
    assert spans.all == ()


def test_an_uncommitted_chunk_ends_its_spans_only_if_it_failed(core: Core, spans: CollectedSpans) -> None:
    """A chunk that a rebalance overtook is delivered again, and traced then."""
    for failure in (None, RuntimeError("somebody's title")):
        folded = folded_by(core, CHUNK)
        trace = follow(spans.tracing, PLACE, CHUNK)
        assert trace is not None
        try:
            with trace:
                trace.pass_on(folded)
                if failure is not None:
                    raise failure
        except RuntimeError:
            pass
        if failure is None:
            assert spans.all == ()
    assert len(spans.all) == 3
    for each in spans.all:
        assert (each.status.status_code, each.status.description) == (StatusCode.ERROR, None)
        assert (each.attributes or {})["error.type"] == "RuntimeError"


def test_a_line_of_the_log_about_a_record_names_its_trace() -> None:
    assert [trace_of(each) for each in CHUNK] == [
        {"trace_id": TRACE_ID},
        {"trace_id": TRACE_ID},
        {"trace_id": OTHER[3:35]},
        {},
    ]


def follow_through(tracing: Tracing, records: Chunk, folded: Folded) -> None:
    trace = follow(tracing, PLACE, records)
    assert trace is not None
    with trace:
        trace.pass_on(folded)
        trace.committed()
