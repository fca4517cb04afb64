"""How records read as JSON: their field names, views lower-case, times as ISO 8601 UTC with milliseconds. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import msgspec
from msgspec.structs import asdict

from taskbridge.schemas.cloudevents import iso, rfc3339

if TYPE_CHECKING:
    from taskbridge.schemas.events import Person, QuarantinedCallback, TaskNotification

to_json = msgspec.json.Encoder().encode

_TIMES = "due_at", "entered_at", "finished_at", "occurred_at", "updated_at"


class PersonFields(TypedDict):
    user_id: str
    name: str | None


def person_json(person: Person | None, known: str | None = None) -> PersonFields | None:
    """By the name that came with the event, where one did; else by the ``known`` one."""
    return person and {"user_id": person.user_id, "name": known if person.name is None else person.name}


def notification_json(notification: TaskNotification) -> dict[str, Any]:
    """A change of a view, as event streams and webhooks send it."""
    shown = asdict(notification)
    times = {name: iso(shown[name]) for name in _TIMES if shown[name] is not None}
    return {**shown, **times, "view": notification.view.lower(), "originator": person_json(notification.originator)}


def quarantined_json(entry: QuarantinedCallback) -> dict[str, Any]:
    """What a list shows of a quarantined callback: nothing that a stranger wrote but ids, and no secrets.

    ``replayed_at`` is for who knows of the entry's replay.
    """
    return {
        "id": entry.quarantine_id,
        "received_at": rfc3339(entry.received_at),
        "action": entry.action,
        "reason": entry.reason,
        "app_type": entry.app_type,
        "remote_address": entry.remote_address,
        "replayed_at": None,
    }
