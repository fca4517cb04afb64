"""A record as it is parked: as it was received, with the reason and its origin in headers; it always fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.schemas.dead_letters import LEFT_HEADER, dead_letter_headers
from taskbridge.schemas.topics import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from taskbridge.streams.fold.chunk import Rejected

_ROOM_BYTES = 32 << 10
"""For the headers that are added, the key and Kafka's own frame."""


def dead_letter(rejected: Rejected, *, now_ms: int) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]:
    """Key, value and headers of the record that parks this one."""
    record, reason = rejected.record, rejected.reason
    added = dead_letter_headers(
        reason.dlq_reason,
        str(reason),
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        now_ms=now_ms,
    )
    size = len(record.key or b"") + len(record.value or b"")
    size += sum(len(name) + len(value or b"") for name, value in record.headers)
    if size + _ROOM_BYTES <= MAX_MESSAGE_BYTES:
        return record.key, record.value, [*record.headers, *added]
    key = record.key if len(record.key or b"") <= _ROOM_BYTES // 4 else None
    return key, None, [*added, (LEFT_HEADER, str(size).encode())]
