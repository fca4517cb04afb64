"""CloudEvents 1.0 in Kafka's binary mode: attributes as headers, so that a consumer can route without decoding."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from taskbridge.schemas.events import Action, Change, state_id_for
from taskbridge.schemas.moments import FIRST_MS, LAST_MS

if TYPE_CHECKING:
    from taskbridge.schemas.events import QuarantinedCallback, TaskEvent, TaskNotification, TaskState

Header = tuple[str, bytes]

_PCHAR = "!$&'()*+,;=:@"
"""What RFC 3986 allows unescaped in a path segment, beside letters, digits and ``-._~``."""


def _type(words: str) -> Header:
    return ("ce_type", f"taskbridge.{words}.v1".encode())


SPECVERSION: Header = ("ce_specversion", b"1.0")
CONTENT_TYPE: Header = ("content-type", b"application/avro")
NOTIFICATION_TYPES = {change: _type(f"notification.{change.lower()}") for change in Change}
STATE_CHANGED, STATE_DELETED = _type("state.changed"), _type("state.deleted")
EVENT_TYPES = {action: _type(f"task.{action.lower()}") for action in Action}
_QUARANTINED = _type("callback.quarantined")

_MS_A_DAY = 24 * 60 * 60 * 1000
# Put together from these, a time takes a third of what it takes to be formatted; every record and line has some.
_MINUTES = [f"T{minute // 60:02d}:{minute % 60:02d}:" for minute in range(24 * 60)]
_SECONDS = [f"{second:02d}." for second in range(60)]
_MILLISECONDS = [f"{millisecond:03d}Z" for millisecond in range(1000)]


def event_headers(event: TaskEvent, *, traceparent: str | None = None) -> list[Header]:
    """Headers of a record on ``taskbridge.task-events.v1``; ``traceparent`` is the last, where there is one."""
    headers = [
        SPECVERSION,
        ("ce_id", event.event_id.encode()),
        EVENT_TYPES[event.action],
        ("ce_source", _source(event.source, event.corp_id, event.app_type)),
        ("ce_subject", event.instance_id.encode()),
        ("ce_time", rfc3339(event.occurred_at).encode()),
        CONTENT_TYPE,
    ]
    return with_trace(headers, traceparent)


def notification_headers(notification: TaskNotification, *, traceparent: str | None = None) -> list[Header]:
    """Headers of a record on ``taskbridge.task-notifications.v1``; ``traceparent`` as with events."""
    headers = [
        SPECVERSION,
        ("ce_id", notification.notification_id.encode()),
        NOTIFICATION_TYPES[notification.change],
        ("ce_source", _source(notification.source, notification.corp_id, notification.app_type)),
        ("ce_subject", notification.instance_id.encode()),
        ("ce_time", rfc3339(notification.occurred_at).encode()),
        CONTENT_TYPE,
    ]
    return with_trace(headers, traceparent)


def with_trace(headers: list[Header], traceparent: str | None) -> list[Header]:
    """The same list, with a W3C trace context as its last, where there is one."""
    if traceparent is not None:
        headers.append(("traceparent", traceparent.encode()))
    return headers


def quarantined_headers(callback: QuarantinedCallback) -> list[Header]:
    """Headers of a record on ``taskbridge.callbacks-quarantine.v1``.

    The source is the edge: nothing proves who sent the callback. The subject is the app that it names, if any.
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
    """Headers of a record on ``taskbridge.task-states.v1``; ``deleted`` for a tombstone, which has no content."""
    headers = [
        SPECVERSION,
        ("ce_id", state_id_for(state).encode()),
        STATE_DELETED if deleted else STATE_CHANGED,
        ("ce_source", _source(state.source, state.corp_id, state.app_type)),
        ("ce_subject", state.instance_id.encode()),
        # One that was stored before such moments were refused, or is damaged, may have any.
        ("ce_time", rfc3339(min(max(state.updated_at, FIRST_MS), LAST_MS)).encode()),
    ]
    return headers if deleted else [*headers, CONTENT_TYPE]


def rfc3339(time_ms: int) -> str:
    """Milliseconds since the epoch as ``2026-01-31T08:00:00.000Z``."""
    day, rest = divmod(time_ms, _MS_A_DAY)
    minute, rest = divmod(rest, 60_000)
    second, millisecond = divmod(rest, 1000)
    return f"{_date(day)}{_MINUTES[minute]}{_SECONDS[second]}{_MILLISECONDS[millisecond]}"


@lru_cache(maxsize=1024)
def _date(day: int) -> str:
    return datetime.fromtimestamp(day * _MS_A_DAY // 1000, UTC).date().isoformat()


@lru_cache(maxsize=1024)  # organisations and apps are few
def _source(*segments: str) -> bytes:
    return "".join("/" + quote(segment, safe=_PCHAR) for segment in segments).encode()


def iso(time_ms: int) -> str:
    """Of any record: it may say anything."""
    return rfc3339(time_ms if FIRST_MS <= time_ms <= LAST_MS else min(max(time_ms, FIRST_MS), LAST_MS))
