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
from taskbridge.schemas.topics import TASK_NOTIFICATIONS
from taskbridge.streams.table_versions import mend

if TYPE_CHECKING:
    from faust.types import TP


class Mark(NamedTuple):
    """Written with every position; compared with what Kafka has at each start: ``streams.contract.start``."""

    version: int
    """Of the instances."""
    partitions: int
    """That the topics have."""
    changelog_id: str
    """Kafka's id of the changelog that goes with the position: another one once it was made anew."""
    version_topic_id: str
    """The same, of the topic that says which version is live."""


class Ground(NamedTuple):
    """Of one topic that is read: where its positions are kept too, and what they say."""

    source_id: str
    """Kafka's id of the topic."""
    changelog: str
    mark: Mark


def write_metadata(owner: str, mark: Mark | None) -> str:
    """What stands beside a position: who committed it, and upon what.

    The space at its end tells where that is: librdkafka puts no zero byte behind a copy of metadata (in its
    ``rd_kafka_topic_partition_list_update``), so that what happens to lie there in memory is read as part of them.
    """
    return " ".join((owner, *map(str, mark or ()), ""))


def read_metadata(written: str | None) -> tuple[str | None, Mark | None]:
    """What ``write_metadata`` wrote; no mark where an earlier program did, or another one."""
    owner, *parts = (written or "").split(" ")
    try:
        version, partitions, changelog_id, version_topic_id, *_ = parts
        return owner or None, Mark(int(version), int(partitions), changelog_id, version_topic_id)
    except ValueError:
        return owner or None, None


POSITION_KEY = b"\x00position"
"""No instance has it: ids have no control characters; and no key of an inbox begins so."""


class PositionUnreadable(OperatorError):
    """A changelog's own position says nothing: this program did not write it."""


class KeptPosition(NamedTuple):
    """What comes next on the partition of the topic that is folded."""

    topic_id: str
    """Kafka's id of that topic: in one that was deleted and made anew, offsets begin again."""
    offset: int
    after_loss: bool = False
    """What came of records that were lost stands before this: where these stood, others stand now."""


def write_position(position: KeptPosition) -> bytes:
    return json.dumps(position._asdict()).encode()


def read_position(written: bytes | None) -> KeptPosition | None:
    """What ``write_position`` wrote; None where nothing was.

    Raises:
        PositionUnreadable: something else did.
    """
    if written is None:
        return None
    try:
        found = json.loads(written)
        return KeptPosition(str(found["topic_id"]), int(found["offset"]), bool(found.get("after_loss")))
    except (ValueError, KeyError, TypeError) as error:
        raise PositionUnreadable(f"a changelog contains an invalid position: {written[:100]!r}") from error


def position_if_readable(written: bytes | None) -> KeptPosition | None:
    """The same, for who goes on without where it says nothing."""
    with suppress(PositionUnreadable):
        return read_position(written)
    return None


EXPIRED, MADE_ANEW, OUT_OF_RANGE = REASONS = ("expired", "made-anew", "out-of-range")


class ChangelogCut(OperatorError):
    """A changelog has lost what is behind some offset: nothing may be folded upon the rest."""


class Committed(NamedTuple):
    """A position that a group has committed."""

    offset: int
    """Negative where there is none."""
    owner: str | None
    """Who committed it, as the offset's metadata says."""
    is_stable: bool
    """No transaction is open that would commit another one."""
    mark: Mark | None = None
    """What its owner stood upon; None where an earlier program committed it, or another one."""


class Bounds(NamedTuple):
    """The first offset that a partition still has, and the one behind its last."""

    first: int
    end: int


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
