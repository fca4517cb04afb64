"""Every record survives the wire format. Bytes that are no record differ from a registry that does not answer."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import fastavro
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.records import EVENTS, FORM_DATA, FORMS, NOTIFICATIONS, PERSON_RECORDS, QUARANTINED, STATES
from taskbridge.schemas import topics
from taskbridge.schemas.codec import (
    Undecodable,
    form_codec,
    form_data_codec,
    framed,
    person_codec,
    quarantined_callback_codec,
    task_event_codec,
    task_notification_codec,
    task_state_codec,
)
from taskbridge.schemas.events import (
    Action,
    Form,
    FormData,
    Person,
    PersonRecord,
    QuarantinedCallback,
    TaskEvent,
    TaskNotification,
    TaskState,
)
from taskbridge.schemas.registry import RegistryUnavailable, schema_text
from taskbridge.schemas.testing import FakeRegistry

if TYPE_CHECKING:
    from taskbridge.schemas.codec import Codec

REGISTRY = FakeRegistry()


@given(event=EVENTS)
def test_a_body_with_a_later_frame_equals_the_encoded_record(event: TaskEvent) -> None:
    codec = task_event_codec(FakeRegistry(away=True))
    schema_id = REGISTRY.known_id(codec.schema)
    assert schema_id is not None
    assert framed(schema_id, codec.encode_body(event)) == task_event_codec(REGISTRY).encode(event)


@pytest.mark.parametrize(
    ("codec", "records"),
    [
        (task_event_codec(REGISTRY), EVENTS),
        (task_state_codec(REGISTRY), STATES),
        (task_notification_codec(REGISTRY), NOTIFICATIONS),
        (quarantined_callback_codec(REGISTRY), QUARANTINED),
        (person_codec(REGISTRY), PERSON_RECORDS),
        (form_codec(REGISTRY), FORMS),
        (form_data_codec(REGISTRY), FORM_DATA),
    ],
    ids=lambda each: type(each).__name__,
)
@given(data=st.data())
def test_a_record_survives_the_codec(codec: Codec[Any], records: st.SearchStrategy[Any], data: st.DataObject) -> None:
    record = data.draw(records)
    assert codec.decode(codec.encode(record)) == record


@given(event=EVENTS)
def test_an_event_of_another_schema_version_is_read_with_that_version(event: TaskEvent) -> None:
    newer = json.loads(schema_text("TaskEvent"))
    newer["fields"].insert(3, {"name": "colour", "type": "string", "default": "", "doc": "Of a later version."})
    registry = FakeRegistry()
    registry.others[77] = json.dumps(newer)
    body = io.BytesIO()
    values = {name: _as_avro(getattr(event, name)) for name in event.__struct_fields__}
    fastavro.schemaless_writer(body, fastavro.parse_schema(newer), {**values, "colour": "red"})
    assert task_event_codec(registry).decode(framed(77, body.getvalue())) == event


def _as_avro(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(cast("tuple[Any, ...]", value))
    return msgspec.to_builtins(value)


@pytest.mark.parametrize(
    "record", [TaskEvent, TaskState, TaskNotification, QuarantinedCallback, PersonRecord, Form, FormData]
)
def test_struct_and_schema_have_the_same_fields(record: type[Any]) -> None:
    schema = json.loads(schema_text(record.__name__.removesuffix("Record")))
    assert sorted(each["name"] for each in schema["fields"]) == sorted(record.__struct_fields__)
    assert schema["namespace"] == "taskbridge.v1"


@pytest.mark.parametrize("record", [each.record for each in topics.ALL if each.record is not None])
def test_every_field_of_every_schema_is_documented(record: str) -> None:
    def undocumented(node: Any) -> list[str]:
        if isinstance(node, list):
            return [name for child in cast("list[Any]", node) for name in undocumented(child)]
        if not isinstance(node, dict):
            return []
        here = cast("dict[str, Any]", node)
        own = [str(each["name"]) for each in here.get("fields", []) if not each.get("doc")]
        return own + undocumented(list(here.values()))

    assert undocumented(json.loads(schema_text(record))) == []


@pytest.mark.parametrize("record", ["TaskEvent", "TaskState", "TaskNotification"])
def test_a_person_record_begins_with_the_fields_of_a_person(record: str) -> None:
    """Both Avro types have one name, so a type made from either schema must read the bytes of both."""
    within: list[Any] = []

    def look(found: dict[str, Any]) -> dict[str, Any]:
        if found.get("name") == Person.__name__:
            within.append(found)
        return found

    json.loads(schema_text(record), object_hook=look)
    fields = [(each["name"], each["type"]) for each in json.loads(schema_text("Person"))["fields"]]
    assert [[(each["name"], each["type"]) for each in found["fields"]] for found in within] == [fields[:2]]
    assert all("default" in each for each in json.loads(schema_text("Person"))["fields"][1:])


def minimal_event() -> TaskEvent:
    return TaskEvent(
        event_id="e",
        source="yida",
        action=Action.CREATED,
        corp_id="c",
        app_type="a",
        instance_id="i",
        occurred_at=0,
        received_at=0,
    )


def test_the_wire_format_is_a_zero_byte_the_schema_id_and_the_body() -> None:
    value = task_event_codec(REGISTRY).encode(minimal_event())
    assert value[:5] == b"\x00\x00\x00\x00\x01"
    assert value[5:].startswith(b"\x02e\x08yida")


@pytest.mark.parametrize(
    "value", [None, b"", b"junk", b"\x00\x00\x00\x00\x01", b"\x07" * 40, b"\x00\x00\x00\x00\x63abc"]
)
def test_bytes_of_no_record_are_undecodable(value: bytes | None) -> None:
    with pytest.raises(Undecodable):
        task_event_codec(REGISTRY).decode(value)


@given(junk=st.binary(max_size=60))
def test_random_bytes_raise_undecodable_only(junk: bytes) -> None:
    codec = task_event_codec(REGISTRY)
    with suppress(Undecodable):
        codec.decode(b"\x00\x00\x00\x00\x01" + junk)


def test_a_registry_without_an_answer_is_no_bad_record() -> None:
    registry = FakeRegistry(away=True)
    with pytest.raises(RegistryUnavailable):
        task_event_codec(registry).decode(b"\x00\x00\x00\x00\x01" + b"x" * 20)
    with pytest.raises(RegistryUnavailable):
        task_event_codec(registry).encode(minimal_event())
