"""A record of each message of the contract, with every header that it can have: what our code makes of callbacks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from support.edge.fakes import APP_TYPE, DATE_TIME, SYSTEM_TOKEN, parameters_of
from taskbridge.edge.decision.callbacks import event_of, locate
from taskbridge.edge.verification.signature import sign
from taskbridge.schemas import topics
from taskbridge.schemas.cloudevents import (
    CONTENT_TYPE,
    FROM_DINGTALK,
    event_headers,
    form_data_headers,
    notification_headers,
    quarantined_headers,
    state_headers,
)
from taskbridge.schemas.codec import (
    form_codec,
    form_data_codec,
    person_codec,
    quarantined_callback_codec,
    task_event_codec,
    task_notification_codec,
    task_state_codec,
)
from taskbridge.schemas.dead_letters import LEFT_HEADER, REPLAY_HEADER, DlqReason, dead_letter_headers, replay_headers
from taskbridge.schemas.events import (
    Action,
    Change,
    Form,
    FormData,
    FormField,
    PersonRecord,
    QuarantinedCallback,
    View,
    form_key,
    notification_key,
)
from taskbridge.schemas.testing import FakeRegistry
from taskbridge.streams.fold.instance import fold
from taskbridge.streams.fold.views import notifications

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from taskbridge.schemas.cloudevents import Header
    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import TaskEvent
    from taskbridge.schemas.topics import Topic

_INSTANCE_ID = "f30233fb-72e1-4af4-8cb8-c7e0ea9ee530"
_ON_ITS_WAY_MS = 400
_HOUR_MS = 60 * 60 * 1000
_TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A message's record as it is sent, and the headers of every kind of record that there is of this message."""

    topic: Topic
    message: str
    key: bytes
    value: bytes | None
    """In the wire format; None for a tombstone."""
    payload: Any
    """The value as JSON; None where it is not of a schema of ours."""
    headers: Sequence[Header]
    kinds: Sequence[Sequence[Header]]


def samples() -> Iterator[Sample]:
    """Every message on every topic of the contract."""
    registry = FakeRegistry()
    created, completed, deleted = (
        _event(action, hours) for hours, action in enumerate(("create", "complete", "delete"))
    )
    pending = fold(None, created)
    decided = fold(pending, completed)
    added = next(each for each in notifications(None, pending, created) if each.view is View.PENDING)

    event = task_event_codec(registry).encode(created)
    yield Sample(
        topic=topics.TASK_EVENTS,
        message="TaskEvent",
        key=_INSTANCE_ID.encode(),
        value=event,
        payload=_plain(task_event_codec(registry).decode(event)),
        headers=event_headers(created, traceparent=_TRACEPARENT),
        kinds=[
            *(event_headers(replace(created, action=each)) for each in Action if each is not Action.UNKNOWN),
            event_headers(created, traceparent=_TRACEPARENT),
            [(REPLAY_HEADER, b"3-42"), *event_headers(created)],
        ],
    )
    state = task_state_codec(registry).encode(decided.state)
    yield Sample(
        topic=topics.TASK_STATES,
        message="TaskState",
        key=_INSTANCE_ID.encode(),
        value=state,
        payload=_plain(task_state_codec(registry).decode(state)),
        headers=state_headers(decided.state, deleted=False),
        kinds=[state_headers(decided.state, deleted=False)],
    )
    gone = fold(decided, deleted).state
    yield Sample(
        topic=topics.TASK_STATES,
        message="TaskStateTombstone",
        key=_INSTANCE_ID.encode(),
        value=None,
        payload=None,
        headers=state_headers(gone, deleted=True),
        kinds=[state_headers(gone, deleted=True)],
    )
    notification = task_notification_codec(registry).encode(added)
    yield Sample(
        topic=topics.TASK_NOTIFICATIONS,
        message="TaskNotification",
        key=notification_key(added.corp_id, added.recipient_id),
        value=notification,
        payload=_plain(task_notification_codec(registry).decode(notification)),
        headers=notification_headers(added, traceparent=_TRACEPARENT),
        kinds=[
            *(notification_headers(replace(added, change=each)) for each in Change if each is not Change.UNKNOWN),
            notification_headers(added, traceparent=_TRACEPARENT),
        ],
    )
    parked = {
        each: dead_letter_headers(
            each,
            "the bytes are not a record that this topic's schema can read",
            topic=topics.TASK_EVENTS.name,
            partition=3,
            offset=42,
            now_ms=created.received_at,
        )
        for each in DlqReason
    }
    yield Sample(
        topic=topics.TASK_EVENTS_DLQ,
        message="DeadLetter",
        key=_INSTANCE_ID.encode(),
        value=b"not a record",
        payload=None,
        headers=parked[DlqReason.UNDECODABLE],
        kinds=[*parked.values(), [*parked[DlqReason.TOO_LARGE], (LEFT_HEADER, b"4194304")]],
    )
    yield _replayed(topics.TASK_EVENTS_DLQ, "ReplayedDeadLetter", _INSTANCE_ID, "3-42")
    rejected = _quarantined()
    quarantined = quarantined_callback_codec(registry).encode(rejected)
    yield Sample(
        topic=topics.CALLBACKS_QUARANTINE,
        message="QuarantinedCallback",
        key=APP_TYPE.encode(),
        value=quarantined,
        payload=_plain(quarantined_callback_codec(registry).decode(quarantined)),
        headers=quarantined_headers(rejected),
        kinds=[
            quarantined_headers(rejected),
            quarantined_headers(replace(rejected, app_type=None)),
        ],
    )
    yield _replayed(topics.CALLBACKS_QUARANTINE, "ReplayedCallback", APP_TYPE, rejected.quarantine_id)
    person = PersonRecord(added.recipient_id, "王芳", "采购部", "A1024", {"ldap": "wang.fang"})
    fields = (FormField("numberField_days", "NumberField"), FormField("textareaField_reason", "TextareaField"))
    form = Form("FORM-1", "请假申请", {"numberField_days": "天数", "textareaField_reason": "请假事由"}, fields)
    yield from _known(topics.PEOPLE, notification_key(added.corp_id, person.user_id), person_codec(registry), person)
    yield from _known(topics.FORMS, form_key(added.corp_id, form.form_uuid), form_codec(registry), form)
    yield from _form_data(created, registry)


def _form_data(created: TaskEvent, registry: FakeRegistry) -> Iterator[Sample]:
    values = FormData(
        corp_id=created.corp_id,
        app_type=created.app_type,
        form_uuid="FORM-1",
        process_code=created.process_code,
        instance_id=created.instance_id,
        data={"numberField_days": "3", "textareaField_reason": "年假", "employeeField_for": '["manager02"]'},
        read_at=created.received_at + _HOUR_MS,
        cause="event",
        event_id=created.event_id,
    )
    value, key = form_data_codec(registry).encode(values), created.instance_id.encode()
    headers = form_data_headers(values)
    yield Sample(
        topic=topics.FORM_DATA,
        message="FormData",
        key=key,
        value=value,
        payload=_plain(form_data_codec(registry).decode(value)),
        headers=headers,
        kinds=[headers, form_data_headers(replace(values, deleted=True))],
    )
    yield Sample(
        topic=topics.FORM_DATA,
        message="FormDataTombstone",
        key=key,
        value=None,
        payload=None,
        headers=[],
        kinds=[[]],
    )


def _replayed(topic: Topic, message: str, key: str, entry_id: str) -> Sample:
    headers = replay_headers(entry_id, int(DATE_TIME) + _HOUR_MS)
    return Sample(
        topic=topic, message=message, key=key.encode(), value=None, payload=None, headers=headers, kinds=[headers]
    )


def _known(topic: Topic, key: bytes, codec: Codec[Any], record: Any) -> Iterator[Sample]:
    value, message = codec.encode(record), str(topic.record)
    yield Sample(
        topic=topic,
        message=message,
        key=key,
        value=value,
        payload=_plain(codec.decode(value)),
        headers=[CONTENT_TYPE],
        kinds=[[CONTENT_TYPE], [CONTENT_TYPE, FROM_DINGTALK]],
    )
    yield Sample(topic=topic, message=f"{message}Tombstone", key=key, value=None, payload=None, headers=[], kinds=[[]])


def _event(action: str, hours: int) -> TaskEvent:
    parameters = _signed(action, hours)
    received_at = int(parameters["dateTime"]) + _ON_ITS_WAY_MS
    return event_of(locate(action, parameters), parameters, received_at=received_at)


def _signed(action: str, hours: int) -> dict[str, str]:
    """A callback as Yida sends it, some hours after the first."""
    at = str(int(DATE_TIME) + hours * _HOUR_MS)
    parameters = {**parameters_of(action, instance_id=_INSTANCE_ID), "dateTime": at}
    return {**parameters, "sign": sign(parameters, system_token=SYSTEM_TOKEN)}


def _quarantined() -> QuarantinedCallback:
    return QuarantinedCallback(
        quarantine_id="5f0d2b1e-9c47-4f6b-8a53-2d1f7c3e6b90",
        received_at=int(DATE_TIME) + _ON_ITS_WAY_MS,
        action="complete",
        reason="unknown-app",
        app_type=APP_TYPE,
        remote_address="203.0.113.7",
        method="POST",
        path="/yida/tasks/complete",
        query="",
        headers={"content-type": "application/json"},
        body=json.dumps(_signed("complete", 0)).encode(),
    )


def _plain(record: Any) -> Any:
    """As JSON: moments in milliseconds, bytes as Avro's JSON encoding has them, a character for each byte."""
    found = msgspec.to_builtins(record, builtin_types=(bytes,))
    return {name: value.decode("latin-1") if isinstance(value, bytes) else value for name, value in found.items()}
