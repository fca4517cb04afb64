"""Dead letters with their reasons, and the marks that say which dead letter or quarantined callback was replayed.

The key, value and other headers of a dead letter are as received. If a record is too large for its reason to fit, its
dead letter has no value and no received headers: they stay in the source topic until its retention ends.

A mark is a record without a value, on the topic and with the key of the entry. A reader that does not know marks
finds nothing to decode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from taskbridge.schemas.cloudevents import Header, headers_of, rfc3339, text_of
from taskbridge.schemas.events import Word

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from confluent_kafka import Message


_PREFIX = "dlq_"
"""Every added header begins with it, and no other does."""

REASON_HEADER = "dlq_reason"
DETAIL_HEADER = "dlq_detail"
TOPIC_HEADER, PARTITION_HEADER, OFFSET_HEADER = "dlq_topic", "dlq_partition", "dlq_offset"
"""The position of the record in its source topic."""
AT_HEADER = "dlq_at"
LEFT_HEADER = "dlq_left"
"""On a dead letter without its value: how many bytes stay in the source topic."""
REPLAY_HEADER = "dlq_replay_of"
"""On a record that was replayed: the id of its dead letter, so that it is replayed once."""
REPLAY_OF_HEADER, REPLAYED_AT_HEADER = "replay_of", "replayed_at"
"""The headers of a mark."""

_DETAIL_MAX = 1000


class DlqReason(Word):
    """Why a record is a dead letter: the value of ``dlq_reason`` and a metric's label. It never changes."""

    UNDECODABLE = "undecodable"
    OUTSIDE_CONTRACT = "outside-contract"
    MISPLACED_KEY = "misplaced-key"
    UNKNOWN_ACTION = "unknown-action"
    ANOTHER_CORP = "another-corp"
    ANOTHER_APP = "another-app"
    TOO_LARGE = "too-large"


def dead_letter_headers(
    reason: DlqReason, detail: str, *, topic: str, partition: int, offset: int, now_ms: int
) -> list[Header]:
    """The headers that are added to a dead letter: the reason, and the position of the record."""
    return [
        (REASON_HEADER, reason.encode()),
        (DETAIL_HEADER, detail[:_DETAIL_MAX].encode("utf-8", "replace")),
        (TOPIC_HEADER, topic.encode()),
        (PARTITION_HEADER, str(partition).encode()),
        (OFFSET_HEADER, str(offset).encode()),
        (AT_HEADER, rfc3339(now_ms).encode()),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One record of the dead-letter topic. What comes from a header is None if that is missing or not a number.

    A record that became a dead letter twice has the headers of both times. The later ones count.
    """

    id: str
    """``partition-offset`` in the dead-letter topic."""
    at_ms: int
    key: bytes | None
    value: bytes | None
    headers: list[Header]
    reason: str | None
    """A ``DlqReason``, or a reason of another version."""
    detail: str | None
    parked_at: str | None
    topic: str | None
    partition: int | None
    offset: int | None
    was_left: bool
    """Whether its value and headers were too large, and stay in the source topic until its retention ends."""

    @property
    def received_headers(self) -> list[Header]:
        return [each for each in self.headers if not each[0].startswith(_PREFIX)]


def dead_letter_of(message: Message) -> DeadLetter:
    """A record of the dead-letter topic, from any writer."""
    headers = headers_of(message)
    last = {name: text_of(value) for name, value in headers}
    return DeadLetter(
        id=f"{message.partition()}-{message.offset()}",
        at_ms=message.timestamp()[1],
        key=message.key(),
        value=message.value(),
        headers=headers,
        reason=last.get(REASON_HEADER),
        detail=last.get(DETAIL_HEADER),
        parked_at=last.get(AT_HEADER),
        topic=last.get(TOPIC_HEADER),
        partition=_number(last.get(PARTITION_HEADER)),
        offset=_number(last.get(OFFSET_HEADER)),
        was_left=LEFT_HEADER in last,
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


class Replay(NamedTuple):
    """Which entry was replayed, and when, as RFC 3339."""

    entry_id: str
    at: str


def replay_headers(entry_id: str, at_ms: int) -> list[Header]:
    return [(REPLAY_OF_HEADER, entry_id.encode()), (REPLAYED_AT_HEADER, rfc3339(at_ms).encode())]


def replay_of(message: Message) -> Replay | None:
    """The replay that a mark records; None for every other record.

    A dead letter that was received with these headers is no mark, because it has more headers.
    """
    if message.value() is None:
        match headers_of(message):
            case [(name, entry_id), (other, at)] if (name, other) == (REPLAY_OF_HEADER, REPLAYED_AT_HEADER):
                return Replay(text_of(entry_id) or "", text_of(at) or "")
            case _:
                pass
    return None


def without_replays(messages: Iterable[Message], replays: dict[str, str]) -> Iterator[Message]:
    """Yield the entries without the marks. ``replays`` gets, by entry id, the time of its first replay."""
    for message in messages:
        replay = replay_of(message)
        if replay is None:
            yield message
        else:
            replays.setdefault(replay.entry_id, replay.at)
