"""Which events are refused, why, and how a refused record becomes a dead letter. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from msgspec.structs import replace

from taskbridge.schemas.dead_letters import LEFT_HEADER, DlqReason, dead_letter_headers
from taskbridge.schemas.errors import RecordError
from taskbridge.schemas.events import FIRST_MS, LAST_MS, MAX_ID_CHARACTERS, TaskEvent, effective_time
from taskbridge.schemas.topics import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from taskbridge.streams.records import Record

_NOT_IN_IDS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ROOM_BYTES = 32 << 10
"""For the headers that are added, the key and Kafka's own frame."""


class Refused(RecordError):
    def __init__(self, text: str, reason: DlqReason) -> None:
        super().__init__(text)
        self.dlq_reason = reason


class Refusal(Enum):
    """Every reason why a readable event is not folded: the reason of its dead letter, and its text.

    The native core returns the index of one of these, with the values for its text: ``native/src/fold/rules.rs``.
    """

    IMPOSSIBLE_ID = (
        DlqReason.OUTSIDE_CONTRACT,
        f"the instance_id is not a text of 1 to {MAX_ID_CHARACTERS} characters without control characters",
    )
    IMPOSSIBLE_MOMENT = DlqReason.OUTSIDE_CONTRACT, "{}, {}, is not a time in the years 1 to 9999"
    MISPLACED_KEY = DlqReason.MISPLACED_KEY, "the record's key is not the event's instance_id"
    UNKNOWN_ACTION = DlqReason.UNKNOWN_ACTION, "this version does not know the event's action"
    # Ids are UUIDs, so the event is forged or a mistake.
    ANOTHER_CORP = DlqReason.ANOTHER_CORP, "the instance belongs to {}, the event to {}"
    # The holder of one app's token must not change another's data.
    ANOTHER_APP = DlqReason.ANOTHER_APP, "the instance belongs to {}, the event to {}"
    TOO_LARGE = DlqReason.TOO_LARGE, "its instance's state or notification would be larger than a Kafka record may be"

    def error(self, *about: object) -> Refused:
        reason, text = self.value
        return Refused(text.format(*about), reason)


def accept(event: TaskEvent) -> TaskEvent:
    """The event with every date replaced by its ``effective_time``, if it can be folded, stored and published.

    The edge publishes only such events. Of others, Refused: an id with control characters might be the key of the
    store's own position; a moment outside the calendar has no text, and would win against every real one for ever.
    """
    instance_id = event.instance_id
    if not 0 < len(instance_id) <= MAX_ID_CHARACTERS or (
        not instance_id.isprintable() and _NOT_IN_IDS.search(instance_id)
    ):
        raise Refusal.IMPOSSIBLE_ID.error()
    check_moment("occurred_at", event.occurred_at)
    if event.created_at is not None:
        check_moment("created_at", event.created_at)
    if event.finished_at is not None:
        check_moment("finished_at", event.finished_at)
    if event.due_at is not None:
        check_moment("due_at", event.due_at)
    stated = event.occurred_at, event.created_at, event.finished_at
    effective = [None if at is None else effective_time(at, received_at=event.received_at) for at in stated]
    if effective == [*stated]:
        return event
    check_moment("received_at", event.received_at)
    return replace(event, occurred_at=effective[0], created_at=effective[1], finished_at=effective[2])


def check_moment(field: str, at: int) -> None:
    """Raise Refused if the moment is not in the calendar, so that it has no text."""
    if not FIRST_MS <= at <= LAST_MS:
        raise Refusal.IMPOSSIBLE_MOMENT.error(field, at)


@dataclass(frozen=True, slots=True)
class Rejected:
    record: Record
    reason: RecordError


def dead_letter(rejected: Rejected, *, now_ms: int) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]:
    """Key, value and headers of the dead letter: the record as received, with reason and origin added as headers.

    A record that would not fit with them is left out, with its size in a header: a dead letter always fits.
    """
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
