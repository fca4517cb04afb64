"""Where a partition goes on, decided of what the group says, what its changelog says, and what the topic has. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from taskbridge.schemas.errors import OperatorError
from taskbridge.schemas.topics import TASK_NOTIFICATIONS
from taskbridge.streams.positions.changelog_topic import mend

if TYPE_CHECKING:
    from faust.types import TP

    from taskbridge.streams.positions.group_positions import Committed
    from taskbridge.streams.positions.kept_position import KeptPosition
    from taskbridge.streams.positions.mark import Ground
    from taskbridge.streams.positions.offsets import Bounds

EXPIRED, MADE_ANEW, OUT_OF_RANGE = REASONS = ("expired", "made-anew", "out-of-range")


class ChangelogCut(OperatorError):
    """A changelog has lost what is behind some offset: nothing may be folded upon the rest."""


class Standing(NamedTuple):
    """Where it goes on. With a reason, that is not where the group was, and somebody should know."""

    offset: int
    reason: str | None = None
    because: str = ""


def standing(
    source: TP, committed: Committed, kept: KeptPosition | None, *, ground: Ground | None, bounds: Bounds
) -> Standing:
    """Where the partition goes on; ``kept`` is its changelog's own position, once it is restored to its end.

    Raises:
        ChangelogCut: the group is ahead of the very changelog that its position names.
    """
    ours = kept.offset if kept is not None and ground is not None and kept.topic_id == ground.source_id else None
    if committed.offset < 0:
        return _without_group(kept, ours, bounds)
    if ground is not None and committed.mark is not None and committed.mark.changelog_id == ground.mark.changelog_id:
        reaches = -1 if ours is None else ours
        if reaches < committed.offset:
            raise ChangelogCut(
                f"{ground.changelog}, partition {source.partition}, is truncated: the group "
                f"has processed {source.topic}"
                f" to offset {committed.offset}, but the changelog ends at {max(reaches, 0)}."
                f" {mend(ground.changelog)}. Local stores are not changed"
            )
    if source.topic == TASK_NOTIFICATIONS.name and committed.offset == bounds.first - 1:
        # Only the end of a transaction stood there: every notification is in one, and would be a record and an end.
        return Standing(bounds.first)
    return _within(committed.offset, bounds)


def is_after_loss(kept: KeptPosition | None, *, source_id: str, end: int) -> bool:
    """Whether a changelog has what came of records that were lost, so that others stand at their offsets, or will.

    ``kept`` is its own position, in the topic that has the id ``source_id`` and ends at ``end`` now.
    """
    return kept is not None and (kept.after_loss or kept.topic_id != source_id or kept.offset > end)


def _without_group(kept: KeptPosition | None, ours: int | None, bounds: Bounds) -> Standing:
    if kept is None:
        return Standing(bounds.first)
    if ours is None:
        return Standing(bounds.first, MADE_ANEW, "the topic was recreated after its changelog was built")
    found = _within(ours, bounds)
    if found.reason is not None:
        return found
    return Standing(ours, EXPIRED, "the group's position expired; the changelog's is used")


def _within(offset: int, bounds: Bounds) -> Standing:
    if offset < bounds.first:
        return Standing(
            bounds.first, OUT_OF_RANGE, f"records before offset {bounds.first} were deleted before they were read"
        )
    if offset > bounds.end:
        # Where it was cut is not known: what comes again is folded to the same, and nothing is missed.
        return Standing(bounds.first, OUT_OF_RANGE, f"the topic was truncated: it ends at {bounds.end}")
    return Standing(offset)
