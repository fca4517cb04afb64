"""A record that waits for Kafka is read in the form of each version, and its size is never understated."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from taskbridge.edge.kafka.record import Record, Row, RowDamaged, record_of, row_of

RECORD = Record(topic="events", key=b"I-1", headers=(("ce_id", b"\xe5x"),), schema="abc", body=b"secret")
ROW = (7, 1_700_000_000_000_000_000, "events", b"I-1", b'[["ce_id","\xc3\xa5x"]]', "abc", b"secret", 1_358_669_467)
EARLIER = (7, 1_700_000_000_000_000_000, "events", b"I-1", b'[["ce_id", "\\u00e5x"]]', "abc", b"secret", 2_459_397_672)
"""As earlier versions left it on disks."""


def test_a_row_is_written_in_this_form() -> None:
    assert row_of(RECORD, position=7, created_at=1_700_000_000_000_000_000) == ROW


@pytest.mark.parametrize("row", [ROW, EARLIER])
def test_a_row_of_any_version_is_read(row: Row) -> None:
    found = record_of(row)
    assert (found.position, found.created_at) == (7, 1_700_000_000_000_000_000)
    assert (found.topic, found.key, found.headers, found.schema, found.body) == (
        RECORD.topic,
        RECORD.key,
        RECORD.headers,
        RECORD.schema,
        RECORD.body,
    )


@pytest.mark.parametrize("column", range(8))
def test_a_row_that_is_not_what_was_written_is_damaged(column: int) -> None:
    other = (8, 1, "event", b"I-2", b"[]", "abx", b"half", 1)
    with pytest.raises(RowDamaged):
        record_of((*ROW[:column], other[column], *ROW[column + 1 :]))


def test_the_size_counts_every_byte_of_key_headers_and_body() -> None:
    assert replace(RECORD, key=b"I-1" + bytes(9)).size == RECORD.size + 9
    assert replace(RECORD, body=bytes(1000)).size == RECORD.size + 1000 - len(RECORD.body)
    header = ("name", bytes(100))
    assert replace(RECORD, headers=(*RECORD.headers, header)).size >= RECORD.size + 104 + 16


def test_it_shows_nothing_of_what_people_wrote() -> None:
    assert repr(RECORD) == "Record(events, b'I-1', 6 bytes)"
