"""A callback's part of its trace: only of those that are proven, and with nothing in it that somebody wrote."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.trace import SpanKind, StatusCode
from structlog.contextvars import get_contextvars

from support.edge.callbacks import good, send
from support.edge.client import EdgeClient
from support.edge.fakes import SYSTEM_TOKEN, MemoryPublisher, parameters_of
from support.tracing import TRACE, CollectedSpans, parent_of, trace_of_span, traceparent_of_span
from taskbridge.edge.app import create_app
from taskbridge.edge.events import Durability
from taskbridge.edge.kafka.record import SpooledRecord
from taskbridge.edge.tracing import trace_drained
from taskbridge.schemas.topics import TASK_EVENTS

if TYPE_CHECKING:
    from collections.abc import Generator

    from taskbridge.edge.events import Decided
    from taskbridge.edge.settings import EdgeSettings

SEND = "send taskbridge.task-events.v1"
CREATE = "create taskbridge.task-events.v1"
COMPLETE = "POST /yida/tasks/complete"


@pytest.fixture
def spans() -> CollectedSpans:
    return CollectedSpans()


@pytest.fixture
def client(settings: EdgeSettings, publisher: MemoryPublisher, spans: CollectedSpans) -> Generator[EdgeClient]:
    app = create_app(settings, publisher=publisher, tracing=spans.tracing)
    with EdgeClient(app) as client:
        yield client


def test_a_callback_goes_on_with_the_trace_that_it_came_with(
    client: EdgeClient, publisher: MemoryPublisher, spans: CollectedSpans
) -> None:
    answer = send(client, "complete", good(), headers={"traceparent": TRACE})
    sending, request = spans.only(SEND), spans.only(COMPLETE)
    assert parent_of(request) == TRACE
    assert parent_of(sending) == traceparent_of_span(request)
    assert publisher.traceparents == [traceparent_of_span(sending)]
    assert (request.kind, sending.kind) == (SpanKind.SERVER, SpanKind.PRODUCER)
    assert dict(request.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/yida/tasks/complete",
        "http.response.status_code": 200,
        "taskbridge.app_type": publisher.published[0].app_type,
    }
    assert dict(sending.attributes or {}) == {
        "messaging.system": "kafka",
        "messaging.destination.name": "taskbridge.task-events.v1",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.message.id": answer.json()["eventId"],
        "messaging.kafka.message.key": "inst-1",
        "taskbridge.durability": "kafka",
    }


def test_without_one_a_trace_begins_and_a_repeated_callback_has_its_own(
    client: EdgeClient, publisher: MemoryPublisher, spans: CollectedSpans
) -> None:
    parameters = good()
    assert [send(client, "complete", parameters).json()["eventId"] for _ in range(2)] == [
        publisher.published[0].event_id
    ] * 2
    first, second = spans.named(COMPLETE)
    assert parent_of(first) is parent_of(second) is None
    assert trace_of_span(first) != trace_of_span(second)
    assert publisher.traceparents == [traceparent_of_span(each) for each in spans.named(SEND)]


@pytest.mark.parametrize("parameters", [{**good(), "sign": "0" * 64}, {}], ids=["unverified", "malformed"])
def test_what_is_not_proven_makes_no_spans(
    client: EdgeClient, spans: CollectedSpans, parameters: dict[str, str]
) -> None:
    assert send(client, "complete", parameters, headers={"traceparent": TRACE}).status_code in (400, 401)
    assert spans.all == ()


@pytest.mark.parametrize("broken", [False, True])
def test_an_event_that_nothing_stores_is_an_error_in_both(
    client: EdgeClient,
    publisher: MemoryPublisher,
    spans: CollectedSpans,
    monkeypatch: pytest.MonkeyPatch,
    *,
    broken: bool,
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError(SYSTEM_TOKEN)

    if broken:
        monkeypatch.setattr(MemoryPublisher, "publish", fail)
    publisher.away = SYSTEM_TOKEN
    status = send(client, "complete", good()).status_code
    assert status == (500 if broken else 503)
    for each in (spans.only(SEND), spans.only(COMPLETE)):
        assert (each.attributes or {})["error.type"] == ("RuntimeError" if broken else "NotDurable")
        assert each.status.status_code is StatusCode.ERROR
    assert (spans.only(COMPLETE).attributes or {})["http.response.status_code"] == status
    assert SYSTEM_TOKEN not in text_of(spans)


def test_what_is_spooled_is_created_and_sent_when_kafka_has_it(
    client: EdgeClient, publisher: MemoryPublisher, spans: CollectedSpans, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = MemoryPublisher.publish

    async def spool(self: MemoryPublisher, decided: Decided, *, traceparent: str | None) -> Durability:
        await publish(self, decided, traceparent=traceparent)
        return Durability.SPOOL

    monkeypatch.setattr(MemoryPublisher, "publish", spool)
    send(client, "complete", good(), headers={"traceparent": TRACE})
    created = spans.only(CREATE)
    assert (created.attributes or {})["messaging.operation.type"] == "create"
    assert (created.attributes or {})["taskbridge.durability"] == "spool"

    (handed_on,) = publisher.traceparents
    assert handed_on is not None
    trace_drained(spans.tracing, [spooled(handed_on)])
    sent = spans.only(SEND)
    assert parent_of(sent) == handed_on == traceparent_of_span(created)
    assert (sent.kind, sent.start_time) == (SpanKind.CLIENT, 1_769_846_400_000_000_000)
    assert (sent.attributes or {})["taskbridge.spooled"] is True


def spooled(traceparent: str | None, topic: str = TASK_EVENTS.name) -> SpooledRecord:
    return SpooledRecord(
        topic=topic,
        key=b"inst-1",
        headers=(("ce_id", b"e"), *([] if traceparent is None else [("traceparent", traceparent.encode())])),
        schema="1",
        body=b"",
        position=1,
        created_at=1_769_846_400_000_000_000,
    )


def test_lines_of_the_log_name_the_trace(
    client: EdgeClient, publisher: MemoryPublisher, spans: CollectedSpans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log lines while a callback is stored, and later ones about it; not of the next request on the connection."""
    seen: list[Any] = []
    publish = MemoryPublisher.publish

    async def look(self: MemoryPublisher, decided: Decided, *, traceparent: str | None) -> Durability:
        seen.append(get_contextvars().get("trace_id"))
        return await publish(self, decided, traceparent=traceparent)

    monkeypatch.setattr(MemoryPublisher, "publish", look)
    send(client, "complete", good())
    assert seen == [trace_of_span(spans.only(COMPLETE))]
    assert publisher.published


@pytest.mark.parametrize("wire_action", ["create", "complete"])
def test_no_text_and_no_secret_of_a_callback_is_in_a_span(
    client: EdgeClient, publisher: MemoryPublisher, spans: CollectedSpans, wire_action: str
) -> None:
    parameters = good(wire_action)
    send(client, wire_action, parameters, headers={"authorization": "Bearer s3cret", "x-note": "s3cret"})
    (event,) = publisher.published
    text = text_of(spans)
    allowed = {event.app_type, event.instance_id, event.event_id}
    secret = {parameters["sign"], SYSTEM_TOKEN, "s3cret", *leaves(parameters_of(wire_action, instance_id="inst-1"))}
    assert [each for each in secret - allowed if each in text] == []
    assert event.event_id in text


def leaves(parameters: dict[str, str]) -> set[str]:
    """All texts of a callback but those too short to be distinguished from others."""

    def within(value: Any) -> set[str]:
        inner: Any = [*value.values()] if hasattr(value, "values") else value
        return {str(inner)} if not hasattr(inner, "append") else {text for each in inner for text in within(each)}

    read = {key: json.loads(value) if value.startswith("{") else value for key, value in parameters.items()}
    return {each for each in within(read) if len(each) > 5}


def text_of(spans: CollectedSpans) -> str:
    return "\n".join(
        f"{each.name} {each.status.description} {dict(each.attributes or {})} {[event.name for event in each.events]}"
        for each in spans.all
    )
