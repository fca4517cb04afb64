"""The headers of the contract, to the letter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from taskbridge.schemas.cloudevents import (
    event_headers,
    form_data_headers,
    notification_headers,
    quarantined_headers,
    rfc3339,
    state_headers,
)
from taskbridge.schemas.events import (
    FIRST_MS,
    LAST_MS,
    Action,
    Change,
    FormData,
    QuarantinedCallback,
    Status,
    TaskEvent,
    TaskNotification,
    TaskState,
    View,
)

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def event(action: Action = Action.CREATED) -> TaskEvent:
    return TaskEvent(
        event_id="11111111-1111-5111-8111-111111111111",
        source="yida",
        action=action,
        corp_id="ding1",
        app_type="APP_RY60OCRF33Z7534***",
        instance_id="实例-1",
        occurred_at=1_693_462_062_502,
        received_at=1_693_462_062_900,
    )


def test_an_event_carries_cloudevents_headers() -> None:
    assert event_headers(event(), traceparent=TRACEPARENT) == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"11111111-1111-5111-8111-111111111111"),
        ("ce_type", b"taskbridge.task.created.v1"),
        ("ce_source", b"/yida/ding1/APP_RY60OCRF33Z7534***"),
        ("ce_subject", "实例-1".encode()),
        ("ce_time", b"2023-08-31T06:07:42.502Z"),
        ("content-type", b"application/avro"),
        ("traceparent", TRACEPARENT.encode()),
    ]


@pytest.mark.parametrize("action", [each for each in Action if each is not Action.UNKNOWN])
def test_the_type_names_the_action(action: Action) -> None:
    assert dict(event_headers(event(action)))["ce_type"].decode() == f"taskbridge.task.{action.lower()}.v1"


def test_without_a_trace_there_is_no_traceparent() -> None:
    assert "traceparent" not in dict(event_headers(event()))


def test_a_state_carries_cloudevents_headers_and_its_tombstone_has_no_content() -> None:
    state = TaskState(instance_id="I-1", corp_id="d i/ng", app_type="APP", updated_at=1_000, revision=3)
    headers = state_headers(state, deleted=False)
    assert headers == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"8d700c19-ebc9-54f2-8f16-8f8cc3ef8cc0"),
        ("ce_type", b"taskbridge.state.changed.v1"),
        ("ce_source", b"/yida/d%20i%2Fng/APP"),
        ("ce_subject", b"I-1"),
        ("ce_time", b"1970-01-01T00:00:01.000Z"),
        ("content-type", b"application/avro"),
    ]
    elsewhere = replace(state, source="flow able")
    assert dict(state_headers(elsewhere, deleted=False))["ce_source"] == b"/flow%20able/d%20i%2Fng/APP"
    gone = dict(state_headers(replace(state, revision=4), deleted=True))
    assert gone.keys() == dict(headers).keys() - {"content-type"}
    assert gone["ce_type"] == b"taskbridge.state.deleted.v1"
    assert gone["ce_id"] != dict(headers)["ce_id"]


def test_form_data_carries_cloudevents_headers() -> None:
    read = FormData("d i/ng", "APP", "FORM-1", "I-1", read_at=1_000, cause="event", data={"a": "1"})
    assert form_data_headers(read) == [
        ("ce_specversion", b"1.0"),
        ("ce_id", dict(form_data_headers(read))["ce_id"]),
        ("ce_type", b"taskbridge.form-data.changed.v1"),
        ("ce_source", b"/yida/d%20i%2Fng/APP"),
        ("ce_subject", b"I-1"),
        ("ce_time", b"1970-01-01T00:00:01.000Z"),
        ("content-type", b"application/avro"),
    ]
    gone = dict(form_data_headers(replace(read, deleted=True)))
    assert gone["ce_type"] == b"taskbridge.form-data.deleted.v1"
    later = dict(form_data_headers(replace(read, read_at=2_000)))
    assert len({each["ce_id"] for each in (dict(form_data_headers(read)), gone, later)}) == 3


def test_a_notification_carries_cloudevents_headers() -> None:
    notification = TaskNotification(
        notification_id="n",
        corp_id="d i/ng",
        recipient_id="ann",
        view=View.PENDING,
        change=Change.REMOVED,
        instance_id="I-1",
        task_id=None,
        title=None,
        url=None,
        app_type="APP",
        originator=None,
        actor_id=None,
        status=Status.PENDING,
        occurred_at=0,
        event_id="e",
    )
    assert notification_headers(notification) == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"n"),
        ("ce_type", b"taskbridge.notification.removed.v1"),
        ("ce_source", b"/yida/d%20i%2Fng/APP"),
        ("ce_subject", b"I-1"),
        ("ce_time", b"1970-01-01T00:00:00.000Z"),
        ("content-type", b"application/avro"),
    ]
    elsewhere = replace(notification, source="flow able")
    assert dict(notification_headers(elsewhere))["ce_source"] == b"/flow%20able/d%20i%2Fng/APP"


@pytest.mark.parametrize(
    ("time_ms", "text"), [(-1, "1969-12-31T23:59:59.999Z"), (1_700_000_000_007, "2023-11-14T22:13:20.007Z")]
)
def test_times_are_rfc3339_with_milliseconds(time_ms: int, text: str) -> None:
    assert rfc3339(time_ms) == text


@given(st.integers(FIRST_MS, LAST_MS))
def test_every_time_of_the_calendar_is_formatted_as_by_the_standard_library(time_ms: int) -> None:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)
    assert rfc3339(time_ms) == at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.mark.parametrize("app_type", ["APP_1", None])
def test_a_quarantined_callback_carries_cloudevents_headers_and_claims_no_proven_source(app_type: str | None) -> None:
    callback = QuarantinedCallback(
        "q-1", 1_693_462_062_502, "complete", "wrong-sign", app_type, "", "POST", "/", "", {}, b""
    )
    assert quarantined_headers(callback) == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"q-1"),
        ("ce_type", b"taskbridge.callback.quarantined.v1"),
        ("ce_source", b"/edge"),
        *([("ce_subject", b"APP_1")] if app_type else []),
        ("ce_time", b"2023-08-31T06:07:42.502Z"),
        ("ce_reason", b"wrong-sign"),
        ("content-type", b"application/avro"),
    ]
