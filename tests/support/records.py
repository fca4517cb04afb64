"""Records for tests: events with defaults, and any records that the schemas allow for property tests."""

from __future__ import annotations

import uuid
from typing import Any

from hypothesis import strategies as st

from taskbridge.schemas.events import (
    SOURCE_YIDA,
    Action,
    CopiedEntry,
    Form,
    FormData,
    Person,
    PersonRecord,
    QuarantinedCallback,
    TaskEntry,
    TaskEvent,
    TaskNotification,
    TaskState,
)


def event(action: Action, **fields: Any) -> TaskEvent:
    """An event of the one instance; what a test does not care about has a default."""
    given: dict[str, Any] = {
        "event_id": str(uuid.uuid4()),
        "source": SOURCE_YIDA,
        "corp_id": "corp",
        "app_type": "APP",
        "instance_id": "I-1",
        "occurred_at": 1_000,
        "received_at": 1_000,
        **fields,
    }
    return TaskEvent(action=action, **given)


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
    began_at=st.none() | MILLIS,
    assignee_ids=IDS,
)
NOTIFICATIONS = st.builds(TaskNotification, originator=st.none() | PEOPLE, occurred_at=MILLIS)
QUARANTINED = st.builds(
    QuarantinedCallback, received_at=MILLIS, headers=st.dictionaries(TEXT, TEXT, max_size=3), body=st.binary(max_size=9)
)
FORM_DATA = st.builds(
    FormData,
    read_at=MILLIS,
    modified_at=st.none() | MILLIS,
    data=st.dictionaries(TEXT, st.none() | TEXT, max_size=3),
)
FORMS = st.builds(Form, TEXT, st.none() | TEXT, st.dictionaries(TEXT, TEXT, max_size=3))
PERSON_RECORDS = st.builds(
    PersonRecord, TEXT, st.none() | TEXT, st.none() | TEXT, st.none() | TEXT, st.dictionaries(TEXT, TEXT, max_size=3)
)
