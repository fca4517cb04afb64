"""How a notification reads as JSON: as the task center's event streams send it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from taskbridge.schemas.cloudevents import iso

if TYPE_CHECKING:
    from taskbridge.schemas.events import TaskNotification


def notification_json(notification: TaskNotification) -> dict[str, Any]:
    found = asdict(notification)
    for name in ("occurred_at", "entered_at", "updated_at", "finished_at"):
        if found[name] is not None:
            found[name] = iso(found[name])
    person = notification.originator
    found["originator"] = None if person is None else {"user_id": person.user_id, "name": person.name}
    return found | {"view": notification.view.lower()}
