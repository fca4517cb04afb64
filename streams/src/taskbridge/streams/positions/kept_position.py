"""How far a partition's events are folded, as its changelog says itself. Pure.

It goes into the same transaction as the states and the group's position, so both say the same. The group's position is
gone once the group was idle for ``offsets.retention.minutes``; where a changelog's end was lost, this one is behind.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import NamedTuple

from taskbridge.schemas.errors import OperatorError

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
