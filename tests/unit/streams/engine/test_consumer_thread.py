"""The native core reads fetches as aiokafka does, also damaged, compressed and aborted batches."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, cast

import pytest
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException, KafkaError
from aiokafka.record.default_records import (
    DefaultRecordBatchBuilder,
    _DefaultRecordBatchBuilderPy,  # pyright: ignore[reportPrivateUsage]
)
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from support.wheels import WHERE_THE_CORE_IS
from taskbridge.streams.engine import consumer_thread
from taskbridge.streams.engine.consumer_thread import FetchedPartition, FetchedRecords, install_native_reader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Given = list[tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]]

pytestmark = WHERE_THE_CORE_IS

AT = TP("events", 3)
RECORDS_OF = cast("Any", FetchedRecords)
"""Abstract, as aiokafka types it."""
PRODUCER = 7
CHECKED = True
PARTS = (
    "topic",
    "partition",
    "offset",
    "timestamp",
    "timestamp_type",
    "key",
    "value",
    "checksum",
    "serialized_key_size",
    "serialized_value_size",
    "headers",
)
VALUES = st.none() | st.binary(max_size=20) | st.sampled_from([bytes(64), bytes(200)])
HEADERS = st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=3)
MOMENTS = st.integers(0, 1 << 41)
RECORDS = st.lists(st.tuples(MOMENTS, VALUES, VALUES, HEADERS), min_size=1, max_size=5)


class Foreign(str):
    """A header's name as a program in C writes it; the text is what is read of it."""

    __slots__ = ("written",)
    written: bytes

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:  # noqa: ARG002
        return self.written

    @classmethod
    def of(cls, written: bytes) -> Foreign:
        made = cls(written.decode("utf-8", "replace"))
        made.written = written
        return made


def batch(
    records: Given, *, codec: int = 0, is_transactional: bool = False, log_time: bool = False, made_by: Any = None
) -> bytearray:
    builder: Any = (made_by or DefaultRecordBatchBuilder)(2, codec, is_transactional, PRODUCER, 0, 0, 1 << 20)
    for at, (moment, key, value, headers) in enumerate(records):
        builder.append(at, moment, key, value, headers)
    built = bytearray(builder.build())
    if log_time:
        built[22] |= 8
        _sum(built)
    return built


def _sum(built: bytearray) -> None:
    built[17:21] = calc_crc32c(bytes(built[21:])).to_bytes(4, "big")


def control(kind: int) -> bytearray:
    """A transaction's end: 0 is an abort."""
    built = batch([(0, b"\0\0" + kind.to_bytes(2, "big"), b"\0" * 6, [])], is_transactional=True)
    built[22] |= 0x20
    _sum(built)
    return built


def fetched(batches: Sequence[bytearray]) -> bytes:
    """With offsets that grow, as a broker gives them."""
    offset = 100
    for each in batches:
        each[0:8] = offset.to_bytes(8, "big")
        offset += 10
    return b"".join(batches)


def read(
    kinds: tuple[Callable[..., Any], Callable[..., Any]], data: bytes, *, start: int, aborted: Any, isolation: int
) -> Any:
    records, partition = kinds
    found = partition(AT, records(data), aborted, start, None, None, CHECKED, isolation)
    read: list[Any] = []
    try:
        read += [tuple(getattr(each, name) for name in PARTS) for each in found]
    except (KafkaError, UnicodeDecodeError) as error:
        read.append(type(error))
    return read, found.next_fetch_offset


BATCHES = st.lists(
    st.one_of(
        st.builds(
            batch, RECORDS, codec=st.sampled_from([0, 0, 0, 1]), is_transactional=st.booleans(), log_time=st.booleans()
        ),
        st.builds(control, st.integers(0, 1)),
    ),
    max_size=4,
)


@given(
    batches=BATCHES,
    start=st.integers(95, 130),
    aborted=st.lists(st.tuples(st.just(PRODUCER), st.integers(95, 130)), max_size=2),
    isolation=st.sampled_from([READ_COMMITTED, READ_UNCOMMITTED]),
    cut=st.integers(0, 20),
)
def test_the_same_records_with_all_their_parts(
    batches: list[bytearray], start: int, aborted: Any, isolation: int, cut: int
) -> None:
    data = fetched(batches)
    data = data[: len(data) - cut]
    native, own = (
        read(kinds, data, start=start, aborted=aborted, isolation=isolation)
        for kinds in ((FetchedRecords, FetchedPartition), (MemoryRecords, PartitionRecords))
    )
    assert native == own


@given(records=RECORDS, at=st.integers(16, 1 << 16), put=st.integers(0, 255), summed=st.sampled_from(["not", "again"]))
def test_damaged_batches_are_refused_as_by_aiokafka(records: Given, at: int, put: int, summed: str) -> None:
    built = batch(records)
    # Behind the count: a wrong one of many is no matter of this.
    built[61 + at % (len(built) - 61)] = put
    if summed == "again":
        _sum(built)
    data = fetched([built])
    native, own = (
        read(kinds, data, start=100, aborted=None, isolation=READ_COMMITTED)
        for kinds in ((FetchedRecords, FetchedPartition), (MemoryRecords, PartitionRecords))
    )
    if own[0][-1:] == [UnicodeDecodeError]:  # the name of a header: see below
        assert native[0][: len(own[0]) - 1] == own[0][:-1]
        assert UnicodeDecodeError not in native[0]
    else:
        assert native == own


NAMES = st.one_of(
    st.text(max_size=5), st.binary(max_size=5).map(Foreign.of), st.just(Foreign.of(b"a\xe5\xbc\xff\xf0\x9f"))
)
FOREIGN = st.lists(
    st.tuples(MOMENTS, VALUES, VALUES, st.lists(st.tuples(NAMES, st.none() | st.binary(max_size=5)), max_size=3)),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("core", ["native", "python"])
@given(records=FOREIGN, codec=st.integers(0, 4), start=st.integers(100, 105))
def test_header_names_that_are_not_utf_8_have_replacement_characters(
    core: str, records: Given, codec: int, start: int
) -> None:
    data = fetched([batch(records, codec=each, made_by=_DefaultRecordBatchBuilderPy) for each in (codec, 0)])
    with pytest.MonkeyPatch.context() as patch:
        if core == "python":
            patch.setattr(consumer_thread, "native", None)
        found, behind = read(
            (FetchedRecords, FetchedPartition), data, start=start, aborted=None, isolation=READ_COMMITTED
        )
    written = [
        (offset + at, moment, key, value, tuple(headers))
        for offset in (100, 110)
        for at, (moment, key, value, headers) in enumerate(records)
        if offset + at >= start
    ]
    assert [(each[2], each[3], each[5], each[6], each[10]) for each in found] == written
    assert behind == 110 + len(records)


def test_a_length_beyond_the_batch_behind_a_name_that_is_not_utf_8_is_refused() -> None:
    headers: Any = [(Foreign.of(b"\xff"), None), ("name", None)]
    built = batch([(0, None, None, headers)], made_by=_DefaultRecordBatchBuilderPy)
    at = built.index(b"\x08name")
    built[at : at + 1] = b"\xfe\xff\xff\xff\x0f"
    built[8:12] = (len(built) - 12).to_bytes(4, "big")
    _sum(built)
    found, _ = read(
        (FetchedRecords, FetchedPartition), fetched([built]), start=100, aborted=None, isolation=READ_COMMITTED
    )
    assert found == [CorruptRecordException]


def test_a_fetched_batch_has_all_that_a_fetcher_reads() -> None:
    for data in (b"", fetched([batch([(1, b"k", b"v", [])])])):
        ours, own = RECORDS_OF(data), MemoryRecords(data)
        assert (ours.size_in_bytes(), ours.has_next()) == (own.size_in_bytes(), own.has_next())
    source = inspect.getsource(fetcher)
    assert set(re.findall(r"\brecords\.(\w+)\(", source)) - {"append", "items"} <= set(dir(FetchedRecords))


def test_a_new_consumer_installs_the_native_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "MemoryRecords", MemoryRecords)
    monkeypatch.setattr(fetcher, "PartitionRecords", PartitionRecords)
    install_native_reader()
    assert (fetcher.MemoryRecords, fetcher.PartitionRecords) == (FetchedRecords, FetchedPartition)
