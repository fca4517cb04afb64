"""The inboxes of all people after some notifications."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskbridge.schemas.inbox import apply

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskbridge.schemas.events import TaskNotification
    from taskbridge.schemas.inbox import Inbox


def inbox_of(notifications: Iterable[TaskNotification]) -> Inbox:
    """The inbox after these notifications, in order of arrival."""
    inbox: Inbox = {}
    for notification in notifications:
        apply(inbox, notification)
    return inbox
