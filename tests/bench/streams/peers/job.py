"""The reference job as the Python peers do it: the project's fold and notifications, and Avro straight by fastavro.

An instance is stored as the Java peer stores it: four bytes of length, the state as it is produced to its topic, then
the marks in Avro. The state is encoded once for both. Events are decoded whole: to have fastavro skip the form and the
raw parameters takes longer than to read them. Needs fastavro and this checkout, so that it runs in a peer's own
environment.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import fastavro

from taskbridge.schemas.cloudevents import notification_headers
from taskbridge.schemas.events import (
    Action,
    CopiedEntry,
    Lifecycle,
    Person,
    Status,
    TaskEntry,
    TaskEvent,
    TaskState,
    notification_key,
)
from taskbridge.streams.fold.instance import DETAILS, FACTS, Instance, Marks, Stamp, TaskMarks
from taskbridge.streams.fold.lifecycle import fold
from taskbridge.streams.fold.views import notifications

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskbridge.schemas.cloudevents import Header
    from taskbridge.schemas.events import TaskNotification

_HERE = Path(__file__).parent
_AVRO = _HERE.parents[3] / "schemas" / "src" / "taskbridge" / "schemas" / "avro"
MARKS_SCHEMA = _HERE.parent / "kafka_streams" / "src" / "main" / "avro" / "Marks.avsc"

_FRAME = 5
_LENGTH = 4


class Notified(NamedTuple):
    """A notification as a Kafka record."""

    key: bytes
    value: bytes
    headers: list[Header]


def without_logical_types(schema: Any) -> Any:
    """The same schema as to bytes, with timestamps as plain numbers: that is what the fold counts in."""
    if isinstance(schema, list):
        return [without_logical_types(each) for each in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    found = {
        key: without_logical_types(value)
        for key, value in cast("dict[str, Any]", schema).items()
        if key != "logicalType"
    }
    return found["type"] if set(found) == {"type"} and isinstance(found["type"], str) else found


class Job:
    """Turns events into instances, and both into bytes."""

    def __init__(self, *, state_schema_id: int, notification_schema_id: int) -> None:
        self._events = fastavro.parse_schema(_schema("TaskEvent"))
        self._states = fastavro.parse_schema(_schema("TaskState"))
        self._notifications = fastavro.parse_schema(_schema("TaskNotification"))
        self._marks = fastavro.parse_schema(json.loads(MARKS_SCHEMA.read_text("utf-8")))
        self._state_frame = b"\x00" + state_schema_id.to_bytes(4, "big")
        self._notification_frame = b"\x00" + notification_schema_id.to_bytes(4, "big")

    def event(self, value: bytes) -> TaskEvent:
        body = io.BytesIO(value)
        body.seek(_FRAME)
        found = cast("dict[str, Any]", fastavro.schemaless_reader(body, self._events, None))
        found["action"] = Action(found["action"])
        found["recipient_ids"] = tuple(found["recipient_ids"])
        if found["originator"] is not None:
            found["originator"] = Person(**found["originator"])
        return TaskEvent(**found)

    def apply(self, before: Instance | None, event: TaskEvent) -> tuple[Instance, list[TaskNotification]]:
        after = fold(before, event)
        return after, notifications(before, after, event)

    def state(self, instance: Instance) -> bytes:
        """The state as it stands on its topic, while the instance is not deleted."""
        state = instance.state
        found = {
            "instance_id": state.instance_id,
            "corp_id": state.corp_id,
            "app_type": state.app_type,
            "title": state.title,
            "url": state.url,
            "originator": _person(state.originator),
            "process_code": state.process_code,
            "process_name": state.process_name,
            "lifecycle": state.lifecycle,
            "tasks": [
                {
                    "task_id": task.task_id,
                    "status": task.status,
                    "assignee_ids": task.assignee_ids,
                    "actor_id": task.actor_id,
                    "url": task.url,
                    "created_at": task.created_at,
                    "decided_at": task.decided_at,
                    "outcome": task.outcome,
                    "remark": task.remark,
                }
                for task in state.tasks
            ],
            "copied": [{"user_id": each.user_id, "at": each.at} for each in state.copied],
            "updated_at": state.updated_at,
            "revision": state.revision,
            "source": state.source,
            "form_uuid": state.form_uuid,
            "serial_no": state.serial_no,
            "instance_status": state.instance_status,
            "approved_result": state.approved_result,
            "finished_at": state.finished_at,
            "result": state.result,
            "form_data": state.form_data,
        }
        return _encoded(self._states, found, self._state_frame)

    def pack(self, state: bytes, instance: Instance) -> bytes:
        marks = instance.marks
        found = {
            "facts": {
                name: {"at": each.at, "event_id": each.event_id}
                for name, each in zip((*FACTS, *DETAILS), (*marks.facts, *marks.details), strict=True)
                if each is not None
            },
            "tasks": {
                entry.task_id: {
                    "url": None if task.url is None else {"at": task.url.at, "event_id": task.url.event_id},
                    "decided_by": task.decided_by,
                    "actor_ids": task.actor_ids,
                }
                for entry, task in zip(instance.state.tasks, marks.tasks, strict=True)
            },
            "originator_ids": marks.originator_ids,
            "assignee_ids": marks.assignee_ids,
            "deleted_at": marks.deleted_at,
            "began_at": marks.began_at,
            "first_received_at": marks.first_received_at,
        }
        return _encoded(self._marks, found, len(state).to_bytes(_LENGTH, "big") + state)

    def unpack(self, stored: bytes) -> Instance:
        body = io.BytesIO(stored)
        body.seek(_LENGTH + _FRAME)
        state = cast("dict[str, Any]", fastavro.schemaless_reader(body, self._states, None))
        marks = cast("dict[str, Any]", fastavro.schemaless_reader(body, self._marks, None))
        found = _state(state)
        return Instance(found, _marks(marks, found))

    def told(self, found: Iterable[TaskNotification]) -> list[Notified]:
        return [
            Notified(
                notification_key(each.corp_id, each.recipient_id), self._notification(each), notification_headers(each)
            )
            for each in found
        ]

    def step(self, stored: bytes | None, value: bytes) -> tuple[bytes, bytes | None, list[Notified]]:
        """One event on its own: the stored instance, its state for the topic (None: a tombstone), the notifications."""
        before = None if stored is None else self.unpack(stored)
        after, found = self.apply(before, self.event(value))
        told = self.told(found)
        if after is before and stored is not None:
            return (
                stored,
                self.published(after, stored[_LENGTH : _LENGTH + int.from_bytes(stored[:_LENGTH], "big")]),
                told,
            )
        state = self.state(after)
        return self.pack(state, after), self.published(after, state), told

    @staticmethod
    def published(instance: Instance, state: bytes) -> bytes | None:
        return None if instance.state.lifecycle is Lifecycle.DELETED else state

    def _notification(self, each: TaskNotification) -> bytes:
        found = {
            "notification_id": each.notification_id,
            "corp_id": each.corp_id,
            "recipient_id": each.recipient_id,
            "view": each.view,
            "change": each.change,
            "instance_id": each.instance_id,
            "task_id": each.task_id,
            "title": each.title,
            "url": each.url,
            "app_type": each.app_type,
            "originator": _person(each.originator),
            "actor_id": each.actor_id,
            "status": each.status,
            "occurred_at": each.occurred_at,
            "event_id": each.event_id,
            "process_name": each.process_name,
            "entered_at": each.entered_at,
            "updated_at": each.updated_at,
            "source": each.source,
            "outcome": each.outcome,
            "remark": each.remark,
            "finished_at": each.finished_at,
            "result": each.result,
            "recovered_by": each.recovered_by,
        }
        return _encoded(self._notifications, found, self._notification_frame)


def _schema(record: str) -> Any:
    return without_logical_types(json.loads((_AVRO / f"{record}.avsc").read_text("utf-8")))


def _encoded(schema: Any, record: dict[str, Any], before: bytes) -> bytes:
    body = io.BytesIO()
    body.write(before)
    fastavro.schemaless_writer(body, schema, record)
    return body.getvalue()


def _person(person: Person | None) -> dict[str, str | None] | None:
    return None if person is None else {"user_id": person.user_id, "name": person.name}


def _state(found: dict[str, Any]) -> TaskState:
    if found["originator"] is not None:
        found["originator"] = Person(**found["originator"])
    found["lifecycle"] = Lifecycle(found["lifecycle"])
    for task in found["tasks"]:
        task["status"] = Status(task["status"])
        task["assignee_ids"] = tuple(task["assignee_ids"])
    found["tasks"] = tuple([TaskEntry(**task) for task in found["tasks"]])
    found["copied"] = tuple([CopiedEntry(**each) for each in found["copied"]])
    return TaskState(**found)


def _marks(found: dict[str, Any], state: TaskState) -> Marks:
    return Marks(
        facts=tuple([_stamp(found["facts"].get(name)) for name in FACTS]),
        tasks=tuple([_task_marks(found["tasks"][task.task_id]) for task in state.tasks]),
        originator_ids=tuple(found["originator_ids"]),
        assignee_ids=tuple(found["assignee_ids"]),
        deleted_at=found["deleted_at"],
        began_at=found["began_at"],
        first_received_at=found["first_received_at"],
        details=tuple([_stamp(found["facts"].get(name)) for name in DETAILS]),
    )


def _task_marks(found: dict[str, Any]) -> TaskMarks:
    return TaskMarks(_stamp(found["url"]), found["decided_by"], tuple(found["actor_ids"]))


def _stamp(found: dict[str, Any] | None) -> Stamp | None:
    return None if found is None else Stamp(found["at"], found["event_id"])
