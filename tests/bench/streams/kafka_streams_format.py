"""How the job on Kafka Streams reads schemas, and how it stores an instance."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import fastavro

from taskbridge.streams.fold.instance import DETAILS, FACTS

if TYPE_CHECKING:
    from taskbridge.streams.fold.instance import Instance

MARKS_SCHEMA = Path(__file__).parent / "kafka_streams" / "src" / "main" / "avro" / "Marks.avsc"
_MARKS = fastavro.parse_schema(json.loads(MARKS_SCHEMA.read_text("utf-8")))
_LENGTH = 4


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


def pack(state: bytes, instance: Instance) -> bytes:
    """Four bytes of length, the ``state`` as on its topic, then the marks in Avro."""
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
    body = io.BytesIO()
    body.write(len(state).to_bytes(_LENGTH, "big") + state)
    fastavro.schemaless_writer(body, _MARKS, found)
    return body.getvalue()
