"""The native core writes record batches byte for byte as aiokafka does, and partitions keys as all clients do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.wheels import WHERE_THE_CORE_IS
from taskbridge.streams.engine import transaction_requests
from taskbridge.streams.engine.transaction_requests import CODECS, Identity, PythonBatchBuilder, RecordBatches
from taskbridge.streams.records import EncodedRecords, PythonRecords

if TYPE_CHECKING:
    from taskbridge.streams.records import RecordWithHeaders

pytestmark = WHERE_THE_CORE_IS

OF = Identity("worker-0", 1 << 40, 7)
VALUES = st.none() | st.binary(max_size=20)
HEADERS = st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=3)
RECORDS: st.SearchStrategy[list[RecordWithHeaders]] = st.lists(st.tuples(VALUES, VALUES, HEADERS), max_size=8)
ADDS = st.lists(
    st.tuples(st.sampled_from(["states", "notifications"]), RECORDS, st.integers(-1, 2), st.integers(-3, 1 << 40)),
    max_size=4,
)


@given(RECORDS)
def test_encoded_records_have_their_keys_values_and_headers(records: list[RecordWithHeaders]) -> None:
    encoded, python = EncodedRecords(records), PythonRecords(records)
    assert list(encoded) == records
    assert [encoded[at] for at in range(-len(records), 0)] == records
    assert (len(encoded), encoded.value_bytes) == (len(python), python.value_bytes)
    for beyond in (len(records), -len(records) - 1):
        with pytest.raises(IndexError):
            encoded[beyond]


@given(st.lists(st.binary(max_size=20), max_size=8), st.integers(1, 200))
def test_a_key_has_the_partition_of_other_clients(keys: list[bytes], partitions: int) -> None:
    records: list[RecordWithHeaders] = [(key, b"%d" % at, []) for at, key in enumerate(keys)]
    split = [(partition, list(theirs)) for partition, theirs in EncodedRecords(records).split(partitions)]
    assert split == PythonRecords(records).split(partitions)


def batches_of(kinds: tuple[Any, Any], codec: str, limit: int, adds: list[Any]) -> list[Any]:
    """What goes out, by partition, and where the last record of each add was found to be."""
    with pytest.MonkeyPatch.context() as patched:
        for name, kind in zip(("EncodedRecords", "_BatchBuilder"), kinds, strict=True):
            patched.setattr(transaction_requests, name, kind)
        patched.setattr(transaction_requests, "_BYTES", limit)
        patched.setattr("time.time", lambda: 0.0)  # gzip writes it
        batches = RecordBatches(OF, CODECS[codec])
        found: list[Any] = []
        for topic, records, partition, now_ms in adds:
            patched.setattr("time.time_ns", lambda now_ms=now_ms: now_ms * 1_000_000)
            # What has no key goes anywhere.
            keyed = [(key or b"", value, headers) for key, value, headers in records]
            sent = batches.add(topic, keyed if partition < 0 else records, partition=partition, partitions=3)
            drained = batches.drain() if topic == "notifications" else {}
            for at, theirs in drained.items():
                found.append((at, [(each.sequence, each.count, bytes(each.data)) for each in theirs]))
                for each in theirs:
                    batches.written(at, each, 100)
            found.append(sent.last_offset)
        return found


@given(codec=st.sampled_from(sorted(CODECS)), limit=st.sampled_from([0, 100, 300, 1_000_000]), adds=ADDS)
def test_batches_are_aiokafkas_byte_for_byte(codec: str, limit: int, adds: list[Any]) -> None:
    native = batches_of(
        (transaction_requests.EncodedRecords, cast("Any", transaction_requests)._BatchBuilder), codec, limit, adds
    )
    assert native == batches_of((PythonRecords, PythonBatchBuilder), codec, limit, adds)


@pytest.mark.parametrize("limit", [77, 78, 79])
def test_a_full_batch_is_aiokafkas_byte_for_byte(limit: int) -> None:
    adds: list[Any] = [("notifications", [(None, None, []), (None, None, [("a", b"")])], 0, 0)]
    native = batches_of(
        (transaction_requests.EncodedRecords, cast("Any", transaction_requests)._BatchBuilder), "none", limit, adds
    )
    assert native == batches_of((PythonRecords, PythonBatchBuilder), "none", limit, adds)
