"""Flowable's events, as a listener in the engine reports them: ``{"type": …, "data": {…}}``, one in a request.

``type`` is a ``FlowableEngineEventType``; ``data`` has the task or process instance with its own fields, and what the
engine's events do not have: ``timestamp``, a task's ``candidateUsers``, and who completed it, ``completedBy``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskbridge.edge.formats.engines import assignees_of, definition_of, object_of
from taskbridge.edge.parsing.fields import first
from taskbridge.schemas.events import Action

if TYPE_CHECKING:
    from collections.abc import Mapping

_TASKS = {
    "TASK_CREATED": Action.CREATED,
    "TASK_ASSIGNED": Action.CREATED,
    "TASK_COMPLETED": Action.COMPLETED,
    "ENTITY_DELETED": Action.CANCELLED,
}
"""The engine has no event of a task's own for one that is cancelled: its entity goes without having been completed."""
_STARTS = ("PROCESS_CREATED", "PROCESS_STARTED")
_ENDS = ("PROCESS_COMPLETED", "PROCESS_CANCELLED")
"""How the types begin of which the end of an instance has several. It is one more thing that is told of it."""


def told(body: Mapping[str, Any]) -> tuple[Action | None, Mapping[str, Any]]:
    """What happened, None where it is nothing of a task or an instance, and the fields of the event."""
    kind = str(body.get("type"))
    data = object_of(body, "data")
    definition = definition_of(data)
    time = data.get("timestamp")
    common = {
        "app_type": definition,
        "process_code": definition,
        "process_name": data.get("processDefinitionName"),
        "title": data.get("name"),
        "time": time,
    }
    if "taskDefinitionKey" in data:
        return _TASKS.get(kind), common | {
            "instance_id": data.get("processInstanceId"),
            "task_id": data.get("id"),
            "recipient_ids": assignees_of(data, "candidateUsers"),
            "actor_id": first(data, ("completedBy", "assignee")) if kind == "TASK_COMPLETED" else None,
        }
    ends = kind.startswith(_ENDS)
    return Action.CREATED if ends or kind in _STARTS else None, common | {
        "instance_id": first(data, ("processInstanceId", "id")),
        "originator": data.get("startUserId"),
        "serial_no": data.get("businessKey"),
        "created_at": data.get("startTime"),
        "finished_at": time if ends else None,
    }
