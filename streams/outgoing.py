"""What a chunk comes to, encoded, and whether all of it fits into records. Does no I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.topics import MAX_MESSAGE_BYTES, MAX_NOTIFICATION_BYTES

if TYPE_CHECKING:
    from streams.bulk_producer import type_outgoing, type_with_headers
    from streams.chunk import ChunkResult

_FRAME_BYTES = 32 << 10
"""For the key, the headers and Kafka's own frame of a record."""
_NOTIFICATIONS_BYTES = 64 << 20
"""Of one chunk, all together: a long title that many people are told of must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A chunk's result, and its records for Kafka. ``notifications`` are those of ``result``, in their order."""

    result: ChunkResult
    stored: dict[bytes, bytes]
    """Goes into the local store and, as it is, to the changelog; it contains the state."""
    states: list[type_outgoing]
    notifications: list[type_with_headers]

    def too_large(self) -> set[bytes]:
        """Keys of the instances of which something does not fit; what they are told of then cannot be delivered."""
        found = {key for key, value in self.stored.items() if len(value) > MAX_MESSAGE_BYTES - _FRAME_BYTES}
        sizes = [len(value or b"") for _, value, _ in self.notifications]
        if sizes and (max(sizes) > MAX_NOTIFICATION_BYTES - _FRAME_BYTES or sum(sizes) > _NOTIFICATIONS_BYTES):
            by_instance: Counter[bytes] = Counter()
            for notification, size in zip(self.result.notifications, sizes, strict=True):
                by_instance[notification.instance_id.encode()] += size
                if size > MAX_NOTIFICATION_BYTES - _FRAME_BYTES:
                    found.add(notification.instance_id.encode())
            if sum(sizes) > _NOTIFICATIONS_BYTES:
                found |= {key for key, _ in by_instance.most_common(1)}
        return found
