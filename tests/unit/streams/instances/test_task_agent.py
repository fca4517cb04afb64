"""A chunk is folded on top of the pending writes of earlier chunks."""

from __future__ import annotations

from taskbridge.streams.instances.task_agent import PendingWrites


def nothing_stored(_partition: int, keys: list[bytes]) -> list[bytes | None]:
    return [None for _ in keys]


def test_pending_writes_are_read_before_the_store() -> None:
    pending = PendingWrites()
    pending.add(0, {b"a": b"1"}, generation=1)
    read = pending.reader(0, lambda _, keys: [key + b" stored" for key in keys], generation=1)
    assert read([b"b", b"a", b"c"]) == [b"b stored", b"1", b"c stored"]


def test_other_partitions_and_generations_do_not_see_it() -> None:
    pending = PendingWrites()
    pending.add(0, {b"a": b"1"}, generation=1)
    assert pending.reader(1, nothing_stored, generation=1)([b"a"]) == [None]
    assert pending.reader(0, nothing_stored, generation=2)([b"a"]) == [None]


def test_a_later_chunks_writes_remain_when_the_first_is_written() -> None:
    pending = PendingWrites()
    first, second = {b"a": b"1", b"b": b"1"}, {b"a": b"2"}
    pending.add(0, first, generation=1)
    pending.add(0, second, generation=1)
    pending.remove(0, first, generation=1)
    read = pending.reader(0, nothing_stored, generation=1)
    assert read([b"a", b"b"]) == [b"2", None]
    pending.remove(0, second, generation=1)
    pending.remove(0, {}, generation=1)
    assert pending.reader(0, nothing_stored, generation=1)([b"a"]) == [None]
