"""What goes to Kafka as records: whether what a chunk comes to fits, and what is set aside where not. Does no I/O."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from taskbridge.schemas.cloudevents import notification_headers
from taskbridge.schemas.events import notification_key
from taskbridge.schemas.topics import MAX_MESSAGE_BYTES, USUAL_MESSAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from taskbridge.schemas.codec import Codec
    from taskbridge.schemas.events import TaskNotification
    from taskbridge.streams.folding.folding import Folded
    from taskbridge.streams.records import Chunk, RecordWithHeaders

_FRAME_BYTES = 32 << 10
"""For Kafka's own frame of a record."""
_RECORD_TO_VALUE = 6
"""A record's key and headers are made of what is in its value; escaped, an id takes three times its bytes."""


class Fold(Protocol):
    """Folds always the same chunk; some offsets of it are set aside as too large."""

    def __call__(self, *, too_large: AbstractSet[int]) -> Folded: ...


def fold_what_fits(fold: Fold, records: Chunk, *, notification_bytes: int = USUAL_MESSAGE_BYTES) -> Folded:
    """What these records come to, as far as it fits.

    An instance of which something does not fit is folded again without its largest records of the chunk: without one,
    two, four more each time. ``notification_bytes``: what the broker takes as a record of notifications.
    """
    too_large: set[int] = set()
    times: Counter[bytes] = Counter()
    while True:
        folded = fold(too_large=too_large)
        found = _unfit(folded, notification_bytes)
        if not found and not folded.untold:
            return folded
        too_large |= folded.untold
        aside = {each.record.offset for each in folded.rejected}
        for key in found:
            theirs = [each for each in records if each.key == key and each.offset not in aside]
            theirs.sort(key=lambda each: len(each.value or b""), reverse=True)
            too_large.update(each.offset for each in theirs[: 1 << times[key]])
            times[key] += 1


def _unfit(folded: Folded, notification_bytes: int) -> set[bytes]:
    """Keys of instances that do not fit themselves, or of which somebody is told more than fits."""
    room = notification_bytes - _FRAME_BYTES
    if folded.largest * _RECORD_TO_VALUE <= room:
        return set()
    written = chain(folded.changelog, folded.states)
    found = {each[0] or b"" for each in written if _size(each) > MAX_MESSAGE_BYTES - _FRAME_BYTES}
    return found | {_subject(each) for each in folded.notifications if _size(each) > room}


def _size(record: RecordWithHeaders) -> int:
    key, value, headers = record
    return len(key or b"") + len(value or b"") + sum(len(name) + len(text or b"") for name, text in headers)


def _subject(notification: RecordWithHeaders) -> bytes:
    """The record key of the instance that it is about."""
    return dict(notification[2])["ce_subject"]


def notification_record(told: TaskNotification, codec: Codec[TaskNotification]) -> RecordWithHeaders:
    """As it goes to its topic."""
    return notification_key(told.corp_id, told.recipient_id), codec.encode(told), notification_headers(told)
