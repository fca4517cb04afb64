"""What a record looks like in the dead-letter topic: as it was received, with the reason and its origin in headers.

A record that is so large that its reason does not fit beside it is parked without its value and headers; they stay
where they were received, for as long as records of that topic are kept, and ``dlq replay`` takes them from there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from taskbridge.schemas.cloudevents import rfc3339
from taskbridge.schemas.topics import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from taskbridge.streams.fold.chunk import Rejected

LEFT_HEADER = "dlq_left"
"""On a dead letter without its value: how many bytes were left where they were received."""

_DETAIL_MAX = 1000
_ROOM_BYTES = 32 << 10
"""For the headers that are added, the key and Kafka's own frame."""
_WORD_START = re.compile(r"(?<=[a-z])(?=[A-Z])")


def reason_code(reason: Exception) -> str:
    """``UnknownAction`` → ``unknown-action``: short, stable, and fit to be a metric's label."""
    return _WORD_START.sub("-", type(reason).__name__).lower()


def dead_letter(rejected: Rejected, *, now_ms: int) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]:
    """Key, value and headers of the record that parks this one; it always fits."""
    record = rejected.record
    size = len(record.key or b"") + len(record.value or b"")
    size += sum(len(name) + len(value or b"") for name, value in record.headers)
    if size + _ROOM_BYTES <= MAX_MESSAGE_BYTES:
        return record.key, record.value, [*record.headers, *_said_of(rejected, now_ms=now_ms)]
    key = record.key if len(record.key or b"") <= _ROOM_BYTES // 4 else None
    return key, None, [*_said_of(rejected, now_ms=now_ms), (LEFT_HEADER, str(size).encode())]


def _said_of(rejected: Rejected, *, now_ms: int) -> list[tuple[str, bytes]]:
    """Why it is parked, and from where it was taken."""
    record = rejected.record
    return [
        ("dlq_reason", reason_code(rejected.reason).encode()),
        ("dlq_detail", str(rejected.reason)[:_DETAIL_MAX].encode("utf-8", "replace")),
        ("dlq_topic", record.topic.encode()),
        ("dlq_partition", str(record.partition).encode()),
        ("dlq_offset", str(record.offset).encode()),
        ("dlq_at", rfc3339(now_ms).encode()),
    ]
