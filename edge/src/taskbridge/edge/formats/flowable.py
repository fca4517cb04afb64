"""Flowable's task and process events: its async history, or its engine's events with the task as its REST API has it.

``{"type": …, "data": {…}}``, one in a request. Types are those of ``HistoryJsonConstants`` and of
``FlowableEngineEventType``; a listener may add ``candidateUsers``, which no event has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskbridge.edge.formats.engines import assignees_of, definition_of, object_of
from taskbridge.edge.parsing.fields import first
from taskbridge.schemas.events import Action

if TYPE_CHECKING:
    from collections.abc import Mapping

_TASKS = {
    "task-created": Action.CREATED,
    "task-assigned": Action.CREATED,
    "task-assignee-changed": Action.CREATED,
    "task-completed": Action.COMPLETED,
    "task-ended": Action.COMPLETED,
}
_INSTANCES = {
    "process-instance-start": Action.CREATED,
    "process-started": Action.CREATED,
    "process-instance-end": Action.CREATED,
    "process-completed": Action.CREATED,
    "process-instance-deleted": Action.DELETED,
}
"""The end of an instance is one more thing that is told of it; what is deleted leaves every list."""
_BEGUN = ("task-created", "process-instance-start", "process-started")


def told(body: Mapping[str, Any]) -> tuple[Action | None, Mapping[str, Any]]:
    """What happened, None where it is nothing of a task or an instance, and the fields of the event."""
    kind = str(body.get("type")).lower().replace("_", "-")
    data = object_of(body, "data")
    about_task = kind in _TASKS
    action = _TASKS.get(kind) or _INSTANCES.get(kind)
    if kind == "task-ended" and data.get("deleteReason"):
        action = Action.CANCELLED
    definition = definition_of(data)
    written = ("__timeStamp", *(("createTime", "startTime") if kind in _BEGUN else ("endTime",)))
    common = {
        "app_type": definition,
        "process_code": definition,
        "process_name": data.get("processDefinitionName"),
        "time": first(data, written),
    }
    if about_task:
        return action, common | {
            "instance_id": data.get("processInstanceId"),
            "task_id": first(data, ("taskId", "id")),
            "title": data.get("name"),
            "recipient_ids": assignees_of(data, "candidateUsers"),
            "actor_id": data.get("assignee"),
        }
    return action, common | {
        "instance_id": first(data, ("processInstanceId", "id")),
        "title": data.get("name"),
        "originator": data.get("startUserId"),
        "serial_no": data.get("businessKey"),
        "created_at": data.get("startTime"),
        "finished_at": data.get("endTime"),
    }
