"""What a record looks like in the dead-letter topic: as it was received, with the reason and its origin in headers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from schemas.cloudevents import rfc3339

if TYPE_CHECKING:
    from streams.chunk import Rejected

_DETAIL_MAX = 1000
_WORD_START = re.compile(r"(?<=[a-z])(?=[A-Z])")


def reason_code(reason: Exception) -> str:
    """``UnknownAction`` → ``unknown-action``: short, stable, and fit to be a metric's label."""
    return _WORD_START.sub("-", type(reason).__name__).lower()


def dead_letter_headers(rejected: Rejected, *, now_ms: int) -> list[tuple[str, bytes]]:
    """The headers that were received, and ours beside them: why, and from where it was taken."""
    record = rejected.record
    return [
        *record.headers,
        ("dlq_reason", reason_code(rejected.reason).encode()),
        ("dlq_detail", str(rejected.reason)[:_DETAIL_MAX].encode("utf-8", "replace")),
        ("dlq_topic", record.topic.encode()),
        ("dlq_partition", str(record.partition).encode()),
        ("dlq_offset", str(record.offset).encode()),
        ("dlq_at", rfc3339(now_ms).encode()),
    ]
