"""Records of one poll as messages for an agent of Faust's: each partition's are a chunk, a list of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from faust.types import ConsumerMessage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from faust.types import TP

_BYTES = 4 << 20
"""Of values in a chunk. What comes of it waits in the producer, and some chunks more wait for the agent."""


class ChunkMessage(ConsumerMessage):
    """Its value is the list of records."""

    era: int
    """Of the consumer, when they were fetched: after a seek they come again."""
    more_follow: bool = False
    """Other chunks came by the same poll, and are behind this one."""
    others: Sequence[ChunkMessage] = ()
    """The topic's other chunks of the poll. Faust knows nothing of them: it has one message of each topic in a poll."""


def chunks(tp: TP, records: list[Any], generation: int, era: int) -> Iterator[ChunkMessage]:
    """The records in their order, in chunks of at most ``_BYTES``, or of one record where that alone is more."""
    begin, size = 0, 0
    for at, record in enumerate(records):
        size += record.serialized_value_size
        if size > _BYTES and at > begin:
            yield _message(tp, records[begin:at], generation, era)
            begin, size = at, record.serialized_value_size
    yield _message(tp, records[begin:], generation, era)


def _message(tp: TP, records: list[Any], generation: int, era: int) -> ChunkMessage:
    last = records[-1]
    message = ChunkMessage(
        topic=tp.topic,
        partition=tp.partition,
        offset=last.offset,
        timestamp=last.timestamp / 1000.0,
        timestamp_type=last.timestamp_type,
        headers=[],
        key=None,
        value=cast("Any", records),
        checksum=None,
        tp=tp,
        # Without it Faust takes the message for one of an earlier assignment and drops it.
        generation_id=generation,
    )
    message.era = era
    return message
