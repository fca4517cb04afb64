"""How chunks are folded, by either core: the native one or Python. Both give the same bytes.

Before the fold, records of other partitions are split off; after it, results that fit into no Kafka record are cut.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, ClassVar

from taskbridge.schemas.cloudevents import notification_headers
from taskbridge.schemas.events import Action, Change, TaskEvent, TaskNotification, TaskState, View, notification_key
from taskbridge.schemas.topics import MAX_MESSAGE_BYTES, USUAL_MESSAGE_BYTES
from taskbridge.streams.records import Chunk, RecordWithHeaders, target_partition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from taskbridge.schemas.codec import Codec
    from taskbridge.streams.fold.rejections import Rejected

MAX_PUBLISHED_BYTES = 64 << 20
"""Limit of one event's notifications together: a long title for very many people must not fill the memory."""

NONE: AbstractSet[int] = frozenset()

Read = Callable[[list[bytes]], "list[bytes | None]"]

_FRAME_BYTES = 32 << 10
_RECORD_TO_VALUE = 6
"""At most so much larger than its value is a record: key and headers repeat parts of it, escaped to three times."""


@dataclass(slots=True)
class Folded:
    stored: dict[bytes, bytes]
    """The final stored form of every instance that was folded into, by record key."""
    changelog: Sequence[RecordWithHeaders]
    states: Sequence[RecordWithHeaders]
    notifications: Sequence[RecordWithHeaders]
    causes: Callable[[], Sequence[int]]
    """The offset of the record that caused each notification; called only if records have traces."""
    rejected: list[Rejected]
    actions: Mapping[Action, int]
    changes: Mapping[tuple[View, Change], int]
    largest: int
    """Bytes of the largest value among ``stored`` and ``notifications``."""
    unpublished: AbstractSet[int]
    """Offsets of events with more than MAX_PUBLISHED_BYTES of notifications, which are incomplete here."""

    @property
    def folded(self) -> int:
        return sum(self.actions.values())


@dataclass(eq=False)
class Core(ABC):
    """Folds chunks, and keeps nothing of them."""

    name: ClassVar[str]
    events: Codec[TaskEvent]
    states: Codec[TaskState]
    notifications: Codec[TaskNotification]
    form_fields: AbstractSet[str] = frozenset()
    """Names of the form fields that states contain; if there are any, ``events`` must decode forms."""
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    max_published_bytes: int = MAX_PUBLISHED_BYTES

    @abstractmethod
    def fold(self, records: Chunk, read: Read, *, too_large: AbstractSet[int] = NONE) -> Folded:
        """Fold the records in their order; ``read`` is called once, for all instances of the chunk.

        ``too_large``: offsets of records to reject although they could be folded: see ``fold_within_limits``.
        Does no other I/O. An error that no record caused has no effect: the chunk can be tried again.

        Raises:
            RegistryUnavailable: a schema id is unknown, and the registry does not answer.
            StoreUnreadable: the store contains an instance that this version cannot read.
        """


def split_by_partition(
    records: Chunk, partition: int, partitions: int
) -> tuple[Chunk, dict[int, list[RecordWithHeaders]]]:
    """The records whose target is this partition; and the others, ready to forward, by their target partition.

    Producers hash a key with the number of partitions that they know: after an increase they use the old number for
    minutes, and earlier records stay where they are. A record without a key stays on its partition.
    """
    targets = [target_partition(each.key, partitions) if each.key else partition for each in records]
    others: dict[int, list[RecordWithHeaders]] = {}
    if targets.count(partition) == len(targets):
        return records, others
    for record, target in zip(records, targets, strict=True):
        if target != partition:
            others.setdefault(target, []).append((record.key, record.value, [*record.headers]))
    return [each for each, target in zip(records, targets, strict=True) if target == partition], others


def fold_within_limits(
    fold: Callable[..., Folded], records: Chunk, *, notification_bytes: int = USUAL_MESSAGE_BYTES
) -> Folded:
    """Fold the records, except those that make a result too large for a Kafka record.

    An instance with such a result is folded again without its largest records of the chunk: without one, two, four more
    each time. ``fold`` folds these records; its parameter ``too_large`` has the offsets of those to reject.
    ``notification_bytes``: the broker's limit for a record of notifications.
    """
    too_large: set[int] = set()
    times: Counter[bytes] = Counter()
    while True:
        folded = fold(too_large=too_large)
        found = _oversized(folded, notification_bytes)
        if not found and not folded.unpublished:
            return folded
        too_large |= folded.unpublished
        rejected = {each.record.offset for each in folded.rejected}
        for key in found:
            theirs = [each for each in records if each.key == key and each.offset not in rejected]
            theirs.sort(key=lambda each: len(each.value or b""), reverse=True)
            too_large.update(each.offset for each in theirs[: 1 << times[key]])
            times[key] += 1


def _oversized(folded: Folded, notification_bytes: int) -> set[bytes]:
    """Keys of instances with a stored form, state or notification that does not fit into its record."""
    room = notification_bytes - _FRAME_BYTES
    if folded.largest * _RECORD_TO_VALUE <= room:
        return set()
    written = chain(folded.changelog, folded.states)
    found = {each[0] or b"" for each in written if _size(each) > MAX_MESSAGE_BYTES - _FRAME_BYTES}
    # The subject of a notification is its instance's record key.
    return found | {dict(each[2])["ce_subject"] for each in folded.notifications if _size(each) > room}


def _size(record: RecordWithHeaders) -> int:
    key, value, headers = record
    return len(key or b"") + len(value or b"") + sum(len(name) + len(text or b"") for name, text in headers)


def notification_record(notification: TaskNotification, codec: Codec[TaskNotification]) -> RecordWithHeaders:
    key = notification_key(notification.corp_id, notification.recipient_id)
    return key, codec.encode(notification), notification_headers(notification)
