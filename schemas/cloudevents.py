"""CloudEvents 1.0 in Kafka's binary mode: attributes as headers, so that a consumer can route without decoding."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from schemas.events import SOURCE_YIDA

if TYPE_CHECKING:
    from schemas.events import TaskEvent, TaskNotification

type_header = tuple[str, bytes]

_PCHAR = "!$&'()*+,;=:@"
"""What RFC 3986 allows unescaped in a path segment, beside letters, digits and ``-._~``."""


_SECONDS_END = len("2026-01-31T08:00:00")


def event_headers(event: TaskEvent, *, traceparent: str | None = None) -> list[type_header]:
    """Headers of a record on ``taskbridge.task-events.v1``."""
    return _headers(
        id_=event.event_id,
        type_=f"taskbridge.task.{event.action.lower()}.v1",
        source=_source(event.source, event.corp_id, event.app_type),
        subject=event.instance_id,
        time_ms=event.occurred_at,
        traceparent=traceparent,
    )


def notification_headers(notification: TaskNotification, *, traceparent: str | None = None) -> list[type_header]:
    """Headers of a record on ``taskbridge.task-notifications.v1``."""
    return _headers(
        id_=notification.notification_id,
        type_=f"taskbridge.notification.{notification.change.lower()}.v1",
        source=_source(SOURCE_YIDA, notification.corp_id, notification.app_type),
        subject=notification.instance_id,
        time_ms=notification.occurred_at,
        traceparent=traceparent,
    )


@lru_cache(maxsize=4096)  # all that an event causes happened at its moment
def rfc3339(time_ms: int) -> str:
    """Milliseconds since the epoch as ``2026-01-31T08:00:00.000Z``."""
    seconds, milliseconds = divmod(time_ms, 1000)
    # Not strftime, which reads its format anew each time.
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:_SECONDS_END]}.{milliseconds:03d}Z"


@lru_cache(maxsize=1024)  # organisations and apps are few
def _source(*segments: str) -> str:
    return "".join("/" + quote(segment, safe=_PCHAR) for segment in segments)


def _headers(
    *, id_: str, type_: str, source: str, subject: str, time_ms: int, traceparent: str | None
) -> list[type_header]:
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", id_.encode()),
        ("ce_type", type_.encode()),
        ("ce_source", source.encode()),
        ("ce_subject", subject.encode()),
        ("ce_time", rfc3339(time_ms).encode()),
        ("content-type", b"application/avro"),
    ]
    if traceparent is not None:
        headers.append(("traceparent", traceparent.encode()))
    return headers
