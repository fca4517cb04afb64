"""The formats of other systems: what Camunda, Flowable and unified to-do lists post, as the fields of an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from taskbridge.edge.parsing.fields import first, web_address
from taskbridge.schemas.events import Action

if TYPE_CHECKING:
    from collections.abc import Mapping

    Read = tuple[Action | None, Mapping[str, Any]]


def definition_of(event: Mapping[str, Any]) -> str | None:
    """The key of the process definition; its id is the key, the version and a number."""
    return first(event, ("processDefinitionKey",)) or str(event.get("processDefinitionId") or "").partition(":")[0]


def assignees_of(event: Mapping[str, Any], candidates: str) -> list[Any]:
    """The assignee of the task, and those who may claim it."""
    others = event.get(candidates)
    return [event.get("assignee"), *(cast("list[Any]", others) if isinstance(others, list) else [others])]


def object_of(event: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object with this name, else an empty one."""
    found = event.get(name)
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}


_TASKS_OF_7 = {
    **dict.fromkeys(("create", "assignment", "update", "migrate"), Action.CREATED),
    "complete": Action.COMPLETED,
    "delete": Action.CANCELLED,
}
_COMPLETED = (None, "completed")
"""Reasons of completed tasks. Any other reason is a cancellation, which history also calls "complete"."""
_INSTANCES_OF_7: dict[str, Action] = dict.fromkeys(("start", "update", "migrate", "end"), Action.CREATED)
"""The end of an instance updates it."""
_MOMENTS_OF_7 = {
    "create": ("createTime", "startTime"),
    "complete": ("endTime",),
    "delete": ("endTime",),
    "start": ("startTime",),
    "end": ("endTime",),
}

_TASKS_OF_8 = {
    **dict.fromkeys(("CREATED", "ASSIGNED", "UPDATED"), Action.CREATED),
    "COMPLETED": Action.COMPLETED,
    "CANCELED": Action.CANCELLED,
}
_INSTANCES_OF_8: dict[str, Action] = dict.fromkeys(
    ("ELEMENT_ACTIVATED", "ELEMENT_COMPLETED", "ELEMENT_TERMINATED"), Action.CREATED
)


def read_camunda(body: Mapping[str, Any]) -> Read:
    """The action, None if the event is not about a task or an instance, and the fields of the event."""
    return _read_camunda_8(body) if "valueType" in body else _read_camunda_7(body)


def _read_camunda_7(body: Mapping[str, Any]) -> Read:
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
        return None, common  # an activity's own history: its task reports the same
    if task_id is not None:
        action = _TASKS_OF_7.get(kind)
        if action is Action.COMPLETED and body.get("deleteReason") not in _COMPLETED:
            action = Action.CANCELLED
        return action, common | {
            "task_id": task_id,
            "title": body.get("name"),
            "step_name": body.get("name"),
            "step_id": body.get("taskDefinitionKey"),
            "due_at": body.get("dueDate"),
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


def _read_camunda_8(body: Mapping[str, Any]) -> Read:
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
            "step_name": value.get("name"),
            "step_id": value.get("elementId"),
            "due_at": value.get("dueDate"),
            "recipient_ids": assignees_of(value, "candidateUsersList"),
            "actor_id": _completed_by(body, value) if action is Action.COMPLETED else None,
        }
    if kind == "PROCESS_INSTANCE" and value.get("bpmnElementType") == "PROCESS":
        ends = intent != "ELEMENT_ACTIVATED"
        return _INSTANCES_OF_8.get(intent), common | {"finished_at": body.get("timestamp") if ends else None}
    return None, common


def _completed_by(record: Mapping[str, Any], value: Mapping[str, Any]) -> Any:
    """The user whose command it was, if the engine exports that (since 8.9), else the assignee."""
    return first(object_of(record, "authorizations"), ("authorized_username",)) or value.get("assignee")


_TASKS = {
    "TASK_CREATED": Action.CREATED,
    "TASK_ASSIGNED": Action.CREATED,
    "TASK_COMPLETED": Action.COMPLETED,
    "ENTITY_DELETED": Action.CANCELLED,
}
"""The engine has no event for a cancelled task: its entity is deleted without having been completed."""
_STARTS = ("PROCESS_CREATED", "PROCESS_STARTED")
_ENDS = ("PROCESS_COMPLETED", "PROCESS_CANCELLED")
"""Prefixes of the types of an instance's end, which updates it."""


def read_flowable(body: Mapping[str, Any]) -> Read:
    """The action, None if the event is not about a task or an instance, and the fields of the event."""
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
            "step_name": data.get("name"),
            "step_id": data.get("taskDefinitionKey"),
            "due_at": data.get("dueDate"),
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


_STATES = {"0": Action.CREATED, "2": Action.COMPLETED, "4": Action.COMPLETED, "8": Action.COPIED}
_ENDED = "4"


def read_todo(body: Mapping[str, Any]) -> Read:
    """The action, None if the state is missing, and the fields of the event."""
    state, receiver = str(body.get("isremark")), body.get("receiver")
    at = first(body, ("receivets", "receivedatetime"))
    return _STATES.get(state), {
        "app_type": body.get("syscode"),
        "instance_id": body.get("flowid"),
        "task_id": f"{body.get('nodename')}/{receiver}" if receiver else None,
        "title": body.get("requestname"),
        "step_name": body.get("nodename"),
        "process_name": body.get("workflowname"),
        "originator": body.get("creator"),
        "recipient_ids": [receiver],
        "actor_id": receiver,
        "url": web_address((body.get("pcurl"), body.get("appurl"))),
        "instance_status": body.get("isremark"),
        "finished_at": at if state == _ENDED else None,
        "time": at,
    }
