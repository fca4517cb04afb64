"""How items, instances and events read as JSON, by ``taskbridge.schemas.json_forms``. Pure.

Not written by the models in ``api.models``, which would be slow: they document the same shapes, and a test compares
the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskbridge.center.api.models import EventOut
from taskbridge.schemas.cloudevents import iso
from taskbridge.schemas.json_forms import fields_json, person_json
from taskbridge.schemas.views import Entry, began_at_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from taskbridge.schemas.events import Form, TaskEvent, TaskState

    Names = Mapping[str, str]
    """Names of a corp's users, as far as they are known."""

_NOT_SHOWN = ("began_at", "assignee_ids")
"""Fields of a state that are there for the views."""


def item_json(  # noqa: PLR0917 - positional, as it is called for every entry
    instance_id: str,
    task_id: str | None,
    view: str,
    entry: Entry,
    name: str | None,
    due_at: int | None = None,
    waits_for: Mapping[str, object] | None = None,
) -> dict[str, Any]:
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
        "finished_at": None if entry.finished_at is None else iso(entry.finished_at),
        "result": entry.result,
        "due_at": None if due_at is None else iso(due_at),
        "waits_for": waits_for,
    }


def state_json(state: TaskState, names: Names, form: Form | None) -> dict[str, Any]:
    return {
        **{name: value for name, value in fields_json(state).items() if name not in _NOT_SHOWN},
        "created_at": iso(began_at_of(state)),
        "originator": person_json(state.originator, state.originator and names.get(state.originator.user_id)),
        "tasks": [fields_json(task) for task in state.tasks],
        "copied": [fields_json(each) for each in state.copied],
        **form_json(form, state.form_data),
        "people": people_json(users_of_state(state), names),
    }


def event_json(event: TaskEvent, *, partition: int, offset: int) -> dict[str, Any]:
    shown = {name: value for name, value in fields_json(event).items() if name in EventOut.model_fields}
    return {**shown, "partition": partition, "offset": offset}


def people_json(users: Iterable[str], names: Names) -> list[dict[str, str]]:
    """Those of these users whose names are known, each once."""
    return [{"user_id": user_id, "name": names[user_id]} for user_id in dict.fromkeys(users) if user_id in names]


def form_json(form: Form | None, values: Mapping[str, object]) -> dict[str, Any]:
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
