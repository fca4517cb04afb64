"""Dead letters: why there are any, and what their headers say. Key, value and other headers are as they were received.

A record that is so large that its reason does not fit beside it is parked without its value and headers; they stay
where they were received, for as long as records of that topic are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from taskbridge.schemas.cloudevents import rfc3339
from taskbridge.schemas.events import Word
from taskbridge.schemas.headers import WithHeaders, headers_of, text_of

if TYPE_CHECKING:
    from taskbridge.schemas.cloudevents import Header

_PREFIX = "dlq_"
"""Of all headers that are added; nothing else begins with it."""

REASON_HEADER = "dlq_reason"
DETAIL_HEADER = "dlq_detail"
TOPIC_HEADER, PARTITION_HEADER, OFFSET_HEADER = "dlq_topic", "dlq_partition", "dlq_offset"
"""From where the record was taken."""
AT_HEADER = "dlq_at"
LEFT_HEADER = "dlq_left"
"""On a dead letter without its value: how many bytes were left where they were received."""
REPLAY_HEADER = "dlq_replay_of"
"""On a record that was put back: the id of its dead letter, so that it is put back once."""

_DETAIL_MAX = 1000


class DlqReason(Word):
    """Why a record is parked: the value of ``dlq_reason`` and a metric's label, the same for ever."""

    UNDECODABLE = "undecodable"
    OUTSIDE_CONTRACT = "outside-contract"
    MISPLACED_KEY = "misplaced-key"
    UNKNOWN_ACTION = "unknown-action"
    ANOTHER_CORP = "another-corp"
    ANOTHER_APP = "another-app"
    TOO_LARGE = "too-large"
    UNKNOWN_VIEW = "unknown-view"
    MISPLACED_NOTIFICATION = "misplaced-notification"


def dead_letter_headers(
    reason: DlqReason, detail: str, *, topic: str, partition: int, offset: int, now_ms: int
) -> list[Header]:
    """What is added to a record that is parked: why, and from where it was taken."""
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
    """One record of the dead-letter topic; what it says of itself is None where a header is missing, or is no number.

    A record that is parked again has the headers of both times: the later ones count.
    """

    id: str
    """Its place there, as ``partition-offset``."""
    at_ms: int
    key: bytes | None
    value: bytes | None
    headers: list[Header]

    @property
    def reason(self) -> str | None:
        """A ``DlqReason``, or what a newer version parks for."""
        return self._said(REASON_HEADER)

    @property
    def detail(self) -> str | None:
        return self._said(DETAIL_HEADER)

    @property
    def parked_at(self) -> str | None:
        return self._said(AT_HEADER)

    @property
    def topic(self) -> str | None:
        return self._said(TOPIC_HEADER)

    @property
    def partition(self) -> int | None:
        return _number(self._said(PARTITION_HEADER))

    @property
    def offset(self) -> int | None:
        return _number(self._said(OFFSET_HEADER))

    @property
    def was_left(self) -> bool:
        """Too large to be parked: its value and headers are still where they were received, if they are kept there."""
        return self._said(LEFT_HEADER) is not None

    @property
    def received_headers(self) -> list[Header]:
        return [each for each in self.headers if not each[0].startswith(_PREFIX)]

    def _said(self, name: str) -> str | None:
        return next((text_of(value) for key, value in reversed(self.headers) if key == name), None)


class Message(WithHeaders, Protocol):
    """A message of confluent_kafka, for who does not import that."""

    def partition(self) -> int | None: ...

    def offset(self) -> int | None: ...

    def timestamp(self) -> tuple[int, int]: ...

    def key(self) -> bytes | None: ...

    def value(self) -> bytes | None: ...


def dead_letter_of(message: Message) -> DeadLetter:
    """A record of the dead-letter topic, whoever wrote it."""
    return DeadLetter(
        id=f"{message.partition()}-{message.offset()}",
        at_ms=message.timestamp()[1],
        key=message.key(),
        value=message.value(),
        headers=headers_of(message),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
