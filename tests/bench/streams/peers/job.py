"""The reference job as the Python peers do it: the project's fold and notifications, and its compiled Avro.

An instance is stored as the Java peer stores it: four bytes of length, the state as it is produced to its topic, then
the marks in Avro. The state is encoded once for both. Of events only what the fold needs is read. Needs fastavro,
msgspec and this checkout, so that it runs in a peer's own environment.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import fastavro
from tests.bench.avro_writer import compile_writer

from taskbridge.schemas import events
from taskbridge.schemas.cloudevents import notification_headers
from taskbridge.schemas.compiled_avro import compile_reader
from taskbridge.schemas.events import Lifecycle, notification_key
from taskbridge.streams.fold.instance import DETAILS, FACTS, Instance, Marks, Stamp, TaskMarks, fold
from taskbridge.streams.fold.views import notifications

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskbridge.schemas.cloudevents import Header
    from taskbridge.schemas.events import TaskEvent, TaskNotification, TaskState

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
        # The fields of an event before its maps, as the Java peer and the service read them.
        self._read_event = compile_reader(_schema("TaskEvent"), vars(events), before="form_data")
        self._read_state = compile_reader(_schema("TaskState"), vars(events))
        self._write_state = compile_writer(_schema("TaskState"))
        self._write_notification = compile_writer(_schema("TaskNotification"))
        self._marks = fastavro.parse_schema(json.loads(MARKS_SCHEMA.read_text("utf-8")))
        self._state_frame = b"\x00" + state_schema_id.to_bytes(4, "big")
        self._notification_frame = b"\x00" + notification_schema_id.to_bytes(4, "big")

    def event(self, value: bytes) -> TaskEvent:
        return self._read_event(value, _FRAME)

    def apply(self, before: Instance | None, event: TaskEvent) -> tuple[Instance, list[TaskNotification]]:
        after = fold(before, event)
        return after, notifications(before, after, event)

    def state(self, instance: Instance) -> bytes:
        """The state as on its topic, while the instance is not deleted."""
        return self._state_frame + self._write_state(instance.state)

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
                    "decided_by": task.decision_id,
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
        state = self._read_state(stored, _LENGTH + _FRAME)
        body = io.BytesIO(stored)
        body.seek(_LENGTH + int.from_bytes(stored[:_LENGTH], "big"))
        marks = cast("dict[str, Any]", fastavro.schemaless_reader(body, self._marks, None))
        return Instance(state, _marks(marks, state))

    def notified(self, found: Iterable[TaskNotification]) -> list[Notified]:
        return [
            Notified(
                notification_key(each.corp_id, each.recipient_id),
                self._notification_frame + self._write_notification(each),
                notification_headers(each),
            )
            for each in found
        ]

    def step(self, stored: bytes | None, value: bytes) -> tuple[bytes, bytes | None, list[Notified]]:
        """One event on its own: the stored instance, its state for the topic (None: a tombstone), the notifications."""
        before = None if stored is None else self.unpack(stored)
        after, found = self.apply(before, self.event(value))
        notified = self.notified(found)
        if after is before and stored is not None:
            return (
                stored,
                self.published(after, stored[_LENGTH : _LENGTH + int.from_bytes(stored[:_LENGTH], "big")]),
                notified,
            )
        state = self.state(after)
        return self.pack(state, after), self.published(after, state), notified

    @staticmethod
    def published(instance: Instance, state: bytes) -> bytes | None:
        return None if instance.state.lifecycle is Lifecycle.DELETED else state


def _schema(record: str) -> Any:
    return without_logical_types(json.loads((_AVRO / f"{record}.avsc").read_text("utf-8")))


def _encoded(schema: Any, record: dict[str, Any], before: bytes) -> bytes:
    body = io.BytesIO()
    body.write(before)
    fastavro.schemaless_writer(body, schema, record)
    return body.getvalue()


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
