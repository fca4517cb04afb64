"""How records read as JSON: the records' field names, views lower-case, times as ISO 8601 UTC with milliseconds. Pure.

Not written by the models in ``api.models``, which would be slow: they document the same shapes, and a test compares
the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import asdict

from taskbridge.center.api.models import EventOut
from taskbridge.schemas.cloudevents import iso
from taskbridge.schemas.views import began_at_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from msgspec import Struct

    from taskbridge.schemas.events import Form, Person, TaskEvent, TaskNotification, TaskState
    from taskbridge.schemas.views import Entry

    Names = Mapping[str, str]
    """Names of a corp's users, as far as they are known."""

to_json = msgspec.json.Encoder().encode

_NOT_SHOWN = ("began_at", "assignee_ids")
"""Fields of a state that are there for the views."""
_TIMES = {"at", "created_at", "decided_at", "entered_at", "finished_at", "occurred_at", "received_at", "updated_at"}


def item_json(instance_id: str, task_id: str | None, view: str, entry: Entry, name: str | None) -> dict[str, Any]:
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
        "originator": _person(entry.originator, name),
        "status": entry.status,
        "created_at": created_at,
        "updated_at": created_at if entry.updated_at == entry.entered_at else iso(entry.updated_at),
        "outcome": entry.outcome,
        "finished_at": None if entry.finished_at is None else iso(entry.finished_at),
        "result": entry.result,
    }


def notification_json(notification: TaskNotification) -> dict[str, Any]:
    """A change of a view, as it is sent in a stream of events."""
    return _fields(notification) | {
        "view": notification.view.lower(),
        "originator": _person(notification.originator, None),
    }


def state_json(state: TaskState, names: Names, form: Form | None) -> dict[str, Any]:
    """An instance."""
    return {
        **{name: value for name, value in _fields(state).items() if name not in _NOT_SHOWN},
        "created_at": iso(began_at_of(state)),
        "originator": _person(state.originator, state.originator and names.get(state.originator.user_id)),
        "tasks": [_fields(task) for task in state.tasks],
        "copied": [_fields(each) for each in state.copied],
        **form_json(form, state.form_data),
        "people": people_json(users_of_state(state), names),
    }


def event_json(event: TaskEvent, *, partition: int, offset: int) -> dict[str, Any]:
    """One event of an instance's history."""
    shown = {name: value for name, value in _fields(event).items() if name in EventOut.model_fields}
    return {**shown, "partition": partition, "offset": offset}


def _fields(record: Struct) -> dict[str, Any]:
    """All of them; times as text, where they are known."""
    return {
        name: iso(value) if name in _TIMES and value is not None else value for name, value in asdict(record).items()
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


def _person(person: Person | None, known: str | None) -> dict[str, Any] | None:
    """By the name that came with the event, where one did."""
    return person and {"user_id": person.user_id, "name": known if person.name is None else person.name}
