"""A person's views as a fold of their notifications: apply them in order of arrival. Pure."""

from __future__ import annotations

from typing import NamedTuple

from taskbridge.schemas.events import Change, TaskNotification, View


class Line(NamedTuple):
    """The identity of an entry, among all persons and instances."""

    corp_id: str
    user_id: str
    view: View
    instance_id: str
    task_id: str | None


Inbox = dict[Line, "TaskNotification"]


def apply(inbox: Inbox, notification: TaskNotification) -> None:
    """Apply one notification to the inbox. Repeats have no effect. The order matters within one person only."""
    line = Line(
        notification.corp_id,
        notification.recipient_id,
        notification.view,
        notification.instance_id,
        notification.task_id,
    )
    if notification.change is Change.REMOVED:
        inbox.pop(line, None)
    else:
        inbox[line] = notification
