"""How records read as JSON: the records' field names, views lower-case, times as ISO 8601 UTC with milliseconds. Pure.

Not written by the models in ``api.models``, which would be slow: they document the same shapes, and a test compares
the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from taskbridge.schemas.cloudevents import iso
from taskbridge.schemas.views import began_at_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from taskbridge.schemas.events import Form, Person, TaskEvent, TaskNotification, TaskState, View
    from taskbridge.schemas.views import Entry

    Names = Mapping[str, str]
    """Names of a corp's users, as far as they are known."""

to_json = msgspec.json.Encoder().encode

_NOT_SHOWN = ("began_at", "assignee_ids")
"""Fields of a state that are there for the views."""


def item_json(instance_id: str, task_id: str | None, view: str, entry: Entry, name: str | None) -> dict[str, Any]:
    """An entry of a view. ``name`` is the originator's, if the sender named them by an id only."""
    person = entry.originator
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
        "originator": person and {"user_id": person.user_id, "name": name if person.name is None else person.name},
        "status": entry.status,
        "created_at": created_at,
        "updated_at": created_at if entry.updated_at == entry.entered_at else iso(entry.updated_at),
        "outcome": entry.outcome,
        "finished_at": None if entry.finished_at is None else iso(entry.finished_at),
        "result": entry.result,
    }


def notification_json(notification: TaskNotification) -> dict[str, Any]:
    """A change of a view, as it is sent in a stream of events."""
    found = _fields(notification, "occurred_at", "entered_at", "updated_at", "finished_at")
    found["view"] = view_json(notification.view)
    found["originator"] = _person(notification.originator, {})
    return found


def state_json(state: TaskState, names: Names, form: Form | None) -> dict[str, Any]:
    """An instance."""
    fields = _fields(state, "updated_at", "finished_at")
    for name in _NOT_SHOWN:
        del fields[name]
    return {
        **fields,
        "created_at": iso(began_at_of(state)),
        "originator": _person(state.originator, names),
        "tasks": [_fields(task, "created_at", "decided_at") for task in state.tasks],
        "copied": [_fields(each, "at") for each in state.copied],
        **form_json(form, state.form_data),
        "people": people_json(users_of_state(state), names),
    }


def _fields(record: Struct, *moments: str) -> dict[str, Any]:
    """All of them; these moments as text, where they are known."""
    found = asdict(record)
    for name in moments:
        if found[name] is not None:
            found[name] = iso(found[name])
    return found


def event_json(event: TaskEvent, *, partition: int, offset: int) -> dict[str, Any]:
    """One event of an instance's history."""
    return {
        "event_id": event.event_id,
        "action": event.action.value,
        "occurred_at": iso(event.occurred_at),
        "received_at": iso(event.received_at),
        "task_id": event.task_id,
        "actor_id": event.actor_id,
        "recipient_ids": list(event.recipient_ids),
        "title": event.title,
        "app_type": event.app_type,
        "instance_status": event.instance_status,
        "approved_result": event.approved_result,
        "finished_at": None if event.finished_at is None else iso(event.finished_at),
        "partition": partition,
        "offset": offset,
    }


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
    """Everybody whom an instance names."""
    if state.originator is not None:
        yield state.originator.user_id
    for task in state.tasks:
        if task.actor_id is not None:
            yield task.actor_id
        yield from task.assignee_ids
    for copied in state.copied:
        yield copied.user_id


def view_json(view: View) -> str:
    return view.value.lower()


def _person(person: Person | None, names: Names) -> dict[str, Any] | None:
    """By the name that came with the event, where one did."""
    if person is None:
        return None
    return {
        "user_id": person.user_id,
        "name": names.get(person.user_id) if person.name is None else person.name,
    }
