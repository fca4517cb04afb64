"""Where a partition resumes, and the lineage by which a worker knows that a position belongs to what it reads.

A position is stored twice, in one transaction with the states: as the group's committed offset, whose metadata names
the owner and the lineage, and in the partition's changelog. Kafka forgets the group's offset when the group was idle
for ``offsets.retention.minutes``; the changelog's position then remains. If the end of a changelog was lost, its
position is behind the group's. Pure.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from taskbridge.schemas.errors import OperatorError
from taskbridge.streams.table_versions import REBUILD_HINT

if TYPE_CHECKING:
    from faust.types import TP


class Lineage(NamedTuple):
    version: int
    partitions: int
    changelog_id: str
    """Kafka's id of the changelog that goes with the position. A recreated topic has another id."""
    version_topic_id: str


class SourceTopic(NamedTuple):
    """The topic of events: its id, the changelog that stores its positions too, and their lineage."""

    source_id: str
    changelog: str
    lineage: Lineage


def write_metadata(owner: str, lineage: Lineage | None) -> str:
    return " ".join((owner, *map(str, lineage or ())))


def read_metadata(written: str | None) -> tuple[str | None, Lineage | None]:
    """Owner and lineage; no lineage if an earlier version or another program committed the offset."""
    owner, *parts = (written or "").split(" ")
    try:
        version, partitions, changelog_id, version_topic_id, *_ = parts
        return owner or None, Lineage(int(version), int(partitions), changelog_id, version_topic_id)
    except ValueError:
        return owner or None, None


POSITION_KEY = b"\x00position"
"""No instance has this key, since ids have no control characters."""


class PositionUnreadable(OperatorError):
    """A changelog contains a position that this program did not write."""


class RecordedPosition(NamedTuple):
    topic_id: str
    """Kafka's id of the topic of events: in a recreated topic, offsets begin again."""
    offset: int
    after_loss: bool = False
    """Some folded records were lost afterwards, so that other records have, or will have, their offsets."""


def write_position(position: RecordedPosition) -> bytes:
    return json.dumps(position._asdict()).encode()


def read_position(written: bytes | None) -> RecordedPosition | None:
    if written is None:
        return None
    try:
        found = json.loads(written)
        return RecordedPosition(str(found["topic_id"]), int(found["offset"]), bool(found.get("after_loss")))
    except (ValueError, KeyError, TypeError) as error:
        raise PositionUnreadable(f"a changelog contains an invalid position: {written[:100]!r}") from error


def position_if_readable(written: bytes | None) -> RecordedPosition | None:
    """As ``read_position``, but None for an unreadable one."""
    with suppress(PositionUnreadable):
        return read_position(written)
    return None


EXPIRED = "expired"
RECREATED = "recreated"
OUT_OF_RANGE = "out-of-range"
REASONS = (EXPIRED, RECREATED, OUT_OF_RANGE)


class Committed(NamedTuple):
    offset: int
    owner: str | None
    is_stable: bool
    """No open transaction contains another commit of it."""
    lineage: Lineage | None = None
    """None if an earlier version or another program committed it."""


class Bounds(NamedTuple):
    """The first offset that a partition still has, and the one after its last."""

    first: int
    end: int


class ResumePosition(NamedTuple):
    """Where a partition resumes. ``reason``: why that differs from the group's position, which operators must know."""

    offset: int
    reason: str | None = None
    because: str = ""


def resume_position(
    source: TP, committed: Committed, recorded: RecordedPosition | None, *, source_topic: SourceTopic, bounds: Bounds
) -> ResumePosition:
    """Where the partition resumes; ``recorded`` is the position in its changelog, restored to the end.

    Raises OperatorError if the group is ahead of the changelog that its position names.
    """
    ours = recorded.offset if recorded is not None and recorded.topic_id == source_topic.source_id else None
    if committed.offset < 0:
        return _without_group(recorded, ours, bounds)
    if committed.lineage is not None and committed.lineage.changelog_id == source_topic.lineage.changelog_id:
        reached = -1 if ours is None else ours
        if reached < committed.offset:
            raise OperatorError(
                f"{source_topic.changelog}, partition {source.partition}, is truncated: the group "
                f"has processed {source.topic}"
                f" to offset {committed.offset}, but the changelog ends at {max(reached, 0)}."
                f" {REBUILD_HINT}"
            )
    return _within(committed.offset, bounds)


def is_after_loss(recorded: RecordedPosition | None, *, source_id: str, end: int) -> bool:
    """Whether a changelog has results of records that were lost, whose offsets other records have or will have.

    ``recorded`` is its position in the topic, which now has the id ``source_id`` and the end ``end``.
    """
    return recorded is not None and (recorded.after_loss or recorded.topic_id != source_id or recorded.offset > end)


def _without_group(recorded: RecordedPosition | None, ours: int | None, bounds: Bounds) -> ResumePosition:
    if recorded is None:
        return ResumePosition(bounds.first)
    if ours is None:
        return ResumePosition(bounds.first, RECREATED, "the topic was recreated after its changelog was built")
    found = _within(ours, bounds)
    if found.reason is not None:
        return found
    return ResumePosition(ours, EXPIRED, "the group's position expired; the changelog's is used")


def _within(offset: int, bounds: Bounds) -> ResumePosition:
    if offset < bounds.first:
        return ResumePosition(
            bounds.first, OUT_OF_RANGE, f"records before offset {bounds.first} were deleted before they were read"
        )
    if offset > bounds.end:
        # The offset of the cut is unknown. Events that are read again fold to the same state, and none is missed.
        return ResumePosition(bounds.first, OUT_OF_RANGE, f"the topic was truncated: it ends at {bounds.end}")
    return ResumePosition(offset)
