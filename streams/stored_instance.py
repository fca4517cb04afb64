"""How an instance stands in the store and its changelog: the published state as it was produced, then the fold's marks.

Byte 0 is the format's version, bytes 1-4 the length of the state (big endian); then the ``TaskState`` in the Confluent
wire format, byte for byte the value of its record on ``taskbridge.task-states.v1``; then the marks in Avro.
"""

from __future__ import annotations

import io
import struct
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import fastavro

from schemas.errors import OperatorError
from streams.lifecycle import Instance, Marks, Stamp, TaskMarks

if TYPE_CHECKING:
    from schemas.codec import Codec
    from schemas.events import TaskState

_VERSION = 1
_HEAD = struct.Struct(">BI")

_STAMP = {
    "type": "record",
    "name": "Stamp",
    "fields": [{"name": "at", "type": "long"}, {"name": "event_id", "type": "string"}],
}
_TASK_MARKS = {
    "type": "record",
    "name": "TaskMarks",
    "fields": [
        {"name": "url", "type": ["null", "Stamp"]},
        {"name": "decided_by", "type": ["null", "string"]},
        {"name": "actor_ids", "type": {"type": "array", "items": "string"}},
    ],
}
_MARKS: Any = fastavro.parse_schema(
    {
        "type": "record",
        "name": "Marks",
        "fields": [
            {"name": "facts", "type": {"type": "map", "values": _STAMP}},
            {"name": "tasks", "type": {"type": "map", "values": _TASK_MARKS}},
            {"name": "originator_ids", "type": {"type": "array", "items": "string"}},
            {"name": "assignee_ids", "type": {"type": "array", "items": "string"}},
            {"name": "deleted_at", "type": ["null", "long"]},
        ],
    }
)


class StoreUnreadable(OperatorError):
    """The local store or its changelog holds bytes that this version cannot read: rebuild it from the events."""


def pack(state_value: bytes, marks: Marks) -> bytes:
    """The stored form of an instance whose state was already encoded for its topic."""
    out = io.BytesIO()
    out.write(_HEAD.pack(_VERSION, len(state_value)))
    out.write(state_value)
    fastavro.schemaless_writer(out, _MARKS, _plain(marks))
    return out.getvalue()


def unpack(stored: bytes, codec: Codec[TaskState]) -> Instance:
    """The instance that ``pack`` stored.

    Raises:
        StoreUnreadable: of another version, or damaged. It is never taken for an unknown instance.
    """
    if stored[:1] != bytes([_VERSION]):
        raise StoreUnreadable(f"a stored instance is not of format {_VERSION}, which is the one this version reads")
    try:
        _, length = _HEAD.unpack_from(stored)
        end = _HEAD.size + length
        state = codec.decode(stored[_HEAD.size : end])
        marks = cast("dict[str, Any]", fastavro.schemaless_reader(io.BytesIO(stored[end:]), _MARKS, None))
        return Instance(state, _marks(marks))
    except OperatorError:
        raise
    except Exception as error:
        # Damaged bytes surface as anything.
        raise StoreUnreadable(f"a stored instance cannot be read: {type(error).__name__}: {error}") from error


def _plain(marks: Marks) -> dict[str, Any]:
    return {
        "facts": {name: stamp._asdict() for name, stamp in marks.facts.items()},
        "tasks": {
            task_id: asdict(task) | {"url": None if task.url is None else task.url._asdict()}
            for task_id, task in marks.tasks.items()
        },
        "originator_ids": list(marks.originator_ids),
        "assignee_ids": list(marks.assignee_ids),
        "deleted_at": marks.deleted_at,
    }


def _marks(value: dict[str, Any]) -> Marks:
    return Marks(
        facts={name: Stamp(**stamp) for name, stamp in value["facts"].items()},
        tasks={
            task_id: TaskMarks(
                url=None if task["url"] is None else Stamp(**task["url"]),
                decided_by=task["decided_by"],
                actor_ids=tuple(task["actor_ids"]),
            )
            for task_id, task in value["tasks"].items()
        },
        originator_ids=tuple(value["originator_ids"]),
        assignee_ids=tuple(value["assignee_ids"]),
        deleted_at=value["deleted_at"],
    )
