"""Many traces come into a chunk, and each continues by itself: in both cores, recorded or only forwarded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from faust.types import TP
from msgspec.structs import replace
from opentelemetry.trace import SpanKind

from support.streams.fold_inputs import EVENTS, REGISTRY, FakeRecord, event, reading
from support.tracing import (
    NOT_SAMPLED,
    TRACE,
    TRACE_ID,
    CollectedSpans,
    links_of,
    parent_of,
    traceparent_of_span,
)
from taskbridge.schemas.codec import task_event_head_codec, task_notification_codec, task_state_codec
from taskbridge.schemas.topics import TASK_EVENTS
from taskbridge.streams.fold.native import NativeCore
from taskbridge.streams.fold.python import PythonCore
from taskbridge.streams.instances.chunk_traces import follow, trace_of

if TYPE_CHECKING:
    from taskbridge.streams.fold.core import Core, Folded
    from taskbridge.streams.records import Chunk

PLACE = TP(TASK_EVENTS.name, 3)
OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PROCESS, SEND = "process taskbridge.task-events.v1", "send taskbridge.task-notifications.v1"


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


def test_a_line_of_the_log_about_a_record_names_its_trace() -> None:
    assert [trace_of(each) for each in CHUNK] == [
        {"trace_id": TRACE_ID},
        {"trace_id": TRACE_ID},
        {"trace_id": OTHER[3:35]},
        {},
    ]
