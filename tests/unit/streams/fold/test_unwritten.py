"""A chunk is folded upon what the chunks before it will write."""

from __future__ import annotations

from streams.fold.unwritten import Unwritten


def nothing_stored(_partition: int, _key: bytes) -> bytes | None:
    return None


def test_what_a_chunk_under_way_will_write_is_read_before_the_store() -> None:
    unwritten = Unwritten()
    unwritten.add(0, {b"a": b"1"}, generation=1)
    read = unwritten.reader(0, lambda _, key: key + b" stored", generation=1)
    assert (read(b"a"), read(b"b")) == (b"1", b"b stored")


def test_other_partitions_and_generations_do_not_see_it() -> None:
    unwritten = Unwritten()
    unwritten.add(0, {b"a": b"1"}, generation=1)
    assert unwritten.reader(1, nothing_stored, generation=1)(b"a") is None
    assert unwritten.reader(0, nothing_stored, generation=2)(b"a") is None


def test_what_a_later_chunk_will_write_stays_when_the_first_is_written() -> None:
    unwritten = Unwritten()
    first, second = {b"a": b"1", b"b": b"1"}, {b"a": b"2"}
    unwritten.add(0, first, generation=1)
    unwritten.add(0, second, generation=1)
    unwritten.remove(0, first, generation=1)
    read = unwritten.reader(0, nothing_stored, generation=1)
    assert (read(b"a"), read(b"b")) == (b"2", None)
    unwritten.remove(0, second, generation=1)
    unwritten.remove(0, {}, generation=1)
    assert unwritten.reader(0, nothing_stored, generation=1)(b"a") is None
