"""What an event must be beside readable. The edge sends no others; whoever else can write to the topic might. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from msgspec.structs import replace

from taskbridge.schemas.events import FIRST_MS, LAST_MS, MAX_ID_CHARACTERS, effective_time
from taskbridge.streams.fold.rejections import Refusal

if TYPE_CHECKING:
    from taskbridge.schemas.events import TaskEvent

_NOT_IN_IDS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def accept(event: TaskEvent) -> TaskEvent:
    """The event as it counts, where it can be folded, kept and told of: with no date that is not ``believed``.

    Raises:
        OutsideContract: it cannot. An id with control characters might be the name under which the store keeps its own
            position; a moment outside of the calendar has no text, and would win against every true one for ever.
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
    stated = event.occurred_at, event.created_at, event.finished_at
    counts = [None if at is None else effective_time(at, received_at=event.received_at) for at in stated]
    if counts == [*stated]:
        return event
    check_moment("received_at", event.received_at)
    return replace(event, occurred_at=counts[0], created_at=counts[1], finished_at=counts[2])


def check_moment(field: str, at: int) -> None:
    """Return where it has a text.

    Raises:
        OutsideContract: it has none.
    """
    if not FIRST_MS <= at <= LAST_MS:
        raise Refusal.IMPOSSIBLE_MOMENT.error(field, at)
