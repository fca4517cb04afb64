"""How records read as JSON: the records' field names, views lower-case, times as ISO 8601 UTC with milliseconds. Pure.

Not written by the models in ``streams.query.models``, which would be slow: they document the same shapes, and a test
holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from taskbridge.schemas.cloudevents import iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from taskbridge.schemas.events import Form, Person, TaskEvent, TaskNotification, TaskState, View
    from taskbridge.streams.fold.instance import Instance
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


class _Person(Struct, frozen=True, gc=False):
    user_id: str
    name: str | None


class ItemJson(Struct, frozen=True, gc=False):
    """A line of a view. A struct, in the order in which its fields are written: a third of the time of a dictionary."""

    instance_id: str
    task_id: str | None
    view: str
    title: str | None
    url: str | None
    app_type: str
    source: str
    process_name: str | None
    originator: _Person | None
    status: str
    created_at: str
    updated_at: str
    outcome: str | None
    finished_at: str | None
    result: str | None


def item_json(item: Item, view: str, corp_id: str, names: Names = nobody) -> ItemJson:
    """A line of a view; ``view`` in lower case."""
    user_id, name = item.originator_id, item.originator_name
    created_at = iso(item.created_at)
    return ItemJson(
        item.instance_id,
        item.task_id,
        view,
        item.title,
        item.url,
        item.app_type,
        item.source,
        item.process_name,
        None if user_id is None else _Person(user_id, names(corp_id, user_id) if name is None else name),
        item.status,
        created_at,
        created_at if item.updated_at == item.created_at else iso(item.updated_at),
        item.outcome,
        None if item.finished_at is None else iso(item.finished_at),
        item.result,
    )


def notification_json(notification: TaskNotification, names: Names = nobody) -> dict[str, Any]:
    """A change of a view, as it is sent in a stream of events."""
    found = _fields(notification, "occurred_at", "entered_at", "updated_at", "finished_at")
    found["view"] = view_json(notification.view)
    found["originator"] = _person(notification.originator, notification.corp_id, names)
    return found


def state_json(instance: Instance, names: Names = nobody, forms: Forms = no_form) -> dict[str, Any]:
    """An instance."""
    state = instance.state
    return {
        **_fields(state, "updated_at", "finished_at"),
        "created_at": iso(instance.marks.began_at),
        "originator": _person(state.originator, state.corp_id, names),
        "tasks": [_fields(task, "created_at", "decided_at") for task in state.tasks],
        "copied": [_fields(each, "at") for each in state.copied],
        **form_json(state.corp_id, state.form_uuid, state.form_data, forms),
        "people": people_json(state.corp_id, _users_of_state(state), names),
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
