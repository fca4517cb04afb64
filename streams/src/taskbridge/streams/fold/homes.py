"""Where a record belongs: a key has one partition, and whatever comes on another one is sent on to it.

Producers hash a key with the number of partitions that they know. Where partitions were added, they go on with the old
number for minutes, and what they wrote before is still there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from confluent_kafka import murmur2

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskbridge.streams.records import Chunk, RecordWithHeaders

_partition = cast("Callable[[bytes, int], int]", murmur2)


def home_of(key: bytes, partitions: int) -> int:
    """The partition on which every producer of ours, and the Java client, put this key, of so many."""
    return _partition(key, partitions)


def at_home(records: Chunk, partition: int, partitions: int) -> tuple[Chunk, dict[int, list[RecordWithHeaders]]]:
    """Those of this partition; and the others, as they are to be sent on, by the partition of their key.

    A record without a key stays where it is.
    """
    homes = [_partition(each.key, partitions) if each.key else partition for each in records]
    away: dict[int, list[RecordWithHeaders]] = {}
    if homes.count(partition) == len(homes):
        return records, away
    for record, home in zip(records, homes, strict=True):
        if home != partition:
            away.setdefault(home, []).append((record.key, record.value, [*record.headers]))
    return [each for each, home in zip(records, homes, strict=True) if home == partition], away
