"""Camunda's task and process events: of 7 the history event or the task listener's task, of 8 the exporter's record.

7: ``eventType`` or ``eventName`` beside the task's own fields, one event in a request, and what the engine's events do
not have: ``timestamp``, a task's ``candidateUsers``, and who completed it, ``completedBy``. 8: ``valueType``,
``intent`` and ``value``, as the exporters write them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskbridge.edge.formats.engines import assignees_of, definition_of, object_of
from taskbridge.edge.parsing.fields import first
from taskbridge.schemas.events import Action

if TYPE_CHECKING:
    from collections.abc import Mapping

    Told = tuple[Action | None, Mapping[str, Any]]

_TASKS_OF_7 = {
    "create": Action.CREATED,
    "assignment": Action.CREATED,
    "update": Action.CREATED,
    "migrate": Action.CREATED,
    "complete": Action.COMPLETED,
    "delete": Action.CANCELLED,
}
_COMPLETED = (None, "completed")
"""Why a task is no more; any other reason cancelled it, and history calls that "complete" all the same."""
_INSTANCES_OF_7 = {
    "start": Action.CREATED,
    "update": Action.CREATED,
    "migrate": Action.CREATED,
    "end": Action.CREATED,
}
"""The end of an instance is one more thing that is told of it."""
_MOMENTS_OF_7 = {
    "create": ("createTime", "startTime"),
    "complete": ("endTime",),
    "delete": ("endTime",),
    "start": ("startTime",),
    "end": ("endTime",),
}

_TASKS_OF_8 = {
    "CREATED": Action.CREATED,
    "ASSIGNED": Action.CREATED,
    "UPDATED": Action.CREATED,
    "COMPLETED": Action.COMPLETED,
    "CANCELED": Action.CANCELLED,
}
_INSTANCES_OF_8 = {
    "ELEMENT_ACTIVATED": Action.CREATED,
    "ELEMENT_COMPLETED": Action.CREATED,
    "ELEMENT_TERMINATED": Action.CREATED,
}


def told(body: Mapping[str, Any]) -> Told:
    """What happened, None where it is nothing of a task or an instance, and the fields of the event."""
    return _told_by_8(body) if "valueType" in body else _told_by_7(body)


def _told_by_7(body: Mapping[str, Any]) -> Told:
    kind = str(first(body, ("eventType", "eventName")))
    definition = definition_of(body)
    task_id = first(body, ("taskId", *(("id",) if "taskDefinitionKey" in body else ())))
    common = {
        "app_type": definition,
        "process_code": definition,
        "process_name": body.get("processDefinitionName"),
        "instance_id": body.get("processInstanceId"),
        "time": first(body, ("timestamp", *_MOMENTS_OF_7.get(kind, ()))),
    }
    if "activityId" in body:
        return None, common  # an activity's own history: its task tells the same
    if task_id is not None:
        action = _TASKS_OF_7.get(kind)
        if action is Action.COMPLETED and body.get("deleteReason") not in _COMPLETED:
            action = Action.CANCELLED
        return action, common | {
            "task_id": task_id,
            "title": body.get("name"),
            "recipient_ids": assignees_of(body, "candidateUsers"),
            "actor_id": first(body, ("completedBy", "assignee")) if action is Action.COMPLETED else None,
        }
    return _INSTANCES_OF_7.get(kind), common | {
        "originator": body.get("startUserId"),
        "serial_no": body.get("businessKey"),
        "instance_status": body.get("state"),
        "created_at": body.get("startTime"),
        "finished_at": body.get("endTime"),
    }


def _told_by_8(body: Mapping[str, Any]) -> Told:
    kind, intent = body.get("valueType"), str(body.get("intent"))
    value = object_of(body, "value")
    common = {
        "app_type": value.get("bpmnProcessId"),
        "process_code": value.get("bpmnProcessId"),
        "instance_id": value.get("processInstanceKey"),
        "time": body.get("timestamp"),
    }
    if kind == "USER_TASK":
        action = _TASKS_OF_8.get(intent)
        return action, common | {
            "task_id": value.get("userTaskKey"),
            "title": first(value, ("name", "elementId")),
            "recipient_ids": assignees_of(value, "candidateUsersList"),
            "actor_id": _completed_by(body, value) if action is Action.COMPLETED else None,
        }
    if kind == "PROCESS_INSTANCE" and value.get("bpmnElementType") == "PROCESS":
        ends = intent != "ELEMENT_ACTIVATED"
        return _INSTANCES_OF_8.get(intent), common | {"finished_at": body.get("timestamp") if ends else None}
    return None, common


def _completed_by(record: Mapping[str, Any], value: Mapping[str, Any]) -> Any:
    """The user whose command it was, where the engine exports that (since 8.9); who it was assigned to, otherwise."""
    return first(object_of(record, "authorizations"), ("authorized_username",)) or value.get("assignee")
