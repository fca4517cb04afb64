"""How records read as JSON: the records' field names, views lower-case, times as ISO 8601 UTC with milliseconds. Pure.

Written by hand as plain dictionaries, for pages of two hundred lines: the models in ``streams.query.models`` document
the same shapes, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from taskbridge.schemas.cloudevents import iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from taskbridge.schemas.events import Form, Person, TaskEvent, TaskNotification, TaskState, View
    from taskbridge.streams.inbox.layout import Item

to_json = msgspec.json.Encoder().encode

Names = Callable[[str, str], str | None]
"""The name of a corp's user, where one is known."""

Forms = Callable[[str, str], "Form | None"]
"""What is known of a corp's form."""


def nobody(_corp_id: str, _user_id: str) -> str | None:
    """Where no names are known."""
    return None


def no_form(_corp_id: str, _form_uuid: str) -> None:
    """Where nothing is known of forms."""


def item_json(item: Item, view: str, corp_id: str, names: Names = nobody) -> dict[str, Any]:
    """A line of a view; ``view`` in lower case."""
    originator = item.originator_id
    return {
        "instance_id": item.instance_id,
        "task_id": item.task_id,
        "view": view,
        "title": item.title,
        "url": item.url,
        "app_type": item.app_type,
        "source": item.source,
        "originator": None if originator is None else _named(originator, item.originator_name, corp_id, names),
        "status": item.status,
        "created_at": iso(item.created_at),
        "updated_at": iso(item.updated_at),
    }


def notification_json(notification: TaskNotification, names: Names = nobody) -> dict[str, Any]:
    """A change of a view, as it is told in a stream of events."""
    return {
        "notification_id": notification.notification_id,
        "corp_id": notification.corp_id,
        "recipient_id": notification.recipient_id,
        "view": view_json(notification.view),
        "change": notification.change.value,
        "instance_id": notification.instance_id,
        "task_id": notification.task_id,
        "title": notification.title,
        "url": notification.url,
        "app_type": notification.app_type,
        "originator": _person(notification.originator, notification.corp_id, names),
        "actor_id": notification.actor_id,
        "status": notification.status.value,
        "occurred_at": iso(notification.occurred_at),
        "event_id": notification.event_id,
        "process_name": notification.process_name,
        "entered_at": _maybe(notification.entered_at),
        "updated_at": _maybe(notification.updated_at),
        "source": notification.source,
    }


def state_json(state: TaskState, names: Names = nobody, forms: Forms = no_form) -> dict[str, Any]:
    """An instance."""
    return {
        "instance_id": state.instance_id,
        "corp_id": state.corp_id,
        "app_type": state.app_type,
        "source": state.source,
        "title": state.title,
        "url": state.url,
        "originator": _person(state.originator, state.corp_id, names),
        "process_code": state.process_code,
        "process_name": state.process_name,
        "lifecycle": state.lifecycle.value,
        "tasks": [
            {
                "task_id": task.task_id,
                "status": task.status.value,
                "assignee_ids": list(task.assignee_ids),
                "actor_id": task.actor_id,
                "url": task.url,
                "created_at": _maybe(task.created_at),
                "decided_at": _maybe(task.decided_at),
                "outcome": task.outcome,
                "remark": task.remark,
            }
            for task in state.tasks
        ],
        "copied": [{"user_id": each.user_id, "at": iso(each.at)} for each in state.copied],
        "updated_at": iso(state.updated_at),
        "revision": state.revision,
        "form_uuid": state.form_uuid,
        "serial_no": state.serial_no,
        "instance_status": state.instance_status,
        "approved_result": state.approved_result,
        "finished_at": _maybe(state.finished_at),
        "result": state.result,
        "form_data": dict(state.form_data),
        **form_json(state.corp_id, state.form_uuid, state.form_data, forms),
        "people": people_json(state.corp_id, _users_of_state(state), names),
    }


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
        "partition": partition,
        "offset": offset,
    }


def people_json(corp_id: str, users: Iterable[str | None], names: Names) -> list[dict[str, str]]:
    """Those of these users whose names are known, each once."""
    found = {user_id: names(corp_id, user_id) for user_id in users if user_id is not None}
    return [{"user_id": user_id, "name": name} for user_id, name in found.items() if name is not None]


def form_json(corp_id: str, form_uuid: str | None, values: Mapping[str, object], forms: Forms) -> dict[str, Any]:
    """What the form is called, and its fields where it has ``values``: those within a table stand inside of one."""
    form = None if form_uuid is None else forms(corp_id, form_uuid)
    if form is None:
        return {"form_title": None, "form_labels": {}}
    return {"form_title": form.title, "form_labels": dict(form.labels) if values else {}}


def users_of_events(events: Iterable[TaskEvent]) -> Iterable[str | None]:
    """Everybody whom these events name as actor or recipient."""
    for event in events:
        yield event.actor_id
        yield from event.recipient_ids


def _users_of_state(state: TaskState) -> Iterable[str | None]:
    yield None if state.originator is None else state.originator.user_id
    for task in state.tasks:
        yield task.actor_id
        yield from task.assignee_ids
    for copied in state.copied:
        yield copied.user_id


def view_json(view: View) -> str:
    return view.value.lower()


def _person(person: Person | None, corp_id: str, names: Names) -> dict[str, Any] | None:
    return None if person is None else _named(person.user_id, person.name, corp_id, names)


def _named(user_id: str, name: str | None, corp_id: str, names: Names) -> dict[str, Any]:
    """By the name that came with the event, where one did."""
    return {"user_id": user_id, "name": names(corp_id, user_id) if name is None else name}


def _maybe(time_ms: int | None) -> str | None:
    return None if time_ms is None else iso(time_ms)
