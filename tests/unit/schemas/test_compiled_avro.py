"""Compiled functions read what fastavro writes, and reject damaged bytes."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import fastavro
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.records import EVENTS, FORM_DATA, NOTIFICATIONS, QUARANTINED, STATES
from taskbridge.schemas import events
from taskbridge.schemas.compiled_avro import compile_reader
from taskbridge.schemas.registry import schema_text

if TYPE_CHECKING:
    from taskbridge.schemas.events import TaskEvent

ALL = pytest.mark.parametrize(
    ("name", "records"),
    [
        ("TaskEvent", EVENTS),
        ("TaskState", STATES),
        ("TaskNotification", NOTIFICATIONS),
        ("QuarantinedCallback", QUARANTINED),
        ("FormData", FORM_DATA),
    ],
)


def schema_of(name: str) -> Any:
    return json.loads(schema_text(name))


def by_fastavro(name: str, record: Any) -> bytes:
    body = io.BytesIO()
    plain = msgspec.to_builtins(record, builtin_types=[bytes])
    fastavro.schemaless_writer(body, fastavro.parse_schema(schema_of(name)), plain)
    return body.getvalue()


@ALL
@given(data=st.data())
def test_bytes_of_fastavro_are_read_at_any_position(
    name: str, records: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    record, before = data.draw(records), data.draw(st.binary(max_size=3))
    read = compile_reader(schema_of(name), vars(events))
    assert read(before + by_fastavro(name, record), len(before)) == record


@ALL
@given(data=st.data())
def test_a_truncated_record_is_rejected(name: str, records: st.SearchStrategy[Any], data: st.DataObject) -> None:
    whole = by_fastavro(name, data.draw(records))
    with pytest.raises((IndexError, ValueError)):
        compile_reader(schema_of(name), vars(events))(whole[: data.draw(st.integers(0, len(whole) - 1))], 0)


@given(event=EVENTS)
def test_fields_from_before_on_are_not_read(event: TaskEvent) -> None:
    read = compile_reader(schema_of("TaskEvent"), vars(events), before="form_data")
    assert read(by_fastavro("TaskEvent", event), 0) == msgspec.structs.replace(event, form_data={}, raw_parameters={})


LONGS: dict[str, Any] = {
    "type": "record",
    "name": "CopiedEntry",
    "fields": [{"name": "user_id", "type": "string"}, {"name": "at", "type": "long"}],
}


@given(at=st.integers(-(1 << 63), (1 << 63) - 1))
def test_every_number_of_64_bits_is_read(at: int) -> None:
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(LONGS), {"user_id": "ann", "at": at})
    assert compile_reader(LONGS, vars(events))(body.getvalue(), 0) == events.CopiedEntry("ann", at)


def test_an_endless_number_is_rejected_at_once() -> None:
    with pytest.raises(ValueError, match="64 bits"):
        compile_reader(LONGS, vars(events))(b"\0" + b"\xff" * (4 << 20), 0)


def test_blocks_of_arrays_and_maps_are_read_with_and_without_size() -> None:
    # Other libraries split them. After a negative count comes the size of the block in bytes.
    schema = {
        "type": "record",
        "name": "TaskEvent",
        "fields": [
            {"name": "recipient_ids", "type": {"type": "array", "items": "string"}},
            {"name": "raw_parameters", "type": {"type": "map", "values": "string"}},
        ],
    }
    body = b"\x02\x02a" + b"\x03\x08\x02b\x02c" + b"\0" + b"\x01\x08\x02k\x02v" + b"\x02\x02l\x02w" + b"\0"

    class Collected(msgspec.Struct):
        recipient_ids: tuple[str, ...]
        raw_parameters: dict[str, str]

    read = compile_reader(schema, {"TaskEvent": Collected})
    assert read(body, 0) == Collected(("a", "b", "c"), {"k": "v", "l": "w"})
