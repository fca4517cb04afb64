"""How items, instances and events read as JSON. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.center.api.form_files import files_of
from taskbridge.schemas.cloudevents import iso, optional_iso
from taskbridge.schemas.events import Lifecycle
from taskbridge.schemas.json_forms import person_json
from taskbridge.schemas.views import Entry, began_at_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from taskbridge.center.api import models
    from taskbridge.schemas.events import Form, TaskEntry, TaskEvent, TaskState

    Names = Mapping[str, str]
    """Names of a corp's users, as far as they are known."""


def item_json(  # noqa: PLR0917 - positional, as it is called for every entry
    instance_id: str,
    task_id: str | None,
    view: models.ViewName,
    entry: Entry,
    name: str | None,
    due_at: int | None = None,
    waits_for: models.WaitsForOut | None = None,
) -> models.ItemOut:
    """An entry of a view. ``name`` is the originator's, if the sender named them by an id only."""
    created_at = iso(entry.entered_at)
    return {
        "instance_id": instance_id,
        "task_id": task_id,
        "view": view,
        "title": entry.title,
        "url": entry.url,
        "app_type": entry.app_type,
        "source": entry.source,
        "process_name": entry.process_name,
        "originator": person_json(entry.originator, name),
        "status": entry.status,
        "created_at": created_at,
        "updated_at": created_at if entry.updated_at == entry.entered_at else iso(entry.updated_at),
        "step_name": entry.step_name,
        "decided_by": entry.decided_by,
        "outcome": entry.outcome,
        "finished_at": optional_iso(entry.finished_at),
        "result": entry.result,
        "due_at": optional_iso(due_at),
        "waits_for": waits_for,
    }


def state_json(state: TaskState, names: Names, form: Form | None) -> models.InstanceOut:
    return {
        "instance_id": state.instance_id,
        "corp_id": state.corp_id,
        "app_type": state.app_type,
        "source": state.source,
        "title": state.title,
        "url": state.url,
        "originator": person_json(state.originator, state.originator and names.get(state.originator.user_id)),
        "process_code": state.process_code,
        "process_name": state.process_name,
        "lifecycle": Lifecycle.ACTIVE,
        "tasks": [_task_json(each) for each in state.tasks],
        "copied": [{"user_id": each.user_id, "at": iso(each.at)} for each in state.copied],
        "created_at": iso(began_at_of(state)),
        "updated_at": iso(state.updated_at),
        "revision": state.revision,
        "form_uuid": state.form_uuid,
        "serial_no": state.serial_no,
        "instance_status": state.instance_status,
        "approved_result": state.approved_result,
        "finished_at": optional_iso(state.finished_at),
        "result": state.result,
        "form_data": state.form_data,
        **form_json(form, state.form_data),
        "people": people_json(users_of_state(state), names),
    }


def _task_json(task: TaskEntry) -> models.TaskOut:
    return {
        "task_id": task.task_id,
        "status": task.status,
        "assignee_ids": task.assignee_ids,
        "actor_id": task.actor_id,
        "url": task.url,
        "created_at": optional_iso(task.created_at),
        "decided_at": optional_iso(task.decided_at),
        "outcome": task.outcome,
        "remark": task.remark,
        "step_name": task.step_name,
        "step_id": task.step_id,
        "decided_by": task.decided_by,
        "due_at": optional_iso(task.due_at),
    }


def event_json(event: TaskEvent, *, partition: int, offset: int) -> models.EventOut:
    return {
        "event_id": event.event_id,
        "action": event.action,
        "occurred_at": iso(event.occurred_at),
        "received_at": iso(event.received_at),
        "task_id": event.task_id,
        "actor_id": event.actor_id,
        "recipient_ids": event.recipient_ids,
        "step_name": event.step_name,
        "decided_by": event.decided_by,
        "title": event.title,
        "app_type": event.app_type,
        "instance_status": event.instance_status,
        "approved_result": event.approved_result,
        "finished_at": optional_iso(event.finished_at),
        "partition": partition,
        "offset": offset,
    }


def people_json(users: Iterable[str], names: Names) -> list[models.NamedOut]:
    """Those of these users whose names are known, each once."""
    return [{"user_id": user_id, "name": names[user_id]} for user_id in dict.fromkeys(users) if user_id in names]


def files_json(values: Mapping[str, str | None]) -> dict[str, list[models.FileOut]]:
    """The files of these values by place, without their addresses."""
    return {
        place: [{"name": each.name, "size": each.size} for each in found] for place, found in files_of(values).items()
    }


def form_json(form: Form | None, values: Mapping[str, object]) -> models.FormOut:
    """The form's title, and the labels of its fields if it has ``values``."""
    if form is None:
        return {"form_title": None, "form_labels": {}}
    return {"form_title": form.title, "form_labels": dict(form.labels) if values else {}}


def users_of_events(events: Iterable[TaskEvent]) -> Iterable[str]:
    """Everybody whom these events name as actor or recipient."""
    for event in events:
        if event.actor_id is not None:
            yield event.actor_id
        yield from event.recipient_ids


def users_of_state(state: TaskState) -> Iterable[str]:
    if state.originator is not None:
        yield state.originator.user_id
    for task in state.tasks:
        if task.actor_id is not None:
            yield task.actor_id
        yield from task.assignee_ids
    for copied in state.copied:
        yield copied.user_id
