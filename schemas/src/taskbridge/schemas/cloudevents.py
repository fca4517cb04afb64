"""Record headers: CloudEvents 1.0 in Kafka's binary mode, and safe reading of the headers of any record.

The attributes are headers, so that a consumer can route a record without decoding it.
"""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from functools import lru_cache
from operator import methodcaller
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from taskbridge.schemas.events import FIRST_MS, LAST_MS, SOURCE_YIDA, Action, Change, form_data_id_for, state_id_for

if TYPE_CHECKING:
    from confluent_kafka import Message

    from taskbridge.schemas.events import FormData, QuarantinedCallback, TaskEvent, TaskNotification, TaskState

Header = tuple[str, bytes]

_PCHAR = "!$&'()*+,;=:@"
"""What RFC 3986 allows unescaped in a path segment, apart from letters, digits and ``-._~``."""
_call_headers = methodcaller("headers")
"""Calls the method from C: with an ordinary call, the interpreter reports the pending error of a damaged name."""
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC: its text ends with Z
_BAD_NAME = "\ufffd"
_NULL_NAME = "(<NULL>"


def _type(words: str) -> Header:
    return ("ce_type", f"taskbridge.{words}.v1".encode())


SPECVERSION: Header = ("ce_specversion", b"1.0")
CONTENT_TYPE: Header = ("content-type", b"application/avro")
FROM_DINGTALK: Header = ("origin", b"dingtalk")
"""On a person or form that reconcile read from DingTalk. Records without it win."""
NOTIFICATION_TYPES = {change: _type(f"notification.{change.lower()}") for change in Change}
FORM_DATA_CHANGED, FORM_DATA_DELETED = _type("form-data.changed"), _type("form-data.deleted")
STATE_CHANGED, STATE_DELETED = _type("state.changed"), _type("state.deleted")
EVENT_TYPES = {action: _type(f"task.{action.lower()}") for action in Action}
_QUARANTINED = _type("callback.quarantined")


def event_headers(event: TaskEvent, *, traceparent: str | None = None) -> list[Header]:
    """Headers of a record on ``taskbridge.task-events.v1``. The last is ``traceparent``, if there is one."""
    source = _source(event.source, event.corp_id, event.app_type)
    time = rfc3339(event.occurred_at)
    headers = _attributes(event.event_id, EVENT_TYPES[event.action], source, event.instance_id, time)
    return with_trace([*headers, CONTENT_TYPE], traceparent)


def notification_headers(notification: TaskNotification, *, traceparent: str | None = None) -> list[Header]:
    """Headers of a record on ``taskbridge.task-notifications.v1``. The last is ``traceparent``, if there is one."""
    source = _source(notification.source, notification.corp_id, notification.app_type)
    kind, time = NOTIFICATION_TYPES[notification.change], rfc3339(notification.occurred_at)
    headers = _attributes(notification.notification_id, kind, source, notification.instance_id, time)
    return with_trace([*headers, CONTENT_TYPE], traceparent)


def with_trace(headers: list[Header], traceparent: str | None) -> list[Header]:
    """Append a W3C trace context, if there is one, and return the same list."""
    if traceparent is not None:
        headers.append(("traceparent", traceparent.encode()))
    return headers


def quarantined_headers(callback: QuarantinedCallback) -> list[Header]:
    """Headers of a record on ``taskbridge.callbacks-quarantine.v1``.

    The source is the edge, because nothing proves who sent the callback. The subject is the app that it names, if any.
    """
    return [
        SPECVERSION,
        ("ce_id", callback.quarantine_id.encode()),
        _QUARANTINED,
        ("ce_source", b"/edge"),
        *([("ce_subject", callback.app_type.encode("utf-8", "replace"))] if callback.app_type else []),
        ("ce_time", rfc3339(callback.received_at).encode()),
        ("ce_reason", callback.reason.encode()),
        CONTENT_TYPE,
    ]


def state_headers(state: TaskState, *, deleted: bool) -> list[Header]:
    """Headers of a record on ``taskbridge.task-states.v1``. With ``deleted`` it is a tombstone without content."""
    kind = STATE_DELETED if deleted else STATE_CHANGED
    source = _source(state.source, state.corp_id, state.app_type)
    # A state that is damaged, or older than the check of times, may contain any number.
    headers = _attributes(state_id_for(state), kind, source, state.instance_id, iso(state.updated_at))
    return headers if deleted else [*headers, CONTENT_TYPE]


def form_data_headers(record: FormData) -> list[Header]:
    """Headers of a record on ``taskbridge.form-data.v1``."""
    kind = FORM_DATA_DELETED if record.deleted else FORM_DATA_CHANGED
    source = _source(SOURCE_YIDA, record.corp_id, record.app_type)
    record_id, time = form_data_id_for(record), iso(record.read_at)
    return [*_attributes(record_id, kind, source, record.instance_id, time), CONTENT_TYPE]


def _attributes(record_id: str, kind: Header, source: bytes, subject: str, time: str) -> list[Header]:
    return [
        SPECVERSION,
        ("ce_id", record_id.encode()),
        kind,
        ("ce_source", source),
        ("ce_subject", subject.encode()),
        ("ce_time", time.encode()),
    ]


def rfc3339(time_ms: int) -> str:
    """Milliseconds since the epoch as ``2026-01-31T08:00:00.000Z``."""
    # Added, because a date of many years ago or ahead is no timestamp of the system.
    return f"{(_EPOCH + timedelta(milliseconds=time_ms)).isoformat(timespec='milliseconds')}Z"


def iso(time_ms: int) -> str:
    """As ``rfc3339``, for a time that may be outside the years 1 to 9999: the nearest of them."""
    return rfc3339(time_ms if FIRST_MS <= time_ms <= LAST_MS else min(max(time_ms, FIRST_MS), LAST_MS))


def optional_iso(time_ms: int | None) -> str | None:
    return None if time_ms is None else iso(time_ms)


def headers_of(message: Message) -> list[Header]:
    """All headers in their order. A header without a value has an empty one."""
    return [(name, value or b"") for name, value in header_pairs(message)]


def header_pairs(message: Message) -> list[tuple[str, bytes | None]]:
    """All names and values in their order. A name that is not UTF-8 becomes U+FFFD.

    For such a name confluent-kafka leaves a null pointer in the pair, and a pending error that an optimised call does
    not see. Touching the pointer ends the process. The ``repr`` of the pair is safe, and so is its value.
    """
    try:
        pairs = _call_headers(message)
    except SystemError:
        pairs = _call_headers(message)
    return [(_BAD_NAME, each[1]) if repr(each).startswith(_NULL_NAME) else each for each in pairs or ()]


def text_of(value: Any) -> str | None:
    """Bytes as text, or as base64 if they are not UTF-8."""
    if value is None or isinstance(value, str):
        return value
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(value).decode()


@lru_cache(maxsize=1024)  # organisations and apps are few
def _source(*segments: str) -> bytes:
    return "".join("/" + quote(segment, safe=_PCHAR) for segment in segments).encode()
