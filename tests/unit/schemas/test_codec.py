"""Every record survives the wire format, and what is not a record is told apart from a registry that is away."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import (
    Undecodable,
    framed,
    quarantined_callback_codec,
    task_event_codec,
    task_notification_codec,
    task_state_codec,
)
from schemas.events import (
    Action,
    CopiedEntry,
    Person,
    QuarantinedCallback,
    TaskEntry,
    TaskEvent,
    TaskNotification,
    TaskState,
)
from schemas.registry import RegistryUnavailable, schema_text
from schemas.testing import FakeRegistry

if TYPE_CHECKING:
    from schemas.codec import Codec

MILLIS = st.integers(-(10**12), 4 * 10**12)
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
PEOPLE = st.builds(Person, TEXT, st.none() | TEXT)
IDS = st.lists(TEXT, max_size=3).map(tuple)
TASKS = st.builds(
    TaskEntry,
    task_id=TEXT,
    assignee_ids=IDS,
    actor_id=st.none() | TEXT,
    url=st.none() | TEXT,
    created_at=st.none() | MILLIS,
    decided_at=st.none() | MILLIS,
)
EVENTS = st.builds(
    TaskEvent,
    recipient_ids=IDS,
    originator=st.none() | PEOPLE,
    created_at=st.none() | MILLIS,
    finished_at=st.none() | MILLIS,
    occurred_at=MILLIS,
    received_at=MILLIS,
    form_data=st.dictionaries(TEXT, st.none() | TEXT, max_size=3),
    raw_parameters=st.dictionaries(TEXT, TEXT, max_size=3),
)
STATES = st.builds(
    TaskState,
    originator=st.none() | PEOPLE,
    tasks=st.lists(TASKS, max_size=3).map(tuple),
    copied=st.lists(st.builds(CopiedEntry, TEXT, MILLIS), max_size=3).map(tuple),
    updated_at=MILLIS,
    revision=st.integers(0, 2**63 - 1),
)
NOTIFICATIONS = st.builds(TaskNotification, originator=st.none() | PEOPLE, occurred_at=MILLIS)
QUARANTINED = st.builds(
    QuarantinedCallback, received_at=MILLIS, headers=st.dictionaries(TEXT, TEXT, max_size=3), body=st.binary(max_size=9)
)

REGISTRY = FakeRegistry()


@given(event=EVENTS)
def test_a_body_that_is_framed_later_is_what_is_encoded_at_once(event: TaskEvent) -> None:
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
    ],
    ids=lambda each: type(each).__name__,
)
@given(data=st.data())
def test_a_record_comes_back_as_it_was(codec: Codec[Any], records: st.SearchStrategy[Any], data: st.DataObject) -> None:
    record = data.draw(records)
    assert codec.decode(codec.encode(record)) == record


@pytest.mark.parametrize("record", [TaskEvent, TaskState, TaskNotification, QuarantinedCallback])
def test_dataclass_and_schema_have_the_same_fields_in_the_same_order(record: type[Any]) -> None:
    schema = json.loads(schema_text(record.__name__))
    assert [each["name"] for each in schema["fields"]] == [each.name for each in fields(record)]
    assert schema["namespace"] == "taskbridge.v1"


@pytest.mark.parametrize("record", ["TaskEvent", "TaskState", "TaskNotification", "QuarantinedCallback"])
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
def test_what_is_not_a_record_is_undecodable(value: bytes | None) -> None:
    with pytest.raises(Undecodable):
        task_event_codec(REGISTRY).decode(value)


@given(junk=st.binary(max_size=60))
def test_no_bytes_raise_anything_but_undecodable(junk: bytes) -> None:
    codec = task_event_codec(REGISTRY)
    with suppress(Undecodable):
        codec.decode(b"\x00\x00\x00\x00\x01" + junk)


def test_a_registry_that_is_away_is_not_taken_for_a_bad_record() -> None:
    registry = FakeRegistry(away=True)
    with pytest.raises(RegistryUnavailable):
        task_event_codec(registry).decode(b"\x00\x00\x00\x00\x01" + b"x" * 20)
    with pytest.raises(RegistryUnavailable):
        task_event_codec(registry).encode(minimal_event())
