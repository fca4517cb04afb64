"""Which records a worker folds, and which it forwards, by the target partition of the key."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from hypothesis import given
from hypothesis import strategies as st

from taskbridge.streams.fold.core import split_by_partition, target_partition

PARTITIONS = 5


class Fetched(NamedTuple):
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = (("ce_id", b"1"),)


def _records() -> st.SearchStrategy[list[Fetched]]:
    keys = st.none() | st.sampled_from([b"", *(f"I-{number}".encode() for number in range(20))])
    return st.lists(st.builds(Fetched, keys, st.none() | st.binary(max_size=3)), max_size=20)


@given(records=_records(), partition=st.integers(0, PARTITIONS - 1))
def test_each_record_is_folded_here_or_forwarded_to_its_target_partition_in_order(
    records: list[Fetched], partition: int
) -> None:
    ours, away = split_by_partition(cast("Any", records), partition, PARTITIONS)
    assert partition not in away
    for home, sent_on in away.items():
        theirs = [each for each in records if each.key and target_partition(each.key, PARTITIONS) == home]
        assert sent_on == [(each.key, each.value, [*each.headers]) for each in theirs]
    assert ours == [each for each in records if not each.key or target_partition(each.key, PARTITIONS) == partition]
    assert len(ours) + sum(map(len, away.values())) == len(records)


def test_a_chunk_without_records_of_other_partitions_is_not_copied() -> None:
    key = next(key for key in map(str.encode, map(str, range(99))) if target_partition(key, PARTITIONS) == 3)
    records: Any = [Fetched(key, b"x"), Fetched(None, b"y")]
    ours, away = split_by_partition(records, 3, PARTITIONS)
    assert ours is records
    assert away == {}
